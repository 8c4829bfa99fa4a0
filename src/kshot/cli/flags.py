"""Flags of a run: made from the configuration's dataclasses and the constructors' signatures."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar

import tyro

from kshot.backbones.registry import BACKBONES
from kshot.config import Choice, RunConfig
from kshot.data.sources import DATASETS
from kshot.learners.registry import LEARNERS
from kshot.options import convert, nearest, option_types, unwrapped

__all__ = ["as_given", "parse_flags"]

Extra = TypeVar("Extra")

REGISTRIES: dict[str, Mapping[str, Any]] = {
    "data": DATASETS,
    "backbone": BACKBONES,
    "learner": LEARNERS,
}


def parse_flags(
    arguments: list[str],
    base: RunConfig,
    extra: type[Extra],
    *,
    program: str,
    description: str,
    parts: Collection[str] = tuple(part.name for part in dataclasses.fields(RunConfig)),
) -> tuple[RunConfig, Extra]:
    """Change a run's configuration by command-line flags.

    `--data NAME`, `--backbone NAME` and `--learner NAME` choose a row of a registry; every other
    flag is a field of a configuration table or an option of the chosen constructors, whose
    signatures and docstrings are the one source of names, types, defaults and help.

    Args:
        arguments: the flags.
        base: what flags change.
        extra: a dataclass of further flags, without prefix.
        program: name shown in the help.
        description: text shown in the help.
        parts: tables of the configuration that have flags.
    """
    base, arguments = _choose_rows(base, list(arguments), parts)
    fields: list[tuple[str, Any, Any]] = [
        ("extra", Annotated[extra, tyro.conf.arg(name="")], extra()),
    ]
    for part in dataclasses.fields(base):
        value = getattr(base, part.name)
        if part.name not in parts:
            continue
        if isinstance(value, Choice):
            value = _options(value, REGISTRIES[part.name])
        if dataclasses.is_dataclass(value):
            fields.append((part.name, type(value), value))
    flags = dataclasses.make_dataclass(
        "Flags", [(name, kind, dataclasses.field(default=value)) for name, kind, value in fields]
    )
    parsed = tyro.cli(flags, args=arguments, prog=program, description=description)
    changes: dict[str, Any] = {}
    for name, _, _ in fields[1:]:
        value, before = getattr(parsed, name), getattr(base, name)
        if isinstance(before, Choice):
            value = Choice(before.name, dataclasses.asdict(value))
        changes[name] = value
    return dataclasses.replace(base, **changes), parsed.extra


def as_given(base: RunConfig, parsed: RunConfig) -> RunConfig:
    """What a configuration is where flags change nothing.

    Options that it does not name have their constructors' defaults; what has none, such as the
    place of a user's own data, has to be said by a flag, and is as that says.

    Args:
        base: what flags were to change.
        parsed: what they made of it.
    """
    choices = {}
    for part, registry in REGISTRIES.items():
        given, said = getattr(base, part), getattr(parsed, part)
        options = vars(_options(given, registry))
        own = {name: value for name, value in options.items() if value is not tyro.MISSING}
        # Of another row of the registry nothing can be taken over.
        missing = said.options if said.name == given.name else {}
        choices[part] = Choice(given.name, {**missing, **own})
    return dataclasses.replace(base, **choices)


def _choose_rows(
    base: RunConfig, arguments: list[str], parts: Collection[str]
) -> tuple[RunConfig, list[str]]:
    """Take `--data NAME` or `--data=NAME`, and their like, out of the arguments."""
    registries = {part: rows for part, rows in REGISTRIES.items() if part in parts}
    forms = tuple(f"--{part}=" for part in registries)
    arguments = [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith(forms) else [argument])
    ]
    for part, registry in registries.items():
        while (flag := f"--{part}") in arguments:
            place = arguments.index(flag)
            name = arguments[place + 1] if place + 1 < len(arguments) else ""
            if name not in registry:
                raise ValueError(f"{flag} needs a name, not {name!r}.{nearest(name, registry)}")
            del arguments[place : place + 2]
            if name != getattr(base, part).name:
                # Published figures are of the recipe's own data and learner.
                base = dataclasses.replace(base, **{part: Choice(name)}, published=())
    return base, arguments


def _options(choice: Choice, registry: Mapping[str, Any]) -> Any:
    """A dataclass instance whose fields are the options of a constructor."""
    if choice.name not in registry:
        raise ValueError(f"Unknown name {choice.name!r}.{nearest(choice.name, registry)}")
    row = registry[choice.name]
    constructor: Callable[..., Any] = row.constructor
    values = {**getattr(row, "presets", {}), **choice.options}
    signature = inspect.signature(constructor).parameters
    fields = []
    for name, kind in option_types(constructor).items():
        default = signature[name].default
        if name in values:
            default = convert(values.pop(name), kind, f"Option {name!r} of {choice.name!r}")
        elif default is inspect.Parameter.empty:
            default = tyro.MISSING
        fields.append((name, kind, dataclasses.field(default=default)))
    if values:
        wrong = next(iter(values))
        known = [field[0] for field in fields]
        raise ValueError(f"Unknown option {wrong!r} of {choice.name!r}.{nearest(wrong, known)}")
    kind = dataclasses.make_dataclass(choice.name, fields, kw_only=True, frozen=True)
    kind.__doc__ = inspect.getdoc(unwrapped(constructor))
    return kind()
