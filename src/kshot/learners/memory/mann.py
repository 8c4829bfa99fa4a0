"""MANN: a memory that is read by similarity, and written where it was last or least used."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.memory.controller import LSTMCell
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.losses import Loss, cross_entropy

__all__ = ["MANN", "MANNMemory", "access"]


class MANNMemory(NamedTuple):
    memory: Float[Tensor, "tasks slots width"]
    read_weights: Float[Tensor, "tasks heads slots"]
    usage: Float[Tensor, "tasks slots"]
    reads: Float[Tensor, "tasks reads"]
    controller: Any


class MANN(SequenceLearner[MANNMemory]):
    def __init__(
        self,
        encoder: nn.Module,
        max_way: int,
        *,
        hidden: int = 200,
        slots: int = 128,
        width: int = 40,
        num_heads: int = 4,
        usage_decay: float = 0.99,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, max_way, batch_norm=batch_norm, loss=loss)
        self.slots, self.width, self.num_heads, self.usage_decay = slots, width, num_heads, usage_decay
        read = num_heads * width
        self.controller = LSTMCell(self.embedding_dim, max_way + read, hidden)
        self.heads = nn.Linear(hidden, num_heads * (width + 1))
        self.outputs = nn.Linear(hidden + read, max_way)

    def initial_state(self, tasks: int) -> MANNMemory:
        new = self.heads.weight
        first = F.one_hot(torch.zeros(tasks, dtype=torch.long, device=new.device), self.slots)
        first = first.to(new.dtype)
        return MANNMemory(
            new.new_full((tasks, self.slots, self.width), 1e-6),
            first.unsqueeze(1).repeat(1, self.num_heads, 1),
            first,
            new.new_zeros(tasks, self.num_heads * self.width),
            self.controller.initial_state(tasks),
        )

    def project(self, embeddings):
        return self.controller.project(embeddings)

    def step(self, memory, inputs, last_targets):
        feedback = torch.cat([last_targets, memory.reads], -1)
        hidden, controller = self.controller(inputs, feedback, memory.controller)
        keys, gates = self.heads(hidden).split([self.num_heads * self.width, self.num_heads], -1)
        keys = keys.unflatten(-1, (self.num_heads, self.width)).tanh()
        gates = gates.sigmoid().unsqueeze(-1)
        rows, weights, usage, reads = access(
            memory.memory, memory.read_weights, memory.usage, keys, gates, self.usage_decay
        )
        logits = self.outputs(torch.cat([hidden, reads], -1))
        return logits, MANNMemory(rows, weights, usage, reads, controller)


def access(rows, read_weights, usage, keys, gates, decay):
    slots, heads = rows.shape[1], keys.shape[1]
    least = usage.topk(heads, largest=False).indices
    free = F.one_hot(least, slots).to(rows.dtype)
    write_weights = torch.lerp(free, read_weights, gates)
    rows = torch.baddbmm(rows * (1 - free[:, 0]).unsqueeze(-1), write_weights.mT, keys)
    lengths = rows.norm(dim=-1).unsqueeze(1) * keys.norm(dim=-1, keepdim=True)
    cosines = keys @ rows.mT / (lengths + 1e-8)
    read_weights = cosines.softmax(-1)
    usage = decay * usage + (read_weights + write_weights).detach().sum(1)
    return rows, read_weights, usage, (read_weights @ rows).flatten(1)
