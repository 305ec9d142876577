"""Timers on a heap, for one thread that polls: what is due is called from `run`, nothing calls by itself."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

MOST = 1_000
"""Calls made in one run."""


class Timer:
    """One call to be made at `when` (seconds of the monotonic clock), unless cancelled."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call


class Timers:
    """The heap. Cancelled timers stay until they surface or outnumber the live ones, so both ends stay cheap."""

    __slots__ = ("_cancelled", "_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def schedule(self, when: float, call: Callable[[], None]) -> Timer:
        """Have `call` made once `when` has come."""
        timer = Timer(when, call)
        self._serial += 1
        heapq.heappush(self._heap, (when, self._serial, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Never make the call (harmless when it was made or cancelled before)."""
        if timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            # In place: `run` may be in the middle of the same list.
            self._heap[:] = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def wait(self) -> float | None:
        """Seconds until the next timer is due; None when there is none."""
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        if not self._heap:
            return None
        return max(0.0, self._heap[0][0] - time.monotonic())

    def run(self) -> None:
        """Make the calls that are due now, `MOST` at most: whoever else waits has his turn between them.

        One scheduled meanwhile for a time already past waits for the next run.
        """
        now = time.monotonic()
        last = self._serial
        most = MOST
        while most and self._heap and self._heap[0][0] <= now and self._heap[0][1] <= last:
            most -= 1
            timer = heapq.heappop(self._heap)[2]
            call, timer.call = timer.call, None
            if call is None:
                self._cancelled -= 1
            else:
                call()
