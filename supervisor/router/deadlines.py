"""The clocks of workers: wall time and CPU time for what each has in hand.

Deadlines move forward with each message, so a worker's timer on the heap is left where it is and looks again when it
fires: one entry for each worker, none for each message.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from sandbox.kernel.clock import cpu_seconds
from supervisor.router.mailbox import NEVER
from supervisor.router.routes import Worker
from supervisor.router.timers import Timers

CPU_STEP = 0.005
"""Least time between two readings of a worker's CPU clock, seconds: how much more than its limit it may use."""


class Deadlines:
    """Arms and disarms.

    Args:
        over: called, once, for a worker whose wall time is over.
        over_cpu: the same for CPU time.
    """

    __slots__ = ("_over", "_over_cpu", "_timers")

    def __init__(self, timers: Timers, over: Callable[[Worker], None], over_cpu: Callable[[Worker], None]) -> None:
        self._timers, self._over, self._over_cpu = timers, over, over_cpu

    def arm(self, worker: Worker, seconds: float, cpu: float = NEVER) -> float:
        """Give it `seconds` of wall clock and `cpu` seconds of its CPU clock, whichever are over first; the time now.

        One thread cannot use CPU time faster than time passes, so the CPU clock is read when the budget may be used
        up, and again when the rest may be: some five readings for a message that uses it, none for any other.
        """
        now = time.monotonic()
        first = worker.deadline = now + seconds
        worker.cpu_end = NEVER
        if cpu < seconds and (used := cpu_seconds(worker.pid)) is not None:
            worker.cpu_end = used + cpu
            first += cpu - seconds
        if worker.timer is not None:
            if worker.timer.when <= first:
                return now
            self._timers.cancel(worker.timer)
        worker.timer = self._timers.schedule(first, functools.partial(self._look, worker))
        return now

    def _look(self, worker: Worker) -> None:
        worker.timer = None
        now = time.monotonic()
        if worker.deadline == NEVER:
            return
        left = _cpu_left(worker)
        if worker.deadline <= now:
            worker.deadline = NEVER
            self._over(worker)
        elif left <= 0:
            # An idle worker is disarmed: in every phase that is left, the guest's code is running.
            self._over_cpu(worker)
        else:
            again = min(worker.deadline, now + max(left, CPU_STEP))
            worker.timer = self._timers.schedule(again, functools.partial(self._look, worker))


def disarm(worker: Worker) -> None:
    """Its clocks stand still."""
    worker.deadline = NEVER


def _cpu_left(worker: Worker) -> float:
    """Seconds of CPU time the worker may still use on what it has in hand."""
    if worker.cpu_end == NEVER:
        return NEVER
    used = cpu_seconds(worker.pid)
    return NEVER if used is None else worker.cpu_end - used  # without a process its end is on the way
