"""`python -m studies learned_optimizer [SEEDS [SHARE]]`: do learned optimizers beat tuned ones?

On quadratics and on small networks that learn digits, each seed trains three rules for one
distribution and follows them on problems they have not seen, beside gradient descent, momentum,
RMSProp and Adam, whose rates are searched for on other problems:

- a memory of gradients that says the step itself, as published (`LearnedOptimizer`);
- gates that say each coordinate's rate and momentum, from what they see of this step alone;
- both in two levels: gates that read the memory.

Gates start at the tuned rate of momentum .9. The rules of the digits are also put to deeper
networks with another activation. A SHARE of the iterations is enough for a trial, and one above 1
trains longer.
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kshot import SGD as GradientDescent
from kshot import Adam, GatedRule, LearnedOptimizer, Momentum, UpdateRule
from kshot.learners.optimization.update_rules import CoordinatewiseRule
from kshot.plots import plot_descents
from kshot.training.problems import classifiers, digits, quadratics
from kshot.training.unroll import (
    OptimizationProblem,
    descent,
    losses_along,
    summed_logarithms,
    train_unrolled,
)
from studies.optimizers import store

__all__ = ["main"]

STEPS = 200
TRAINED_STEPS = 100
# Problems to choose weights by, to choose rates by and to judge by are never the same.
VALIDATION, TUNING, TESTS = 20_000, 30_000, 40_000
RATES = [10 ** (power / 4) for power in range(-12, 5)]
TUNED: dict[str, Callable[[float], UpdateRule]] = {
    "gradient descent": GradientDescent,
    "momentum": Momentum,
    # With the averages' bias corrected, as in Adam.
    "RMSProp": functools.partial(Adam, beta1=0.0, beta2=0.99),
    "Adam": Adam,
}
MEMORY, GATES, BOTH = "memory", "gates", "memory and gates"
FIGURE = Path("docs/figures/learned_optimizer.png")
Draw = Callable[[int, torch.Generator], OptimizationProblem]


class Learned(NamedTuple):
    """A kind of rule to learn.

    Attributes:
        make: an untrained one, from the tuned rate of momentum.
        training: arguments of `train_unrolled`.
        first_order: whether the slopes that it reads are constants in training.
    """

    make: Callable[[float], CoordinatewiseRule]
    training: dict[str, Any]
    first_order: bool


class Family(NamedTuple):
    """A distribution of problems, and how rules are trained on it.

    Attributes:
        draw: some problems of it.
        rules: what is trained.
        batch: problems at once in training.
        tests: problems a seed is judged on.
        transfers: other distributions that the rules are put to.
    """

    draw: Draw
    rules: dict[str, Learned]
    batch: int
    tests: int
    transfers: dict[str, Draw]


def families() -> dict[str, Family]:
    """What there is to learn."""
    examples = digits()
    relu = functools.partial(classifiers, examples=examples, widths=(40, 40), activation="relu")
    sigmoid = functools.partial(classifiers, examples=examples)
    return {
        "quadratics": Family(
            lambda num, generator: quadratics(num, generator=generator),
            {
                MEMORY: Learned(
                    lambda rate: LearnedOptimizer(preprocessed=False),  # as the paper does here
                    {"iterations": 240, "outer_lr": 0.004, "objective": summed_logarithms},
                    first_order=True,
                ),
                **_gated({"iterations": 200, "outer_lr": 0.005}),
            },
            batch=64,
            tests=256,
            transfers={},
        ),
        "digits, 20 sigmoid units": Family(
            lambda num, generator: sigmoid(num, generator=generator),
            {
                MEMORY: Learned(
                    lambda rate: LearnedOptimizer(),
                    {"iterations": 150, "outer_lr": 0.005},
                    first_order=True,
                ),
                **_gated({"iterations": 60, "outer_lr": 0.005}),
            },
            batch=2,
            tests=8,
            transfers={
                "digits, 2 x 40 ReLU units": lambda num, generator: relu(num, generator=generator)
            },
        ),
    }


def _gated(training: dict[str, Any]) -> dict[str, Learned]:
    """Gates that read what is told of a coordinate, and gates that read a memory of it."""
    # What is gained at step 100 depends on all steps before: nothing is cut off.
    training = {**training, "truncation": TRAINED_STEPS, "objective": last_logarithms}
    return {
        name: Learned(
            lambda rate, layers=layers: GatedRule(
                num_layers=layers, enter=min(rate, 0.9), forget=None, keep=0.9
            ),
            {**training, "clip_norm": 1.0},
            first_order=False,
        )
        for name, layers in ((GATES, 0), (BOTH, 1))
    }


def main(arguments: list[str]) -> None:
    """Train, follow, store, draw."""
    torch.set_num_threads(1)
    seeds = int(arguments[0]) if arguments else 5
    share = float(arguments[1]) if len(arguments) > 1 else 1.0
    rows: list[dict[str, Any]] = []
    for name, family in families().items():
        problems = {name: family.draw, **family.transfers}
        rates = {problem: tune(draw, family.tests) for problem, draw in problems.items()}
        for seed in range(seeds):
            rules: dict[str, UpdateRule] = {}
            seconds = {}
            for kind, learned in family.rules.items():
                started = time.perf_counter()
                rules[kind] = train(family, learned, rates[name]["momentum"], seed, share)
                seconds[kind] = round(time.perf_counter() - started, 1)
            for problem, draw in problems.items():
                tests = draw(family.tests, torch.Generator().manual_seed(TESTS + seed))
                tuned = {kind: make(rates[problem][kind]) for kind, make in TUNED.items()}
                for kind, rule in {**rules, **tuned}.items():
                    losses = curve(tests, rule)
                    row = {
                        "problem": problem,
                        "optimizer": kind,
                        "seed": seed,
                        "rate": rates[problem].get(kind),
                        "train_seconds": seconds.get(kind, 0.0),
                        "loss_at_100": losses[99],
                        "loss_at_200": losses[-1],
                        "losses": [float(f"{loss:.4g}") for loss in losses],
                    }
                    rows.append(row)
                    print(f"{problem}, seed {seed}, {kind}: {losses[99]:.4g}", flush=True)
    store("learned_optimizer", rows, "loss_at_100", "loss_at_200")
    draw_figure(rows)


def train(
    family: Family, learned: Learned, rate: float, seed: int, share: float
) -> CoordinatewiseRule:
    """A rule trained on problems of a family."""
    torch.manual_seed(seed)
    rule = learned.make(rate)
    generator = torch.Generator().manual_seed(seed)
    validation = family.draw(family.tests, torch.Generator().manual_seed(VALIDATION + seed))
    iterations = max(1, round(share * learned.training["iterations"]))
    train_unrolled(
        rule,
        lambda _: descent(
            family.draw(family.batch, generator), rule, first_order=learned.first_order
        ),
        num_steps=TRAINED_STEPS,
        validation=[descent(validation, rule)],
        criterion=final_median,
        validate_every=20,
        **{**learned.training, "iterations": iterations},
    )
    return rule


def last_logarithms(losses: Tensor) -> Tensor:
    """Logarithms of the last losses: only where a descent arrives counts."""
    return (losses[-10:] + 1e-4).log().mean()


def final_median(losses: Tensor) -> Tensor:
    """The median over problems of the last losses, which are averaged over ten minibatches."""
    return losses[-10:].mean(0).median()


def tune(draw: Draw, num: int) -> dict[str, float]:
    """For each usual optimizer the rate whose median loss after 100 steps is lowest."""
    problem = draw(num, torch.Generator().manual_seed(TUNING))
    found = {}
    for name, make in TUNED.items():
        ends = {rate: curve(problem, make(rate), TRAINED_STEPS)[-1] for rate in RATES}
        found[name] = min(ends, key=lambda rate: ends[rate])
    return found


def curve(problem: OptimizationProblem, rule: UpdateRule, num_steps: int = STEPS) -> list[float]:
    """The median loss over problems after each step; infinite where it is no number."""
    losses = losses_along(descent(problem, rule), num_steps).nan_to_num(nan=torch.inf)
    return losses.median(1).values.tolist()


def draw_figure(rows: list[dict[str, Any]]) -> None:
    """Draw docs/figures/learned_optimizer.png."""
    panels: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        panels.setdefault(row["problem"], {}).setdefault(row["optimizer"], []).append(row["losses"])
    curves: Mapping[str, Mapping[str, np.ndarray]] = {
        problem: {name: np.array(each) for name, each in one.items()}
        for problem, one in panels.items()
    }
    figure = plot_descents(curves, until=TRAINED_STEPS)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=150)
