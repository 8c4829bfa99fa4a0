from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from kshot.options import call_with_options, nearest, option_types


def build(
    first: object,
    *,
    rate: float = 0.1,
    sizes: tuple[int, ...] = (1,),
    mode: Literal["a", "b"] = "a",
    folder: Path | None = None,
    rule: object = None,
):
    return first, rate, sizes, mode, folder


def test_options_are_the_keyword_parameters_that_plain_values_fill():
    assert list(option_types(build)) == ["rate", "sizes", "mode", "folder"]


def test_what_a_partial_fixes_is_no_option():
    assert list(option_types(partial(build, rate=1.0))) == ["sizes", "mode", "folder"]


def test_values_of_toml_become_the_types_of_the_signature():
    options = {"rate": 1, "sizes": [2, 3], "folder": "a/b"}
    assert call_with_options(build, options, "it", "x") == ("x", 1.0, (2, 3), "a", Path("a/b"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rat": 1}, "Unknown option 'rat' of it. Did you mean 'rate'?"),
        ({"rate": "fast"}, "Option 'rate' of it must be float, not 'fast'"),
        ({"rate": True}, "must be float, not True"),
        ({"mode": "c"}, "must be 'a' or 'b', not 'c'"),
        ({"sizes": [1, "x"]}, "must be int, not 'x'"),
    ],
)
def test_wrong_options_say_what_is_wrong(options, expected):
    with pytest.raises(ValueError) as caught:
        call_with_options(build, options, "it", "x")
    assert expected in str(caught.value)


def test_nearest_names_are_suggested():
    assert nearest("protonett", ["maml", "protonet"]) == (
        " Did you mean 'protonet'? Known: maml, protonet."
    )
    assert "Did you mean" not in nearest("xyz", ["maml"])
