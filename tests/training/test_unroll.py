"""Estimates of the gradient through long unrolls: where they are exact, unbiased, biased."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.update_rules import (
    SGD,
    Adam,
    GatedRule,
    LearnedOptimizer,
    Params,
    UpdateRule,
)
from kshot.training.problems import quadratics
from kshot.training.unroll import (
    OptimizationProblem,
    Unroll,
    backpropagated,
    descent,
    evolved,
    losses_along,
    summed,
    summed_logarithms,
    train_unrolled,
)


def bowls() -> OptimizationProblem:
    problem = quadratics(3, 4, generator=torch.Generator().manual_seed(0))
    matrices = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)).double() / 2

    def loss(params: Params, step: int) -> Tensor:
        return (matrices @ params["theta"].unsqueeze(-1)).square().sum((1, 2)) * (1 + step)

    return OptimizationProblem({"theta": 100 * problem.init["theta"].double()}, loss)


@pytest.mark.parametrize("rule", [SGD(0.05), Adam(0.1), GatedRule(), LearnedOptimizer()])
def test_problems_at_once_are_each_alone_in_the_inner_loop(rule: UpdateRule):
    problem, rule = bowls(), rule.double()
    losses = losses_along(descent(problem, rule), 5)
    for number in range(3):

        def loss(params: Params, step: int, number: int = number) -> Tensor:
            everything = {
                "theta": torch.zeros(3, 4)
                .double()
                .index_put((torch.tensor([number]),), params["theta"].unsqueeze(0))
            }
            return problem.loss(everything, step)[number]

        start = {"theta": problem.init["theta"][number]}
        trajectory = list(inner_loop(loss, start, rule, 5, first_order=True))
        expected = torch.stack([loss(p, step) for step, p in enumerate(trajectory)][1:])
        torch.testing.assert_close(losses[:, number], expected.detach())


def learned() -> LearnedOptimizer:
    torch.manual_seed(0)
    return LearnedOptimizer(hidden=3).double()


def gradient(rule: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in rule.parameters() if p.grad is not None])


def test_one_truncation_is_the_whole_gradient():
    """By a loop that is not cut, in which slopes are constants."""
    rule, problem = learned(), bowls()
    losses = list(backpropagated(descent(problem, rule), 6, 6))
    assert len(losses) == 1 and losses[0].shape == (6, 3)
    ours = gradient(rule)
    rule.zero_grad()
    total = torch.zeros(()).double()
    for number in range(3):
        params: Params = {"theta": problem.init["theta"][number]}
        state = rule.init(params)
        for step in range(6):
            there = params["theta"].detach().requires_grad_()
            matrix_loss = problem.loss({"theta": there.expand(3, 4)}, step)[number]
            (slope,) = torch.autograd.grad(matrix_loss, there)
            params, state = rule.step(params, {"theta": slope}, state, loss=matrix_loss.detach())
            total = total + problem.loss({"theta": params["theta"].expand(3, 4)}, step + 1)[number]
    (total / 3).backward()
    torch.testing.assert_close(ours, gradient(rule))
    torch.testing.assert_close(losses[0].sum(0).mean(), (total / 3).detach())


def test_truncations_carry_on_and_leave_out_what_is_before_them():
    whole, parts = learned(), learned()
    (losses,) = backpropagated(descent(bowls(), whole), 6, 6)
    pieces = list(backpropagated(descent(bowls(), parts), 6, 4))
    torch.testing.assert_close(torch.cat(pieces), losses)
    assert [len(piece) for piece in pieces] == [4, 2]
    assert not torch.allclose(gradient(whole), gradient(parts))
    with pytest.raises(ValueError, match="at least 1 step"):
        next(backpropagated(descent(bowls(), whole), 6, 0))


def test_second_derivatives_are_kept_where_asked_for():
    """Then the gradient is that of the losses: central differences agree."""
    rule = learned()
    list(backpropagated(descent(bowls(), rule, first_order=False), 4, 4))
    exact = gradient(rule)
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)).double()
    weights, ends = nn.utils.parameters_to_vector(rule.parameters()).detach(), []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(weights + sign * 1e-6 * direction, rule.parameters())
        ends.append(losses_along(descent(bowls(), rule), 4).sum(0).mean())
    slope = float((ends[0] - ends[1]) / 2e-6)
    assert float(exact @ direction) == pytest.approx(slope, rel=1e-5)


def test_objectives_by_their_definitions():
    losses = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 4.0]])
    assert summed(losses).item() == pytest.approx((1.5 + 2 + 7) / 3)
    expected = sum(math.log(loss + 0.01) for loss in losses.flatten().tolist()) / 3
    assert summed_logarithms(losses).item() == pytest.approx(expected)


def test_the_gradient_is_that_of_the_objective():
    """With one step in a truncation: that of the mean logarithm over problems."""
    rule = learned()
    next(backpropagated(descent(bowls(), rule), 1, 1, summed_logarithms))
    ours = gradient(rule)
    rule.zero_grad()
    process = descent(bowls(), rule)
    losses, _ = process.step(process.init())
    (losses + 0.01).log().mean().backward()
    torch.testing.assert_close(ours, gradient(rule))


class Leaky(nn.Module):
    """x <- .9 x + theta, with the loss (x - 3)^2 / 2: quadratic in theta over any unroll."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.1], dtype=torch.float64))

    def process(self) -> Unroll:
        def step(x: Tensor) -> tuple[Tensor, Tensor]:
            x = 0.9 * x + self.theta
            return (x - 3).square() / 2, x

        return Unroll(lambda: torch.zeros(1, dtype=torch.float64), step)

    def slope(self, num_steps: int) -> float:
        """Of the sum of losses in theta, in closed form: x_t = theta (1 - .9^t) / .1."""
        reach = [(1 - 0.9**t) / 0.1 for t in range(1, num_steps + 1)]
        return sum((self.theta.item() * each - 3) * each for each in reach)


