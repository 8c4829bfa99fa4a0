"""Update rules against PyTorch's own optimizers, and their derivatives."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.update_rules import (
    SGD,
    UPDATE_RULES,
    Adam,
    LearnedRates,
    Momentum,
    Params,
    UpdateRule,
)

RULES: list[tuple[UpdateRule, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
    (Momentum(0.1, 0.8), torch.optim.SGD, {"lr": 0.1, "momentum": 0.8}),
    (Adam(0.1), torch.optim.Adam, {"lr": 0.1}),
    (Adam(0.1, beta1=0.0), torch.optim.Adam, {"lr": 0.1, "betas": (0.0, 0.999)}),
]
NAMES = ["sgd", "momentum", "adam", "adam without momentum"]


def bowl(params: Params, step: int) -> Tensor:
    """Another slope at each step; the third element of x never has one."""
    x, y = params["x"], params["y"]
    return (x[:2] ** 2 * (1 + step)).sum() + (y.sin() * x[0]).sum()


def start() -> Params:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
        for name in "xy"
    }


@pytest.mark.parametrize(("rule", "optimizer", "options"), RULES, ids=NAMES)
def test_a_rule_steps_as_the_optimizer_does(rule: UpdateRule, optimizer: Any, options: Any):
    *_, ours = inner_loop(bowl, start(), rule, 6)
    theirs = start()
    descent = optimizer(theirs.values(), **options)
    for step in range(6):
        descent.zero_grad()
        bowl(theirs, step).backward()
        descent.step()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])


@pytest.mark.parametrize("rule", [rule for rule, *_ in RULES], ids=NAMES)
def test_what_comes_of_the_steps_is_differentiable_also_at_slope_zero(rule: UpdateRule):
    def end(x: Tensor, y: Tensor) -> Tensor:
        *_, params = inner_loop(bowl, {"x": x, "y": y}, rule, 3)
        return bowl(params, 0)

    params = start()
    gradients = torch.autograd.grad(end(*params.values()), list(params.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    step = 1e-6
    for name, gradient in zip(params, gradients, strict=True):
        for place in range(2):
            ends = []
            for sign in (1, -1):
                moved = {key: value.detach().clone() for key, value in params.items()}
                moved[name][place] += sign * step
                ends.append(end(*moved.values()).item())
            assert gradient[place].item() == pytest.approx(
                (ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7
            )


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_rules_by_name_take_a_rate(name: str):
    *_, params = inner_loop(bowl, start(), UPDATE_RULES[name](0.01), 1)
    assert not torch.equal(params["x"], start()["x"])


def test_learned_rates_move_each_element_at_its_own():
    params = start()
    rule = LearnedRates(params, 0.01, 0.1)
    rates = torch.cat([rate.detach() for rate in rule.rates])
    assert rates.unique().numel() == 6 and rates.min() >= 0.01 and rates.max() <= 0.1
    grads = {name: torch.ones_like(value) for name, value in params.items()}
    moved, _ = rule.step(params, grads, rule.init(params), loss=torch.zeros(()))
    for (name, value), rate in zip(params.items(), rule.rates, strict=True):
        torch.testing.assert_close(moved[name], value - rate)


def test_the_gradient_of_a_rate_is_minus_the_product_of_slopes():
    """dL / d alpha = - grad L_support * grad L_query, element by element."""
    params = start()
    rule = LearnedRates(params, 0.01, 0.1)
    *_, adapted = inner_loop(bowl, params, rule, 1)
    rates = torch.autograd.grad(bowl(adapted, 1), list(rule.parameters()))
    inner = torch.autograd.grad(bowl(params, 0), list(params.values()))
    there = {name: value.detach().requires_grad_() for name, value in adapted.items()}
    outer = torch.autograd.grad(bowl(there, 1), list(there.values()))
    for rate, first, second in zip(rates, inner, outer, strict=True):
        torch.testing.assert_close(rate, -first * second)


class Cell(UpdateRule):
    """The cell of an LSTM with fixed gates: the parameters are its content."""

    def __init__(self, forget: float, enter: float) -> None:
        super().__init__()
        self.forget, self.enter = forget, enter

    def init(self, params: Params) -> tuple[()]:
        return ()

    def step(
        self, params: Params, grads: Params, state: tuple[()], *, loss: Tensor
    ) -> tuple[Params, tuple[()]]:
        candidate = {name: -grad for name, grad in grads.items()}
        return {
            name: self.forget * value + self.enter * candidate[name]
            for name, value in params.items()
        }, state


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_gradient_descent_is_an_lstm_with_fixed_gates(weight_decay: float):
    """Forget gate 1 - lr * weight_decay, input gate lr, candidate - gradient."""
    *_, ours = inner_loop(bowl, start(), Cell(1 - 0.1 * weight_decay, 0.1), 6)
    theirs = start()
    descent = torch.optim.SGD(theirs.values(), lr=0.1, weight_decay=weight_decay)
    for step in range(6):
        descent.zero_grad()
        bowl(theirs, step).backward()
        descent.step()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-12)
