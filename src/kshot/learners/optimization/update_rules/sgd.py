"""Gradient descent with a fixed learning rate, the update rule of MAML."""

from jaxtyping import Float
from torch import Tensor

from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule

__all__ = ["SGD"]


class SGD(UpdateRule):
    """Gradient descent: params <- params - lr * grads.

    Args:
        lr: learning rate.
    """

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def init(self, params: Params) -> RuleState:
        """Nothing is remembered."""
        return ()

    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Float[Tensor, ""]
    ) -> tuple[Params, RuleState]:
        """One step against the gradient."""
        return {name: value - self.lr * grads[name] for name, value in params.items()}, state
