"""The contract of update rules: how inner-loop gradients move parameters."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Params", "RuleState", "UpdateRule"]

Params = dict[str, Tensor]
"""Parameters by name: of one task, where nothing else is said."""

RuleState = Any
"""What a rule remembers between steps: a (named) tuple or dictionary of tensors, or ()."""


class UpdateRule(nn.Module, ABC):
    """How inner-loop gradients move parameters; its own parameters, if any, are meta-learned.

    Both methods are pure, see one task, and run under `torch.func.vmap`.

    Attributes:
        reads_loss: whether a step depends on the loss beside the gradients.
    """

    reads_loss: bool = False

    @abstractmethod
    def init(self, params: Params) -> RuleState:
        """The state before the first step."""

    @abstractmethod
    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Float[Tensor, ""]
    ) -> tuple[Params, RuleState]:
        """The parameters and state after one step along the gradients of `loss`."""
