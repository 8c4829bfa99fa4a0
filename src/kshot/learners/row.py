"""A row of the registry: what a learner is, and what it must know of its tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from kshot.learner import MetaLearner

__all__ = ["LearnerRow", "TaskShape"]


class TaskShape(NamedTuple):
    """What a learner must know of its tasks to be built.

    Attributes:
        input_shape: shape of one input.
        way: columns of the largest episode: classes, or numbers to predict.
        num_classes: number of training classes; 0 in regression.
        kind: "classification" or "regression".
    """

    input_shape: tuple[int, ...]
    way: int
    num_classes: int
    kind: Literal["classification", "regression"]


@dataclass(frozen=True)
class LearnerRow:
    """A learner and what it is.

    Attributes:
        constructor: the class, or a `partial` of it that makes it the paper's method.
        arguments: what its constructor takes before its options, made from an encoder.
        family: its folder: which part of the learner is learned.
        summary: the idea in one line.
        reference: title, venue and year of the paper.
        kinds: kinds of task it can learn.
        meta_trained: whether it has meta-parameters to train.
        meta_gradient: what the gradient of its meta-loss is: the exact one, first order only,
            implicit, of another loss than the reported one (surrogate), or none.
        transductive: whether, as its paper runs it, a prediction depends on the other queries.
        online: whether what it learned can go on learning, one example after the other
            (`observe`), instead of adapting anew.
        of_any_encoder: whether it makes sense on an encoder that another learner trained: nothing
            else of it has to be learned first.
    """

    constructor: Callable[..., MetaLearner]
    arguments: Callable[[nn.Module, TaskShape], tuple[Any, ...]]
    family: Literal["baselines", "metric", "memory", "optimization"]
    summary: str
    reference: str
    kinds: tuple[Literal["classification", "regression"], ...] = ("classification",)
    meta_trained: bool = True
    meta_gradient: Literal["exact", "first_order", "implicit", "surrogate", "none"] = "exact"
    transductive: bool = False
    online: bool = False
    of_any_encoder: bool = False
