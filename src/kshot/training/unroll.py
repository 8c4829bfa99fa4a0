"""Long unrolls of what learns to optimize: truncated backpropagation and evolution strategies."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.episodes import map_tensors
from kshot.learners.optimization.black_box import BlackBoxOptimizer, Search
from kshot.learners.optimization.update_rules import (
    CoordinatewiseRule,
    Params,
    RuleState,
    UpdateRule,
)
from kshot.learners.task_map import map_tasks

__all__ = [
    "Descent",
    "OptimizationProblem",
    "Unroll",
    "backpropagated",
    "descent",
    "evolved",
    "losses_along",
    "search",
    "summed",
    "summed_logarithms",
    "train_unrolled",
]

Objective = Callable[[Tensor], Tensor]
"""From losses (steps, problems) to what is to be small."""


@dataclass(frozen=True)
class OptimizationProblem:
    """A batch of functions to minimize, which are no tasks of examples.

    Attributes:
        init: where to start, each parameter (problems, *shape).
        loss: from parameters and a step to the losses (problems,); the step says which minibatch,
            where there are any. No problem's loss depends on another's parameters.
    """

    init: Params
    loss: Callable[[Params, int], Float[Tensor, " problems"]]


@dataclass(frozen=True)
class Unroll:
    """A process that goes on from what it carries, by weights that are to be learned.

    Attributes:
        init: what is carried into the first step: nested tuples and dictionaries of tensors.
        step: from what is carried to the losses (problems,) of a step and what is carried on.
    """

    init: Callable[[], Any]
    step: Callable[[Any], tuple[Float[Tensor, " problems"], Any]]


class Descent(NamedTuple):
    """What is carried from one step of an update rule to the next.

    Attributes:
        params: where it is, each (problems, *shape).
        state: what the rule remembers.
        grads: slopes there.
        losses: (problems,) there.
        count: steps taken.
    """

    params: Params
    state: RuleState
    grads: Params
    losses: Float[Tensor, " problems"]
    count: int


def descent(problem: OptimizationProblem, rule: UpdateRule, *, first_order: bool = True) -> Unroll:
    """An update rule at work on some problems; the loss of a step is the one it leads to.

    Args:
        problem: what to minimize.
        rule: by what; each problem has a state of its own.
        first_order: take the slopes that the rule reads as constants.

    Example:
        >>> from kshot.learners.optimization.update_rules import SGD
        >>> problem = OptimizationProblem(
        ...     {"x": torch.ones(3, 2)}, lambda params, step: params["x"].square().sum(-1)
        ... )
        >>> losses_along(descent(problem, SGD(lr=0.25)), 2)[:, 0]
        tensor([0.5000, 0.1250])
    """
    # To a rule that is told of single coordinates, those of all problems are one long list.
    at_once = isinstance(rule, CoordinatewiseRule) and not rule.reads_loss

    def move(params: Params, grads: Params, state: RuleState, loss: Tensor) -> Any:
        return rule.step(params, grads, state, loss=loss)

    def init() -> Descent:
        params = map_tensors(Tensor.detach, problem.init)
        losses, grads = _losses_and_slopes(problem, params, 0, first_order)
        state = rule.init(params) if at_once else map_tasks(rule.init, params)
        return Descent(params, state, grads, losses, 0)

    def step(before: Descent) -> tuple[Tensor, Descent]:
        told = before.losses.detach() if first_order else before.losses
        given = before.params, before.grads, before.state
        params, state = move(*given, told.sum()) if at_once else map_tasks(move, *given, told)
        count = before.count + 1
        losses, grads = _losses_and_slopes(problem, params, count, first_order)
        return losses, Descent(params, state, grads, losses, count)

    return Unroll(init, step)


def search(
    problem: OptimizationProblem,
    optimizer: BlackBoxOptimizer,
    *,
    observed_improvement: bool = False,
) -> Unroll:
    """A network at work on functions of `x` in the unit cube, which it evaluates and no more.

    Args:
        problem: what to minimize; where it says to start does not matter.
        optimizer: by what.
        observed_improvement: let the loss of a step be by how much its value is below the lowest so
            far, or zero, instead of the value (L_OI instead of L_sum in the paper).
    """

    def init() -> Search:
        return optimizer.start(len(problem.init["x"]))

    def step(before: Search) -> tuple[Tensor, Search]:
        values = problem.loss({"x": before.x}, 0)
        lowest = before.lowest
        if observed_improvement:
            # The first value improves on the functions' mean, zero.
            improvement = (values - torch.where(lowest.isfinite(), lowest, 0)).clamp_max(0)
            return improvement, optimizer.observe(before, values)
        return values, optimizer.observe(before, values)

    return Unroll(init, step)


def losses_along(process: Unroll, num_steps: int) -> Float[Tensor, "steps problems"]:
    """The losses of some steps, with nothing kept for a backward pass."""
    with torch.no_grad():
        return _steps(process, process.init(), num_steps)[0]


def summed(losses: Float[Tensor, "steps problems"]) -> Float[Tensor, ""]:
    """Losses summed over steps and averaged over problems."""
    return losses.sum(0).mean()


def summed_logarithms(
    losses: Float[Tensor, "steps problems"], floor: float = 0.01
) -> Float[Tensor, ""]:
    """Logarithms of losses (not negative) plus a floor, summed over steps, averaged over problems.

    A loss that falls from 2 to 1 is worth as much as one that falls from 20 to 10, so that hard
    problems do not outweigh all others; below the floor there is little more to win.
    """
    return (losses + floor).log().sum(0).mean()


def backpropagated(
    process: Unroll, num_steps: int, truncation: int, objective: Objective = summed
) -> Iterator[Float[Tensor, "steps problems"]]:
    """Truncated backpropagation through time.

    The steps are cut into truncations. After each one the gradient of its objective is added to
    `.grad` of what the process reads, and what is carried on is a constant: so an outer step may be
    taken between truncations, memory is that of one, and what earlier steps did to later
    truncations is left out.

    Args:
        process: what to unroll.
        num_steps: steps of the whole unroll.
        truncation: steps of each truncation.
        objective: what of a truncation's losses (steps, problems) is to be small.

    Yields:
        The losses of each truncation.
    """
    carry = process.init()
    for length in _truncations(num_steps, truncation):
        losses, carry = _steps(process, carry, length)
        objective(losses).backward()
        carry = map_tensors(Tensor.detach, carry)
        yield losses.detach()


def evolved(
    process: Unroll,
    network: nn.Module,
    num_steps: int,
    truncation: int,
    *,
    num_pairs: int,
    std: float,
    generator: torch.Generator,
    persistent: bool = True,
    objective: Objective = summed,
) -> Iterator[Float[Tensor, "steps problems"]]:
    """Persistent evolution strategies: truncated, and yet without bias.

    Pairs of particles carry on the process with the network's weights moved by e and by -e, drawn
    from N(0, std^2) anew in each truncation. With L the objective of a truncation, what is added to
    `.grad` after it is the mean over pairs of

        (L(theta + e) - L(theta - e)) / (2 std^2) * xi,   xi the sum of all e of the pair so far,

    since the losses of a truncation depend on every move before it (equation 8 of the paper). It is
    an unbiased estimate of the slope of the whole unroll's losses, smoothed by the moves. With e in
    the place of xi, plain truncated evolution strategies, it is not. Nothing is differentiated:
    processes that jump, or whose derivatives explode, serve as well.

    Args:
        process: what reads the network; every particle starts alike.
        network: whose weights are moved.
        num_steps: steps of the whole unroll.
        truncation: steps of each truncation.
        num_pairs: pairs of particles.
        std: standard deviation of a move.
        generator: where moves are drawn from.
        persistent: whether moves are summed.
        objective: what of a truncation's losses (steps, problems) is to be small.

    Yields:
        The losses of each truncation, averaged over particles.

    Reference:
        Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution
        Strategies. ICML 2021. https://arxiv.org/abs/2112.13835
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    carries: dict[tuple[int, int], Any] = {}
    sums = [[torch.zeros_like(weight) for weight in weights] for _ in range(num_pairs)]
    for length in _truncations(num_steps, truncation):
        told = []
        for pair in range(num_pairs):
            moves = [std * _normal_like(weight, generator) for weight in weights]
            for total, move in zip(sums[pair], moves, strict=True):
                total.mul_(float(persistent)).add_(move)
            for sign in (1, -1):
                with torch.no_grad(), _moved(weights, moves, sign):
                    if (pair, sign) not in carries:
                        carries[pair, sign] = process.init()
                    losses, carries[pair, sign] = _steps(process, carries[pair, sign], length)
                told.append(losses)
            difference = objective(told[-2]) - objective(told[-1])
            for weight, total in zip(weights, sums[pair], strict=True):
                slope = difference / (2 * std**2 * num_pairs) * total
                weight.grad = slope if weight.grad is None else weight.grad + slope
        yield torch.stack(told).mean(0)


