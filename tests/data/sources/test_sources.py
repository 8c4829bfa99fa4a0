"""The table of data sets: every row can be found, configured and explained."""

import inspect
import re
from pathlib import Path

import pytest
from PIL import Image

from kshot.config import Choice
from kshot.data.sources import DATASETS, load_data
from kshot.options import option_types


@pytest.mark.parametrize("name", DATASETS)
def test_every_option_is_plain_and_explained(name: str):
    constructor = DATASETS[name].constructor
    options = option_types(constructor)
    assert set(options) == set(inspect.signature(constructor).parameters)
    assert constructor.__doc__ is not None
    section = constructor.__doc__.partition("Args:")[2]
    for option in options:
        assert re.search(rf"^ {{8}}{option}: [A-Z]", section, re.MULTILINE), option
    assert "\n" not in DATASETS[name].summary


def test_a_choice_is_loaded_with_its_options():
    tasks = load_data(Choice("sinusoid", {"variant": "nichol"}))
    assert (tasks.name, tasks.protocol, tasks.kind) == ("sinusoid", "nichol", "regression")


def test_text_becomes_a_path_and_a_list_a_tuple(tmp_path: Path):
    for k in range(4):
        (tmp_path / f"class{k}").mkdir()
        Image.new("L", (5, 5), k).save(tmp_path / f"class{k}" / "0.png")
    options = {"path": str(tmp_path), "shares": [0.5, 0, 0.5], "size": 7}
    data = load_data(Choice("image_folder", options))
    assert data.input_shape == (1, 7, 7)
    assert (data.num_classes("train"), data.num_classes("test")) == (2, 2)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice("omnigot"), "Unknown data 'omnigot'. Did you mean 'omniglot'"),
        (Choice("sinusoid", {"varient": "finn"}), "'varient' .*Did you mean 'variant'"),
        (Choice("sinusoid", {"variant": "fin"}), "'variant' .* must be 'finn' or"),
        (Choice("image_folder"), "needs the option 'path'"),
        (Choice("image_folder", {"path": "x", "size": "big"}), "'size' .* must be int"),
    ],
)
def test_a_wrong_choice_is_explained(choice: Choice, message: str):
    with pytest.raises(ValueError, match=message):
        load_data(choice)
