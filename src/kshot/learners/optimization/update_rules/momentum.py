"""Gradient descent with momentum as an update rule."""

import torch
from jaxtyping import Float
from torch import Tensor

from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule

__all__ = ["Momentum"]


class Momentum(UpdateRule):
    """Heavy-ball momentum: v <- momentum v + grads, params <- params - lr v.

    The velocity starts at zero for every task and is differentiated through, as `torch.optim.SGD`
    computes it without dampening.

    Args:
        lr: learning rate.
        momentum: how much of the velocity stays.
    """

    def __init__(self, lr: float, momentum: float = 0.9) -> None:
        super().__init__()
        self.lr = lr
        self.momentum = momentum

    def init(self, params: Params) -> RuleState:
        """Zero velocity."""
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Float[Tensor, ""]
    ) -> tuple[Params, RuleState]:
        """One step along the velocity."""
        velocity = {name: self.momentum * state[name] + grads[name] for name in params}
        return {name: value - self.lr * velocity[name] for name, value in params.items()}, velocity
