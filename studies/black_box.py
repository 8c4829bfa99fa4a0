"""`python -m studies black_box [SEEDS [SHARE]]`: how low does a network search without gradients?

Each seed trains a network on samples of a Gaussian process on the unit square, by the lowest value
it has seen after each evaluation, and follows it on samples it has not seen, beside random search
and Bayesian optimization by Optuna's Gaussian process (extra `benchmark`; left out where it is not
installed).
Regret is the lowest value found less the lowest there is, by a grid and gradient descent from it.
A SHARE of the iterations is enough for a trial, and one above 1 trains longer.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kshot import BlackBoxOptimizer
from kshot.learners.optimization.update_rules import SGD
from kshot.training.problems import gaussian_processes
from kshot.training.truncated import train_unrolled
from kshot.training.unroll import OptimizationProblem, descent, losses_along, search
from studies.optimizers import store

__all__ = ["main"]

DIM = 2
EVALUATIONS = 50
TESTS = 30
ITERATIONS = 5000
PEER = "Optuna GP"


def main(arguments: list[str]) -> None:
    """Train, search, store."""
    torch.set_num_threads(1)
    seeds = int(arguments[0]) if arguments else 5
    share = float(arguments[1]) if len(arguments) > 1 else 1.0
    rows = []
    for seed in range(seeds):
        started = time.perf_counter()
        network = train(seed, share)
        seconds = round(time.perf_counter() - started, 1)
        tests = draw(TESTS, 20_000 + seed)
        least = lowest(tests)
        searches: dict[str, Callable[[], Tensor]] = {
            "learned": lambda network=network, tests=tests: losses_along(
                search(tests, network), EVALUATIONS
            ),
            "random": lambda tests=tests, seed=seed: at_random(tests, seed),
        }
        if importlib.util.find_spec("optuna"):
            searches[PEER] = lambda tests=tests, seed=seed: by_optuna(tests, seed)
        for name, values in searches.items():
            started = time.perf_counter()
            regret = values().cummin(0).values - least
            rows.append(
                {
                    "problem": f"Gaussian process, {DIM} dimensions",
                    "optimizer": name,
                    "peer_version": importlib.metadata.version("optuna") if name == PEER else None,
                    "seed": seed,
                    "train_seconds": seconds if name == "learned" else 0.0,
                    "seconds_a_proposal": (time.perf_counter() - started) / EVALUATIONS / TESTS,
                    "regret_at_20": regret[19].mean().item(),
                    "regret_at_50": regret[49].mean().item(),
                    "regrets": [float(f"{each:.4g}") for each in regret.mean(1).tolist()],
                }
            )
            print(f"seed {seed}, {name}: {rows[-1]['regret_at_50']:.4g}", flush=True)
    store("black_box", rows, "regret_at_20", "regret_at_50")


def draw(num: int, seed: int) -> OptimizationProblem:
    """Some functions."""
    return gaussian_processes(num, DIM, generator=torch.Generator().manual_seed(seed))


def train(seed: int, share: float) -> BlackBoxOptimizer:
    """A network trained by the lowest values it has seen."""
    torch.manual_seed(seed)
    network = BlackBoxOptimizer(DIM)
    first = 1_000_000 * (seed + 1)
    train_unrolled(
        network,
        lambda iteration: search(draw(64, first + iteration), network),
        iterations=max(1, round(share * ITERATIONS)),
        num_steps=EVALUATIONS,
        truncation=EVALUATIONS,
        outer_lr=0.005,
        clip_norm=1.0,
        objective=lowest_throughout,
    )
    return network


def lowest_throughout(values: Tensor) -> Tensor:
    """The lowest value so far, averaged over evaluations.

    The paper's sum of improvements is the lowest value at the end alone: a network that learned by
    it is in no hurry.
    """
    return values.cummin(0).values.mean()


def at_random(problem: OptimizationProblem, seed: int) -> Tensor:
    """Values (evaluations, problems) at uniform points."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(EVALUATIONS, TESTS, DIM, generator=generator)
    return torch.stack([problem.loss({"x": x}, 0) for x in points])


def by_optuna(problem: OptimizationProblem, seed: int) -> Tensor:
    """Values (evaluations, problems) where Bayesian optimization looks."""
    import optuna  # pyright: ignore[reportMissingImports]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    for number in range(TESTS):

        def value(trial: Any, number: int = number) -> float:
            x = torch.tensor([trial.suggest_float(str(k), 0, 1) for k in range(DIM)])
            return problem.loss({"x": x.expand(TESTS, -1)}, 0)[number].item()

        study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=seed * TESTS + number))
        study.optimize(value, n_trials=EVALUATIONS)
        found.append([trial.value for trial in study.trials])
    return torch.tensor(found).T


def lowest(problem: OptimizationProblem) -> Tensor:
    """The lowest values of functions: the best of a grid, then steps of gradient descent."""
    line = torch.linspace(0, 1, 101)
    grid = torch.cartesian_prod(*[line] * DIM)
    values = torch.stack([problem.loss({"x": x.expand(TESTS, -1)}, 0) for x in grid])
    start = {"x": grid[values.argmin(0)]}

    def within(params: dict[str, Tensor], step: int) -> Tensor:
        return problem.loss({"x": params["x"].clamp(0, 1)}, step)

    refined = losses_along(descent(OptimizationProblem(start, within), SGD(0.01)), 500)
    return torch.minimum(values.min(0).values, refined.min(0).values)
