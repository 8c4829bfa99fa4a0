"""Which scores of several runs are compared with which."""

from pathlib import Path

import numpy as np

from kshot.cli.scored_runs import differences_from_first
from kshot.evaluation.evaluate import Evaluation
from kshot.training.scoring import Scored


def run(score: float, *steps: int | None) -> list[Scored]:
    evaluation = Evaluation(np.full(3, score), "accuracy", "batch", transductive=True)
    return [Scored({"num_test_steps": number}, evaluation, baseline=False) for number in steps]


def compared(*runs: list[Scored]) -> list[tuple[int | None, int | None, float]]:
    """Steps of a later run, steps of the first, and the difference."""
    return [
        (one.theirs.row["num_test_steps"], one.first.row["num_test_steps"], one.interval.mean)
        for one in differences_from_first({Path(str(n)): each for n, each in enumerate(runs)})
    ]


def test_how_many_steps_a_run_takes_is_its_own_affair():
    assert compared(run(0.5, 5), run(0.75, 1), run(1.0, None)) == [(1, 5, 0.25), (None, 5, 0.5)]


def test_after_several_numbers_of_steps_equal_ones_are_compared():
    assert compared(run(0.5, 1, 5), run(0.75, 1, 5), run(1.0, None)) == [
        *((1, 1, 0.25), (5, 5, 0.25)),
        *((None, 1, 0.5), (None, 5, 0.5)),
    ]
