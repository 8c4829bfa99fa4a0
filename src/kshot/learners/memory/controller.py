"""Controllers: recurrent cells whose part for the inputs is computed for all steps at once."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Controller", "FeedForward", "GRUCell", "LSTMCell", "build_controller"]


class Controller(nn.Module, ABC):
    """A cell that reads an input, what a memory or a label feeds back, and its own last output.

    What it makes of the inputs alone, by far the larger part, does not have to wait for the step:
    `project` takes the inputs of any number of steps in one product.

    Args:
        num_inputs: size of an input.
        num_feedback: size of what is fed back.
        hidden: size of the output.
        gates: how many numbers the cell computes for each number of its output.
        own: size of what it feeds back to itself.
    """

    def __init__(
        self, num_inputs: int, num_feedback: int, hidden: int, *, gates: int, own: int
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.inputs = nn.Linear(num_inputs, gates * hidden)
        self.feedback = nn.Linear(num_feedback + own, gates * hidden, bias=False)

    def project(self, inputs: Float[Tensor, "*n inputs"]) -> Float[Tensor, "*n gates"]:
        """What the cell makes of inputs alone."""
        return self.inputs(inputs)

    @abstractmethod
    def initial_state(self, tasks: int) -> Any:
        """Its state before the first step: tensors (tasks, ...)."""

    @abstractmethod
    def forward(
        self,
        projected: Float[Tensor, "tasks gates"],
        feedback: Float[Tensor, "tasks feedback"],
        state: Any,
    ) -> tuple[Float[Tensor, "tasks hidden"], Any]:
        """Its output after a step, and its state."""

    def _zeros(self, tasks: int) -> Float[Tensor, "tasks hidden"]:
        return self.inputs.weight.new_zeros(tasks, self.hidden)


class LSTMCell(Controller):
    """Long short-term memory, which at first forgets little: the bias of its forget gate is 1.

    i, f, o = sigmoid(...), g = tanh(...);   c = f c + i g,   h = o tanh(c).

    Args:
        num_inputs: size of an input.
        num_feedback: size of what is fed back.
        hidden: size of h and c.

    Reference:
        Long Short-Term Memory. Neural Computation 1997.
    """

    def __init__(self, num_inputs: int, num_feedback: int, hidden: int) -> None:
        super().__init__(num_inputs, num_feedback, hidden, gates=4, own=hidden)
        with torch.no_grad():
            self.inputs.bias[hidden : 2 * hidden] = 1.0

    def initial_state(self, tasks: int) -> tuple[Tensor, Tensor]:
        """Zeros: h and c, (tasks, hidden) each."""
        return self._zeros(tasks), self._zeros(tasks)

    def forward(
        self,
        projected: Float[Tensor, "tasks gates"],
        feedback: Float[Tensor, "tasks feedback"],
        state: tuple[Tensor, Tensor],
    ) -> tuple[Float[Tensor, "tasks hidden"], tuple[Tensor, Tensor]]:
        """h, and (h, c)."""
        hidden, cell = state
        read = torch.cat([feedback, hidden], -1)
        gates = torch.addmm(projected, read, self.feedback.weight.T)
        # Few operations, for these tensors are small: three gates share one sigmoid.
        opened, new = gates.split([3 * self.hidden, self.hidden], -1)
        enter, keep, leave = opened.sigmoid().chunk(3, -1)
        cell = torch.addcmul(keep * cell, enter, new.tanh())
        hidden = leave * cell.tanh()
        return hidden, (hidden, cell)


class GRUCell(Controller):
    """Gated recurrent unit.

    r, z = sigmoid(...);   n = tanh(W x + U y + r (V h)),   h = (1 - z) n + z h.

    Args:
        num_inputs: size of an input x.
        num_feedback: size of what is fed back, y.
        hidden: size of h.

    Reference:
        Learning Phrase Representations using RNN Encoder-Decoder. EMNLP 2014.
        https://arxiv.org/abs/1406.1078
    """

    def __init__(self, num_inputs: int, num_feedback: int, hidden: int) -> None:
        super().__init__(num_inputs, num_feedback, hidden, gates=3, own=0)
        self.recurrent = nn.Linear(hidden, 3 * hidden)

    def initial_state(self, tasks: int) -> Tensor:
        """Zeros: h, (tasks, hidden)."""
        return self._zeros(tasks)

    def forward(
        self,
        projected: Float[Tensor, "tasks gates"],
        feedback: Float[Tensor, "tasks feedback"],
        state: Tensor,
    ) -> tuple[Float[Tensor, "tasks hidden"], Tensor]:
        """h, twice."""
        sizes = [2 * self.hidden, self.hidden]
        read = torch.addmm(projected, feedback, self.feedback.weight.T)
        (gates, new), (own_gates, own) = (
            read.split(sizes, -1),
            self.recurrent(state).split(sizes, -1),
        )
        reset, keep = (gates + own_gates).sigmoid().chunk(2, -1)
        hidden = torch.lerp(torch.addcmul(new, reset, own).tanh(), state, keep)
        return hidden, hidden


class FeedForward(Controller):
    """One layer, h = tanh(...), that remembers nothing: the memory beside it has to.

    Args:
        num_inputs: size of an input.
        num_feedback: size of what is fed back.
        hidden: size of h.
    """

    def __init__(self, num_inputs: int, num_feedback: int, hidden: int) -> None:
        super().__init__(num_inputs, num_feedback, hidden, gates=1, own=0)

    def initial_state(self, tasks: int) -> tuple[()]:
        """Nothing."""
        return ()

    def forward(
        self,
        projected: Float[Tensor, "tasks gates"],
        feedback: Float[Tensor, "tasks feedback"],
        state: tuple[()],
    ) -> tuple[Float[Tensor, "tasks hidden"], tuple[()]]:
        """h, and nothing."""
        return torch.addmm(projected, feedback, self.feedback.weight.T).tanh(), ()


def build_controller(
    name: Literal["lstm", "gru", "feed_forward"], num_inputs: int, num_feedback: int, hidden: int
) -> Controller:
    """A controller by name."""
    kinds = {"lstm": LSTMCell, "gru": GRUCell, "feed_forward": FeedForward}
    return kinds[name](num_inputs, num_feedback, hidden)
