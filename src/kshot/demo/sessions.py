"""Class sets of visitors: in memory, few, and forgotten after a while."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from kshot.demo.learners import Adapted
from kshot.demo.limits import ApiError, Limits

__all__ = ["Sessions"]


class Sessions:
    """What was learned for each visitor, by an id that nobody can guess.

    Nothing is written anywhere. All methods are called from one thread.

    Args:
        limits: how many, how large together, and for how long.
        clock: seconds that only grow.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._kept: OrderedDict[str, tuple[Adapted, float]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, adapted: Adapted) -> str:
        """Keep what was learned; its new id."""
        session = secrets.token_urlsafe(18)
        self._kept[session] = (adapted, self._clock())
        self._bytes += adapted.num_bytes
        self._forget()
        return session

    def get(self, session: str) -> Adapted:
        """What was learned under an id.

        Raises:
            ApiError: 404 when it was never given, or forgotten.
        """
        self._forget()
        if session not in self._kept:
            raise ApiError(
                404,
                "Expected the session of an earlier /api/adapt, and this one is unknown or "
                f"forgotten (unused for {self._limits.session_seconds / 60:g} minutes, or too many "
                "visitors): adapt again.",
            )
        adapted, _ = self._kept.pop(session)
        self._kept[session] = (adapted, self._clock())
        return adapted

    def _forget(self) -> None:
        """Drop what is too old, then what was used longest ago while there is too much."""
        oldest = self._clock() - self._limits.session_seconds
        while self._kept:
            adapted, used = next(iter(self._kept.values()))
            too_much = len(self._kept) > self._limits.sessions or (
                self._bytes > self._limits.session_bytes and len(self._kept) > 1
            )
            if used >= oldest and not too_much:
                return
            self._kept.popitem(last=False)
            self._bytes -= adapted.num_bytes
