"""Options by name: plain values, as files and flags hold them, become a function's arguments."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = [
    "call_with_options",
    "checks_options",
    "convert",
    "convert_fields",
    "nearest",
    "option_types",
    "unwrapped",
]

Built = TypeVar("Built")
Given = ParamSpec("Given")


def call_with_options(
    function: Callable[..., Built], options: Mapping[str, Any], what: str, *arguments: Any
) -> Built:
    """Call a constructor with options by name, which its signature must know."""
    hints = option_types(function)
    converted = {}
    for key, value in options.items():
        if key not in hints:
            raise ValueError(f"Unknown option {key!r} of {what}.{nearest(key, hints)}")
        converted[key] = convert(value, hints[key], f"Option {key!r} of {what}")
    return function(*arguments, **converted)


def checks_options(function: Callable[Given, Built]) -> Callable[Given, Built]:
    """A decorator: options given in Python are checked and converted as those of a recipe are.

    Otherwise a misspelt one would silently be another: `objective="mse"` would mean whatever is
    not "squared_error".

    Raises:
        ValueError: by the decorated function, for a value that is not of its option's type.
    """

    @functools.cache
    def types() -> dict[str, Any]:  # read at the first call, when all names are defined
        return option_types(function)

    @functools.wraps(function)
    def checked(*arguments: Given.args, **options: Given.kwargs) -> Built:
        method = function.__name__ == "__init__"
        what = type(arguments[0]).__name__ if method else function.__name__
        for key in types().keys() & options.keys():
            options[key] = convert(options[key], types()[key], f"Option {key!r} of {what}")
        return function(*arguments, **options)

    return checked


def convert_fields(instance: Any) -> None:
    """Check and convert the fields of a frozen dataclass of plain values, in `__post_init__`.

    Raises:
        ValueError: for a value that is not of its field's type.
    """
    for name, hint in _field_types(type(instance)).items():
        value = convert(getattr(instance, name), hint, f"{name} of {type(instance).__name__}")
        object.__setattr__(instance, name, value)


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of a constructor: its keyword-only parameters that plain values can fill.

    Parameters that a `functools.partial` has fixed are not options.
    """
    fixed: set[str] = set()
    owner = unwrapped(function)
    while isinstance(function, functools.partial):
        fixed |= set(function.keywords)
        function = function.func
    parameters = inspect.signature(owner).parameters.values()
    hints = get_type_hints(owner.__init__ if inspect.isclass(owner) else owner)
    return {
        parameter.name: hints[parameter.name]
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.name not in fixed
        and _is_plain(hints[parameter.name])
    }


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The class or function inside any number of `functools.partial`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def convert(value: Any, hint: Any, where: str) -> Any:
    """A TOML, JSON or NumPy value as the type of a field: lists become tuples, 1 serves as 1.0."""
    if get_origin(hint) in (Union, UnionType):
        for option in get_args(hint):
            try:
                return convert(value, option, where)
            except ValueError:
                continue
    elif get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
    elif get_origin(hint) is tuple:
        items = get_args(hint)
        if isinstance(value, list | tuple) and (items[-1] is ... or len(value) == len(items)):
            return tuple(convert(item, items[0], where) for item in value)
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is type(None) and value is None:
        return None
    elif hint is int:
        if isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
    elif hint is float:
        if isinstance(value, Real) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, hint):
        return value
    expected = " or ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else hint
    raise ValueError(f"{where} must be {getattr(expected, '__name__', expected)}, not {value!r}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known name nearest to a wrong one, and all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    shown = names if len(names) <= 30 else [*names[:30], f"and {len(names) - 30} more"]
    return (f" Did you mean {close[0]!r}?" if close else "") + f" Known: {', '.join(shown)}."


def _is_plain(hint: Any) -> bool:
    """Whether TOML or a flag can hold a value of the type."""
    if hint in (bool, int, float, str, Path, None, type(None), Ellipsis):
        return True
    if get_origin(hint) is Literal:
        return True
    return get_origin(hint) in (Union, UnionType, tuple) and all(map(_is_plain, get_args(hint)))
