"""The token bucket that keeps one component's log from being everybody's."""

from __future__ import annotations

RATE = 200.0
"""Log lines a second."""
BURST = 1_000.0
"""Log lines at once."""


class TokenBucket:
    """Lets `rate` events a second through, `burst` at once, and counts what it refused.

    Args:
        now: the time, seconds of any monotonic clock; the same clock is used in `take`.
    """

    __slots__ = ("_burst", "_last", "_rate", "_tokens", "refused")

    def __init__(self, now: float, rate: float = RATE, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = self._tokens = burst
        self._last = now
        self.refused = 0

    def take(self, now: float) -> bool:
        """Whether one more event may pass."""
        self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        return True

    def forgive(self) -> int:
        """How many were refused since last asked."""
        refused, self.refused = self.refused, 0
        return refused
