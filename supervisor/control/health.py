"""Health checks: what a row of answers means. The router asks, at the interval of a route, and tells what is news.

An answer decides readiness by itself: the router skips a component that calls itself `unhealthy` until it says
otherwise. Liveness takes `health-threshold` such answers in a row; then its worker is ended, and the tree decides.
`degraded` and `unknown` are shown and end the row. A check that is not answered in time ends the worker in the router:
there is nothing else to be done with a guest that hangs.
"""

from __future__ import annotations

from supervisor.control.tree import RestartPolicy

UNHEALTHY = "unhealthy"


class Watch:
    """The answers of one worker.

    Args:
        policy: its component's supervision.
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self.row = 0
        """Answers "unhealthy" since another one."""

    def heard(self, answer: str) -> bool:
        """Take an answer; True when the worker's liveness is lost by it."""
        self.row = self.row + 1 if answer == UNHEALTHY else 0
        return self.row >= self._policy.health_threshold
