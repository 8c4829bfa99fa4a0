"""Recipes and saved tables become configurations."""

import pytest

from kshot.config import Choice, EpisodeConfig, RunConfig, TrainingConfig
from kshot.recipe import load_recipe, parse_run


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


def test_a_recipe_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('[learner]\nname = "maml"\n', encoding="utf-16")
    with pytest.raises(ValueError, match=r"recipe\.toml is not text in UTF-8"):
        load_recipe(path)
