"""Confidence intervals of means: what a difference between two numbers is worth."""

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, stdtrit

__all__ = ["MeanInterval", "Share", "mean_interval", "share_interval"]


class MeanInterval(NamedTuple):
    """A mean with its confidence interval mean +- half_width, from n values."""

    mean: float
    half_width: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.half_width:.4f} (n = {self.n})"


class Share(NamedTuple):
    """A rate with its 95 % interval (low, high)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def share_interval(share: float, n: int, confidence: float = 0.95) -> Share:
    """Clopper and Pearson's interval of a probability, from the share of n trials that succeeded.

    Unlike mean +- half width it holds near 0 and 1 and for few trials; it is rather too wide than
    too narrow. The number of successes need not be whole: a trial may be an average.

    Raises:
        ValueError: for no trials, or a share that is none.

    Example:
        >>> print(share_interval(1.0, 25))
        1.0000 [0.8628, 1.0000]

    Reference:
        The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial. Biometrika
        1934.
    """
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"An interval needs a share of 1 trial or more, not {share} of {n}.")
    tail, successes = (1 - confidence) / 2, share * n
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Share(share, low, high)


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
