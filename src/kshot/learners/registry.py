"""The registry of learners: name -> constructor and traits, read by CLI, tests, docs and demo."""

from functools import partial

from torch import nn

from kshot.backbones.registry import build_backbone
from kshot.config import Choice
from kshot.learner import MetaLearner
from kshot.learners.baselines import rows as baselines
from kshot.learners.memory import rows as memory
from kshot.learners.metric import rows as metric
from kshot.learners.optimization import rows as optimization
from kshot.learners.row import LearnerRow, TaskShape
from kshot.losses import cross_entropy, mean_squared_error
from kshot.options import call_with_options, nearest

__all__ = ["LEARNERS", "LearnerRow", "TaskShape", "build_learner", "learner_row"]

LEARNERS: dict[str, LearnerRow] = {
    **baselines.ROWS,
    **metric.ROWS,
    **memory.ROWS,
    **optimization.ROWS,
}
"""Every learner, by the short name of its paper."""


def build_learner(learner: Choice, backbone: Choice | nn.Module, tasks: TaskShape) -> MetaLearner:
    """Build a learner by name, on a backbone by name or on an encoder that there is.

    Raises:
        ValueError: for an unknown name or option, naming the nearest known one, and for a learner
            that cannot learn the kind of task.
    """
    row = learner_row(learner.name)
    if tasks.kind not in row.kinds:
        able = [name for name, other in LEARNERS.items() if tasks.kind in other.kinds]
        raise ValueError(
            f"{learner.name} cannot learn {tasks.kind} tasks; these can: {', '.join(able)}."
        )
    encoder = backbone
    if isinstance(encoder, Choice):
        encoder = build_backbone(encoder, tasks.input_shape)
    loss = cross_entropy if tasks.kind == "classification" else mean_squared_error
    return call_with_options(
        partial(row.constructor, loss=loss),
        learner.options,
        f"learner {learner.name!r}",
        *row.arguments(encoder, tasks),
    )


def learner_row(name: str) -> LearnerRow:
    """The row of a learner, or an error that suggests the nearest name."""
    if name not in LEARNERS:
        raise ValueError(f"Unknown learner {name!r}.{nearest(name, LEARNERS)}")
    return LEARNERS[name]
