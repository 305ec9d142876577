"""What a worker asks while guest code runs: to send, request, cancel, broadcast, and who else there is.

Sender, time and correlation are set here, never taken from the worker. A denial is in the audit log before the worker
hears of it; what is allowed is counted. Errors are the cases of `messaging-error` (`airssys:core/errors`); where the
sender has no right to a target it hears "denied" whether the target exists or not.

A broadcast goes to each permitted target, a few in one turn so that nobody waits for all of them; the first failure in
the order of the list is reported after all of them were tried, so an error does not mean that nobody got it.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Generator

from sandbox.types import MAX_NAME, ComponentId
from sandbox.wire.router_frames import (
    Ack,
    Broadcast,
    Cancel,
    CancelTimer,
    Defer,
    GetMetadata,
    ListComponents,
    Publish,
    Request,
    Respond,
    Send,
    SetTimer,
    Subscribe,
    Unsubscribe,
)
from supervisor.router.correlation import MAX_TIMEOUT_MS
from supervisor.router.delivery import Delivery
from supervisor.router.mailbox import Message
from supervisor.router.permissions import Permissions, Verdict
from supervisor.router.routes import GUEST_RUNS, Component, Phase, Worker

SLICE = 16
"""Targets of a broadcast served in one turn of the loop."""
MAX_CORRELATION = 64
"""Most of an id that is not open that is given back, characters; ours have 32."""


class MessagingError(enum.IntEnum):
    """Cases of `airssys:core/errors.messaging-error`, 1 + index."""

    DELIVERY_FAILED = 1
    CORRELATION_TIMEOUT = 2
    INVALID_MESSAGE = 3
    QUEUE_FULL = 4
    TARGET_NOT_FOUND = 5


INVALID_STATE = 5
"""Case `invalid-state` of `airssys:core/errors.component-error`, 1 + index."""

Ask = (
    Send
    | Request
    | Cancel
    | Broadcast
    | Publish
    | Subscribe
    | Unsubscribe
    | Defer
    | Respond
    | SetTimer
    | CancelTimer
    | ListComponents
    | GetMetadata
)
_Outcome = tuple[int, str]
_OK: _Outcome = (0, "")
_DONE = object()


class Asks:
    """Answers asks; each handler ends in one `Ack`, at once or when the auditor has written the denial."""

    def __init__(self, delivery: Delivery, permissions: Permissions) -> None:
        self._delivery = delivery
        self._permissions = permissions
        self._table = delivery.table
        self._broadcasts: deque[Generator[None, None, None]] = deque()

    def handle(self, worker: Worker, frame: Ask, payload: bytes) -> None:
        """Answer one ask of an attached worker."""
        component = worker.home
        if component is None or worker.phase not in GUEST_RUNS:
            self._delivery.violation(worker, f"{type(frame).__name__} while nothing is in hand")
            return
        if len(payload) > worker.limits.message_size:
            self._delivery.violation(worker, "payload over the message size")
            return
        match frame:
            case Send():
                self._send(worker, component, frame, payload)
            case Request():
                self._request(worker, component, frame, payload)
            case Broadcast():
                broadcast = self._broadcast(worker, component, frame, payload)
                if next(broadcast, _DONE) is not _DONE:
                    self._broadcasts.append(broadcast)
            case _ if payload:
                self._delivery.violation(worker, f"{type(frame).__name__} with a payload")
            case Cancel():
                self._cancel(worker, frame)
            case ListComponents():
                self._delivery.to_worker(worker, Ack(frame.ask, 0, components=self._permissions.visible(component)))
            case GetMetadata():
                self._metadata(worker, component, frame)

    # -- messages ---------------------------------------------------------------------------------------------

    def _send(self, worker: Worker, component: Component, frame: Send, payload: bytes) -> None:
        verdict = self._permissions.check(component, frame.target, "send")
        if verdict is Verdict.DENIED:
            self._deny_alone(worker, "messaging.send", frame.target, Ack(frame.ask, *_denied()))
            return
        case, text = self._post(component, frame.target, verdict, payload)
        self._delivery.to_worker(worker, Ack(frame.ask, case, text))

    def _request(self, worker: Worker, component: Component, frame: Request, payload: bytes) -> None:
        if frame.timeout_ms < 0:
            self._delivery.violation(worker, "negative timeout")
            return
        verdict = self._permissions.check(component, frame.target, "request")
        if verdict is Verdict.DENIED:
            self._deny_alone(worker, "messaging.request", frame.target, Ack(frame.ask, *_denied()))
            return
        # A callback needs its place in the requester's mailbox even if everybody answers at once.
        open_requests = self._delivery.correlations.count(worker.incarnation) + component.mailbox.callbacks
        if open_requests >= component.limits.requests:
            self._delivery.to_worker(worker, Ack(frame.ask, MessagingError.QUEUE_FULL, "too many open requests"))
            return
        case, text = self._post(
            component, frame.target, verdict, payload, requester=worker, timeout_ms=frame.timeout_ms
        )
        self._delivery.to_worker(worker, Ack(frame.ask, case, text))

    def _broadcast(
        self, worker: Worker, component: Component, frame: Broadcast, payload: bytes
    ) -> Generator[None, None, None]:
        """Put the message into each permitted mailbox, a slice a turn; the worker may say nothing meanwhile."""
        answer = self._withhold(worker, frame.ask)
        first, culprit = _OK, None
        for count, target in enumerate(dict.fromkeys(frame.targets), 1):
            verdict = self._permissions.check(component, target, "broadcast")
            if verdict is Verdict.DENIED:
                self._deny(worker, "messaging.broadcast", target, answer)
                outcome = _denied()
            else:
                outcome = self._post(component, target, verdict, payload)
            if first == _OK and outcome != _OK:
                first, culprit = outcome, target
            if count % SLICE == 0:
                yield
                if worker.phase is Phase.CLOSED:
                    return
        # Of many targets the worker must be told which one is not there.
        answer.ack = Ack(frame.ask, *first, components=[] if culprit is None else [culprit])
        self._release(worker, answer)

    @property
    def going(self) -> bool:
        """Whether a broadcast is under way."""
        return bool(self._broadcasts)

    def go_on(self) -> None:
        """Take one broadcast a slice further; all that are under way have their turns."""
        if self._broadcasts:
            broadcast = self._broadcasts.popleft()
            if next(broadcast, _DONE) is not _DONE:
                self._broadcasts.append(broadcast)

    def _post(
        self,
        sender: Component,
        target: ComponentId,
        verdict: Verdict,
        payload: bytes,
        *,
        requester: Worker | None = None,
        timeout_ms: int = 0,
    ) -> _Outcome:
        """Put one permitted message into its target's mailbox; for a request the good outcome's text is its id."""
        if verdict is Verdict.MISSING or (component := self._table.components.get(target)) is None:
            return MessagingError.TARGET_NOT_FOUND, _name(target)
        if len(payload) > component.limits.message_size:
            return MessagingError.INVALID_MESSAGE, f"too large: {target} takes {component.limits.message_size} bytes"
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        message = Message(self._delivery.message_id(), False, sender.id, seconds, nanoseconds, payload)
        pending = None
        if requester is not None:
            pending = self._delivery.correlations.open(target, incarnation=requester.incarnation)
            pending.message = message.id
            message.pending, message.correlation, message.reply_to = pending, pending.correlation, sender.id
        refused = self._delivery.post(component, message)
        if refused:
            if pending is not None:
                self._delivery.correlations.close(pending)
            if refused == "queue-full":
                return MessagingError.QUEUE_FULL, ""
            return MessagingError.DELIVERY_FAILED, refused
        self._table.counters["allowed"] += 1
        if pending is None:
            return _OK
        wait = min(max(timeout_ms, 1), MAX_TIMEOUT_MS)
        self._delivery.timeout(pending, wait)
        return 0, pending.correlation

    def _cancel(self, worker: Worker, frame: Cancel) -> None:
        pending = self._delivery.correlations.find(worker.incarnation, frame.correlation)
        if pending is None:
            ack = Ack(frame.ask, MessagingError.CORRELATION_TIMEOUT, frame.correlation[:MAX_CORRELATION])
        else:
            self._delivery.settle(pending)
            ack = Ack(frame.ask, 0)
        self._delivery.to_worker(worker, ack)

    # -- who there is -----------------------------------------------------------------------------------------

    def _metadata(self, worker: Worker, component: Component, frame: GetMetadata) -> None:
        target = frame.component
        verdicts = {self._permissions.check(component, target, action) for action in ("send", "request", "broadcast")}
        if target == component.id or Verdict.ALLOWED in verdicts:
            other = self._table.components.get(target)
            if other is not None:
                self._delivery.to_worker(worker, Ack(frame.ask, 0, info=(other.name, other.version, other.health)))
                return
        if verdicts == {Verdict.DENIED}:
            self._deny_alone(worker, "messaging.metadata", target, Ack(frame.ask, INVALID_STATE, "denied"))
        else:
            self._delivery.to_worker(worker, Ack(frame.ask, INVALID_STATE, "not found"))

    # -- answers that wait --------------------------------------------------------------------------------------

    def _withhold(self, worker: Worker, ask: int) -> _Answer:
        worker.withheld = ask
        return _Answer()

    def _deny_alone(self, worker: Worker, event: str, target: ComponentId, ack: Ack) -> None:
        answer = self._withhold(worker, ack.ask)
        answer.ack = ack
        self._deny(worker, event, target, answer)

    def _deny(self, worker: Worker, event: str, target: ComponentId, answer: _Answer) -> None:
        """Record a denial; the answer goes out when all it stands for are written."""
        if worker.home is not None:
            worker.home.denied += 1
        answer.unwritten += 1

        def recorded(_seq: int) -> None:
            answer.unwritten -= 1
            self._release(worker, answer)

        self._delivery.audit.record(
            event, str(worker.component), "denied", _name(target), "delivery-failed", on_recorded=recorded
        )

    def _release(self, worker: Worker, answer: _Answer) -> None:
        if answer.ack is None or answer.unwritten or worker.phase is Phase.CLOSED:
            return
        worker.withheld = None
        self._delivery.to_worker(worker, answer.ack)


class _Answer:
    """An answer that is not given yet: `ack` is set when it is known, `unwritten` counts denials not yet recorded."""

    __slots__ = ("ack", "unwritten")

    def __init__(self) -> None:
        self.ack: Ack | None = None
        self.unwritten = 0


def _denied() -> _Outcome:
    return MessagingError.DELIVERY_FAILED, "denied"


def _name(target: ComponentId) -> str:
    """The target as the worker named it, cut: nobody has checked it."""
    return "/".join(part[: MAX_NAME + 1] for part in (target.namespace, target.name, target.instance))
