"""The sinusoid table and figure, from the results of its recipes over five training seeds.

for seed in 0 1 2 3 4; do kshot train sinusoid/maml --training.seed $seed --results results; done
python examples/02_sinusoid_table.py docs/figures/sinusoid_steps.png
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn

import kshot
from kshot.plots import plot_steps

RESULTS = Path(__file__).parents[1] / "results" / "sinusoid"
Scores = dict[str, dict[int, dict[int, float]]]


class Basis(nn.Module):
    """Every wave of MAML's distribution is a sum of these two."""

    embedding_dim = 2

    def forward(self, x: Tensor) -> Tensor:
        """The features (n, 2) of points (n, 1)."""
        return torch.cat([x.sin(), x.cos()], dim=1)


def oracle() -> float:
    """The squared error of least squares in a basis that knows what a wave is."""
    learner = kshot.R2D2(Basis(), strength=1e-6, loss=kshot.mean_squared_error)
    points = kshot.EpisodeConfig(shot=10, query_shot=100)
    test = kshot.sinusoid().sampler("test", points, seed=1)
    return kshot.evaluate(learner, test, num_episodes=600).interval.mean


def read() -> Scores:
    """For each learner under MAML's protocol, number of inner steps and seed: the error."""
    scores: Scores = defaultdict(lambda: defaultdict(dict))
    for path in sorted(RESULTS.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if row["protocol"] == "finn" and row["shot"] == 10:
                by_seed = scores[row["learner"]][row["num_test_steps"]]
                by_seed[row["seed"]] = row["mean_squared_error"]
    return scores


def main(figure: str = "") -> Scores:
    """Print the table; draw the figure where its path is given."""
    scores = read()
    for learner, by_steps in scores.items():
        for steps, by_seed in sorted(by_steps.items()):
            errors = sorted(by_seed.values())
            print(
                f"{learner:<16} {steps:>3} steps  {statistics.median(errors):.3g} "
                f"({errors[0]:.3g} to {errors[-1]:.3g}, {len(errors)} seeds)"
            )
    print(f"{'oracle':<16} {oracle():.2g}, least squares on sin x and cos x")
    if figure:
        lines = {
            learner: {steps: list(by_seed.values()) for steps, by_seed in by_steps.items()}
            for learner, by_steps in scores.items()
        }
        plot_steps(lines, metric="mean squared error").savefig(figure, dpi=150)
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])
