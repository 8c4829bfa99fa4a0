"""Where to accept: thresholds on scores at a chosen rate of false accepts."""

import numpy as np

__all__ = ["accept_threshold"]


def accept_threshold(impostors: np.ndarray, false_accept: float) -> float:
    """The least score whose acceptance keeps false accepts at a rate, or below it.

    Args:
        impostors: (n,) scores of what should be rejected.
        false_accept: the share of them that may be accepted.

    Raises:
        ValueError: for a rate outside [0, 1], or without scores.
    """
    if not 0 <= false_accept <= 1:
        raise ValueError(f"A false-accept rate is between 0 and 1, not {false_accept}.")
    if not len(impostors):
        raise ValueError("A threshold needs false claims: give examples of two classes or more.")
    descending = np.sort(impostors)[::-1]
    allowed = int(np.floor(false_accept * len(descending) + 1e-9))
    return (
        float(np.nextafter(descending[allowed], np.inf)) if allowed < len(descending) else -np.inf
    )
