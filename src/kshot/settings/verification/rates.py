"""Error rates of verification, with intervals over the classes that were tried."""

from typing import NamedTuple

import numpy as np

from kshot.evaluation.intervals import Share
from kshot.evaluation.thresholds import accept_threshold
from kshot.settings.verification.trials import Trials

__all__ = ["Rates", "accept_rates", "error_rates", "roc", "threshold_at"]


class Rates(NamedTuple):
    """How well scores tell true claims from false ones; intervals are by resampled classes.

    Attributes:
        equal_error_rate: where as many false claims are accepted as true ones are rejected.
        true_accepts: by false-accept rate, the share of true claims that are accepted there.
        num_classes: how many classes were tried.
        num_trials: how many claims.
    """

    equal_error_rate: Share
    true_accepts: dict[float, Share]
    num_classes: int
    num_trials: int


def error_rates(
    trials: Trials,
    false_accepts: tuple[float, ...] = (0.001, 0.01, 0.1),
    *,
    resamplings: int = 200,
    seed: int = 0,
) -> Rates:
    """Error rates of trials, with intervals by the bootstrap over classes.

    Claims that share a class are not independent, so whole classes are drawn anew: a claim counts
    as often as both of its classes were drawn (as often as the one, if it is true).

    Args:
        trials: true and false claims.
        false_accepts: rates at which true accepts are told.
        resamplings: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: without a true and a false claim.
    """
    order = np.argsort(-trials.scores, kind="stable")
    scores, genuine = trials.scores[order], trials.genuine[order]
    if not (genuine.any() and (~genuine).any()):
        raise ValueError("Error rates need true claims and false ones: enroll two classes or more.")
    classes, places = np.unique(
        np.concatenate([trials.claimed[order], trials.actual[order]]), return_inverse=True
    )
    claimed, actual = places[: len(order)], places[len(order) :]

    def measure(weights: np.ndarray) -> np.ndarray:
        counts = weights[claimed] * np.where(genuine, 1, weights[actual])
        false, true = _rates(scores, genuine, counts)
        values = [np.interp(rate, false, true) for rate in false_accepts]
        return np.array([_crossing(false, true), *values])

    found = measure(np.ones(len(classes)))
    random = np.random.default_rng(seed)
    draws = random.integers(len(classes), size=(resamplings, len(classes)))
    drawn = [measure(np.bincount(draw, minlength=len(classes))) for draw in draws]
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    shares = [Share(*map(float, each)) for each in zip(found, low, high, strict=True)]
    return Rates(
        shares[0], dict(zip(false_accepts, shares[1:], strict=True)), len(classes), len(scores)
    )


def roc(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """False-accept rates and the true-accept rates at them, from (0, 0) to (1, 1)."""
    order = np.argsort(-trials.scores, kind="stable")
    return _rates(trials.scores[order], trials.genuine[order], np.ones(len(order)))


def threshold_at(trials: Trials, false_accept: float) -> float:
    """The least score whose acceptance keeps false accepts at a rate, or below it."""
    return accept_threshold(trials.scores[~trials.genuine], false_accept)


def accept_rates(trials: Trials, threshold: float) -> tuple[float, float]:
    """The shares of false and of true claims that score at least a threshold."""
    accepted = trials.scores >= threshold
    false, true = accepted[~trials.genuine], accepted[trials.genuine]
    return float(false.mean()), float(true.mean())


def _rates(
    scores: np.ndarray, genuine: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rates of accepted false and true claims as the threshold falls through sorted scores."""
    true, false = np.cumsum(counts * genuine), np.cumsum(counts * ~genuine)
    last = np.append(scores[1:] != scores[:-1], True)  # equal scores are accepted together
    with np.errstate(invalid="ignore"):
        return (
            np.concatenate([[0.0], false[last] / false[-1]]),
            np.concatenate([[0.0], true[last] / true[-1]]),
        )


def _crossing(false: np.ndarray, true: np.ndarray) -> float:
    """The equal error rate: where the curve meets true = 1 - false, between two of its points."""
    if not np.isfinite(false[-1] + true[-1]):
        return np.nan  # a resampling without true claims, or without false ones
    gap = false - (1 - true)
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    span = gap[after] - gap[before]
    share = -gap[before] / span if span > 0 else 0.0
    return float(false[before] + share * (false[after] - false[before]))
