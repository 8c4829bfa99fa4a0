"""Estimates of the gradient through long unrolls: where they are exact, unbiased, biased."""

import copy
import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot.learners.optimization.update_rules import GatedRule, LearnedOptimizer, Params
from kshot.training.problems import classifiers, quadratics
from kshot.training.truncated import (
    backpropagated,
    evolved,
    summed,
    summed_logarithms,
    train_unrolled,
)
from kshot.training.unroll import OptimizationProblem, Unroll, descent, losses_along


def learned() -> LearnedOptimizer:
    torch.manual_seed(0)
    return LearnedOptimizer(hidden=3).double()


def gradient(rule: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in rule.parameters() if p.grad is not None])


def test_one_truncation_is_the_whole_gradient(bowls: OptimizationProblem):
    """By a loop that is not cut, in which slopes are constants."""
    rule, problem = learned(), bowls
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


def test_truncations_carry_on_and_leave_out_what_is_before_them(bowls: OptimizationProblem):
    whole, parts = learned(), learned()
    (losses,) = backpropagated(descent(bowls, whole), 6, 6)
    pieces = list(backpropagated(descent(bowls, parts), 6, 4))
    torch.testing.assert_close(torch.cat(pieces), losses)
    assert [len(piece) for piece in pieces] == [4, 2]
    assert not torch.allclose(gradient(whole), gradient(parts))
    with pytest.raises(ValueError, match="at least 1 step"):
        next(backpropagated(descent(bowls, whole), 6, 0))


def test_second_derivatives_are_kept_where_asked_for(bowls: OptimizationProblem):
    """Then the gradient is that of the losses: central differences agree."""
    rule = learned()
    list(backpropagated(descent(bowls, rule, first_order=False), 4, 4))
    exact = gradient(rule)
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)).double()
    weights, ends = nn.utils.parameters_to_vector(rule.parameters()).detach(), []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(weights + sign * 1e-6 * direction, rule.parameters())
        ends.append(losses_along(descent(bowls, rule), 4).sum(0).mean())
    slope = float((ends[0] - ends[1]) / 2e-6)
    assert float(exact @ direction) == pytest.approx(slope, rel=1e-5)


def test_objectives_by_their_definitions():
    losses = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, 4.0]])
    assert summed(losses).item() == pytest.approx((1.5 + 2 + 7) / 3)
    expected = sum(math.log(loss + 0.01) for loss in losses.flatten().tolist()) / 3
    assert summed_logarithms(losses).item() == pytest.approx(expected)


def test_the_gradient_is_that_of_the_objective(bowls: OptimizationProblem):
    """With one step in a truncation: that of the mean logarithm over problems."""
    rule = learned()
    next(backpropagated(descent(bowls, rule), 1, 1, summed_logarithms))
    ours = gradient(rule)
    rule.zero_grad()
    process = descent(bowls, rule)
    losses, _ = process.step(process.init(), 0)
    (losses + 0.01).log().mean().backward()
    torch.testing.assert_close(ours, gradient(rule))


