"""Token buckets: of the router's messages, and of the log, so that one component's log is not everybody's."""

from __future__ import annotations

BURST_SECONDS = 5.0
"""How many seconds' worth of log may come at once."""


class Bucket:
    """Lets `rate` a second through, and up to `burst` at once.

    Args:
        now: the time, seconds of any monotonic clock; the same clock is used in the other methods.
    """

    __slots__ = ("_burst", "_last", "_left", "_rate")

    def __init__(self, now: float, rate: float, burst: float) -> None:
        self._last = now
        self._rate, self._burst = rate, burst
        self._left = burst

    def resize(self, rate: float, burst: float) -> None:
        """Take a new rate; what was saved up under the old one is cut to the new burst."""
        self._rate, self._burst = rate, burst
        self._left = min(self._left, burst)

    def has(self, now: float, amount: float) -> bool:
        """Whether `amount` may pass now."""
        self._left = min(self._burst, self._left + (now - self._last) * self._rate)
        self._last = now
        return self._left >= amount

    def spend(self, amount: float) -> None:
        """It passed."""
        self._left -= amount

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Let `amount` pass, if it may."""
        if not self.has(now, amount):
            return False
        self._left -= amount
        return True


class LogLimiter:
    """Lets `lines` and `size` (bytes) a second through, `BURST_SECONDS` of each at once, and counts what it refused.

    Args:
        now: the time, seconds of any monotonic clock; the same clock is used in `take`.
    """

    __slots__ = ("_lines", "_size", "refused", "told")

    def __init__(self, now: float, lines: int, size: int) -> None:
        self.refused = 0
        """Lines refused since `forgive`."""
        self.told = False
        """Whether the reader of the log knows that lines are missing."""
        self._lines = Bucket(now, lines, lines * BURST_SECONDS)
        self._size = Bucket(now, size, size * BURST_SECONDS)

    def resize(self, lines: int, size: int) -> None:
        """Take new rates; what was saved up under the old ones is cut to the new burst."""
        self._lines.resize(lines, lines * BURST_SECONDS)
        self._size.resize(size, size * BURST_SECONDS)

    def take(self, now: float, size: int) -> bool:
        """Whether one more line of `size` bytes may pass."""
        lines, sizes = self._lines.has(now, 1), self._size.has(now, size)
        if not (lines and sizes):
            self.refused += 1
            return False
        self._lines.spend(1)
        self._size.spend(size)
        return True

    def forgive(self) -> int:
        """How many were refused since last asked."""
        refused, self.refused, self.told = self.refused, 0, False
        return refused
