"""The circuit breaker of one target: after too many failed requests in a row it is not asked for a while.

    closed --failures in a row--> open --time--> half open --successes in a row--> closed
                                   ^------------- a failure ----------|

While half open, one request at a time is let through as a trial; a trial that takes longer than the breaker stays open
no longer keeps the next one back. A pure state machine: who uses it brings the time, seconds of the monotonic clock.
"""

from __future__ import annotations

from sandbox.wire.router_frames import TargetPolicy

COUNTED = frozenset({"timeout", "target-ended", "guest-error", "queue-full"})
"""Failures that say something about the target."""
NEVER = float("-inf")


class Breaker:
    """The state of one target.

    Args:
        policy: its `breaker_failures` is at least 1.
    """

    __slots__ = ("_epoch", "_failures", "_opened", "_policy", "_successes", "_trial")

    def __init__(self, policy: TargetPolicy) -> None:
        self._policy = policy
        self._epoch = 1  # one more whenever it opens or closes
        self._failures = self._successes = 0
        self._opened: float | None = None  # None: closed
        self._trial = NEVER  # when the trial under way began

    def adopt(self, policy: TargetPolicy) -> None:
        """Take new numbers; what was counted stays."""
        self._policy = policy

    def state(self, now: float) -> str:
        """closed, open or half-open."""
        if self._opened is None:
            return "closed"
        return "open" if now < self._opened + self._pause else "half-open"

    def admit(self, now: float) -> int:
        """A ticket for one request to the target, to be given back with `result`; 0: it must not be asked."""
        if self._opened is not None:
            if now < self._opened + self._pause or now < self._trial + self._pause:
                return 0
            self._trial = now
        return self._epoch

    def result(self, ticket: int, now: float, good: bool | None) -> None:
        """How the request ended; None: in a way that says nothing about the target (it was cancelled, say)."""
        if ticket != self._epoch:
            return  # of a request from before it opened or closed
        if self._opened is not None:
            self._trial = NEVER
        if good is None:
            return
        if not good:
            self._failures += 1
            if self._opened is not None or self._failures >= self._policy.breaker_failures:
                self._opened = now
                self._changed()
        elif self._opened is None:
            self._failures = 0
        else:
            self._successes += 1
            if self._successes >= self._policy.breaker_successes:
                self._opened = None
                self._changed()

    @property
    def _pause(self) -> float:
        return self._policy.breaker_open_ms / 1000

    def _changed(self) -> None:
        self._epoch += 1
        self._failures = self._successes = 0
        self._trial = NEVER
