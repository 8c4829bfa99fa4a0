"""The neural Turing machine: a memory that is read and written by content and by place."""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.memory.controller import build_controller

__all__ = [
    "TuringMachine",
    "TuringState",
    "by_content",
    "interpolated",
    "sharpened",
    "shifted",
]


class TuringState(NamedTuple):
    """What the machine keeps from step to step.

    Attributes:
        memory: (tasks, slots, width).
        weights: (tasks, 2 heads, slots) where the read heads, then the write heads, are.
        reads: (tasks, heads * width) what was read last.
        controller: state of the controller.
    """

    memory: Float[Tensor, "tasks slots width"]
    weights: Float[Tensor, "tasks all_heads slots"]
    reads: Float[Tensor, "tasks reads"]
    controller: Any


class TuringMachine(nn.Module):
    """A controller beside a memory, both differentiable, for a batch of tasks at once.

    The controller reads an input and what the heads read last, and tells every head where to go
    (section 3.3 of the paper), from a key k with strength beta, a gate g, a distribution s over
    shifts by -1, 0 and +1, and a sharpness gamma:

        w_c(i) = softmax over i of beta cos(k, M(i))           by content,
        w_g    = g w_c + (1 - g) w                             or from where it was,
        w_s(i) = sum over j of w_g(j) s(i - j)                 shifted, the last slot beside slot 0,
        w(i)   = w_s(i)^gamma / sum over j of w_s(j)^gamma     and sharp again.

    Read heads give r = sum of w(i) M(i). Then write heads erase by e and add a (section 3.2):

        M(i) <- M(i) (1 - w(i) e) + w(i) a.

    The output is linear in what the controller says and in what was read in this step.

    Args:
        num_inputs: size of an input.
        num_outputs: size of an output.
        num_feedback: size of what else the controller reads at a step; it may depend on the output
            before.
        controller: "lstm", or "feed_forward", which has nothing but the memory to remember by.
        hidden: size of the controller's output.
        slots: rows of the memory.
        width: size of a row.
        num_heads: read heads, and write heads.

    Example:
        >>> machine = TuringMachine(9, 8, slots=16, width=10)
        >>> machine(torch.zeros(2, 30, 9)).shape
        torch.Size([2, 30, 8])

    Note:
        - What the paper leaves open: memory starts at 1e-6 everywhere, every head at the first
          slot, reads at zero; heads read before they write; k and a are what the linear layer
          gives; several heads erase one after the other and then add.
        - A power of weights underflows where it is taken literally. Sharpening is a softmax of
          gamma log w, which is the same and does not.

    Reference:
        Neural Turing Machines. 2014. https://arxiv.org/abs/1410.5401
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        num_feedback: int = 0,
        controller: Literal["lstm", "feed_forward"] = "lstm",
        hidden: int = 100,
        slots: int = 128,
        width: int = 20,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        if min(slots, width, num_heads, hidden) < 1:
            raise ValueError(
                "A Turing machine needs at least one slot, number, head and hidden unit, not "
                f"slots={slots}, width={width}, num_heads={num_heads}, hidden={hidden}."
            )
        self.slots, self.width, self.num_heads = slots, width, num_heads
        feedback = num_feedback + num_heads * width
        self.num_feedback = num_feedback
        self.controller = build_controller(controller, num_inputs, feedback, hidden)
        # Of each head: key, strength, gate, three shifts, sharpness.
        self.places = nn.Linear(hidden, 2 * num_heads * (width + 6))
        self.writes = nn.Linear(hidden, 2 * num_heads * width)
        self.outputs = nn.Linear(hidden + num_heads * width, num_outputs)

    def initial_state(self, tasks: int) -> TuringState:
        """The machine before its first step."""
        new = self.outputs.weight
        weights = new.new_zeros(tasks, 2 * self.num_heads, self.slots)
        weights[..., 0] = 1
        return TuringState(
            new.new_full((tasks, self.slots, self.width), 1e-6),
            weights,
            new.new_zeros(tasks, self.num_heads * self.width),
            self.controller.initial_state(tasks),
        )

    def project(self, inputs: Float[Tensor, "*n inputs"]) -> Float[Tensor, "*n gates"]:
        """What the controller makes of inputs alone, for any number of steps at once."""
        return self.controller.project(inputs)

    def step(
        self,
        state: TuringState,
        projected: Float[Tensor, "tasks gates"],
        feedback: Float[Tensor, "tasks feedback"],
    ) -> tuple[Float[Tensor, "tasks outputs"], TuringState]:
        """The output for one projected input of every task, and the state after it."""
        memory = state.memory
        read = torch.cat([feedback, state.reads], -1)
        hidden, controller = self.controller(projected, read, state.controller)
        weights = self._move_heads(hidden, memory, state.weights)
        reading, writing = weights.chunk(2, 1)
        reads = (reading @ memory).flatten(1)
        erase, add = self.writes(hidden).unflatten(-1, (2, self.num_heads, self.width)).unbind(1)
        kept = 1 - writing.unsqueeze(-1) * erase.sigmoid().unsqueeze(2)
        memory = torch.baddbmm(memory * kept.prod(1), writing.mT, add)
        outputs = self.outputs(torch.cat([hidden, reads], -1))
        return outputs, TuringState(memory, weights, reads, controller)

    def forward(
        self, inputs: Float[Tensor, "tasks steps inputs"]
    ) -> Float[Tensor, "tasks steps outputs"]:
        """Outputs of all steps, from the initial state, without feedback."""
        state, outputs = self.initial_state(len(inputs)), []
        nothing = inputs.new_zeros(len(inputs), 0)
        for projected in self.project(inputs).unbind(1):
            output, state = self.step(state, projected, nothing)
            outputs.append(output)
        return torch.stack(outputs, 1)

    def _move_heads(
        self,
        hidden: Float[Tensor, "tasks hidden"],
        memory: Float[Tensor, "tasks slots width"],
        weights: Float[Tensor, "tasks all_heads slots"],
    ) -> Float[Tensor, "tasks all_heads slots"]:
        """Where every head is now."""
        places = self.places(hidden).unflatten(-1, (2 * self.num_heads, self.width + 6))
        key, strength, gate, shifts, sharpness = places.split([self.width, 1, 1, 3, 1], -1)
        found = by_content(memory, key, nn.functional.softplus(strength))
        moved = shifted(interpolated(found, weights, gate.sigmoid()), shifts.softmax(-1))
        return sharpened(moved, 1 + nn.functional.softplus(sharpness))


def by_content(
    memory: Float[Tensor, "tasks slots width"],
    key: Float[Tensor, "tasks heads width"],
    strength: Float[Tensor, "tasks heads 1"],
) -> Float[Tensor, "tasks heads slots"]:
    """Weights by similarity to a key (equation 5)."""
    lengths = key.norm(dim=-1, keepdim=True) * memory.norm(dim=-1).unsqueeze(1)
    # The least number keeps an empty key or row from dividing by zero.
    return (strength * (key @ memory.mT) / (lengths + 1e-8)).softmax(-1)


def interpolated(
    found: Float[Tensor, "tasks heads slots"],
    before: Float[Tensor, "tasks heads slots"],
    gate: Float[Tensor, "tasks heads 1"],
) -> Float[Tensor, "tasks heads slots"]:
    """Weights by content where the gate is 1, those of the step before where it is 0 (7)."""
    return torch.lerp(before, found, gate)


def shifted(
    weights: Float[Tensor, "tasks heads slots"], shifts: Float[Tensor, "tasks heads 3"]
) -> Float[Tensor, "tasks heads slots"]:
    """Weights moved by -1, 0 and +1 slots, each with its probability, around the end (8)."""
    back, stay, on = shifts.split(1, -1)
    return back * weights.roll(-1, -1) + stay * weights + on * weights.roll(1, -1)


def sharpened(
    weights: Float[Tensor, "tasks heads slots"], sharpness: Float[Tensor, "tasks heads 1"]
) -> Float[Tensor, "tasks heads slots"]:
    """Weights to the power of a sharpness, of sum 1 (9)."""
    return (sharpness * weights.clamp_min(1e-12).log()).softmax(-1)
