"""What can be unrolled step by step: descents of update rules, searches without gradients."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

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
    "descent",
    "losses_along",
    "search",
    "steps_along",
]


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
        step: from what is carried, and the number of steps before, to the losses (problems,) of a
            step and what is carried on.
    """

    init: Callable[[], Any]
    step: Callable[[Any, int], tuple[Float[Tensor, " problems"], Any]]


class Descent(NamedTuple):
    """What is carried from one step of an update rule to the next.

    Attributes:
        params: where it is, each (problems, *shape).
        state: what the rule remembers.
        grads: slopes there.
        losses: (problems,) there.
    """

    params: Params
    state: RuleState
    grads: Params
    losses: Float[Tensor, " problems"]


def descent(problem: OptimizationProblem, rule: UpdateRule, *, first_order: bool = True) -> Unroll:
    """An update rule at work on some problems; the loss of a step is the one it leads to.

    Args:
        problem: what to minimize.
        rule: by what; each problem has a state of its own.
        first_order: take the slopes that the rule reads as constants; evolution strategies, which
            differentiate nothing, see what depends on them all the same.

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
        return Descent(params, state, grads, losses)

    def step(before: Descent, count: int) -> tuple[Tensor, Descent]:
        told = before.losses.detach() if first_order else before.losses
        given = before.params, before.grads, before.state
        params, state = move(*given, told.sum()) if at_once else map_tasks(move, *given, told)
        losses, grads = _losses_and_slopes(problem, params, count + 1, first_order)
        return losses, Descent(params, state, grads, losses)

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

    Raises:
        ValueError: when the functions are not of `x` alone, or of another dimension.
    """
    shapes = {name: tuple(value.shape[1:]) for name, value in problem.init.items()}
    if shapes != {"x": (optimizer.dim,)}:
        raise ValueError(
            f"A black-box optimizer of {optimizer.dim} dimensions minimizes functions of x, of "
            f"shape ({optimizer.dim},) each; these are of "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items())}."
        )

    def init() -> Search:
        return optimizer.start(len(problem.init["x"]))

    def step(before: Search, count: int) -> tuple[Tensor, Search]:
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
        return steps_along(process, process.init(), range(num_steps))[0]


def steps_along(
    process: Unroll, carry: Any, counts: Iterable[int]
) -> tuple[Float[Tensor, "steps problems"], Any]:
    """The losses of some steps, by their numbers, and what is carried on."""
    losses = []
    for count in counts:
        loss, carry = process.step(carry, count)
        losses.append(loss)
    return torch.stack(losses), carry


def _losses_and_slopes(
    problem: OptimizationProblem, params: Params, step: int, first_order: bool
) -> tuple[Float[Tensor, " problems"], Params]:
    """Losses that are functions of the parameters, and slopes: one pass each way for both."""
    if not torch.is_grad_enabled():  # this can be vectorized, and cannot keep the graph

        def total(params: Params) -> tuple[Tensor, Tensor]:
            losses = problem.loss(params, step)
            return losses.sum(), losses

        slopes, losses = torch.func.grad(total, has_aux=True)(params)
        return losses, slopes
    there = {
        name: value if value.requires_grad else value.detach().requires_grad_()
        for name, value in params.items()
    }
    losses = problem.loss(there, step)
    slopes = torch.autograd.grad(
        losses.sum(),
        list(there.values()),
        create_graph=not first_order,
        retain_graph=True,
        materialize_grads=True,
    )
    return losses, dict(zip(there, slopes, strict=True))