class Leaky(nn.Module):
    """x <- .9 x + theta, with the loss (x - 3)^2 / 2: quadratic in theta over any unroll."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.1], dtype=torch.float64))

    def process(self) -> Unroll:
        def step(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
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
        told = {"network": leaky, "std": 0.1, "generator": generator}
        list(evolved(leaky.process(), 12, 3, **told, **options))
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


def test_a_rule_is_moved_along_with_its_memory(bowls: OptimizationProblem):
    """Two steps in two truncations, by a loop that moves copies of the rule."""
    rule, problem = learned(), bowls
    before = nn.utils.parameters_to_vector(rule.parameters()).detach().clone()
    moved = {"network": rule, "num_pairs": 1, "std": 0.01}
    drawn = torch.Generator().manual_seed(0)
    losses = torch.cat(list(evolved(descent(problem, rule), 2, 1, generator=drawn, **moved)))
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
        for count, move in enumerate(moves):
            nn.utils.vector_to_parameters(before + sign * move, rule.parameters())
            with torch.no_grad():
                told[place, count], carry = descent(problem, rule).step(carry, count)
    torch.testing.assert_close(losses, told.mean(0))
    differences = (told[0] - told[1]).mean(-1) / (2 * 0.01**2)
    expected = differences[0] * moves[0] + differences[1] * (moves[0] + moves[1])
    torch.testing.assert_close(gradient(rule), expected)


def test_particles_see_the_same_minibatches_and_nothing_of_each_other():
    """As copies of the rule do that go one after the other."""
    torch.manual_seed(0)
    rule = GatedRule(num_layers=0, keep=0.9)
    examples = torch.randn(30, 4), torch.randint(3, (30,))
    problem = classifiers(2, examples, widths=(3,), generator=torch.Generator().manual_seed(0))
    moved = {"network": rule, "num_pairs": 2, "std": 0.1}
    drawn = torch.Generator().manual_seed(0)
    (losses,) = evolved(descent(problem, rule), 5, 5, generator=drawn, **moved)
    drawn = torch.Generator().manual_seed(0)
    moves = [0.1 * torch.randn(2, *weight.shape, generator=drawn) for weight in rule.parameters()]
    alone = []
    for pair, sign in itertools.product(range(2), (1, -1)):
        copied = copy.deepcopy(rule)
        with torch.no_grad():
            for weight, move in zip(copied.parameters(), moves, strict=True):
                weight.add_(sign * move[pair])
        alone.append(losses_along(descent(problem, copied), 5))
    torch.testing.assert_close(losses, torch.stack(alone).mean(0))


def test_an_objective_may_forgive_losses_that_are_not_finite():
    def step(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return (leaky.theta / 0).expand(1), x

    leaky = Leaky()
    told = {"network": leaky, "num_pairs": 2, "std": 0.1, "generator": torch.Generator()}
    process = Unroll(lambda: torch.zeros(1), step)
    (losses,) = evolved(process, 1, 1, lambda losses: losses.clamp(-1, 1).mean(), **told)
    assert not losses.isfinite().any()
    assert leaky.theta.grad is not None and leaky.theta.grad.isfinite().all()


def test_a_network_learns_by_evolution():
    """Where its slope, which `Leaky.slope` has in closed form, is zero."""
    leaky, drawn = Leaky(), torch.Generator().manual_seed(0)
    train_unrolled(
        leaky,
        lambda iteration: leaky.process(),
        iterations=60,
        num_steps=12,
        truncation=12,
        outer_lr=0.05,
        estimate=partial(evolved, network=leaky, num_pairs=4, std=0.01, generator=drawn),
    )
    with torch.no_grad():
        found = leaky.theta.item()
        leaky.theta.fill_(0)
        at_zero = leaky.slope(12)
        leaky.theta.fill_(1)
    assert found == pytest.approx(at_zero / (at_zero - leaky.slope(12)), rel=0.01)


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
    with pytest.raises(FloatingPointError, match="gradient of iteration 0 is not finite: lower"):
        train_unrolled(rule, lambda i: descent(_nowhere(), rule), iterations=1, num_steps=2)


def test_losses_that_are_not_finite_are_told_though_slopes_are():
    leaky = Leaky()
    endless = Unroll(lambda: torch.zeros(1), lambda x, count: (leaky.theta + math.inf, x))
    with pytest.raises(FloatingPointError, match="Objective or gradient of iteration 0"):
        train_unrolled(leaky, lambda i: endless, iterations=1, num_steps=1)


def test_a_criterion_that_is_never_finite_is_told():
    leaky = Leaky()
    with pytest.raises(FloatingPointError, match="criterion was finite at no validation"):
        train_unrolled(
            leaky,
            lambda i: leaky.process(),
            **{"iterations": 2, "num_steps": 3, "truncation": 3},
            validation=[leaky.process()],
            criterion=lambda losses: losses.sum() / 0,
        )


def test_what_nothing_can_be_learned_from_is_refused():
    leaky, other = Leaky(), Leaky()
    told = {"num_pairs": 2, "std": 0.1, "generator": torch.Generator()}
    for estimate in (backpropagated, partial(evolved, network=other, **told)):
        with pytest.raises(ValueError, match="must be of this network"):
            train_unrolled(leaky, lambda i: other.process(), iterations=1, estimate=estimate)
    for steps in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="at least 1 step, not"):
            list(backpropagated(leaky.process(), *steps))
    for wrong in ({"num_pairs": 0}, {"std": 0.0}, {"std": -0.1}):
        with pytest.raises(ValueError, match="num_pairs must be at least 1 and std above 0"):
            list(evolved(leaky.process(), 1, 1, network=leaky, **(told | wrong)))


def _nowhere() -> OptimizationProblem:
    return OptimizationProblem({"x": torch.ones(1, 1)}, lambda p, step: p["x"].sum(-1) / 0)