def train_unrolled(
    network: nn.Module,
    draw: Callable[[int], Unroll],
    *,
    iterations: int,
    num_steps: int = 100,
    truncation: int = 20,
    outer_lr: float = 1e-3,
    clip_norm: float = 0.0,
    objective: Objective = summed,
    validation: Sequence[Unroll] = (),
    criterion: Objective = summed,
    validate_every: int = 20,
) -> list[float]:
    """Learn what optimizes, by truncated backpropagation; an outer step of Adam a truncation.

    Args:
        network: what to train, in place; with validation the best weights are left in it.
        draw: the process of an iteration 0 .. iterations - 1, on problems of its own.
        iterations: processes to unroll.
        num_steps: steps of each.
        truncation: steps between outer steps.
        outer_lr: learning rate of Adam, which falls to zero as half a cosine.
        clip_norm: largest norm of the gradient; 0 leaves it as it is.
        objective: what of a truncation's losses (steps, problems) is to be small.
        validation: processes on other problems, which say which weights are best.
        criterion: what of their losses (steps, problems) is to be small.
        validate_every: iterations between validations.

    Returns:
        The mean loss of each iteration, over its steps and problems.

    Raises:
        FloatingPointError: when losses are not finite.
    """
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    history: list[float] = []
    best, best_weights = math.inf, network.state_dict()
    for iteration in range(iterations):
        optimizer.zero_grad()
        losses = []
        for part in backpropagated(draw(iteration), num_steps, truncation, objective):
            if not bool(part.isfinite().all()):
                raise FloatingPointError(
                    f"Losses of iteration {iteration} are not finite: lower outer_lr, or set "
                    "clip_norm."
                )
            nn.utils.clip_grad_norm_(network.parameters(), clip_norm or math.inf)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(part)
        schedule.step()
        history.append(torch.cat(losses).mean().item())
        done = iteration + 1 == iterations
        if validation and (done or (iteration + 1) % validate_every == 0):
            scores = [criterion(losses_along(process, num_steps)) for process in validation]
            score = torch.stack(scores).mean().item()
            if score < best:
                best, best_weights = score, map_tensors(Tensor.clone, dict(network.state_dict()))
    if validation:
        network.load_state_dict(best_weights)
    return history


