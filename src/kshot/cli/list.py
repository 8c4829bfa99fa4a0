"""`kshot list`: the learners, backbones, datasets and recipes there are."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from kshot.backbones.registry import BACKBONES
from kshot.cli.recipes import recipe_names, recipes_folder
from kshot.cli.tables import print_table
from kshot.data.sources import DATASETS
from kshot.learners.registry import LEARNERS

__all__ = ["main"]


@dataclass(frozen=True)
class List:
    """Show what there is.

    Attributes:
        what: What to show.
        json: Print JSON instead of a table.
    """

    what: Annotated[Literal["learners", "backbones", "datasets", "recipes"], tyro.conf.Positional]
    json: bool = False


def main(arguments: list[str]) -> int:
    """Parse the arguments and print the table; the exit status."""
    flags = tyro.cli(List, args=arguments, prog="kshot list")
    columns, rows = TABLES[flags.what]()
    if flags.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    else:
        print_table(flags.what, columns, rows)
    return 0


def _learners() -> tuple[list[str], list[list[str]]]:
    columns = [
        "name",
        "family",
        "idea",
        "meta-gradient",
        "queries",
        "examples",
        "tasks",
        "reference",
    ]
    rows = [
        [
            name,
            row.family,
            row.summary,
            row.meta_gradient,
            "transductive" if row.transductive else "each alone",
            "one by one" if row.online else "all at once",
            ", ".join(row.kinds),
            row.reference,
        ]
        for name, row in LEARNERS.items()
    ]
    return columns, rows


def _backbones() -> tuple[list[str], list[list[str]]]:
    rows = [
        [name, row.summary, "pictures" if row.pictures else "any"]
        for name, row in BACKBONES.items()
    ]
    return ["name", "what it is", "inputs"], rows


def _datasets() -> tuple[list[str], list[list[str]]]:
    columns = ["name", "tasks", "what it is", "protocols", "download"]
    rows = [
        [name, row.kind, row.summary, ", ".join(row.protocols), "yes" if row.downloads else "no"]
        for name, row in DATASETS.items()
    ]
    return columns, rows


def _recipes() -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in recipe_names():
        lines = (recipes_folder() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
        about = lines[1].removeprefix("#").strip() if lines[1].startswith("#") else ""
        rows.append([name, f"kshot train {name}", about])
    return ["name", "command", "what it is"], rows


TABLES = {
    "learners": _learners,
    "backbones": _backbones,
    "datasets": _datasets,
    "recipes": _recipes,
}
