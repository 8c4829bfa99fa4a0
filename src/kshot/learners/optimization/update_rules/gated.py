"""The LSTM meta-learner's rule: parameters are the content of a memory cell, moved by its gates."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.optimization.update_rules.coordinatewise import (
    CoordinateState,
    CoordinatewiseRule,
)

__all__ = ["GatedRule"]


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

    Args:
        num_layers: layers of the memory.
        hidden: numbers of a layer's state.
        feedback_pre_sigmoid: whether gates see what they were before the sigmoid, as in the
            authors' code, or after it, as in the paper.
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
        feedback_pre_sigmoid: bool = True,
        chunk_size: int = 8192,
    ) -> None:
        super().__init__(
            num_layers=num_layers,
            hidden=hidden,
            reads_loss=True,
            preprocessed=True,
            chunk_size=chunk_size,
        )
        self.feedback_pre_sigmoid = feedback_pre_sigmoid
        self.from_features = nn.Linear(self.num_features, 2)  # the forget gate, the input gate
        self.from_value = nn.Parameter(torch.empty(2))
        self.from_gate = nn.Parameter(torch.empty(2))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)
        with torch.no_grad():
            self.from_features.bias[0].uniform_(4, 5)
            self.from_features.bias[1].uniform_(-5, -4)

    def begin(self, values: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Both gates before the sigmoid: zero."""
        return self.from_gate.new_zeros(len(values), 2)

    def move(
        self,
        values: Float[Tensor, " n"],
        grads: Float[Tensor, " n"],
        features: Float[Tensor, "n features"],
        own: Float[Tensor, "n 2"],
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
        """A share of each coordinate stays; a share of its gradient is taken away."""
        before = own if self.feedback_pre_sigmoid else own.sigmoid()
        seen = values.unsqueeze(-1).to(before.dtype)
        gates = self.from_features(features) + self.from_value * seen + self.from_gate * before
        forget, enter = gates.sigmoid().to(values.dtype).unbind(-1)
        return forget * values - enter * grads, gates

    def gates(self, state: tuple[CoordinateState, ...]) -> Float[Tensor, "n 2"]:
        """Forget and input gate of every coordinate, as the last step had them."""
        return torch.cat([chunk.own for chunk in state]).sigmoid()
