"""The LSTM meta-learner's rule: parameters are the content of a memory cell, moved by its gates."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.optimization.update_rules.coordinatewise import (
    CoordinateState,
    CoordinatewiseRule,
)

__all__ = ["GateState", "GatedRule"]


class GateState(NamedTuple):
    """What gates remember of coordinates.

    Attributes:
        gates: (n, gates) as they were before the sigmoid.
        velocity: (n,) gradients summed up, where there is momentum; else ().
    """

    gates: Float[Tensor, "n gates"]
    velocity: Float[Tensor, " n"] | tuple[()]


class GatedRule(CoordinatewiseRule):
    r"""Gradient descent as the cell of an LSTM whose gates are learned.

    A cell's content c <- f c + i u is a step of gradient descent when c is a parameter, u minus its
    gradient, the forget gate f = 1 and the input gate i a learning rate. Here both gates depend on
    what a memory h makes of loss and gradient, on the parameter and on themselves (section 3 of the
    paper): with sigma the logistic function,

        f^ <- W_F [h, theta, f^] + b_F,   i^ <- W_I [h, theta, i^] + b_I,
        theta <- sigma(f^) theta - sigma(i^) grad.

    It starts close to gradient descent, with f between .982 and .993, i between .007 and .018. With
    `num_layers` 0 the gates see loss and gradient themselves: equations of section 3.1 alone.

    As an optimizer of its own, for many steps, it has options that are ours. A third gate says how
    much of a velocity v stays, which takes the place of the gradient (heavy-ball momentum),

        v <- sigma(m^) v + grad,   m^ <- W_M [h, theta, m^] + b_M,

    and what the gates depend on then includes whether gradient and velocity have the same sign: a
    velocity that overshoots is told so. The forget gate may be left out, for a parameter that
    decays does not stay in a minimum. The input gate, at most 1, may be scaled. And gates may do
    without theta and themselves: what they were before the sigmoid, numbers like -4 that come back
    at every step, makes much of small changes to their weights.

    Args:
        num_layers: layers of the memory.
        hidden: numbers of a layer's state.
        enter: the input gate in the beginning, give or take; the learning rate, before `scale`.
        forget: the forget gate in the beginning; None for none, f = 1.
        keep: the gate of the velocity in the beginning; None for none.
        recurrent: whether gates depend on the parameter and on what they were.
        feedback_pre_sigmoid: whether that is what they were before the sigmoid, as in the authors'
            code, or after it, as in the paper.
        scale: of the input gate.
        chunk_size: coordinates (of each task) computed at once.

    Example:
        >>> rule = GatedRule()
        >>> params = {"x": torch.ones(3)}
        >>> moved, state = rule.step(params, params, rule.init(params), loss=torch.tensor(1.0))
        >>> bool((moved["x"] < 1).all())
        True

    Reference:
        Optimization as a Model for Few-Shot Learning. ICLR 2017.
        https://openreview.net/forum?id=rJY0-Kcll
    """

    def __init__(
        self,
        *,
        num_layers: int = 1,
        hidden: int = 20,
        enter: float = 0.011,
        forget: float | None = 0.989,
        keep: float | None = None,
        recurrent: bool = True,
        feedback_pre_sigmoid: bool = True,
        scale: float = 1.0,
        chunk_size: int = 8192,
    ) -> None:
        super().__init__(
            num_layers=num_layers,
            hidden=hidden,
            reads_loss=True,
            preprocessed=True,
            num_more=0 if keep is None else 1,
            chunk_size=chunk_size,
        )
        self.feedback_pre_sigmoid = feedback_pre_sigmoid
        self.scale = scale
        wanted = {"forget": forget, "enter": enter, "keep": keep}
        starts = {name: share for name, share in wanted.items() if share is not None}
        if not all(0 < share < 1 for share in starts.values()):
            raise ValueError(f"Gates are open to a share between 0 and 1, not {starts}.")
        self.gate_names = tuple(starts)
        self.from_features = nn.Linear(self.num_features, len(starts))
        self.recurrent = recurrent
        if recurrent:
            self.from_value = nn.Parameter(torch.empty(len(starts)))
            self.from_gate = nn.Parameter(torch.empty(len(starts)))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)
        with torch.no_grad():
            for bias, share in zip(self.from_features.bias, starts.values(), strict=True):
                bias.uniform_(-0.5, 0.5).add_(math.log(share / (1 - share)))

    def begin(self, values: Float[Tensor, " n"]) -> GateState:
        """All gates before the sigmoid, and the velocity: zero."""
        gates = self.from_features.weight.new_zeros(len(values), len(self.gate_names))
        return GateState(gates, torch.zeros_like(values) if "keep" in self.gate_names else ())

    def told(
        self, grads: Float[Tensor, " n"], loss: Float[Tensor, ""], own: GateState
    ) -> Float[Tensor, "n inputs"]:
        """Loss and gradient, and whether it has the velocity's sign: 1, -1, or 0 for neither."""
        told = super().told(grads, loss, own)
        if isinstance(own.velocity, Tensor):
            same = grads.sign() * own.velocity.sign()
            told = torch.cat([told, same.unsqueeze(-1).to(told)], -1)
        return told

    def move(
        self,
        values: Float[Tensor, " n"],
        grads: Float[Tensor, " n"],
        features: Float[Tensor, "n features"],
        own: GateState,
    ) -> tuple[Float[Tensor, " n"], GateState]:
        """A share of each coordinate stays; a share of its gradient or velocity is taken away."""
        before, velocity = own
        gates = self.from_features(features)
        if self.recurrent:
            if not self.feedback_pre_sigmoid:
                before = before.sigmoid()
            seen = values.unsqueeze(-1).to(before.dtype)
            gates = gates + self.from_value * seen + self.from_gate * before
        opened = gates.sigmoid().to(values.dtype).unbind(-1)
        share = dict(zip(self.gate_names, opened, strict=True))
        along = grads
        if isinstance(velocity, Tensor):
            along = velocity = share["keep"] * velocity + grads
        stays = share["forget"] * values if "forget" in share else values
        return stays - self.scale * share["enter"] * along, GateState(gates, velocity)

    def gates(self, state: tuple[CoordinateState, ...]) -> dict[str, Float[Tensor, " n"]]:
        """The gates of every coordinate by name ("forget", "enter", "keep"), at the last step."""
        opened = torch.cat([chunk.own.gates for chunk in state]).sigmoid().unbind(-1)
        return dict(zip(self.gate_names, opened, strict=True))
