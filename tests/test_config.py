from dataclasses import replace

import pytest

from kshot.config import (
    VARIATIONS,
    Choice,
    EpisodeConfig,
    EvaluationConfig,
    RunConfig,
    TrainingConfig,
    bounds,
)


def test_what_episodes_came_to_vary_later_leaves_the_fingerprint_of_older_runs():
    plain = RunConfig()
    tables = plain.as_dict()
    assert all(tables["episodes"][key] == value for key, value in VARIATIONS.items())
    for change in ({"aligned": True}, {"labelled_share": 0.5}):
        varied = replace(plain, episodes=EpisodeConfig(**change))
        assert varied.fingerprint != plain.fingerprint
    assert RunConfig(training=TrainingConfig(iterations=7)).fingerprint == "b55f54599dab"


@pytest.mark.parametrize("values", [{"way": 0}, {"shot": (3, 1)}, {"query_shot": -1}])
def test_impossible_episodes_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        EpisodeConfig(**values)


def test_impossible_trainings_are_refused():
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        TrainingConfig(iterations=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "fp16"}, "precision of TrainingConfig must be 'float32' or 'bfloat16' or"),
        ({"optimizer": "adm"}, "optimizer of TrainingConfig must be 'adam' or"),
        ({"schedule": "cosin"}, "schedule of TrainingConfig must be 'constant' or"),
        ({"iterations": 2.5}, "iterations of TrainingConfig must be int, not 2.5"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_misspelt_trainings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**values)


def test_bounds():
    assert bounds(5) == (5, 5)
    assert bounds((2, 7)) == (2, 7)


def test_an_evaluation_of_one_episode_is_refused():
    with pytest.raises(ValueError, match="at least 2 episodes"):
        EvaluationConfig(episodes=1)
    with pytest.raises(ValueError, match="counted from 1"):
        EvaluationConfig(instances=(0, 1))


def test_the_fingerprint_is_of_what_is_learned_and_how():
    base = RunConfig()
    same = replace(base, training=replace(base.training, seed=5, device="cpu"))
    assert base.fingerprint == same.fingerprint
    assert base.fingerprint == replace(base, evaluation=EvaluationConfig(episodes=9)).fingerprint
    assert base.fingerprint != replace(base, learner=Choice("maml")).fingerprint
    assert base.fingerprint != replace(base, training=TrainingConfig(outer_lr=0.5)).fingerprint
