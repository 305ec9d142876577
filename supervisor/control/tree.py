"""The arithmetic of supervision: whether, and after how long, a component that ended is started again.

Erlang's words (supervisor behaviour): `permanent` always restarts, `transient` only after an abnormal end,
`temporary` never; more than `max_restarts` ends that call for a restart within `window` seconds end the attempts.
The first restart happens at once; the next ones wait, doubling, until the component has been up longer than the window.
"""

from __future__ import annotations

import collections
import random

import msgspec

from sandbox.types import Outcome

JITTER = 0.2
"""A delay is varied by up to this part of itself, so that what failed together does not come back together."""


class RestartPolicy(msgspec.Struct, frozen=True):
    """`[supervision]` of a manifest; seconds."""

    restart: str = "permanent"
    max_restarts: int = 3
    window: float = 60.0
    backoff_first: float = 0.1
    backoff_most: float = 30.0
    health_interval: float = 30.0


def wants_restart(policy: RestartPolicy, outcome: str) -> bool:
    """Whether this kind of component is started again after this end."""
    if policy.restart == "temporary":
        return False
    return policy.restart == "permanent" or outcome != Outcome.EXITED


class Intensity:
    """The restarts of one component in its sliding window.

    Args:
        policy: the component's supervision.
        jitter: a number in [-1, 1] per call; random by default.
    """

    def __init__(self, policy: RestartPolicy, jitter: random.Random | None = None) -> None:
        self._policy = policy
        self._random = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._ends: collections.deque[float] = collections.deque()
        self._consecutive = 0

    def after_end(self, now: float, uptime: float) -> float | None:
        """Count one end; return the seconds to wait before the restart, or None when the intensity is exceeded.

        Args:
            now: monotonic seconds.
            uptime: seconds the worker was ready.
        """
        policy = self._policy
        if uptime > policy.window:
            self._consecutive = 0
        while self._ends and now - self._ends[0] > policy.window:
            self._ends.popleft()
        if len(self._ends) >= policy.max_restarts:
            return None
        self._ends.append(now)
        self._consecutive += 1
        if self._consecutive == 1:
            return 0.0
        # The exponent is capped: 2**1000 is no float.
        delay: float = min(policy.backoff_first * 2.0 ** min(self._consecutive - 2, 40), policy.backoff_most)
        return delay * (1 + JITTER * (2 * self._random.random() - 1))

    def forgive(self, since: float) -> None:
        """Uncount the ends at or after `since`: the host, not the component, was their cause."""
        while self._ends and self._ends[-1] >= since:
            self._ends.pop()
            self._consecutive = max(0, self._consecutive - 1)

    def reset(self) -> None:
        """Start afresh, as after an operator's start."""
        self._ends.clear()
        self._consecutive = 0
