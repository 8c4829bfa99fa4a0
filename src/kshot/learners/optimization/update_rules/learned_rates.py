"""Meta-SGD's update rule: a learned rate for every element of every parameter."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule

__all__ = ["LearnedRates"]


class LearnedRates(UpdateRule):
    """params <- params - rates * grads, element by element; the rates are meta-parameters.

    A rate may be of either sign, so direction is learned as well as length.

    Args:
        params: the parameters to have rates for.
        lowest: lowest rate at the start.
        highest: highest rate at the start; rates are drawn uniformly, one for each element.
    """

    def __init__(self, params: Mapping[str, Tensor], lowest: float, highest: float) -> None:
        super().__init__()
        self.names = tuple(params)
        self.rates = nn.ParameterList(
            torch.empty_like(value).uniform_(lowest, highest) for value in params.values()
        )

    def init(self, params: Params) -> RuleState:
        """Nothing is remembered."""
        return ()

    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Float[Tensor, ""]
    ) -> tuple[Params, RuleState]:
        """One step, each element at its own rate."""
        rates = dict(zip(self.names, self.rates, strict=True))
        return {name: value - rates[name] * grads[name] for name, value in params.items()}, state
