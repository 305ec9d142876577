"""Health checks: what a row of answers means, and when the next question is asked.

An answer decides readiness by itself: the router skips a component that calls itself `unhealthy` until it says
otherwise. Liveness takes `health-threshold` such answers in a row; then its worker is ended, and the tree decides.
`degraded` and `unknown` are shown and end the row. A check that is not answered in time ends the worker in the router:
there is nothing else to be done with a guest that hangs.
"""

from __future__ import annotations

import random

from supervisor.control.tree import JITTER, RestartPolicy

UNHEALTHY = "unhealthy"


class Watch:
    """The answers of one worker.

    Args:
        policy: its component's supervision.
        jitter: spreads the checks of components that were started together.
    """

    def __init__(self, policy: RestartPolicy, jitter: random.Random | None = None) -> None:
        self._policy = policy
        self._random = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._first = True
        self.row = 0
        """Answers "unhealthy" since another one."""

    def heard(self, answer: str) -> bool:
        """Take an answer; True when the worker's liveness is lost by it."""
        self.row = self.row + 1 if answer == UNHEALTHY else 0
        return self.row >= self._policy.health_threshold

    def wait(self) -> float:
        """Seconds until the next check; only the first is spread, the others keep the distance."""
        spread = JITTER * self._random.random() if self._first else 0.0
        self._first = False
        return self._policy.health_interval * (1 - spread)

    @property
    def timeout_ms(self) -> int:
        """How long an answer may take."""
        return max(1, round(self._policy.health_timeout * 1000))
