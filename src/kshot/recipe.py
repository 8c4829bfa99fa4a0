"""Read a run's configuration: from a TOML recipe, or from the tables that a run keeps of itself."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from kshot.config import Choice, Published, RunConfig
from kshot.options import convert, nearest

__all__ = ["load_recipe", "parse_run"]

Table = TypeVar("Table")


def load_recipe(path: Path, base: RunConfig | None = None) -> RunConfig:
    """Read a run's configuration from a TOML recipe; what it leaves out keeps `base`'s value.

    Raises:
        ValueError: when the file is not TOML, or says what no configuration has.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The recipe {path} is not text in UTF-8, as TOML is ({error}). Save it as such."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"The recipe {path} is not valid TOML: {error}.") from None
    return parse_run(tables, base or RunConfig(), where=str(path))


def parse_run(
    tables: Mapping[str, Any], base: RunConfig | None = None, where: str = "configuration"
) -> RunConfig:
    """Build a run's configuration from nested dictionaries, checking every key and type."""
    base = base or RunConfig()
    parts = {part.name: getattr(base, part.name) for part in dataclasses.fields(base)}
    for key, table in tables.items():
        if key not in parts:
            raise ValueError(f"Unknown table [{key}] in {where}.{nearest(key, parts)}")
        if key == "published":
            parts[key] = tuple(_convert_row(row, f"[[published]] of {where}") for row in table)
            continue
        if not isinstance(table, Mapping):
            raise ValueError(f"{key} in {where} must be a table [{key}], not {table!r}.")
        if isinstance(parts[key], Choice):
            parts[key] = _parse_choice(table, parts[key], f"[{key}] of {where}")
        else:
            parts[key] = _parse_table(table, parts[key], f"[{key}] of {where}")
    return RunConfig(**parts)


def _parse_choice(table: Mapping[str, Any], base: Choice, where: str) -> Choice:
    options = dict(table)
    name = options.pop("name", base.name)
    if not isinstance(name, str):
        raise ValueError(f"name in {where} must be text, not {name!r}.")
    return Choice(name, {**(base.options if name == base.name else {}), **options})


def _parse_table(table: Mapping[str, Any], base: Table, where: str) -> Table:
    hints = get_type_hints(type(base))
    changes = {}
    for key, value in table.items():
        if key not in hints:
            raise ValueError(f"Unknown key {key!r} in {where}.{nearest(key, hints)}")
        changes[key] = convert(value, hints[key], f"{key} in {where}")
    return dataclasses.replace(base, **changes)  # pyright: ignore[reportArgumentType]


def _convert_row(row: Any, where: str) -> Published:
    names = [part.name for part in dataclasses.fields(Published)]
    needed = {"way", "shot", "accuracy", "where"}
    if not isinstance(row, Mapping) or not needed <= set(row) <= set(names):
        raise ValueError(
            f"{where} needs the keys {', '.join(sorted(needed))} and may have "
            f"{', '.join(sorted(set(names) - needed))}; it is {row!r}."
        )
    return Published(**row)
