"""Confidence intervals cover the truth as often as they say."""

import math

import numpy as np
import pytest
from scipy import stats

from kshot.evaluation.intervals import MeanInterval, mean_interval


@pytest.mark.parametrize(
    ("n", "confidence", "draw", "truth"),
    [
        (5, 0.95, lambda rng, shape: rng.normal(3, 2, shape), 3.0),
        (30, 0.90, lambda rng, shape: rng.normal(-1, 0.1, shape), -1.0),
        # Accuracies of episodes with 15 queries, as many of them as papers evaluate.
        (600, 0.95, lambda rng, shape: rng.binomial(15, 0.7, shape) / 15, 0.7),
    ],
)
def test_the_interval_covers_the_truth(n: int, confidence: float, draw, truth: float):
    trials = 4000
    values = draw(np.random.default_rng(0), (trials, n))
    intervals = [mean_interval(row, confidence) for row in values]
    covered = np.mean([abs(i.mean - truth) <= i.half_width for i in intervals])
    error = math.sqrt(confidence * (1 - confidence) / trials)
    assert covered == pytest.approx(confidence, abs=4 * error)


def test_a_small_sample_uses_students_t():
    values = np.array([0.6, 0.7, 0.9])
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, df=2, loc=values.mean(), scale=stats.sem(values))
    assert interval.mean - interval.half_width == pytest.approx(low)
    assert interval.mean + interval.half_width == pytest.approx(high)
    normal = 1.96 * values.std(ddof=0) / math.sqrt(3)
    assert interval.half_width > 2.5 * normal, "1.96 and ddof=0 would promise too much"


def test_values_are_numbers_of_a_sample():
    assert mean_interval(np.ones(4)) == MeanInterval(1.0, 0.0, 4)
    assert str(MeanInterval(0.98765, 0.01234, 600)) == "0.9877 +- 0.0123 (n = 600)"
    for count in (0, 1):
        with pytest.raises(ValueError, match=f"at least two values, not {count}"):
            mean_interval(np.ones(count))
