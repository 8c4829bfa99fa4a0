"""`python -m studies learned_optimizer [SEEDS [SHARE]]`: does a learned optimizer beat tuned ones?

On quadratics and on small networks that learn digits, each seed trains a rule for one distribution
and follows it on problems it has not seen, beside gradient descent, momentum, RMSProp and Adam,
whose rates are searched for on other problems. The rule of the digits is also put to deeper
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
from kshot import Adam, LearnedOptimizer, Momentum, UpdateRule
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
FIGURE = Path("docs/figures/learned_optimizer.png")
Draw = Callable[[int, torch.Generator], OptimizationProblem]


class Family(NamedTuple):
    """A distribution of problems, and how a rule is trained on it.

    Attributes:
        draw: some problems of it.
        rule: an untrained rule.
        training: arguments of `train_unrolled`.
        batch: problems at once in training.
        tests: problems a seed is judged on.
    """

    draw: Draw
    rule: Callable[[], LearnedOptimizer]
    training: dict[str, Any]
    batch: int
    tests: int


def main(arguments: list[str]) -> None:
    """Train, follow, store, draw."""
    torch.set_num_threads(1)
    seeds = int(arguments[0]) if arguments else 5
    share = float(arguments[1]) if len(arguments) > 1 else 1.0
    examples = digits()
    sigmoid = functools.partial(classifiers, examples=examples)
    relu = functools.partial(classifiers, examples=examples, widths=(40, 40), activation="relu")
    families = {
        "quadratics": Family(
            lambda num, generator: quadratics(num, generator=generator),
            lambda: LearnedOptimizer(preprocessed=False),  # as the paper does here
            {"iterations": 240, "outer_lr": 0.004, "objective": summed_logarithms},
            128,
            256,
        ),
        "digits, 20 sigmoid units": Family(
            lambda num, generator: sigmoid(num, generator=generator),
            lambda: LearnedOptimizer(),
            {"iterations": 150, "outer_lr": 0.005},
            2,
            8,
        ),
    }
    transfers = {
        "digits, 2 x 40 ReLU units": (
            "digits, 20 sigmoid units",
            lambda num, generator: relu(num, generator=generator),
        )
    }
    rows: list[dict[str, Any]] = []
    for name, family in families.items():
        others = {to: draw for to, (source, draw) in transfers.items() if source == name}
        rates = {
            to: tune(draw, family.tests) for to, draw in [(name, family.draw), *others.items()]
        }
        for seed in range(seeds):
            started = time.perf_counter()
            rule = train(family, seed, share)
            seconds = round(time.perf_counter() - started, 1)
            for problem, draw in [(name, family.draw), *others.items()]:
                tests = draw(family.tests, torch.Generator().manual_seed(TESTS + seed))
                curves = {"learned": curve(tests, rule)}
                for kind, make in TUNED.items():
                    curves[kind] = curve(tests, make(rates[problem][kind]))
                rows += [
                    {
                        "problem": problem,
                        "optimizer": kind,
                        "seed": seed,
                        "rate": None if kind == "learned" else rates[problem][kind],
                        "train_seconds": seconds if kind == "learned" else 0.0,
                        "loss_at_100": losses[99],
                        "loss_at_200": losses[-1],
                        "losses": [float(f"{loss:.4g}") for loss in losses],
                    }
                    for kind, losses in curves.items()
                ]
    store("learned_optimizer", rows, "loss_at_100")
    draw_figure(rows)


def train(family: Family, seed: int, share: float) -> LearnedOptimizer:
    """A rule trained on problems of a family."""
    torch.manual_seed(seed)
    rule = family.rule()
    generator = torch.Generator().manual_seed(seed)
    validation = family.draw(family.tests, torch.Generator().manual_seed(VALIDATION + seed))
    options = {
        **family.training,
        "iterations": max(1, round(share * family.training["iterations"])),
    }
    train_unrolled(
        rule,
        lambda _: descent(family.draw(family.batch, generator), rule),
        num_steps=TRAINED_STEPS,
        validation=[descent(validation, rule)],
        criterion=final_median,
        validate_every=20,
        **options,
    )
    return rule


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
