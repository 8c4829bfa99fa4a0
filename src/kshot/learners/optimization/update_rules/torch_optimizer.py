"""An update rule handed out as an ordinary PyTorch optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kshot.learners.optimization.update_rules.base import UpdateRule

__all__ = ["torch_optimizer"]


def torch_optimizer(
    rule: UpdateRule, named_parameters: Iterable[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """An optimizer that moves some parameters by an update rule, a meta-learned one too.

    It works wherever a `torch.optim.Optimizer` does, with schedulers of the rule's own making only:
    a rule has no learning rate that a scheduler could change. A parameter without a gradient is
    given one of zero. Its `state_dict` holds what the rule remembers.

    Args:
        rule: how gradients move parameters; it is used, not trained.
        named_parameters: what to move, as `net.named_parameters()` gives it; a rule with a rate for
            each parameter knows them by these names.

    Example:
        >>> from kshot.learners.optimization.update_rules import Adam
        >>> net = nn.Linear(2, 1)
        >>> optimizer = torch_optimizer(Adam(lr=0.1), net.named_parameters())
        >>> net(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
    """
    return _RuleOptimizer(rule, dict(named_parameters))


class _RuleOptimizer(torch.optim.Optimizer):
    def __init__(self, rule: UpdateRule, params: dict[str, nn.Parameter]) -> None:
        super().__init__(params.values(), {})
        self.rule = rule
        self.params = params

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore
        """Move the parameters; with a closure, which computes loss and gradients, its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        values: dict[str, Tensor] = {name: value.detach() for name, value in self.params.items()}
        grads = {
            name: torch.zeros_like(value) if value.grad is None else value.grad
            for name, value in self.params.items()
        }
        if "rule" not in self.state:  # pyright: ignore[reportUnnecessaryContains]
            self.state["rule"] = self.rule.init(values)  # pyright: ignore[reportArgumentType]
        state = self.state["rule"]  # pyright: ignore[reportArgumentType]
        told = next(iter(values.values())).new_zeros(()) if loss is None else torch.as_tensor(loss)
        moved, after = self.rule.step(values, grads, state, loss=told.detach())
        self.state["rule"] = after  # pyright: ignore[reportArgumentType]
        for name, value in self.params.items():
            value.copy_(moved[name])
        return loss
