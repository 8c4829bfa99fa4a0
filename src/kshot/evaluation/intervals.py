"""Confidence intervals of means: what a difference between two numbers is worth."""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

__all__ = ["MeanInterval", "mean_interval"]


class MeanInterval(NamedTuple):
    """A mean with its confidence interval mean +- half_width, from n values."""

    mean: float
    half_width: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.half_width:.4f} (n = {self.n})"


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> MeanInterval:
    """Student's t interval of the mean of independent values, with the n - 1 variance.

    Over episodes it says how well this many episodes know the mean of one trained learner; the
    spread over training seeds is another thing and needs several runs.

    Raises:
        ValueError: for fewer than two values, from which no spread can be estimated.

    Example:
        >>> mean_interval(np.array([1.0, 2.0, 3.0]))
        MeanInterval(mean=2.0, half_width=2.484..., n=3)
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"An interval needs at least two values, not {n}.")
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    spread = float(np.std(values, ddof=1))
    return MeanInterval(float(np.mean(values)), quantile * spread / n**0.5, n)
