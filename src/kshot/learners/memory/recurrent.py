"""A recurrent network that reads training and test examples as one sequence: the plain memory."""

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.memory.controller import build_controller
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.learners.papers import HOCHREITER_2001
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["RecurrentLearner"]


class RecurrentLearner(SequenceLearner[Any]):
    """An LSTM or GRU whose own dynamics are the learning algorithm.

    It reads examples in turn, each with the label of the one before, and all that it learns of a
    task is in its state: what training by gradient descent finds is how to store and to recall.

    There are two ways to write a task as a sequence, which are not to be mixed. Here labels come
    one step late, with a prediction at every step (Hochreiter et al., Santoro et al.):

        (x_1, 0), (x_2, y_1), ..., (x_n, y_(n-1)), then a query (x, y_n).

    The other one shows example and label together, (x_1, y_1), ..., (x_n, y_n), (x, 0), and
    predicts for queries only; SNAIL is of that kind.

    State:
        `EmbeddingState` of a `SequenceState` of the network's state: h and c of an LSTM, h of a
        GRU, (tasks, hidden) each.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`.
        max_way: the most classes of a task, or numbers to predict.
        labels: how classes are told: "one_hot" or "letters" (`SequenceLearner`).
        cell: the kind of network.
        hidden: size of its state.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of every prediction.

    Example:
        >>> import torch
        >>> from kshot.backbones.heads import Flatten
        >>> from kshot.episodes import Examples
        >>> learner = RecurrentLearner(Flatten((2,)), 5)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Reference:
        Learning to Learn Using Gradient Descent. ICANN 2001.
        As the baseline: Meta-Learning with Memory-Augmented Neural Networks. ICML 2016.
    """

    paper = HOCHREITER_2001

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        labels: Literal["one_hot", "letters"] = "one_hot",
        cell: Literal["lstm", "gru"] = "lstm",
        hidden: int = 200,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, max_way, labels=labels, batch_norm=batch_norm, loss=loss)
        self.cell = build_controller(cell, self.embedding_dim, self.labels.size, hidden)
        self.outputs = nn.Linear(hidden, self.labels.size)

    def initial_state(self, tasks: int) -> Any:
        """The network's state before it has read anything."""
        return self.cell.initial_state(tasks)

    def project(self, embeddings: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n inputs"]:
        """What the gates make of embeddings alone."""
        return self.cell.project(embeddings)

    def step(
        self,
        memory: Any,
        inputs: Float[Tensor, "tasks inputs"],
        last_label: Float[Tensor, "tasks size"],
    ) -> tuple[Float[Tensor, "tasks size"], Any]:
        """One step of the network."""
        hidden, memory = self.cell(inputs, last_label, memory)
        return self.outputs(hidden), memory
