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
    health_timeout: float = 5.0
    health_threshold: int = 3
    """Answers "unhealthy" in a row after which its worker is ended."""
    shutdown: float | None = None
    """How long it may take to stop; 0: it is killed and not asked, None: as long as its deadline allows."""


def wants_restart(policy: RestartPolicy, outcome: str) -> bool:
    """Whether this kind of component is started again after this end."""
    if policy.restart == "temporary":
        return False
    return policy.restart == "permanent" or outcome != Outcome.EXITED


class Window:
    """Restarts in a sliding window: restart intensity.

    Args:
        most: restarts allowed within `seconds`.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self._at: collections.deque[float] = collections.deque()

    def allow(self, now: float) -> bool:
        """Count one restart and allow it; False, and nothing is counted, when the intensity would be exceeded."""
        if self.recent(now) >= self.most:
            return False
        self._at.append(now)
        return True

    def recent(self, now: float) -> int:
        """Restarts in the window that ends at `now` (monotonic seconds)."""
        while self._at and now - self._at[0] > self.seconds:
            self._at.popleft()
        return len(self._at)

    def forgive(self, since: float) -> int:
        """Uncount the restarts at or after `since`; how many there were."""
        before = len(self._at)
        while self._at and self._at[-1] >= since:
            self._at.pop()
        return before - len(self._at)

    def reset(self) -> None:
        """Start afresh."""
        self._at.clear()


class Backoff:
    """The delays of one child: none, then `first`, doubling up to `most`; afresh after `stable` seconds of uptime.

    Args:
        random_: spreads the delays.
    """

    def __init__(self, first: float, most: float, stable: float, random_: random.Random) -> None:
        self.first, self.most, self.stable = first, most, stable
        self._random = random_
        self._consecutive: collections.deque[float] = collections.deque(maxlen=64)

    def after_end(self, now: float, uptime: float) -> float:
        """Seconds to wait before the restart after an end at `now` that followed `uptime` seconds of being ready."""
        if uptime > self.stable:
            self._consecutive.clear()
        self._consecutive.append(now)
        if len(self._consecutive) == 1:
            return 0.0
        # The exponent is capped: 2**1000 is no float.
        delay: float = min(self.first * 2.0 ** min(len(self._consecutive) - 2, 40), self.most)
        return delay * (1 + JITTER * (2 * self._random.random() - 1))

    def forgive(self, since: float) -> None:
        """Take back the ends at or after `since`."""
        while self._consecutive and self._consecutive[-1] >= since:
            self._consecutive.pop()

    def reset(self) -> None:
        """Start afresh."""
        self._consecutive.clear()


class Intensity:
    """The restarts of one child of the root: its window and its delays.

    Args:
        policy: the component's supervision.
        jitter: spreads the delays; random by default.
    """

    def __init__(self, policy: RestartPolicy, jitter: random.Random | None = None) -> None:
        spread = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self.window = Window(policy.max_restarts, policy.window)
        self.backoff = Backoff(policy.backoff_first, policy.backoff_most, policy.window, spread)

    def after_end(self, now: float, uptime: float) -> float | None:
        """Count one end; return the seconds to wait before the restart, or None when the intensity is exceeded.

        Args:
            now: monotonic seconds.
            uptime: seconds the worker was ready.
        """
        if not self.window.allow(now):
            return None
        return self.backoff.after_end(now, uptime)

    def forgive(self, since: float) -> None:
        """Uncount the ends at or after `since`: the host, not the component, was their cause."""
        self.window.forgive(since)
        self.backoff.forgive(since)

    def reset(self) -> None:
        """Start afresh, as after an operator's start."""
        self.window.reset()
        self.backoff.reset()
