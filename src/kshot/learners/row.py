"""What is said of a learner in the registry: how it is built, and what it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from kshot.backbones.heads import WithHead
from kshot.learner import MetaLearner
from kshot.options import unwrapped
from kshot.paper import Paper

__all__ = [
    "LearnerRow",
    "TaskShape",
    "encoder_alone",
    "encoder_and_outputs",
    "encoder_and_way",
    "net_with_head",
]


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


def encoder_alone(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    """An encoder."""
    return (encoder,)


def net_with_head(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    """A network from inputs to the columns of a task."""
    return (WithHead(encoder, tasks.way),)


def encoder_and_way(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    """An encoder, and how many columns a task has."""
    return (encoder, tasks.way)


def encoder_and_outputs(encoder: nn.Module, tasks: TaskShape) -> tuple[Any, ...]:
    """An encoder, and how many columns pre-training has: all training classes."""
    return (encoder, tasks.num_classes or tasks.way)


@dataclass(frozen=True)
class LearnerRow:
    """A learner and what it is.

    Attributes:
        constructor: the class, or a `partial` of it that makes it the paper's method.
        arguments: what its constructor takes before its options, made from an encoder.
        family: its folder: which part of the learner is learned.
        summary: the idea in one line.
        paper: what it comes from; its class's own where none is given, and None for what is in
            every textbook.
        notes: what differs from the paper, in Markdown as a page in docs/ has it.
        kinds: kinds of task it can learn.
        meta_trained: whether it has meta-parameters to train.
        meta_gradient: what the gradient of its meta-loss is: the exact one, first order only,
            implicit, of another loss than the reported one (surrogate), or none.
        transductive: whether, as its paper runs it, a prediction depends on the other queries.
        online: whether what it learned can go on learning, one example after the other (`observe`),
            instead of adapting anew.
        of_any_encoder: whether it makes sense on an encoder that another learner trained: nothing
            else of it has to be learned first.
    """

    constructor: Callable[..., MetaLearner]
    arguments: Callable[[nn.Module, TaskShape], tuple[Any, ...]]
    family: Literal["baselines", "metric", "memory", "optimization"]
    summary: str
    paper: Paper | None = None
    notes: str = ""
    kinds: tuple[Literal["classification", "regression"], ...] = ("classification",)
    meta_trained: bool = True
    meta_gradient: Literal["exact", "first_order", "implicit", "surrogate", "none"] = "exact"
    transductive: bool = False
    online: bool = False
    of_any_encoder: bool = False

    def __post_init__(self) -> None:
        if self.paper is None:
            object.__setattr__(self, "paper", unwrapped(self.constructor).paper)

    @property
    def reference(self) -> str:
        """Title, venue and year of the paper, or "-"."""
        return "-" if self.paper is None else self.paper.reference
