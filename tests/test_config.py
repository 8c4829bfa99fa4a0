from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from kshot.config import (
    Choice,
    EpisodeConfig,
    RunConfig,
    TrainingConfig,
    bounds,
    call_with_options,
    load_recipe,
    nearest,
    option_types,
    parse_run,
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


def test_a_recipe_changes_only_what_it_names(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[learner]\nname = "maml"\ninner_lr = 0.5\n[episodes]\nway = [3, 5]\n'
        '[[published]]\nway = 5\nshot = 1\naccuracy = 0.987\nwhere = "table 1"\n'
    )
    config = load_recipe(path)
    assert config.learner == Choice("maml", {"inner_lr": 0.5})
    assert config.episodes == EpisodeConfig(way=(3, 5))
    assert config.training == TrainingConfig()
    assert config.published[0].accuracy == 0.987
    assert parse_run(config.as_dict()) == config


def test_a_wrong_published_row_is_refused():
    with pytest.raises(ValueError, match="needs the keys"):
        parse_run({"published": [{"way": 5}]})


def test_options_of_another_learner_are_not_kept():
    base = RunConfig(learner=Choice("maml", {"inner_lr": 0.5}))
    assert parse_run({"learner": {"name": "protonet"}}, base).learner.options == {}
    assert parse_run({"learner": {"num_inner_steps": 2}}, base).learner.options == {
        "inner_lr": 0.5,
        "num_inner_steps": 2,
    }


@pytest.mark.parametrize("values", [{"way": 0}, {"shot": (3, 1)}, {"query_shot": -1}])
def test_impossible_episodes_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        EpisodeConfig(**values)


def test_impossible_trainings_are_refused():
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        TrainingConfig(iterations=0)


def test_bounds():
    assert bounds(5) == (5, 5)
    assert bounds((2, 7)) == (2, 7)


def test_nearest_names_are_suggested():
    assert nearest("protonett", ["maml", "protonet"]) == (
        " Did you mean 'protonet'? Known: maml, protonet."
    )
    assert "Did you mean" not in nearest("xyz", ["maml"])
