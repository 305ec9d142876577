"""How much a component sends and gets: the bucket it sends from, and the deliveries a second that `status` shows."""

from __future__ import annotations

import time

from bridge.limiter import Bucket

WINDOW = 5.0
"""Seconds that the shown rate looks back."""


def bucket(message_rate: int) -> Bucket:
    """The bucket of a component that may send `message_rate` messages a second, and as many at once."""
    return Bucket(time.monotonic(), message_rate, message_rate)


class Meter:
    """Counts events and tells how many a second there were lately, from the window under way and the one before."""

    __slots__ = ("_before", "_count", "_end")

    def __init__(self) -> None:
        self._end = 0.0
        self._count = self._before = 0

    def count(self, now: float) -> None:
        """One more, at `now` (monotonic seconds)."""
        if now >= self._end:
            self._turn(now)
        self._count += 1

    def rate(self, now: float) -> float:
        """Events a second over the last `WINDOW` seconds, taking those of the window before as spread evenly."""
        if now >= self._end:
            self._turn(now)
        left = (self._end - now) / WINDOW
        return (self._before * left + self._count) / WINDOW

    def _turn(self, now: float) -> None:
        self._before = self._count if now < self._end + WINDOW else 0
        self._count = 0
        self._end = now + WINDOW if self._before == 0 else self._end + WINDOW
