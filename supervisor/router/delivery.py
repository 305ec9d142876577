"""The life of a worker as the router sees it, and the way of one message to it and of the answer back.

    attach -> Initialize -> Ready -> ( message or callback -> Reply | health check -> HealthReply )* -> Shutdown -> end

One message is in hand at a time; each step has a deadline, and when it passes the supervisor is asked to kill, once.
A worker that breaks the protocol is reported the same way and hears nothing more. Its mailbox stays: delivery is at
most once, the message in hand fails with its worker, what waits is for the next one.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import msgspec

from bridge.audit.client import AuditClient
from sandbox.kernel.clock import cpu_seconds
from sandbox.types import START_MS, ComponentId, Outcome
from sandbox.wire.router_frames import (
    Callback,
    Deliver,
    Ended,
    Event,
    Health,
    HealthReply,
    Initialize,
    Metadata,
    Publication,
    Ready,
    Reply,
    Shutdown,
)
from sandbox.wire.supervisor_frames import AttachRouter, Detach, EndWorker
from supervisor.router.channels import Channel, Sent
from supervisor.router.correlation import Correlations, Pending, Result
from supervisor.router.mailbox import NEVER, Message
from supervisor.router.ports import Port, SupervisorLink
from supervisor.router.routes import Component, Phase, Table, Worker
from supervisor.router.timers import Timers

START_SECONDS = START_MS / 1000
"""Least time a worker has to become ready, seconds."""
CPU_STEP = 0.005
"""Least time between two readings of a worker's CPU clock, seconds: how much more than its limit it may use."""
ERROR_TYPE = "application/vnd.airssys.error+json"
"""Content type of a failure delivered to `handle-callback`."""
MAX_TEXT = 16 * 1024
"""Longest text of a worker passed on, characters."""
HEALTH = frozenset({"healthy", "degraded", "unhealthy", "unknown"})


class Failure(msgspec.Struct, frozen=True):
    """Payload of a failed request's callback."""

    error: str
    message: str