def _truncations(num_steps: int, truncation: int) -> list[int]:
    if truncation < 1:
        raise ValueError(f"A truncation must have at least 1 step, not {truncation}.")
    return [min(truncation, num_steps - first) for first in range(0, num_steps, truncation)]


def _steps(process: Unroll, carry: Any, count: int) -> tuple[Float[Tensor, "steps problems"], Any]:
    losses = []
    for _ in range(count):
        loss, carry = process.step(carry)
        losses.append(loss)
    return torch.stack(losses), carry


def _losses_and_slopes(
    problem: OptimizationProblem, params: Params, step: int, first_order: bool
) -> tuple[Float[Tensor, " problems"], Params]:
    """Losses that are functions of the parameters, and slopes: one pass each way for both."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        there = {
            name: value if value.requires_grad else value.detach().requires_grad_()
            for name, value in params.items()
        }
        losses = problem.loss(there, step)
        slopes = torch.autograd.grad(
            losses.sum(),
            list(there.values()),
            create_graph=differentiable and not first_order,
            retain_graph=differentiable,
            materialize_grads=True,
        )
    grads = dict(zip(there, slopes, strict=True))
    return (losses if differentiable else losses.detach()), grads


def _normal_like(weight: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(weight.shape, generator=generator, device=generator.device)
    return drawn.to(weight)


@contextlib.contextmanager
def _moved(weights: Sequence[Tensor], moves: Sequence[Tensor], sign: int) -> Iterator[None]:
    """Within: weights moved by some numbers."""
    before = [weight.detach().clone() for weight in weights]
    for weight, move in zip(weights, moves, strict=True):
        weight.data.add_(move, alpha=sign)
    try:
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.data.copy_(value)
