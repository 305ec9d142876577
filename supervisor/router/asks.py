"""What a worker asks while guest code runs: to send, request, cancel, broadcast, publish, and who else there is.

Sender, time and correlation are set here, never taken from the worker. A denial is in the audit log before the worker
hears of it; what is allowed is counted, and recorded too where the host's configuration wants that. Errors are the
cases of `messaging-error` (`airssys:core/errors`), or of `failure-reason` where the guest used `airssys:messaging`;
where the sender has no right to a target it hears "denied" whether the target exists or not.

A message whose target lets its senders wait is answered when there is room. A broadcast goes to each permitted target,
a few in one turn so that nobody waits for all of them; the first failure in the order of the list is reported after all
of them were tried, so an error does not mean that nobody got it.
"""

from __future__ import annotations

import time
from collections.abc import Generator

from bridge.capabilities import InvalidPattern, validate_topic
from sandbox.types import ComponentId
from sandbox.wire.router_frames import (
    Ack,
    Broadcast,
    Cancel,
    CancelTimer,
    Defer,
    GetMetadata,
    ListComponents,
    Options,
    Publish,
    Request,
    Respond,
    Send,
    SetTimer,
    Subscribe,
    Unsubscribe,
)
from supervisor.router.alarms import MAX_RATE, Alarms
from supervisor.router.answers import INVALID_STATE, Answers, MessagingError, failed, shown
from supervisor.router.correlation import MAX_TIMEOUT_MS, Pending
from supervisor.router.deferred import Deferred
from supervisor.router.delivery import Delivery
from supervisor.router.groups import EVERY, Groups
from supervisor.router.mailbox import Message
from supervisor.router.permissions import Permissions, Verdict
from supervisor.router.routes import GUEST_RUNS, Component, Phase, Worker
from supervisor.router.topics import Topics
from supervisor.router.turns import SLICE, Turns

MAX_CORRELATION = 64
"""Most of an id that is not open that is given back, characters; ours have 32."""
LEAST_INTERVAL_MS = 10
"""Least time between two messages of a recurring timer, milliseconds."""

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


