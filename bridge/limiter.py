"""The token buckets that keep one component's log from being everybody's."""

from __future__ import annotations

BURST_SECONDS = 5.0
"""How many seconds' worth may come at once."""


class LogLimiter:
    """Lets `lines` and `size` (bytes) a second through, `BURST_SECONDS` of each at once, and counts what it refused.

    Args:
        now: the time, seconds of any monotonic clock; the same clock is used in `take`.
    """

    __slots__ = ("_last", "_lines", "_rate", "_size", "_size_rate", "refused", "told")

    def __init__(self, now: float, lines: int, size: int) -> None:
        self._last = now
        self.refused = 0
        """Lines refused since `forgive`."""
        self.told = False
        """Whether the reader of the log knows that lines are missing."""
        self._lines = self._size = float("inf")
        self.resize(lines, size)

    def resize(self, lines: int, size: int) -> None:
        """Take new rates; what was saved up under the old ones is cut to the new burst."""
        self._rate, self._size_rate = float(lines), float(size)
        self._lines = min(self._lines, lines * BURST_SECONDS)
        self._size = min(self._size, size * BURST_SECONDS)

    def take(self, now: float, size: int) -> bool:
        """Whether one more line of `size` bytes may pass."""
        passed, self._last = now - self._last, now
        self._lines = min(self._rate * BURST_SECONDS, self._lines + passed * self._rate)
        self._size = min(self._size_rate * BURST_SECONDS, self._size + passed * self._size_rate)
        if self._lines < 1 or self._size < size:
            self.refused += 1
            return False
        self._lines -= 1
        self._size -= size
        return True

    def forgive(self) -> int:
        """How many were refused since last asked."""
        refused, self.refused, self.told = self.refused, 0, False
        return refused