class Delivery:
    """The state machine of every worker.

    Args:
        bus: control's ROUTER socket.
        supervisor: who starts and ends workers.
        audit: where violations are recorded.
    """

    def __init__(self, bus: Port, supervisor: SupervisorLink, audit: AuditClient) -> None:
        self.table = Table()
        self.correlations = Correlations()
        self.timers = Timers()
        self.audit = audit
        self.control: bytes | None = None
        """Routing id of the bus peer that is control: the last that sent a `Route` or a `Query`."""
        self._bus, self._supervisor = bus, supervisor
        self._last_id = 0

    # -- attach and start -------------------------------------------------------------------------------------

    def attach(self, frame: AttachRouter, channel: Channel[Worker]) -> None:
        """A checked worker and its channel: initialise it, or wait for its route."""
        known = self.table.by_incarnation.get(frame.incarnation)
        if known is not None:
            # The supervisor starts numbers over only after a loss of its own: the old one is gone.
            self._finish(known, Outcome.KILLED, "replaced")
        worker = Worker(channel, frame.component, frame.incarnation, frame.pid)
        self.table.add(worker)
        self._arm(worker, START_SECONDS)
        component = self.table.components.get(frame.component)
        if component is None:
            worker.closing = "no route for this component"
        else:
            self.adopt(component, worker)

    def adopt(self, component: Component, worker: Worker) -> None:
        """Bind an attached worker to its component and start it."""
        worker.home = component
        worker.limits = component.limits
        worker.channel.inbound.payload_limit = worker.limits.message_size
        component.draining = False
        if component.worker is None:
            component.worker = worker
        else:
            if component.successor is not None:
                self._retire(component.successor)
            component.successor = worker
        limits = worker.limits
        self._arm(worker, max(limits.deadline_ms / 1000, START_SECONDS), max(limits.cpu_ms / 1000, START_SECONDS))
        if worker.channel.send(Initialize(component.env, limits, args=component.args)) is Sent.OK:
            worker.phase = Phase.INITIALIZING
        else:
            self._close(worker, "closed its channel")

    def ready(self, worker: Worker, frame: Ready) -> None:
        """The guest is initialised, or said that it cannot."""
        component = worker.home
        if component is None or worker.phase is not Phase.INITIALIZING:
            self.violation(worker, "Ready out of order")
            return
        if frame.health not in HEALTH or (frame.metadata is None and not frame.error):
            self.violation(worker, "Ready without metadata or with an unknown health")
            return
        if frame.error:
            self._event("init-failed", worker, text=frame.error)
            self._close(worker, "did not exit after initialisation failed")
            return
        component.health = frame.health
        worker.phase = Phase.IDLE
        self._disarm(worker)
        self._note_refusal(worker, frame.memory_refused)
        self._event("ready", worker, text=frame.health, metadata=frame.metadata)
        if component.successor is worker:
            old, component.worker, component.successor = component.worker, worker, None
            if old is not None:
                self._retire(old)
        self.advance(worker)

    def _retire(self, worker: Worker) -> None:
        """A newer worker has taken over: finish what is in hand, then shut down."""
        worker.stop, worker.drain = True, False
        self._forget_requests(worker)
        self.advance(worker)

    # -- the queue --------------------------------------------------------------------------------------------

    def message_id(self) -> int:
        """A number no other message has."""
        self._last_id += 1
        return self._last_id

    def post(self, component: Component, message: Message) -> str:
        """Put a message into the mailbox and deliver it if its worker is idle.

        Returns:
            "", or why not: queue-full or stopping.
        """
        if component.draining:
            return "stopping"
        if not component.mailbox.put(message):
            return "queue-full"
        worker = component.worker
        if worker is not None and worker.phase is Phase.IDLE:
            self.advance(worker)
        return ""

    def submit(self, component: Component, message: Message, done: Callable[[str], None]) -> None:
        """As `post`; `done` hears the answer, at once or when it is known (a mailbox may let its senders wait)."""
        done(self.post(component, message))

    def advance(self, worker: Worker) -> None:
        """Give an idle worker the next thing to do: a health check, its shutdown, or a message."""
        component = worker.home
        if worker.phase is not Phase.IDLE or component is None:
            return
        if worker.check_health:
            worker.check_health = False
            worker.number = self.message_id()
            self._hand_over(worker, Phase.HEALTH, Health(worker.number))
        elif worker.stop and not (worker.drain and component.worker is worker and len(component.mailbox)):
            self._hand_over(worker, Phase.STOPPING, Shutdown())
        elif component.worker is worker:
            message = component.mailbox.take()
            if message is not None:
                self._deliver(component, worker, message)

    def _deliver(self, component: Component, worker: Worker, message: Message) -> None:
        message.deliveries += 1
        if self._hand_over(worker, Phase.WORKING, _frame(message), message.payload):
            worker.hand = message
            message.payload = b""
            component.delivered += 1
        else:
            message.deliveries -= 1
            component.mailbox.put_back(message)

    def _hand_over(self, worker: Worker, phase: Phase, frame: msgspec.Struct, payload: bytes = b"") -> bool:
        result = worker.channel.send(frame, payload)
        if result is Sent.OK:
            worker.phase = phase
            self._arm(worker, worker.limits.deadline_ms / 1000, worker.limits.cpu_ms / 1000)
            return True
        if result is Sent.FULL:
            self.violation(worker, "does not read its channel")
        else:
            self._close(worker, "closed its channel")  # its last words may still lie there
        return False

    # -- answers ----------------------------------------------------------------------------------------------

    def reply(self, worker: Worker, frame: Reply, payload: bytes) -> None:
        """The end of the message in hand; the answer goes to whoever waits for it."""
        message = worker.hand
        component = worker.home
        if worker.phase is not Phase.WORKING or message is None or component is None or message.id != frame.id:
            self.violation(worker, "Reply to nothing in hand")
            return
        if payload and (not frame.some or frame.error):
            self.violation(worker, "Reply with a payload it does not announce")
            return
        worker.hand = None
        worker.phase = Phase.IDLE
        self._disarm(worker)
        self._note_refusal(worker, frame.memory_refused)
        if frame.error:
            component.failed += 1
        if message.pending is not None:
            if frame.error:
                self.fail(message.pending, "guest-error", frame.error[:MAX_TEXT])
            elif not message.pending.token:
                self._answer(message.pending, payload, frame.some)
        self.advance(worker)

    def _note_refusal(self, worker: Worker, asked: int) -> None:
        """Record, once for each worker, that it was refused memory: the guest hears -1 and may keep it to itself."""
        if asked > 0 and not worker.refusal_noted:
            worker.refusal_noted = True
            detail: dict[str, str | int] = {"asked": asked, "limit": worker.limits.memory}
            self.audit.record("limit.reached", str(worker.component), "denied", "memory", "refused", detail=detail)

    def _answer(self, pending: Pending, payload: bytes, some: bool) -> None:
        if not self.settle(pending):
            self.table.counters["late-replies"] += 1
            return
        self._give(pending, payload, some)

    def answer_deferred(self, pending: Pending, payload: bytes) -> None:
        """Give the reply to a request that its handler deferred."""
        if self.settle(pending):
            self._give(pending, payload, True)

    def _give(self, pending: Pending, payload: bytes, some: bool) -> None:
        if pending.outside is not None:
            pending.outside(Result("", "", some, payload, pending.message, pending.correlation))
            return
        worker = self.table.by_incarnation.get(pending.incarnation)
        component = worker.home if worker is not None else None
        if worker is None or component is None:
            self.table.counters["discarded-callbacks"] += 1
        elif len(payload) > worker.limits.message_size:
            text = "the reply is over the message size"
            self._call_back(component, worker, pending, *_failure("too-large", text), "too-large")
        else:
            self._call_back(component, worker, pending, payload, None)

    def fail(self, pending: Pending, error: str, text: str) -> None:
        """Tell whoever waits that the request failed; nothing happens when it was answered before."""
        if not self.settle(pending):
            return
        if pending.outside is not None:
            pending.outside(Result(error, text, False, b"", pending.message, pending.correlation))
            return
        worker = self.table.by_incarnation.get(pending.incarnation)
        component = worker.home if worker is not None else None
        if worker is None or component is None:
            self.table.counters["discarded-callbacks"] += 1
        else:
            self._call_back(component, worker, pending, *_failure(error, text), error)

    def settle(self, pending: Pending) -> bool:
        """Close a request without telling anybody; False when that was done before."""
        if not self.correlations.close(pending):
            return False
        if pending.timer is not None:
            self.timers.cancel(pending.timer)
        target = self.table.components.get(pending.target)
        if target is not None:
            # Nobody waits for it any more: if it has not been delivered, it is not going to be.
            target.mailbox.remove(pending.message)
        return True

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
            self.message_id(),
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
        )
        if component.removed:
            self.table.counters["discarded-callbacks"] += 1
            return
        if not component.mailbox.put_callback(message):
            message.failure = "queue-full"
            message.payload, message.content_type = _failure("queue-full", "too many bytes wait for this component")
            component.mailbox.put_callback(message)
        self.advance(worker)

    def timeout(self, pending: Pending, milliseconds: int) -> None:
        """Start the clock of a request."""
        call = functools.partial(self.fail, pending, "timeout", f"no answer within {milliseconds} ms")
        pending.timer = self.timers.schedule(time.monotonic() + milliseconds / 1000, call)

    # -- health and stop --------------------------------------------------------------------------------------

    def check_health(self, component: Component) -> None:
        """Ask for health as soon as no message is in hand; nothing happens without a worker."""
        if component.worker is not None:
            component.worker.check_health = True
            self.advance(component.worker)

    def health_reply(self, worker: Worker, frame: HealthReply) -> None:
        """The answer to a health check."""
        if worker.phase is not Phase.HEALTH or worker.home is None or frame.id != worker.number:
            self.violation(worker, "HealthReply to nothing asked")
            return
        if frame.health not in HEALTH:
            self.violation(worker, "unknown health")
            return
        worker.home.health = frame.health
        worker.phase = Phase.IDLE
        self._disarm(worker)
        self._event("health", worker, text=frame.health)
        self.advance(worker)

    def stop(self, component: Component, drain: bool) -> None:
        """Shut the component's workers down; without one there is nothing to wait for.

        With `drain`, new messages are refused as `stopping` from now until the next worker attaches, and what waits is
        delivered first. Without, the mailbox keeps what it has and takes more.
        """
        component.draining = drain
        if component.worker is None and component.successor is None:
            self._send_event(Event("stopped", component.id, 0))
        for worker in (component.worker, component.successor):
            if worker is not None:
                worker.stop, worker.drain, worker.told_stopped = True, drain, True
                self.advance(worker)

    # -- ends -------------------------------------------------------------------------------------------------

    def hung_up(self, worker: Worker) -> None:
        """Its end of the channel is closed: most likely it is dead and the supervisor is about to say so."""
        worker.channel.shut()
        if worker.phase is not Phase.CLOSED:
            self._close(worker, "closed its channel")

    def ended(self, worker: Worker, frame: Ended) -> None:
        """The worker's last words; that it is dead, the supervisor says."""
        if worker.ended or frame.outcome not in set(Outcome):
            self.violation(worker, "Ended twice or with an unknown outcome")
            return
        worker.ended, worker.words = True, frame.detail.partition("\n")[0]
        self._event("ended", worker, text=frame.detail, outcome=frame.outcome)
        self._close(worker, "did not exit after its last words")

    def violation(self, worker: Worker, why: str) -> None:
        """The worker broke the protocol: record it and have it killed."""
        if worker.end_asked:
            return
        self.table.counters["violations"] += 1
        self.audit.record(
            "protocol.violation",
            str(worker.component),
            "denied",
            why,
            "ended",
            detail={"incarnation": worker.incarnation, "phase": worker.phase.value},
        )
        self._end(worker, Outcome.POLICY, why)

    def _end(self, worker: Worker, outcome: Outcome, detail: str) -> None:
        if worker.end_asked:
            return
        worker.end_asked = True
        worker.phase = Phase.CLOSED
        self._disarm(worker)
        self._supervisor.send(EndWorker(worker.incarnation, outcome.value, detail))
        worker.channel.shut()

    def _close(self, worker: Worker, why: str) -> None:
        """Nothing more is sent to it; it has one deadline's time to be dead."""
        worker.phase = Phase.CLOSED
        worker.closing = why
        self._arm(worker, worker.limits.deadline_ms / 1000)

    def _expired(self, worker: Worker) -> None:
        limit = worker.limits.deadline_ms
        match worker.phase:
            case Phase.WORKING:
                what = "callback" if worker.hand is not None and worker.hand.callback else "message"
                self._end(worker, Outcome.DEADLINE, f"{what} not finished within {limit} ms")
            case Phase.INITIALIZING:
                self._end(worker, Outcome.DEADLINE, f"not ready within {max(limit, START_SECONDS * 1000):.0f} ms")
            case Phase.HEALTH:
                self._end(worker, Outcome.DEADLINE, f"health not told within {limit} ms")
            case Phase.STOPPING:
                self._end(worker, Outcome.KILLED, "shutdown took too long")
            case Phase.WAITING | Phase.CLOSED:
                self._end(worker, Outcome.KILLED, worker.closing)
            case Phase.IDLE:
                return

    def detach(self, frame: Detach) -> None:
        """The supervisor says that the worker is dead; the caller has taken in what it had said before."""
        worker = self.table.by_incarnation.get(frame.incarnation)
        if worker is not None:
            self._finish(worker, frame.outcome, frame.detail)

    def _finish(self, worker: Worker, outcome: str, detail: str) -> None:
        if self.table.by_incarnation.get(worker.incarnation) is not worker:
            return
        self._disarm(worker)
        worker.phase = Phase.CLOSED
        worker.end_asked = True
        worker.channel.close()
        self.table.discard(worker)
        component, hand, worker.hand = worker.home, worker.hand, None
        if component is not None:
            if component.worker is worker:
                component.worker, component.successor = component.successor, None
                component.health = "unknown"
            elif component.successor is worker:
                component.successor = None
            self._forget_requests(worker)
            if hand is not None:
                component.failed += 1
        if hand is not None and hand.pending is not None:
            told = worker.words or detail
            self.fail(hand.pending, "target-ended", f"the worker ended: {outcome}{': ' + told if told else ''}")
        for pending in self.correlations.deferred_by(worker.incarnation):
            self.fail(pending, "target-ended", "the worker that was to give the reply ended")
        if worker.told_stopped:
            self._event("stopped", worker, text=detail, outcome=outcome)
        if component is not None and component.worker is not None:
            self.advance(component.worker)

    def _forget_requests(self, worker: Worker) -> None:
        """What this worker asked for is of no use to another."""
        for pending in self.correlations.of(worker.incarnation):
            self.correlations.close(pending)
            if pending.timer is not None:
                self.timers.cancel(pending.timer)
            self.table.counters["abandoned-requests"] += 1
        if worker.home is not None:
            gone = worker.home.mailbox.drop_callbacks(worker.incarnation)
            self.table.counters["discarded-callbacks"] += gone

    def remove(self, component: Component) -> None:
        """The component is gone: what waits for it fails."""
        self.table.forget(component)
        for worker in (component.worker, component.successor):
            if worker is not None:
                self._forget_requests(worker)
        for message in component.mailbox.drain():
            if message.pending is not None:
                self.fail(message.pending, "target-not-found", f"{component.id} was removed")
            else:
                self.table.counters["discarded-messages"] += 1

    # -- to control -------------------------------------------------------------------------------------------

    def _event(
        self, kind: str, worker: Worker, text: str = "", outcome: str = "", metadata: Metadata | None = None
    ) -> None:
        self._send_event(Event(kind, worker.component, worker.incarnation, text[:MAX_TEXT], outcome, metadata))

    def _send_event(self, frame: Event) -> None:
        if self.control is None:
            self.table.counters["lost-to-bus"] += 1
        else:
            self.to_bus(self.control, frame)

    def to_bus(self, peer: bytes, frame: msgspec.Struct, payload: bytes = b"") -> None:
        """Send to a bus peer; when it is gone, so is the frame."""
        if self._bus.send(peer, frame, payload) != 0:
            self.table.counters["lost-to-bus"] += 1

    def to_worker(self, worker: Worker, frame: msgspec.Struct) -> None:
        """Answer a worker while it works."""
        result = worker.channel.send(frame)
        if result is Sent.FULL:
            self.violation(worker, "does not read its channel")
        # If it is gone, the end of its stream says so.

    # -- deadlines --------------------------------------------------------------------------------------------

    def _arm(self, worker: Worker, seconds: float, cpu: float = NEVER) -> None:
        """Give it `seconds` of wall clock and `cpu` seconds of its CPU clock, whichever are over first.

        One thread cannot use CPU time faster than time passes, so the CPU clock is read when the budget may be used
        up, and again when the rest may be: some five readings for a message that uses it, none for any other.
        """
        # Deadlines move forward with each message, so the timer on the heap is left where it is and looks again when
        # it fires: one entry for each worker, none for each message.
        first = worker.deadline = time.monotonic() + seconds
        worker.cpu_end = NEVER
        if cpu < seconds and (used := cpu_seconds(worker.pid)) is not None:
            worker.cpu_end = used + cpu
            first += cpu - seconds
        if worker.timer is not None:
            if worker.timer.when <= first:
                return
            self.timers.cancel(worker.timer)
        worker.timer = self.timers.schedule(first, functools.partial(self._look, worker))

    def _disarm(self, worker: Worker) -> None:
        worker.deadline = NEVER

    def _look(self, worker: Worker) -> None:
        worker.timer = None
        now = time.monotonic()
        if worker.deadline == NEVER:
            return
        left = _cpu_left(worker)
        if worker.deadline <= now:
            worker.deadline = NEVER
            self._expired(worker)
        elif left <= 0:
            # An idle worker is disarmed: in every phase that is left, the guest's code is running.
            text = f"CPU time: more than {worker.limits.cpu_ms} ms"
            self._end(worker, Outcome.DEADLINE, f"{text} in {worker.phase.value}")
        else:
            again = min(worker.deadline, now + max(left, CPU_STEP))
            worker.timer = self.timers.schedule(again, functools.partial(self._look, worker))


def _frame(message: Message) -> Deliver | Publication | Callback:
    if message.callback:
        return Callback(
            message.id,
            message.sender,
            message.seconds,
            message.nanoseconds,
            message.correlation,
            message.reply_to,
            message.content_type,
            message.failure,
            message.priority,
        )
    if message.topic:
        return Publication(
            message.id,
            message.sender,
            message.seconds,
            message.nanoseconds,
            message.topic,
            message.content_type,
            message.deliveries,
            message.priority,
        )
    return Deliver(
        message.id,
        message.sender,
        message.seconds,
        message.nanoseconds,
        message.correlation,
        message.reply_to,
        message.content_type,
        message.deliveries,
        message.priority,
    )


def _cpu_left(worker: Worker) -> float:
    """Seconds of CPU time the worker may still use on what it has in hand."""
    if worker.cpu_end == NEVER:
        return NEVER
    used = cpu_seconds(worker.pid)
    return NEVER if used is None else worker.cpu_end - used  # without a process its end is on the way


def _failure(error: str, text: str) -> tuple[bytes, str]:
    return msgspec.json.encode(Failure(error, text)), ERROR_TYPE


def outside(user: str) -> ComponentId:
    """Who a message from outside comes from."""
    return ComponentId("host", "client", user)
