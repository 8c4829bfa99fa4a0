"""Memory-augmented network (MANN): a memory read by content, written where it is needed least."""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.memory.controller import LSTMCell
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.learners.papers import SANTORO_2016
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["MANN", "MANNMemory", "access"]


class MANNMemory(NamedTuple):
    """What the network keeps from step to step.

    Attributes:
        memory: (tasks, slots, width).
        weights: (tasks, heads, slots) where each head read last.
        usage: (tasks, slots) how much each slot was read and written lately.
        reads: (tasks, heads * width) what was read last.
        controller: h and c of the LSTM.
    """

    memory: Float[Tensor, "tasks slots width"]
    weights: Float[Tensor, "tasks heads slots"]
    usage: Float[Tensor, "tasks slots"]
    reads: Float[Tensor, "tasks reads"]
    controller: Any


class MANN(SequenceLearner[MANNMemory]):
    """An LSTM beside a memory whose slots are reused by least recent use.

    It reads examples in turn, each with the label of the one before (`SequenceLearner`). At a step
    the LSTM reads [x_t, y_(t-1), r_(t-1)], and every head has a key k = tanh(...) and a gate
    s = sigmoid(...) of its output. With u the usage of slots (section 4 of the paper),

        w_r  = softmax over i of cos(k, M(i)),   r = sum of w_r(i) M(i)
        w_w  = s w_r + (1 - s) w_lu        write where it was read last, or what was used least,
        M(i) <- M(i) + w_w(i) k            the least used slot having been cleared,
        u    <- decay u + w_r + w_w,

    where w_r on the second line is that of the step before, and w_lu is 1 at the head's own least
    used slot. Nothing is learned through the choice of that slot. The prediction is linear in the
    LSTM's output and in all r.

    State:
        `EmbeddingState` of a `SequenceState` of a `MANNMemory`.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`.
        max_way: the most classes of a task, or numbers to predict.
        labels: how classes are told: "one_hot" or "letters" (`SequenceLearner`).
        hidden: size of the LSTM's state.
        slots: rows of the memory.
        width: size of a row.
        num_heads: heads, each of which reads and writes.
        usage_decay: how much of the usage is left after a step.
        sharpness: None for reading as above, as in the paper, when one of 128 slots never gets more
            than 6 % of what is read. Else every head says, too, how sharply it reads, as in neural
            Turing machines, w_r = softmax of b cos(k, M(i)) with b above 1; this is b at the start.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of every prediction.

    Raises:
        ValueError: for fewer slots than heads, and for a sharpness of 1 or less.

    Example:
        >>> from kshot.backbones.heads import Flatten
        >>> from kshot.episodes import Examples
        >>> learner = MANN(Flatten((2,)), 5)
        >>> support = Examples(torch.zeros(4, 3, 2), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(4, 7, 2)).shape
        torch.Size([4, 7, 3])

    Note:
        - The paper's w_lu is 1 at as many least used slots as there are heads, the same for all of
          them, so that every head writes to all of these; here each head has a slot of its own,
          and that of the first one is the one that is cleared.
        - What the paper leaves open: memory starts at 1e-6 everywhere, heads and usage at the
          first slot, reads at zero; a step reads before it writes, for a key that was written
          first would find itself.

    Reference:
        Meta-Learning with Memory-Augmented Neural Networks. ICML 2016.
        https://proceedings.mlr.press/v48/santoro16.html
    """

    paper = SANTORO_2016

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        labels: Literal["one_hot", "letters"] = "one_hot",
        hidden: int = 200,
        slots: int = 128,
        width: int = 40,
        num_heads: int = 4,
        usage_decay: float = 0.99,
        sharpness: float | None = None,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, max_way, labels=labels, batch_norm=batch_norm, loss=loss)
        if not 1 <= num_heads <= slots:
            raise ValueError(
                f"Each of the heads needs a slot to write to: num_heads={num_heads} must be from 1 "
                f"to slots={slots}."
            )
        if sharpness is not None and sharpness <= 1:
            raise ValueError(f"sharpness must be above 1, not {sharpness}; None reads as at 1.")
        self.slots, self.width = slots, width
        self.num_heads, self.usage_decay = num_heads, usage_decay
        num_read = num_heads * width
        self.controller = LSTMCell(self.embedding_dim, self.labels.size + num_read, hidden)
        self.sharpen = int(sharpness is not None)
        self.heads = nn.Linear(hidden, num_heads * (width + 1 + self.sharpen))
        self.outputs = nn.Linear(hidden + num_read, self.labels.size)
        if sharpness is not None:
            beyond = sharpness - 1
            with torch.no_grad():  # the number whose softplus is that
                said = beyond + math.log(-math.expm1(-beyond))
                self.heads.bias.view(num_heads, -1)[:, -1] = said

    def initial_state(self, tasks: int) -> MANNMemory:
        """The memory before anything is read: all slots alike, the heads at the first."""
        new = self.outputs.weight
        at_first = new.new_zeros(tasks, self.slots)
        at_first[:, 0] = 1
        return MANNMemory(
            new.new_full((tasks, self.slots, self.width), 1e-6),
            at_first.unsqueeze(1).repeat(1, self.num_heads, 1),
            at_first,
            new.new_zeros(tasks, self.num_heads * self.width),
            self.controller.initial_state(tasks),
        )

    def project(self, embeddings: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n inputs"]:
        """What the LSTM makes of embeddings alone."""
        return self.controller.project(embeddings)

    def step(
        self,
        memory: MANNMemory,
        inputs: Float[Tensor, "tasks inputs"],
        last_label: Float[Tensor, "tasks size"],
    ) -> tuple[Float[Tensor, "tasks size"], MANNMemory]:
        """Read, write and predict."""
        feedback = torch.cat([last_label, memory.reads], -1)
        hidden, controller = self.controller(inputs, feedback, memory.controller)
        said = self.heads(hidden).unflatten(-1, (self.num_heads, -1))
        keys, gates, sharpness = said.split([self.width, 1, self.sharpen], -1)
        read, weights, rows, usage = access(
            memory.memory,
            memory.weights,
            memory.usage,
            keys.tanh(),
            gates.sigmoid(),
            self.usage_decay,
            1 + F.softplus(sharpness) if self.sharpen else None,
        )
        reads = read.flatten(1)
        logits = self.outputs(torch.cat([hidden, reads], -1))
        return logits, MANNMemory(rows, weights, usage, reads, controller)


def access(
    memory: Float[Tensor, "tasks slots width"],
    weights: Float[Tensor, "tasks heads slots"],
    usage: Float[Tensor, "tasks slots"],
    keys: Float[Tensor, "tasks heads width"],
    gates: Float[Tensor, "tasks heads 1"],
    decay: float,
    sharpness: Float[Tensor, "tasks heads 1"] | None = None,
) -> tuple[
    Float[Tensor, "tasks heads width"],
    Float[Tensor, "tasks heads slots"],
    Float[Tensor, "tasks slots width"],
    Float[Tensor, "tasks slots"],
]:
    """Look for keys in a memory, then write them: what was read and where, memory and usage after.

    Args:
        memory: before it.
        weights: where each head read last.
        usage: of the slots, of which no gradient is taken.
        keys: what each head looks for, and writes.
        gates: whether each writes where it read last (1), or where the memory is used least (0).
        decay: of the usage.
        sharpness: what each head multiplies cosines by; 1 when not given.
    """
    lengths = keys.norm(dim=-1, keepdim=True) * memory.norm(dim=-1).unsqueeze(1)
    # The least number keeps an empty row from dividing by zero.
    cosines = keys @ memory.mT / (lengths + 1e-8)
    reading = (cosines if sharpness is None else sharpness * cosines).softmax(-1)
    least_used = usage.topk(keys.shape[1], largest=False).indices
    free = torch.zeros_like(weights).scatter(2, least_used.unsqueeze(2), 1)
    writing = torch.lerp(free, weights, gates)
    cleared = memory * (1 - free[:, :1].mT)
    written = torch.baddbmm(cleared, writing.mT, keys)
    usage = decay * usage + (reading + writing).detach().sum(1)
    return reading @ memory, reading, written, usage
