"""Learning through long unrolls: truncated backpropagation and evolution strategies."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kshot.episodes import map_tensors
from kshot.learners.optimization.update_rules import Params
from kshot.training.unroll import Unroll, losses_along, steps_along

__all__ = [
    "Estimate",
    "Objective",
    "backpropagated",
    "evolved",
    "summed",
    "summed_logarithms",
    "train_unrolled",
]

Objective = Callable[[Tensor], Tensor]
"""From losses (steps, problems) to what is to be small."""

Estimate = Callable[[Unroll, int, int, Objective], Iterator[Tensor]]
"""From a process, its steps, those of a truncation and an objective to losses, truncation by
truncation, after each of which the objective's gradient was added to `.grad`."""


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
    for counts in _truncations(num_steps, truncation):
        losses, carry = steps_along(process, carry, counts)
        objective(losses).backward()
        carry = map_tensors(Tensor.detach, carry)
        yield losses.detach()


def evolved(
    process: Unroll,
    num_steps: int,
    truncation: int,
    objective: Objective = summed,
    *,
    network: nn.Module,
    num_pairs: int,
    std: float,
    generator: torch.Generator,
    persistent: bool = True,
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
        process: what reads the network. All particles are computed at once by `torch.func.vmap`,
            to which random numbers are the same for all.
        num_steps: steps of the whole unroll.
        truncation: steps of each truncation.
        objective: what of a truncation's losses (steps, problems) is to be small.
        network: whose weights are moved.
        num_pairs: pairs of particles.
        std: standard deviation of a move.
        generator: where moves are drawn from.
        persistent: whether moves are summed.

    Yields:
        The losses of each truncation, averaged over particles.

    Raises:
        ValueError: without pairs, or for moves of no length.

    Reference:
        Unbiased Gradient Estimation in Unrolled Computation Graphs with Persistent Evolution
        Strategies. ICML 2021. https://arxiv.org/abs/2112.13835
    """
    if num_pairs < 1 or std <= 0:
        raise ValueError(f"num_pairs must be at least 1 and std above 0: {num_pairs} and {std}.")
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    moved_process = _Moved(network, process)

    def go_on(
        counts: range, particle: Params, carry: Any
    ) -> tuple[Float[Tensor, "steps problems"], Any]:
        return torch.func.functional_call(moved_process, particle, (counts, carry))

    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    carry: Any = ()
    for counts in _truncations(num_steps, truncation):
        with torch.no_grad():
            moves = {
                name: std * _normal((num_pairs, *weight.shape), weight, generator)
                for name, weight in weights.items()
            }
            sums = {name: total * persistent + moves[name] for name, total in sums.items()}
            particles = {
                f"network.{name}": weight + torch.cat([moves[name], -moves[name]])
                for name, weight in weights.items()
            }
            go_on_at_once = torch.func.vmap(partial(go_on, counts), randomness="same")
            losses, carry = go_on_at_once(particles, carry)
            ahead, behind = torch.func.vmap(objective)(losses).view(2, num_pairs)
            for name, weight in weights.items():
                slope = torch.tensordot(ahead - behind, sums[name], 1) / (2 * std**2 * num_pairs)
                weight.grad = slope if weight.grad is None else weight.grad + slope
        yield losses.mean(0)


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
    estimate: Estimate = backpropagated,
    validation: Sequence[Unroll] = (),
    criterion: Objective = summed,
    validate_every: int = 20,
) -> list[float]:
    """Learn what optimizes, with an outer step of Adam after each truncation.

    Args:
        network: what to train, in place; with validation the best weights are left in it.
        draw: the process of an iteration 0 .. iterations - 1, on problems of its own.
        iterations: processes to unroll.
        num_steps: steps of each.
        truncation: steps between outer steps.
        outer_lr: learning rate of Adam, which falls to zero as half a cosine.
        clip_norm: largest norm of the gradient; 0 leaves it as it is.
        objective: what of a truncation's losses (steps, problems) is to be small.
        estimate: adds its gradient to `.grad`: `backpropagated`, or `evolved` with its arguments.
        validation: processes on other problems, which say which weights are best.
        criterion: what of their losses (steps, problems) is to be small.
        validate_every: iterations between validations.

    Returns:
        The mean loss of each iteration, over its steps and problems.

    Raises:
        FloatingPointError: when the objective or its gradient is not finite, or the criterion at
            no validation.
        ValueError: when processes or estimate are of another network.
    """
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    history: list[float] = []
    best, best_weights = math.inf, network.state_dict()
    for iteration in range(iterations):
        optimizer.zero_grad()
        losses = []
        for part in estimate(draw(iteration), num_steps, truncation, objective):
            if all(weight.grad is None for weight in network.parameters()):
                raise ValueError("No gradient: processes and estimate must be of this network.")
            norm = nn.utils.clip_grad_norm_(network.parameters(), clip_norm or math.inf)
            if not (norm.isfinite() and objective(part).isfinite()):
                raise FloatingPointError(
                    f"Objective or gradient of iteration {iteration} is not finite: lower "
                    "outer_lr, set clip_norm, or choose an objective that forgives such losses."
                )
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
        if best == math.inf:
            raise FloatingPointError(
                "The criterion was finite at no validation: lower outer_lr, or choose one that "
                "forgives such losses. The last weights are left in the network."
            )
        network.load_state_dict(best_weights)
    return history


def _truncations(num_steps: int, truncation: int) -> list[range]:
    if min(num_steps, truncation) < 1:
        raise ValueError(
            f"An unroll and a truncation must have at least 1 step, not {num_steps} and "
            f"{truncation}."
        )
    return [
        range(first, min(first + truncation, num_steps))
        for first in range(0, num_steps, truncation)
    ]


class _Moved(nn.Module):
    """A process that reads a network, as a function of the network's weights."""

    def __init__(self, network: nn.Module, process: Unroll) -> None:
        super().__init__()
        self.network = network
        self.process = process

    def forward(self, counts: range, carry: Any) -> tuple[Float[Tensor, "steps problems"], Any]:
        if counts.start == 0:
            carry = self.process.init()
        return steps_along(self.process, carry, counts)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(like)
