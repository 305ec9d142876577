"""Replies that come later: a handler defers the reply to the request in hand and gives it in a later call.

The token binds the reply to the worker that deferred it. A request is answered once: one that timed out or was
cancelled meanwhile takes its token along, and what comes for it then is counted as a late reply.
"""

from __future__ import annotations

from sandbox.wire.router_frames import Ack, Defer, Respond
from supervisor.router.answers import Answers, failed
from supervisor.router.delivery import Delivery
from supervisor.router.routes import Component, Worker


class Deferred:
    """Answers `Defer` and `Respond`."""

    __slots__ = ("_answers", "_delivery")

    def __init__(self, delivery: Delivery, answers: Answers) -> None:
        self._delivery = delivery
        self._answers = answers

    def defer(self, worker: Worker, component: Component, frame: Defer) -> None:
        """Take the request in hand away from its handler's reply."""
        correlations = self._delivery.correlations
        pending = None if worker.hand is None else worker.hand.pending
        if pending is None or not correlations.is_open(pending):
            ack = failed(frame.ask, "invalid", "no request is in hand, or nobody waits for it any more", typed=True)
        elif pending.token:
            ack = Ack(frame.ask, 0, pending.token)  # it was deferred before
        elif correlations.deferrals(worker.incarnation) >= component.limits.requests:
            ack = failed(frame.ask, "queue-full", "too many replies are deferred", typed=True)
        else:
            ack = Ack(frame.ask, 0, correlations.defer(pending, worker.incarnation))
        self._answers.give(worker, ack)

    def respond(self, worker: Worker, frame: Respond, payload: bytes) -> None:
        """Give the reply, or the error, that was deferred."""
        pending = self._delivery.correlations.deferred(worker.incarnation, frame.token)
        if pending is None:
            self._delivery.table.counters["late-replies"] += 1
            ack = failed(frame.ask, "invalid", "no request waits under this token, or not any more", typed=True)
            self._answers.give(worker, ack)
            return
        if frame.error:
            self._delivery.fail(pending, "guest-error", frame.error)
        else:
            self._delivery.answer_deferred(pending, payload)
        self._answers.give(worker, Ack(frame.ask, 0))
