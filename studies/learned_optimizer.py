"""`python -m studies learned_optimizer [SEEDS [SHARE]]`: do learned optimizers beat tuned ones?

On quadratics and on small networks that learn digits, each seed trains three rules for one
distribution and follows them on problems they have not seen, beside gradient descent, momentum,
RMSProp and Adam, whose rates are searched for on other problems:

- a memory of gradients that says the step itself, as published (`LearnedOptimizer`);
- gates that say each coordinate's rate and momentum, from what they see of this step alone;
- both in two levels: gates that read the memory.

Gates start near half the tuned rate of momentum .9, and learn by evolution strategies: exact
gradients through a hundred of their steps explode. The rules of the digits are also put to wider
and deeper networks and to another activation. A SHARE of the iterations is enough for a trial, and
one above 1 trains longer. A rule that is in runs/learned_optimizer already is not trained again.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kshot import SGD as GradientDescent
from kshot import Adam, GatedRule, LearnedOptimizer, Momentum, UpdateRule
from kshot.learners.optimization.update_rules import CoordinatewiseRule
from kshot.plots import plot_descents
from kshot.training.problems import classifiers, digits, quadratics
from kshot.training.truncated import (
    backpropagated,
    evolved,
    summed_logarithms,
    train_unrolled,
)
from kshot.training.unroll import OptimizationProblem, descent, losses_along
from studies.optimizers import store

__all__ = ["main"]

STEPS = 200
TRAINED_STEPS = 100
# Problems to choose weights by, to choose rates by and to judge by are never the same.
VALIDATION, TUNING, TESTS = 20_000, 30_000, 40_000
RATES = [10 ** (power / 4) for power in range(-12, 5)]
FINER = 10 ** (1 / 8)
TUNED: dict[str, Callable[[float], UpdateRule]] = {
    "gradient descent": GradientDescent,
    "momentum": Momentum,
    # With the averages' bias corrected, as in Adam.
    "RMSProp": functools.partial(Adam, beta1=0.0, beta2=0.99),
    "Adam": Adam,
}
MEMORY, GATES, BOTH = "memory", "gates", "memory and gates"
RUNS = Path("runs/learned_optimizer")
FIGURE = Path("docs/figures/learned_optimizer.png")
Draw = Callable[[int, torch.Generator], OptimizationProblem]


class Learned(NamedTuple):
    """A kind of rule to learn.

    Attributes:
        make: an untrained one, from the tuned rate of momentum.
        training: arguments of `train_unrolled`.
        batch: problems at once in training.
        evolves: whether by evolution strategies.
    """

    make: Callable[[float], CoordinatewiseRule]
    training: dict[str, Any]
    batch: int
    evolves: bool = False


class Family(NamedTuple):
    """A distribution of problems, and how rules are trained on it.

    Attributes:
        draw: some problems of it.
        rules: what is trained.
        tests: problems a seed is judged on.
        transfers: other distributions that the rules are put to.
    """

    draw: Draw
    rules: dict[str, Learned]
    tests: int
    transfers: dict[str, Draw]


def families() -> dict[str, Family]:
    """What there is to learn."""
    images = digits()

    def networks(widths: tuple[int, ...], activation: Literal["sigmoid", "relu"]) -> Draw:
        return lambda num, generator: classifiers(
            num, images, widths=widths, activation=activation, generator=generator
        )

    return {
        "quadratics": Family(
            lambda num, generator: quadratics(num, generator=generator),
            {
                MEMORY: Learned(
                    lambda rate: LearnedOptimizer(preprocessed=False),  # as the paper does here
                    {"iterations": 240, "outer_lr": 0.004, "objective": summed_logarithms},
                    batch=64,
                ),
                **_gated(600, batch=32, scale=1.0, between=(1e-3, 10.0)),
            },
            tests=1024,
            transfers={},
        ),
        "digits, 20 sigmoid units": Family(
            networks((20,), "sigmoid"),
            {
                MEMORY: Learned(
                    lambda rate: LearnedOptimizer(),
                    {"iterations": 150, "outer_lr": 0.005},
                    batch=2,
                ),
                **_gated(300, batch=1, scale=10.0, between=(1e-2, 2.3)),
            },
            tests=32,
            transfers={
                "digits, 40 sigmoid units": networks((40,), "sigmoid"),
                "digits, 2 x 20 sigmoid units": networks((20, 20), "sigmoid"),
                "digits, 20 ReLU units": networks((20,), "relu"),
                "digits, 2 x 40 ReLU units": networks((40, 40), "relu"),
            },
        ),
    }


def _gated(
    iterations: int, *, batch: int, scale: float, between: tuple[float, float]
) -> dict[str, Learned]:
    """Gates that read what is told of a coordinate, and gates that read a memory of it."""
    training = {
        "iterations": iterations,
        "outer_lr": 0.05,
        # What is gained at step 100 depends on all steps before: nothing is cut off.
        "truncation": TRAINED_STEPS,
        "objective": functools.partial(arrival, between=between),
    }
    return {
        name: Learned(
            lambda rate, layers=layers: GatedRule(
                num_layers=layers,
                hidden=8,
                enter=0.5 * rate / scale,
                forget=None,
                keep=0.9,
                recurrent=False,
                scale=scale,
            ),
            training,
            batch,
            evolves=True,
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
                torch.manual_seed(seed)
                rule = learned.make(rates[name]["momentum"])
                iterations = max(1, round(share * learned.training["iterations"]))
                seconds[kind] = trained(
                    RUNS / f"{name}, {kind}, {iterations} iterations, seed {seed}.pt",
                    *(rule, family, learned, seed, iterations),
                )
                rules[kind] = rule
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


def trained(
    file: Path,
    rule: CoordinatewiseRule,
    family: Family,
    learned: Learned,
    seed: int,
    iterations: int,
) -> float:
    """Train a rule on problems of a family, or take what is there; how many seconds it took."""
    if file.exists():
        found = torch.load(file)
        rule.load_state_dict(found["rule"])
        return found["seconds"]
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    validation = family.draw(family.tests, torch.Generator().manual_seed(VALIDATION + seed))
    evolution = functools.partial(
        evolved,
        network=rule,
        num_pairs=8,
        std=0.06,
        generator=torch.Generator().manual_seed(seed),
    )
    train_unrolled(
        rule,
        lambda _: descent(family.draw(learned.batch, generator), rule),
        num_steps=TRAINED_STEPS,
        estimate=evolution if learned.evolves else backpropagated,
        validation=[descent(validation, rule)],
        criterion=final_median,
        validate_every=20,
        **{**learned.training, "iterations": iterations},
    )
    seconds = round(time.perf_counter() - started, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"rule": rule.state_dict(), "seconds": seconds}, file)
    return seconds


def arrival(losses: Tensor, between: tuple[float, float]) -> Tensor:
    """Where descents arrive: logarithms of the last losses, of little slope outside two bounds.

    Below the lower bound nothing is to be won that the median would show, and above the higher a
    descent is lost already: so neither outweighs those between.
    """
    low, high = between
    last = finite(losses[-10:])
    return ((last + low) / (last + high)).log().mean()


def finite(losses: Tensor) -> Tensor:
    """Losses with a large number for those that are none."""
    return losses.nan_to_num(nan=1e30, posinf=1e30)


def final_median(losses: Tensor) -> Tensor:
    """The median over problems of the last losses, which are averaged over ten minibatches."""
    return finite(losses[-10:]).mean(0).median()


def tune(draw: Draw, num: int) -> dict[str, float]:
    """For each usual optimizer the rate whose median loss after 100 steps is lowest."""
    problem = draw(num, torch.Generator().manual_seed(TUNING))

    def best(rates: Iterable[float], make: Callable[[float], UpdateRule]) -> float:
        return min(rates, key=lambda rate: curve(problem, make(rate), TRAINED_STEPS)[-1])

    found = {}
    for name, make in TUNED.items():
        rate = best(RATES, make)
        found[name] = best([rate / FINER, rate, rate * FINER], make)
    return found


def curve(problem: OptimizationProblem, rule: UpdateRule, num_steps: int = STEPS) -> list[float]:
    """The median loss over problems after each step."""
    return finite(losses_along(descent(problem, rule), num_steps)).median(1).values.tolist()


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
