"""The registry: rows are whole, and errors help."""

from functools import partial

import pytest

from kshot.config import Choice
from kshot.learner import MetaLearner
from kshot.learners.optimization.maml import MAML
from kshot.learners.registry import LEARNERS, TaskShape, build_learner, learner_row

CLASSES = TaskShape((4,), 5, 20, "classification")
CURVES = TaskShape((1,), 1, 0, "regression")
MLP = Choice("mlp", {"widths": (6, 3)})


@pytest.mark.parametrize("name", LEARNERS)
def test_a_row_says_what_it_is(name: str):
    row = LEARNERS[name]
    assert row.reference and row.summary and not row.summary.endswith(".")
    assert row.kinds and set(row.kinds) <= {"classification", "regression"}
    constructor = row.constructor
    while isinstance(constructor, partial):
        constructor = constructor.func
    assert isinstance(constructor, type) and issubclass(constructor, MetaLearner)
    assert constructor.__module__.startswith(f"kshot.learners.{row.family}.")
    assert constructor.__doc__ and ("Reference" in constructor.__doc__) == (row.reference != "-")
    assert "State:" in constructor.__doc__ and ">>>" in constructor.__doc__
    on_pictures = TaskShape((1, 16, 16), 5, 20, "classification")
    built = build_learner(Choice(name), Choice("conv4"), on_pictures)
    assert built.transductive == row.transductive
    assert built.online == row.online


@pytest.mark.parametrize("name", LEARNERS)
def test_a_row_builds_for_each_of_its_kinds_and_for_no_other(name: str):
    for tasks in (CLASSES, CURVES):
        if tasks.kind in LEARNERS[name].kinds:
            learner = build_learner(Choice(name), MLP, tasks)
            assert learner.loss.kind == tasks.kind
            assert any(p.requires_grad for p in learner.parameters()) == LEARNERS[name].meta_trained
        else:
            with pytest.raises(ValueError, match=f"{name} cannot learn {tasks.kind}.*: .*maml"):
                build_learner(Choice(name), MLP, tasks)


def test_options_reach_the_constructor():
    learner = build_learner(Choice("maml", {"inner_lr": 1, "num_inner_steps": 3}), MLP, CLASSES)
    assert isinstance(learner, MAML) and learner.num_inner_steps == 3
    assert learner.rule.lr == 1.0 and not learner.first_order
    first = build_learner(Choice("fomaml"), MLP, CLASSES)
    assert isinstance(first, MAML) and first.first_order


def test_an_unknown_learner_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'protonets'.*Did you mean 'protonet'\?.*Known: .*maml"):
        learner_row("protonets")
    with pytest.raises(ValueError, match="'mamm'"):
        build_learner(Choice("mamm"), MLP, CLASSES)


@pytest.mark.parametrize(
    ("learner", "option", "message"),
    [
        ("maml", {"inner_rate": 0.1}, r"'inner_rate' of learner 'maml'.*'inner_lr'"),
        ("fomaml", {"first_order": False}, "first_order"),
        ("maml", {"num_inner_steps": 1.5}, "must be int"),
        ("maml", {"strategy": "vmapp"}, r"'auto' or 'vmap' or 'loop'"),
        ("protonet", {"batch_norm": "eval"}, "batch_norm"),
        ("maml", {"loss": "cross_entropy"}, "loss"),
        ("maml", {"net": None}, "net"),
    ],
)
def test_a_wrong_option_is_refused(learner: str, option: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_learner(Choice(learner, option), MLP, CLASSES)
