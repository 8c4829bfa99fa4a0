import inspect
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from kshot.backbones import MLP
from kshot.data.sources import glyphs
from kshot.options import (
    call_with_options,
    checks_options,
    convert_fields,
    nearest,
    option_types,
)


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


def test_options_given_in_python_are_checked_and_converted_too():
    checked = checks_options(build)
    assert checked("x", rate=np.float32(1), sizes=[2], folder="a") == build(
        "x", rate=1.0, sizes=(2,), folder=Path("a")
    )
    assert inspect.signature(checked) == inspect.signature(build)
    with pytest.raises(ValueError, match="Option 'mode' of build must be 'a' or 'b', not 'c'"):
        checked("x", mode="c")
    with pytest.raises(TypeError, match="unexpected keyword argument 'mod'"):
        checked("x", mod="a")


def test_a_misspelt_option_of_a_network_or_of_data_is_refused():
    with pytest.raises(ValueError, match="Option 'activation' of MLP must be 'relu' or"):
        MLP((4,), 3, activation="relU")
    with pytest.raises(ValueError, match="Option 'strokes' of glyphs must be 'font' or 'pen'"):
        glyphs(strokes="brush")


def test_fields_of_a_dataclass_are_checked_and_converted():
    @dataclass(frozen=True)
    class Settings:
        count: int = 1
        rate: float = 0.1
        sizes: tuple[int, ...] = ()

        def __post_init__(self) -> None:
            convert_fields(self)

    assert Settings(np.int64(2), 1, [3]) == Settings(2, 1.0, (3,))
    assert type(Settings(np.int64(2)).count) is int
    with pytest.raises(ValueError, match=r"count of Settings must be int, not 2\.5"):
        Settings(2.5)


def test_nearest_names_are_suggested():
    assert nearest("protonett", ["maml", "protonet"]) == (
        " Did you mean 'protonet'? Known: maml, protonet."
    )
    assert "Did you mean" not in nearest("xyz", ["maml"])
