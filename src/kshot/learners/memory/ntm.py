"""A neural Turing machine that learns classes: it reads a task as a sequence."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.learners.memory.turing_machine import TuringMachine, TuringState
from kshot.learners.papers import GRAVES_2014
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["NTM"]


class NTM(SequenceLearner[TuringState]):
    """A neural Turing machine as a few-shot learner.

    It reads examples in turn, each with the label of the one before (`SequenceLearner`), and has to
    find out by itself where in its memory to put them (`TuringMachine`).

    State:
        `EmbeddingState` of a `SequenceState` of a `TuringState`.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`.
        max_way: the most classes of a task, or numbers to predict.
        labels: how classes are told: "one_hot" or "letters" (`SequenceLearner`).
        controller: "lstm", or "feed_forward", which has nothing but the memory to remember by.
        hidden: size of the controller's output.
        slots: rows of the memory.
        width: size of a row.
        num_heads: read heads, and write heads.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of every prediction.

    Example:
        >>> import torch
        >>> from kshot.backbones.heads import Flatten
        >>> from kshot.episodes import Examples
        >>> learner = NTM(Flatten((2,)), 5, hidden=10, slots=16, width=8)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        Neural Turing Machines. 2014. https://arxiv.org/abs/1410.5401
        As a few-shot learner: Meta-Learning with Memory-Augmented Neural Networks. ICML 2016.
    """

    paper = GRAVES_2014

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        labels: Literal["one_hot", "letters"] = "one_hot",
        controller: Literal["lstm", "feed_forward"] = "lstm",
        hidden: int = 200,
        slots: int = 128,
        width: int = 40,
        num_heads: int = 1,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, max_way, labels=labels, batch_norm=batch_norm, loss=loss)
        self.machine = TuringMachine(
            self.embedding_dim,
            self.labels.size,
            num_feedback=self.labels.size,
            controller=controller,
            hidden=hidden,
            slots=slots,
            width=width,
            num_heads=num_heads,
        )

    def initial_state(self, tasks: int) -> TuringState:
        """The machine before its first step."""
        return self.machine.initial_state(tasks)

    def project(self, embeddings: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n inputs"]:
        """What the controller makes of embeddings alone."""
        return self.machine.project(embeddings)

    def step(
        self,
        memory: TuringState,
        inputs: Float[Tensor, "tasks inputs"],
        last_label: Float[Tensor, "tasks size"],
    ) -> tuple[Float[Tensor, "tasks size"], TuringState]:
        """One step of the machine."""
        return self.machine.step(memory, inputs, last_label)