class Asks:
    """Answers asks; each handler ends in one `Ack`, at once or later (`answers`)."""

    def __init__(
        self, delivery: Delivery, permissions: Permissions, topics: Topics, groups: Groups, turns: Turns
    ) -> None:
        self._delivery = delivery
        self._permissions = permissions
        self._topics = topics
        self._groups = groups
        self._table = delivery.table
        self._turns = turns
        self._answers = Answers(delivery)
        self._alarms = Alarms(delivery)
        self._deferred = Deferred(delivery, self._answers)

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
                self._turns.start(self._broadcast(worker, component, frame, payload))
            case Publish():
                self._publish(worker, component, frame, payload)
            case Respond():
                self._deferred.respond(worker, frame, payload)
            case SetTimer():
                self._set_timer(worker, component, frame, payload)
            case _ if payload:
                self._delivery.violation(worker, f"{type(frame).__name__} with a payload")
            case Cancel():
                self._cancel(worker, frame)
            case Subscribe():
                self._subscribe(worker, component, frame)
            case Unsubscribe():
                refused = self._topics.unsubscribe(component, frame.pattern)
                self._plainly(worker, frame.ask, refused, "there is no such subscription")
            case Defer():
                self._deferred.defer(worker, component, frame)
            case CancelTimer():
                found = self._alarms.cancel(component, frame.timer)
                self._plainly(worker, frame.ask, "" if found else "invalid", "there is no such timer")
            case ListComponents():
                self._answers.give(worker, Ack(frame.ask, 0, components=self._permissions.visible(component)))
            case GetMetadata():
                self._metadata(worker, component, frame)

    # -- to one -------------------------------------------------------------------------------------------------

    def _send(self, worker: Worker, component: Component, frame: Send, payload: bytes) -> None:
        target = self._target(worker, component, frame, "send", len(payload))
        if target is not None:
            self._post(worker, component, target, frame, self._message(component, payload, frame.options), None)

    def _request(self, worker: Worker, component: Component, frame: Request, payload: bytes) -> None:
        if frame.timeout_ms < 0:
            self._delivery.violation(worker, "negative timeout")
            return
        target = self._target(worker, component, frame, "request", len(payload))
        if target is None:
            return
        if _is_retired(worker, component):
            # The answer would come into a mailbox that is its successor's.
            self._refuse(worker, frame, "stopping", f"{component.id} is shutting down")
            return
        correlations = self._delivery.correlations
        # A callback needs its place in the requester's mailbox even if everybody answers at once.
        open_requests = correlations.count(worker.incarnation) + component.mailbox.callbacks
        if open_requests >= component.limits.requests:
            self._refuse(worker, frame, "queue-full", "too many open requests")
            return
        message = self._message(component, payload, frame.options)
        pending = correlations.open(target.id, incarnation=worker.incarnation)
        self._delivery.requests.limit(pending, min(max(frame.timeout_ms, 1), MAX_TIMEOUT_MS))
        pending.message, pending.priority = message.id, message.priority
        message.pending, message.correlation, message.reply_to = pending, pending.correlation, component.id
        self._post(worker, component, target, frame, message, pending)

    def _target(
        self, worker: Worker, component: Component, frame: Send | Request, action: str, size: int
    ) -> Component | None:
        """Who the frame is for, if it may go there; otherwise the worker is told why not."""
        if not self._may_go_on(component):
            self._refuse(worker, frame, "rate-limited", _too_often(component))
            return None
        key = "" if frame.options is None else frame.options.key
        verdict, target = self._find(component, frame.target, action, key)
        if verdict is Verdict.DENIED:
            ack = failed(frame.ask, "denied", "denied", typed=frame.options is not None)
            why = self._permissions.refused_by(component, frame.target, action)
            self._answers.deny(worker, f"messaging.{action}", shown(frame.target), ack, why=why)
        elif target is None:
            self._refuse(worker, frame, "target-not-found", shown(frame.target))
        elif size > target.limits.message_size:
            self._refuse(worker, frame, "too-large", _too_large(target))
        else:
            return target
        return None

    def _may_go_on(self, component: Component) -> bool:
        """Whether the component's rate lets another message of its own pass; before anything else is asked of it."""
        if component.bucket.take(time.monotonic()):
            return True
        self._table.counters["rate-limited"] += 1
        return False

    def _find(
        self, component: Component, target: ComponentId, action: str, key: str
    ) -> tuple[Verdict, Component | None]:
        """The component that is meant, and whether the sender may do this to it."""
        verdict = self._permissions.check(component, target, action)
        if target.instance == EVERY and verdict is Verdict.MISSING:  # its own side allows it
            member = self._groups.pick(target, component.id, key)
            if member is None:
                return verdict, None
            target = member.id
            verdict = self._permissions.check(component, target, action)
        return verdict, self._table.components.get(target)

    def _message(self, sender: Component, payload: bytes, options: Options | None) -> Message:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        message = Message(self._delivery.message_id(), False, sender.id, seconds, nanoseconds, payload)
        if options is not None:
            message.priority, message.content_type = options.priority, options.content_type
            if options.ttl_ms:
                message.expires = time.monotonic() + options.ttl_ms / 1000
        return message

    def _post(
        self,
        worker: Worker,
        component: Component,
        target: Component,
        frame: Send | Request,
        message: Message,
        pending: Pending | None,
    ) -> None:
        """Put one permitted message into its target's mailbox, and tell the worker when that is decided."""
        message.waits = not _is_retired(worker, component)  # its successor's time is another
        decided = False

        def done(reason: str) -> None:
            nonlocal decided
            decided = True
            if worker.withheld == frame.ask:
                worker.withheld = None
            if not reason:
                component.sent += 1
                self._table.counters["allowed"] += 1
                if pending is not None and self._delivery.correlations.is_open(pending):
                    self._delivery.requests.start(pending)
            elif pending is not None:
                self._delivery.settle(pending)
            if worker.phase is Phase.CLOSED:
                return
            if reason:
                self._refuse(worker, frame, reason, _why(reason, target))
            else:
                ack = Ack(frame.ask, 0, "" if pending is None else pending.correlation)
                self._accepted(worker, component, target.id, type(frame).__name__.lower(), ack)

        self._delivery.submit(target, message, done)
        if not decided:
            worker.withheld = frame.ask

    def _accepted(self, worker: Worker, component: Component, target: ComponentId, action: str, ack: Ack) -> None:
        if self._table.settings.record and self._permissions.recorded(component.id, target):
            answer = self._answers.withhold(worker, ack.ask)
            answer.ack = ack
            self._answers.record(answer, f"messaging.{action}", str(component.id), str(target))
        else:
            self._answers.give(worker, ack)

    def _refuse(self, worker: Worker, frame: Send | Request, reason: str, text: str) -> None:
        self._answers.give(worker, failed(frame.ask, reason, text, typed=frame.options is not None))

    def _plainly(self, worker: Worker, ask: int, refused: str, text: str) -> None:
        """Answer what has no value."""
        self._answers.give(worker, failed(ask, refused, text, typed=True) if refused else Ack(ask, 0))

    def _cancel(self, worker: Worker, frame: Cancel) -> None:
        pending = self._delivery.correlations.find(worker.incarnation, frame.correlation)
        if pending is None:
            ack = Ack(frame.ask, MessagingError.CORRELATION_TIMEOUT, frame.correlation[:MAX_CORRELATION])
        else:
            self._delivery.settle(pending)
            ack = Ack(frame.ask, 0)
        self._answers.give(worker, ack)

    # -- to many ------------------------------------------------------------------------------------------------

    def _broadcast(
        self, worker: Worker, component: Component, frame: Broadcast, payload: bytes
    ) -> Generator[None, None, None]:
        """Put the message into each permitted mailbox, a slice a turn; the worker may say nothing meanwhile."""
        answer = self._answers.withhold(worker, frame.ask)
        first, culprit = Ack(frame.ask, 0), None
        recording = bool(self._table.settings.record)
        reason = ""

        def done(told: str) -> None:
            nonlocal reason
            reason = told

        for count, named in enumerate(dict.fromkeys(frame.targets), 1):
            reason = text = ""
            within = self._may_go_on(component)
            verdict, target = self._find(component, named, "broadcast", "") if within else (Verdict.DENIED, None)
            if not within:
                reason, text = "rate-limited", _too_often(component)
            elif verdict is Verdict.DENIED:
                reason = "denied"
                why = self._permissions.refused_by(component, named, "broadcast")
                self._answers.record(answer, "messaging.broadcast", str(component.id), shown(named), "denied", why)
            elif target is None:
                reason, text = "target-not-found", shown(named)
            elif len(payload) > target.limits.message_size:
                reason, text = "too-large", _too_large(target)
            else:
                self._delivery.submit(target, self._message(component, payload, None), done)
                text = _why(reason, target)
            if not reason:
                component.sent += 1
                self._table.counters["allowed"] += 1
                if recording and target is not None and self._permissions.recorded(component.id, target.id):
                    self._answers.record(answer, "messaging.broadcast", str(component.id), str(target.id))
            elif culprit is None:
                first, culprit = failed(frame.ask, reason, text, typed=False), named
            if count % SLICE == 0:
                yield
                if worker.phase is Phase.CLOSED:
                    return
        # Of many targets the worker must be told which one is not there.
        answer.ack = Ack(frame.ask, first.case, first.text, components=[] if culprit is None else [culprit])
        self._answers.release(answer)

    def _publish(self, worker: Worker, component: Component, frame: Publish, payload: bytes) -> None:
        try:
            validate_topic(frame.topic)
        except InvalidPattern:
            self._plainly(worker, frame.ask, "invalid", "not a topic")
            return
        if not self._may_go_on(component):
            self._plainly(worker, frame.ask, "rate-limited", _too_often(component))
            return
        if not self._permissions.publishes(component, frame.topic):
            ack = failed(frame.ask, "denied", "denied", typed=True)
            self._answers.deny(worker, "messaging.publish", frame.topic, ack)
            return
        answer = self._answers.withhold(worker, frame.ask)

        def told(taken: int, there: int) -> None:
            component.bucket.spend(there)  # each is a message that was sent
            component.sent += 1
            self._table.counters["allowed"] += 1
            answer.ack = Ack(frame.ask, 0, number=taken)
            if self._table.settings.record and self._permissions.recorded(component.id, None):
                self._answers.record(answer, "messaging.publish", str(component.id), frame.topic)
            self._answers.release(answer)

        room = self._table.account
        if not self._topics.publish(component.id, frame.topic, payload, frame.options, told, room):
            answer.ack = failed(frame.ask, "queue-full", "the host holds too many messages", typed=True)
            self._answers.release(answer)

    # -- to oneself -----------------------------------------------------------------------------------------------

    def _subscribe(self, worker: Worker, component: Component, frame: Subscribe) -> None:
        match self._topics.subscribe(component, frame.pattern):
            case "denied":
                ack = failed(frame.ask, "denied", "denied", typed=True)
                self._answers.deny(worker, "messaging.subscribe", frame.pattern, ack)
            case "queue-full":
                text = f"{component.limits.subscriptions} subscriptions are all it may have"
                self._plainly(worker, frame.ask, "queue-full", text)
            case refused:
                self._plainly(worker, frame.ask, refused, "not a topic pattern")

    def _set_timer(self, worker: Worker, component: Component, frame: SetTimer, payload: bytes) -> None:
        if frame.every and frame.delay_ms < LEAST_INTERVAL_MS:
            text = f"a recurring timer has {LEAST_INTERVAL_MS} ms at least between two messages"
            self._plainly(worker, frame.ask, "invalid", text)
            return
        number = self._alarms.set(component, frame.delay_ms, payload, every=frame.every)
        if number is None:
            text = (
                f"no room: {component.limits.timers} timers, {MAX_RATE:.0f} messages a second of those that recur, and "
                "the bytes of a mailbox are all it may have"
            )
            self._plainly(worker, frame.ask, "queue-full", text)
        else:
            self._answers.give(worker, Ack(frame.ask, 0, number))

    # -- who there is ---------------------------------------------------------------------------------------------

    def _metadata(self, worker: Worker, component: Component, frame: GetMetadata) -> None:
        target = frame.component
        verdicts = {self._permissions.check(component, target, action) for action in ("send", "request", "broadcast")}
        if target == component.id or Verdict.ALLOWED in verdicts:
            other = self._table.components.get(target)
            if other is not None:
                self._answers.give(worker, Ack(frame.ask, 0, info=(other.name, other.version, other.health)))
                return
        if verdicts == {Verdict.DENIED}:
            ack = Ack(frame.ask, INVALID_STATE, "denied")
            sides = {self._permissions.refused_by(component, target, each) for each in ("send", "request", "broadcast")}
            why = "target" if "target" in sides else "sender"
            self._answers.deny(worker, "messaging.metadata", shown(target), ack, "delivery-failed", why)
        else:
            self._answers.give(worker, Ack(frame.ask, INVALID_STATE, "not found"))


def _is_retired(worker: Worker, component: Component) -> bool:
    """Whether a newer worker has taken over, and this one only comes to the end of what it has in hand."""
    return worker is not component.worker and worker is not component.successor


def _too_often(sender: Component) -> str:
    return f"more than {sender.limits.message_rate} messages a second"


def _too_large(target: Component) -> str:
    return f"too large: {target.id} takes {target.limits.message_size} bytes"


def _why(reason: str, target: Component) -> str:
    match reason:
        case "queue-full":
            return f"{target.id}'s mailbox is full"
        case "target-not-found":
            return str(target.id)
        case "stopping":
            return f"{target.id} is shutting down"
        case "circuit-open":
            return f"requests to {target.id} failed too often lately"
        case _:
            return reason
