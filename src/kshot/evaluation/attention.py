"""Where a learner looks: at which support examples, or at which slots of its memory."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.episodes import Episodes, Examples, Inputs, map_tensors
from kshot.learners.memory.mann import MANNMemory
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.learners.memory.turing_machine import TuringState

__all__ = ["Attentive", "has_slots", "read_weights"]


@runtime_checkable
class Attentive(Protocol):
    """A learner that says how much each query looks at each support example."""

    def attention(self, state, inputs: Inputs, mask=None) -> Float[Tensor, "tasks blocks m n"]:
        """Weights of the m queries for the n support examples, for each block that looks."""
        ...


def has_slots(learner: object) -> bool:
    """Whether a learner reads a memory slot by slot, so that `read_weights` shows where."""
    if not isinstance(learner, SequenceLearner):
        return False
    return isinstance(learner.initial_state(1), MANNMemory | TuringState)


def read_weights(
    learner: SequenceLearner, episodes: Episodes
) -> Float[Tensor, "tasks steps heads slots"]:
    """What the heads read at each step: of the support set in its order, then of each query.

    Each query is the step after the whole support set; no query follows another.

    Args:
        learner: one with slots (`has_slots`), in evaluation mode.
        episodes: without padding.

    Raises:
        ValueError: for a learner without slots, or for padded episodes.
    """
    support, query, _ = episodes
    if not has_slots(learner):
        raise ValueError(f"{type(learner).__name__} has no slots to read: mann and ntm have.")
    if support.mask is not None or query.mask is not None:
        raise ValueError("Episodes with padding have steps that nothing reads: draw one way.")
    found = []
    with torch.no_grad():
        state = learner.adapt(_examples(support, slice(0, 0)))
        for step in range(support.targets.shape[1]):
            state = learner.observe(state, _examples(support, slice(step, step + 1)))
            found.append(_weights(state.summary.memory))
        for step in range(query.targets.shape[1]):
            after = learner.observe(state, _examples(query, slice(step, step + 1)))
            found.append(_weights(after.summary.memory))
    return torch.stack(found, 1)


def _examples(examples: Examples, rows: slice) -> Examples:
    return Examples(
        map_tensors(lambda tensor: tensor[:, rows], examples.inputs), examples.targets[:, rows]
    )


def _weights(memory: MANNMemory | TuringState) -> Float[Tensor, "tasks heads slots"]:
    """Where the read heads are; a Turing machine has its write heads after them."""
    return memory.weights.chunk(2, 1)[0] if isinstance(memory, TuringState) else memory.weights
