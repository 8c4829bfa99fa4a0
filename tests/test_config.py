from dataclasses import replace

import pytest

from kshot.config import (
    Choice,
    EpisodeConfig,
    EvaluationConfig,
    RunConfig,
    TrainingConfig,
    bounds,
    load_recipe,
    parse_run,
)


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


def test_an_evaluation_of_one_episode_is_refused():
    with pytest.raises(ValueError, match="at least 2 episodes"):
        EvaluationConfig(episodes=1)


def test_the_fingerprint_is_of_what_is_learned_and_how():
    base = RunConfig()
    same = replace(base, training=replace(base.training, seed=5, device="cpu"))
    assert base.fingerprint == same.fingerprint
    assert base.fingerprint == replace(base, evaluation=EvaluationConfig(episodes=9)).fingerprint
    assert base.fingerprint != replace(base, learner=Choice("maml")).fingerprint
    assert base.fingerprint != replace(base, training=TrainingConfig(outer_lr=0.5)).fingerprint
