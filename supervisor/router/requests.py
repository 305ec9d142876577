"""Requests from their acceptance to their one answer: reply, failure or timeout.

Whoever closes a request first (`Correlations.close`) answers it; what comes later is late, discarded and counted. The
answer to a worker is a callback in its own mailbox; to somebody outside, a `Result`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import msgspec

from supervisor.router.breaker import COUNTED
from supervisor.router.correlation import Correlations, Pending, Result
from supervisor.router.mailbox import Message
from supervisor.router.routes import Component, Table, Worker
from supervisor.router.timers import Timers

ERROR_TYPE = "application/vnd.airssys.error+json"
"""Content type of a failure delivered to `handle-callback`."""


class Failure(msgspec.Struct, frozen=True):
    """Payload of a failed request's callback."""

    error: str
    message: str


class Requests:
    """All open requests.

    Args:
        message_id: a number no other message has.
        withdraw: called when a request is closed whose message has not been handed over: takes the message away.
        wake: called with a worker for whom there is a callback.
    """

    def __init__(
        self,
        table: Table,
        timers: Timers,
        message_id: Callable[[], int],
        withdraw: Callable[[Pending, str], None],
        wake: Callable[[Worker], None],
    ) -> None:
        self.correlations = Correlations()
        self._table, self._timers, self._message_id, self._withdraw, self._wake = (
            table,
            timers,
            message_id,
            withdraw,
            wake,
        )

    def timeout(self, pending: Pending, milliseconds: int) -> None:
        """Start the clock of a request."""
        self.limit(pending, milliseconds)
        self.start(pending)

    def limit(self, pending: Pending, milliseconds: int) -> None:
        """Say how long a request may take, from now on, until its message is taken (`start`) or refused."""
        pending.wait_ms = milliseconds
        pending.deadline = time.monotonic() + milliseconds / 1000

    def start(self, pending: Pending) -> None:
        """Have it fail when its time is over."""
        pending.timer = self._timers.schedule(pending.deadline, functools.partial(self._timed_out, pending))

    def _timed_out(self, pending: Pending) -> None:
        self.fail(pending, "timeout", f"no answer within {pending.wait_ms} ms")

    # -- the one answer -----------------------------------------------------------------------------------------

    def reply(self, pending: Pending, payload: bytes, some: bool) -> None:
        """The handler's answer; late when the request was closed before."""
        if self._close(pending, "replied", True):
            self._give(pending, payload, some)
        else:
            self._table.counters["late-replies"] += 1

    def fail(self, pending: Pending, error: str, text: str) -> None:
        """Tell whoever waits that the request failed; nothing happens when it was answered before.

        Args:
            error: one of `FAILURES`.
            text: for people.
        """
        if not self._close(pending, error, False if error in COUNTED else None):
            return
        if pending.outside is not None:
            pending.outside(Result(error, text, False, b"", pending.message, pending.correlation))
            return
        worker = self._table.by_incarnation.get(pending.incarnation)
        component = worker.home if worker is not None else None
        if worker is None or component is None:
            self._table.counters["discarded-callbacks"] += 1
        else:
            self._call_back(component, worker, pending, *_failure(error, text), error)

    def settle(self, pending: Pending) -> bool:
        """Close a request without telling anybody; False when that was done before."""
        return self._close(pending, "cancelled", None)

    def abandon(self, pending: Pending) -> None:
        """The requester is gone: close it; its message, where it is in a mailbox, is delivered all the same."""
        pending.queued, pending.abandoned = False, True
        if self._close(pending, "abandoned", None):
            self._table.counters["abandoned-requests"] += 1

    def admit(self, component: Component, pending: Pending) -> bool:
        """Ask the target's circuit breaker; how the request ends, it will hear."""
        if component.breaker is None:
            return True
        pending.ticket = component.breaker.admit(time.monotonic())
        pending.breaker = component.breaker if pending.ticket else None
        return pending.ticket > 0

    def refused(self, pending: Pending, error: str) -> None:
        """A request that was admitted was not taken; whoever made it closes it."""
        self._tell_breaker(pending, False if error in COUNTED else None)

    # -- how it is given ----------------------------------------------------------------------------------------

    def _close(self, pending: Pending, why: str, good: bool | None) -> bool:
        if not self.correlations.close(pending):
            return False
        if pending.timer is not None:
            self._timers.cancel(pending.timer)
        self._tell_breaker(pending, good)
        carrier, pending.carrier = pending.carrier, None
        if carrier is not None and (not carrier.finished or carrier.end == "deferred"):
            # Its handler is at work, or left the reply for later: what the requester hears is told apart from its end.
            what = ("replied", "") if why == "replied" else ("failed", why)
            carrier.story = [*(carrier.story or ()), (what[0], time.monotonic(), what[1])]
        if pending.queued or pending.asleep is not None or pending.waiter is not None:
            # Nobody waits for it any more: if it has not been delivered, it is not going to be.
            self._withdraw(pending, why)
        return True

    def _tell_breaker(self, pending: Pending, good: bool | None) -> None:
        if pending.breaker is not None:
            pending.breaker.result(pending.ticket, time.monotonic(), good)
            pending.breaker = None

    def _give(self, pending: Pending, payload: bytes, some: bool) -> None:
        if pending.outside is not None:
            pending.outside(Result("", "", some, payload, pending.message, pending.correlation))
            return
        worker = self._table.by_incarnation.get(pending.incarnation)
        component = worker.home if worker is not None else None
        if worker is None or component is None:
            self._table.counters["discarded-callbacks"] += 1
        elif len(payload) > worker.limits.message_size:
            text = "the reply is over the message size"
            self._call_back(component, worker, pending, *_failure("too-large", text), "too-large")
        else:
            self._call_back(component, worker, pending, payload, None)

    def _call_back(
        self,
        component: Component,
        worker: Worker,
        pending: Pending,
        payload: bytes,
        content_type: str | None,
        failure: str = "",
    ) -> None:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        message = Message(
            self._message_id(),
            True,
            pending.target,
            seconds,
            nanoseconds,
            payload,
            correlation=pending.correlation,
            content_type=content_type,
            incarnation=worker.incarnation,
            priority=pending.priority,
            failure=failure,
            target=component.id,
        )
        if component.removed:
            self._table.counters["discarded-callbacks"] += 1
            return
        if not component.mailbox.put_callback(message):
            message.failure = "queue-full"
            message.payload, message.content_type = _failure("queue-full", "too many bytes wait for this component")
            component.mailbox.put_callback(message)
        self._wake(worker)


def _failure(error: str, text: str) -> tuple[bytes, str]:
    return msgspec.json.encode(Failure(error, text)), ERROR_TYPE
