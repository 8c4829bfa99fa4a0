"""MAML++'s update rule: a learned rate for every parameter tensor and every step."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule

__all__ = ["StepRates"]


class StepRates(UpdateRule):
    """params <- params - rates[step] * grads, one rate a tensor; the rates are meta-parameters.

    Further steps than there are rates for repeat the last ones.

    Args:
        params: the parameters to have rates for.
        num_steps: the steps to have rates for.
        lr: every rate at the start.
    """

    def __init__(self, params: Mapping[str, Tensor], num_steps: int, lr: float) -> None:
        super().__init__()
        self.names = tuple(params)
        self.rates = nn.Parameter(torch.full((num_steps, len(self.names)), lr))

    def init(self, params: Params) -> RuleState:
        """No step taken."""
        return {"count": torch.zeros((), dtype=torch.long, device=self.rates.device)}

    def step(
        self, params: Params, grads: Params, state: RuleState, *, loss: Float[Tensor, ""]
    ) -> tuple[Params, RuleState]:
        """One step, each tensor at its own rate for this step."""
        row = state["count"].clamp_max(len(self.rates) - 1)
        rates = self.rates.index_select(0, row.reshape(1))[0]  # an index would be read as a value
        of = dict(zip(self.names, rates, strict=True))
        moved = {name: value - of[name] * grads[name] for name, value in params.items()}
        return moved, {"count": state["count"] + 1}
