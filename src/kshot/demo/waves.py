"""Waves from a few points: how each learner's curve moves, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kshot.demo.learners import SHIPPED
from kshot.episodes import Examples
from kshot.learners.optimization.fast_weights import FastWeightLearner, parameters_exchanged
from kshot.learners.registry import learner_row
from kshot.training.run import load_run

__all__ = ["NUM_STEPS", "WaveLearner", "load_waves"]

NUM_STEPS = 10
"""Gradient steps that are followed."""

NUM_PLACES = 101
X_LIMIT = 5.0


@dataclass(frozen=True, eq=False)
class WaveLearner:
    """A learner of sine waves by gradient steps.

    Attributes:
        name: by which it is shown.
        learner: in evaluation mode.
        summary: the idea, in one line.
    """

    name: str
    learner: FastWeightLearner
    summary: str

    @classmethod
    def load(cls, folder: Path) -> "WaveLearner":
        """The learner of a run's folder.

        Raises:
            ValueError: when it does not learn one number from another by gradient steps.
        """
        run = load_run(folder, "cpu")
        one_number = run.tasks.kind == "regression" and run.tasks.input_shape == (1,)
        if not one_number or not isinstance(run.learner, FastWeightLearner):
            raise ValueError(
                f"The run {folder} does not learn waves by gradient steps: give runs on sinusoid "
                "of maml, fomaml, reptile, fine_tuning or another of their kind."
            )
        run.learner.num_test_steps = NUM_STEPS
        name = run.config.learner.name
        return cls(name, run.learner, learner_row(name).summary)

    def follow(self, points: Sequence[tuple[float, float]]) -> dict[str, Any]:
        """Its curve after 0, 1, ... steps on some points.

        Returns:
            `name`, `summary`, `x` (places), and `steps`: of each step `y` at these places and
            `error`, the mean squared error at the points; None where it diverged.
        """
        x, y = torch.tensor(points, dtype=torch.float32).T[..., None]
        support, present = Examples(x, y), torch.ones(1, dtype=torch.bool)
        places = torch.linspace(-X_LIMIT, X_LIMIT, NUM_PLACES)
        steps = []
        with torch.no_grad(), parameters_exchanged():
            start = self.learner.initialization(1)
            for params in self.learner.trajectory(start, support, present):
                curve = self.learner.network_outputs(params, places[:, None], 1)[:, 0]
                error = (self.learner.network_outputs(params, x, 1) - y).square().mean()
                finite = bool(curve.isfinite().all() and error.isfinite())
                steps.append(
                    {
                        "y": [round(value, 4) for value in curve.tolist()] if finite else None,
                        "error": float(error) if finite else None,
                    }
                )
        return {
            "name": self.name,
            "summary": self.summary,
            "x": [round(place, 4) for place in places.tolist()],
            "steps": steps,
        }


def load_waves(folders: Sequence[Path]) -> list[WaveLearner]:
    """The learners of some runs on sinusoid; none gives those that come with kshot."""
    shipped = [SHIPPED / f"sinusoid_{name}" for name in ("maml", "reptile", "fine_tuning")]
    return [WaveLearner.load(folder) for folder in folders or shipped]
