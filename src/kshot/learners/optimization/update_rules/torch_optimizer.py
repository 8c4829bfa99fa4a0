"""An update rule handed out as an ordinary PyTorch optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kshot.episodes import leaves, map_tensors, with_leaves
from kshot.learners.optimization.update_rules.base import Params, RuleState, UpdateRule

__all__ = ["torch_optimizer"]


def torch_optimizer(
    rule: UpdateRule, named_parameters: Iterable[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """An optimizer that moves some parameters by an update rule, a meta-learned one too.

    It works wherever a `torch.optim.Optimizer` does, with schedulers of the rule's own making only:
    a rule has no learning rate that a scheduler could change. Parameters that need no gradient, or
    have none, stay; a gradient of zero does not mean that: a learned rule may move along what it
    remembers. Its `state_dict` holds what the rule remembers.

    Args:
        rule: how gradients move parameters; it is used, not trained.
        named_parameters: what to move, as `net.named_parameters()` gives it; a rule with a rate for
            each parameter knows them by these names.

    Raises:
        ValueError: from `step()` without a closure, by a rule that reads the loss.

    Example:
        >>> from kshot.learners.optimization.update_rules import Adam
        >>> net = nn.Linear(2, 1)
        >>> optimizer = torch_optimizer(Adam(lr=0.1), net.named_parameters())
        >>> net(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
    """
    return _RuleOptimizer(rule, {name: p for name, p in named_parameters if p.requires_grad})


class _RuleOptimizer(torch.optim.Optimizer):
    def __init__(self, rule: UpdateRule, params: dict[str, nn.Parameter]) -> None:
        super().__init__(params.values(), {})
        self.rule = rule
        self.params = params
        self.form: RuleState = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore
        """Move the parameters; with a closure, which computes loss and gradients, its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        elif self.rule.reads_loss:
            raise ValueError(
                "This rule reads the loss. Call step(closure), where closure() computes the loss "
                "and its gradients and returns the loss."
            )
        values: dict[str, Tensor] = {name: value.detach() for name, value in self.params.items()}
        grads = {
            name: torch.zeros_like(value) if value.grad is None else value.grad
            for name, value in self.params.items()
        }
        told = torch.zeros(()) if loss is None else torch.as_tensor(loss).detach()
        moved, after = self.rule.step(values, grads, self._remembered(values), loss=told)
        self.state["rule"] = leaves(after)  # pyright: ignore[reportArgumentType]
        for name, value in self.params.items():
            if value.grad is not None:
                value.copy_(moved[name])
        return loss

    def _remembered(self, values: Params) -> RuleState:
        """What the rule remembers: `state` has tensors alone, which any file can hold."""
        if self.form is None or "rule" not in self.state:  # pyright: ignore
            start = self.rule.init(values)
            self.form = map_tensors(lambda tensor: tensor.to("meta"), start)
            self.state.setdefault("rule", leaves(start))  # pyright: ignore
        return with_leaves(self.form, self.state["rule"])  # pyright: ignore