def estimates(**options: Any) -> list[float]:
    leaky, found = Leaky(), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        leaky.zero_grad()
        list(evolved(leaky.process(), leaky, 12, 3, std=0.1, generator=generator, **options))
        assert leaky.theta.grad is not None
        found.append(leaky.theta.grad.item())
    assert leaky.theta.item() == 0.1, "the weights are as they were"
    return found


@pytest.mark.parametrize("num_pairs", [1, 4])
def test_persistent_evolution_strategies_have_no_bias(num_pairs: int):
    found = torch.tensor(estimates(num_pairs=num_pairs))
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - Leaky().slope(12)) < 3 * error
    assert error < 0.09 * abs(Leaky().slope(12)), "and that is a narrow interval"


def test_plain_truncated_evolution_strategies_have():
    found = torch.tensor(estimates(num_pairs=4, persistent=False))
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - Leaky().slope(12)) > 15 * error
    # What they estimate is what truncated backpropagation computes.
    leaky = Leaky()
    list(backpropagated(leaky.process(), 12, 3))
    assert leaky.theta.grad is not None
    assert abs(found.mean() - leaky.theta.grad.item()) < 3 * error


def test_a_rule_is_moved_along_with_its_memory():
    """Two steps in two truncations, by a loop that moves copies of the rule."""
    rule, problem = learned(), bowls()
    before = nn.utils.parameters_to_vector(rule.parameters()).detach().clone()
    options = {"num_pairs": 1, "std": 0.01, "generator": torch.Generator().manual_seed(0)}
    losses = torch.cat(list(evolved(descent(problem, rule), rule, 2, 1, **options)))
    assert torch.equal(nn.utils.parameters_to_vector(rule.parameters()), before)
    drawn = torch.Generator().manual_seed(0)
    shapes = [p.shape for p in rule.parameters()]
    moves = [
        0.01
        * torch.cat([torch.randn(shape, generator=drawn).double().flatten() for shape in shapes])
        for _ in range(2)
    ]
    told = torch.zeros(2, 2, 3).double()  # sign, step, problem
    for place, sign in enumerate((1, -1)):
        carry = descent(problem, rule).init()
        for step, move in enumerate(moves):
            nn.utils.vector_to_parameters(before + sign * move, rule.parameters())
            with torch.no_grad():
                told[place, step], carry = descent(problem, rule).step(carry)
    torch.testing.assert_close(losses, told.mean(0))
    differences = (told[0] - told[1]).mean(-1) / (2 * 0.01**2)
    expected = differences[0] * moves[0] + differences[1] * (moves[0] + moves[1])
    torch.testing.assert_close(gradient(rule), expected)


def test_a_rule_learns_by_backpropagation_and_the_best_is_kept():
    torch.manual_seed(0)
    rule = LearnedOptimizer(hidden=8, preprocessed=False)
    test = descent(quadratics(20, generator=torch.Generator().manual_seed(1)), rule)
    before = losses_along(test, 20)[-1].median()
    generator = torch.Generator().manual_seed(0)

    def draw(iteration: int) -> Unroll:
        return descent(quadratics(32, generator=generator), rule)

    history = train_unrolled(
        rule,
        draw,
        iterations=20,
        num_steps=20,
        truncation=10,
        outer_lr=0.01,
        validation=[test],
        validate_every=5,
    )
    assert len(history) == 20 and history[-1] < 0.9 * history[0]
    assert losses_along(test, 20)[-1].median() < 0.8 * before
    with pytest.raises(FloatingPointError, match="lower outer_lr"):
        train_unrolled(rule, lambda i: descent(_nowhere(), rule), iterations=1, num_steps=2)


def _nowhere() -> OptimizationProblem:
    return OptimizationProblem({"x": torch.ones(1, 1)}, lambda p, step: p["x"].sum(-1) / 0)
