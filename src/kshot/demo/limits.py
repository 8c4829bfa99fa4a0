"""What a visitor may ask for: sizes, counts and rates, and the errors that say so."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ApiError", "Limits", "RateLimiter"]


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status, 4xx.
        sentence: what was expected, what came, and how to mend it.
        retry_after: seconds after which to try again, where that helps.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limits:
    """Bounds of everything that a visitor sends and that is kept for them.

    Attributes:
        body_bytes: size of a request.
        picture_bytes: size of one picture's file.
        picture_side: sides of a picture, in pixels.
        classes: classes of a class set; at least 2.
        examples: examples of a class; at least 1.
        queries: inputs of one prediction.
        name_length: characters of a class's name.
        text_length: characters of a text.
        points: points of a wave.
        sessions: class sets that are kept at once; the one that was used longest ago goes first.
        session_bytes: what they may take together.
        session_seconds: how long one is kept after it was last used.
        rate: requests a second from one address, in the long run.
        burst: requests at once from one address after a pause.
        waiting: requests that may wait for a free processor.
    """

    body_bytes: int = 8_000_000
    picture_bytes: int = 2_000_000
    picture_side: int = 4096
    classes: int = 20
    examples: int = 20
    queries: int = 16
    name_length: int = 60
    text_length: int = 2000
    points: int = 50
    sessions: int = 256
    session_bytes: int = 512_000_000
    session_seconds: float = 3600.0
    rate: float = 40.0
    burst: int = 120
    waiting: int = 64


class RateLimiter:
    """Token buckets, one for each address: a burst at once, then a steady rate.

    Args:
        rate: tokens a second.
        burst: most tokens of a bucket.
        most: buckets that are remembered; the one that was used longest ago goes first.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        most: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Take a token.

        Raises:
            ApiError: 429 when there is none.
        """
        now = self._clock()
        tokens, then = self._buckets.pop(address, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1
        self._buckets[address] = (tokens - allowed, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        if not allowed:
            raise ApiError(
                429,
                f"Expected at most {self._rate:g} requests a second from one address, and more "
                "came: wait a second and go on more slowly.",
                retry_after=1,
            )
