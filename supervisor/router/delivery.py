"""The way of a message: into its target's mailbox, to the target's worker, and to its end.

One message is in a worker's hand at a time. Its end is one of:

    the worker's reply         whatever it says, the message was dealt with
    its time to live is over   a dead letter, `expired`
    no room                    as the target's overflow policy says; what is shed is a dead letter, `dropped`
    its worker died            at most once: a dead letter, `undeliverable`; at least once: back to the front of the
                               mailbox, until it was delivered too often: a dead letter, `poisoned`
    its component was removed  a dead letter, `undeliverable`; likewise where it was stopped, or has ended for good
    nobody waits for it        a request that was answered otherwise, while its message waited

A request among these is delivered again where its target's policy says so (`retries`); when that is over, its requester
hears of the failure (`requests`). The life of the workers themselves is in `lives`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

import msgspec

from bridge.audit.client import AuditClient
from bridge.capabilities import HOST_NAMESPACE, covers
from sandbox.types import ComponentId
from sandbox.wire.router_frames import (
    Event,
    Health,
    Reply,
    Settings,
    Shutdown,
)
from supervisor.router.breaker import Breaker
from supervisor.router.channels import Sent
from supervisor.router.correlation import Pending
from supervisor.router.dead_letters import DROPPED, EXPIRED, POISONED, UNDELIVERABLE, DeadLetters
from supervisor.router.deadlines import disarm
from supervisor.router.lives import MAX_TEXT, Lives
from supervisor.router.mailbox import MAX_WHY, NEVER, Message
from supervisor.router.permissions import may_replay
from supervisor.router.ports import Port, SupervisorLink
from supervisor.router.requests import Requests
from supervisor.router.retries import Asleep, again
from supervisor.router.routes import GUEST_RUNS, Component, Phase, Table, Worker
from supervisor.router.timers import Timers
from supervisor.router.traces import Traces
from supervisor.router.waiting import Waiting


class Delivery:
    """The router's heart; what it is made of is open to those who build on it.

    Args:
        bus: control's ROUTER socket.
        supervisor: who starts and ends workers.
        audit: where violations are recorded.
    """

    def __init__(self, bus: Port, supervisor: SupervisorLink, audit: AuditClient) -> None:
        self.table = Table()
        self.timers = Timers()
        self.audit = audit
        self.control: bytes | None = None
        """Routing id of the bus peer that is control: the last that sent a `Route` or a `Query`."""
        self._bus = bus
        self._last_id = 0
        self.requests = Requests(self.table, self.timers, self.message_id, self._withdraw, self.advance)
        self.correlations = self.requests.correlations
        self.dead_letters = DeadLetters(self.table.account, self.table.counters, self._replay, self.message_id)
        self.traces = Traces(self._living)
        self.lives = Lives(self, supervisor)
        self._waiting = Waiting(self.timers, self.table.account, self._admit)
        self.table.on_settings.append(self._configured)
        self.table.on_route.append(self._routed)

    def message_id(self) -> int:
        """A number no other message has."""
        self._last_id += 1
        return self._last_id

    # -- what the host's configuration says -----------------------------------------------------------------------

    def _configured(self, settings: Settings) -> None:
        self.dead_letters.resize(settings.dead_letters, settings.dead_letter_bytes)
        for component in self.table.components.values():
            self._adopt_policy(component)

    def _routed(self, component: Component) -> None:
        self._adopt_policy(component)
        self._waiting.admit(component)  # its mailbox may have more room

    def _adopt_policy(self, component: Component) -> None:
        targets = self.table.settings.targets
        policy = next((each for each in targets if covers(each.component, component.id)), None)
        component.policy = policy
        if policy is None or not policy.breaker_failures:
            component.breaker = None
        elif component.breaker is None:
            component.breaker = Breaker(policy)
        else:
            component.breaker.adopt(policy)

    # -- into the mailbox -----------------------------------------------------------------------------------------

    def submit(
        self, component: Component, message: Message, done: Callable[[str], None], patience: float | None = None
    ) -> None:
        """Put a message into a component's mailbox: the one way for all of them.

        Args:
            done: hears "" when the message is taken, or one of `FAILURES`; at once or, where the sender may be kept
                waiting (`Message.waits`), later. A request that is refused is closed by whoever made it.
            patience: how long a sender outside waits with a plain send, seconds; None: as `Waiting.join` has it.
        """
        if self._must_wait(component, message) and self._wait(component, message, done, patience):
            return
        done(self.post(component, message))

    def post(self, component: Component, message: Message) -> str:
        """As `submit`, for who does not wait.

        Returns:
            "", or why not: one of `FAILURES`.
        """
        message.target = component.id
        pending = message.pending
        if pending is not None and not self.requests.admit(component, pending):
            return "circuit-open"
        refused = self._offer(component, message)
        if not refused:
            return ""
        if refused == "shed":
            # The sender hears that it was taken; only who waits for an answer hears more, through that.
            self._shed(component, message)
            return ""
        if pending is not None:
            if self._try_again(component, message, refused):
                return ""
            self.requests.refused(pending, refused)
        return refused

    def _offer(self, component: Component, message: Message) -> str:
        """Queue it if there is or can be made room: "", stopping, queue-full, or "shed" where the sender hears ok."""
        if component.resting:
            return "target-not-found"
        if component.draining:
            return "stopping"
        overflow = component.mailing.overflow
        if component.waiting or not self._put(component, message):
            if overflow == "drop-newest":
                return "shed"
            pushed = component.mailbox.push_out(message) if overflow == "drop-oldest" else None
            if pushed is None:
                return "shed" if overflow == "drop-oldest" else "queue-full"
            for each in pushed:
                self._unqueued(each)
            self._put(component, message)
            for each in pushed:
                self._shed(component, each)
        worker = component.worker
        if worker is not None and worker.phase is Phase.IDLE:
            self.advance(worker)
        return ""

    def _put(self, component: Component, message: Message) -> bool:
        if not component.mailbox.put(message):
            return False
        if message.expires == NEVER and component.mailing.ttl_ms and not message.deliveries:
            message.expires = time.monotonic() + component.mailing.ttl_ms / 1000
        self._queued(component, message)
        return True

    def _queued(self, component: Component, message: Message) -> None:
        if message.expires != NEVER:
            call = functools.partial(self._expire, component, message)
            message.expiry = self.timers.schedule(message.expires, call)
        if message.pending is not None:
            message.pending.queued = True

    def _unqueued(self, message: Message) -> None:
        if message.expiry is not None:
            self.timers.cancel(message.expiry)
            message.expiry = None
        if message.pending is not None:
            message.pending.queued = False

    # -- senders that wait ----------------------------------------------------------------------------------------

    def _must_wait(self, component: Component, message: Message) -> bool:
        return (
            message.waits
            and component.mailing.overflow == "block"
            and not (component.draining or component.resting)
            and (bool(component.waiting) or not component.mailbox.fits(message.size))
        )

    def _wait(
        self, component: Component, message: Message, done: Callable[[str], None], patience: float | None
    ) -> bool:
        worker = None
        if message.sender.namespace != HOST_NAMESPACE:
            worker = self._asking(message.sender)
            if worker is None:
                return False
        pending = message.pending
        message.target = component.id
        if pending is None:
            return self._waiting.join(component, message, done, worker, patience)
        if not self.requests.admit(component, pending):
            return False  # `post` says so

        def told(refused: str) -> None:
            if refused:
                self.requests.refused(pending, refused)
            done(refused)

        if self._waiting.join(component, message, told, worker):
            return True
        self.requests.refused(pending, "")
        return False

    def _asking(self, sender: ComponentId) -> Worker | None:
        """The worker of this component whose guest is running; of two, the one with less time."""
        component = self.table.components.get(sender)
        if component is None:
            return None
        running = [w for w in (component.worker, component.successor) if w is not None and w.phase in GUEST_RUNS]
        return min(running, key=_deadline, default=None)

    def _admit(self, component: Component, message: Message) -> bool:
        """The first in the line has room."""
        taken = self._put(component, message)
        worker = component.worker
        if worker is not None and worker.phase is Phase.IDLE:
            self.advance(worker)
        return taken

    # -- to the worker --------------------------------------------------------------------------------------------

    def advance(self, worker: Worker) -> None:
        """Give an idle worker the next thing to do: a health check, its shutdown, or a message."""
        component = worker.home
        if worker.phase is not Phase.IDLE or component is None:
            return
        if worker.check_health:
            worker.check_health = False
            worker.number = self.message_id()
            self.hand_over(worker, Phase.HEALTH, Health(worker.number), milliseconds=worker.health_ms)
            return
        if component.worker is worker and (worker.drain or not worker.stop):
            gone: list[Message] = []
            message = self._next(component, gone)
            if message is not None:
                self._deliver(component, worker, message)
            # Only now: whoever hears of them may have this very worker given something to do.
            for each in gone:
                self._expired(component, each)
            if message is not None or gone:
                if component.waiting:
                    self._waiting.admit(component)
                if message is None:
                    self.advance(worker)
                return
        if worker.stop:
            self.hand_over(worker, Phase.STOPPING, Shutdown(), milliseconds=worker.stop_ms)

    def _next(self, component: Component, gone: list[Message]) -> Message | None:
        """The message whose turn it is; those whose time was over are left in `gone`."""
        while (message := component.mailbox.take()) is not None:
            if message.expires == NEVER:
                if message.pending is not None:
                    message.pending.queued = False
                return message
            self._unqueued(message)
            if message.expires > time.monotonic():
                return message
            gone.append(message)
        return None

    def _deliver(self, component: Component, worker: Worker, message: Message) -> None:
        message.deliveries += 1
        now = self.hand_over(worker, Phase.WORKING, message.frame(), message.payload)
        if not now:
            message.deliveries -= 1
            component.mailbox.put_back(message)
            self._queued(component, message)
            return
        worker.hand = message
        # It stays whole, and accounted for, until it is dealt with: it may have to be delivered again, or be kept.
        self.table.account.used += message.size
        message.delivered = now
        if message.pending is not None:
            message.pending.carrier = message
        component.delivered += 1
        component.meter.count(now)

    def hand_over(
        self, worker: Worker, phase: Phase, frame: msgspec.Struct, payload: bytes = b"", milliseconds: int = 0
    ) -> float:
        """Send what is to be done, and start the clock: `milliseconds`, or the worker's deadline.

        Returns:
            The monotonic time, seconds; 0.0 when it did not go out: the worker is on its way out then.
        """
        result = worker.channel.send(frame, payload)
        if result is Sent.OK:
            worker.phase = phase
            limits = worker.limits
            return self.lives.deadlines.arm(worker, (milliseconds or limits.deadline_ms) / 1000, limits.cpu_ms / 1000)
        if result is Sent.FULL:
            self.lives.violation(worker, "does not read its channel")
        else:
            self.lives.close(worker, "closed its channel")  # its last words may still lie there
        return 0.0

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
        disarm(worker)
        if frame.memory_refused:
            self.lives.note_refusal(worker, frame.memory_refused)
        self.table.account.used -= message.size
        pending = message.pending
        if frame.error:
            component.failed += 1
            self._over(message, "failed", frame.error[:MAX_TEXT])
        elif pending is None or self.correlations.is_open(pending):
            self._over(message, "deferred" if pending is not None and pending.token else "replied", "")
        else:
            self._over(message, "replied", "too late, discarded")
        if pending is not None:
            if frame.error:
                self.requests.fail(pending, "too-large" if frame.too_large else "guest-error", frame.error[:MAX_TEXT])
            elif not pending.token:
                self.requests.reply(pending, payload, frame.some)
        self.advance(worker)

    # -- other ends -----------------------------------------------------------------------------------------------

    def lost(self, component: Component, message: Message, told: str) -> None:
        """The worker died with this message in hand."""
        self.table.account.used -= message.size
        component.failed += 1
        pending = message.pending
        if pending is not None and pending.token:
            self.correlations.undefer(pending)  # its handler had not come to its end
        if pending is not None and pending.abandoned:
            message.pending = pending = None  # a plain message by now
        if message.callback:
            self._over(message, "failed", told)
        elif pending is not None and not self.correlations.is_open(pending):
            self._over(message, "failed", f"{told}; nobody waits for it any more")
        elif not component.mailing.at_least_once or component.removed:
            self._die(component, message, UNDELIVERABLE, "target-ended", told)
        elif message.deliveries >= component.mailing.max_deliveries:
            text = f"{told}, for the {message.deliveries}. time with it in hand"
            self._die(component, message, POISONED, "target-ended", text, final=True)
        else:
            component.redelivered += 1
            message.tell_delivery()
            message.story = [*(message.story or ()), ("redelivered", time.monotonic(), told[:MAX_WHY])]
            component.mailbox.put_back(message)
            self._queued(component, message)

    def fail_deferred(self, worker: Worker) -> None:
        """A worker that owes replies is dead."""
        for pending in self.correlations.deferred_by(worker.incarnation):
            self.requests.fail(pending, "target-ended", "the worker that was to give the reply ended")

    def drain(self, component: Component, why: str) -> None:
        """The component is gone: what waits for it is undeliverable, and whoever waits to write to it hears so."""
        component.resting, text = why, f"{component.id} {why}"
        self._turn_away_for_good(component, text)
        for message in component.mailbox.drain():
            if message.callback:
                self.table.counters["discarded-callbacks"] += 1
                self._over(message, "dead", text)
                continue
            self._unqueued(message)
            self._die(component, message, UNDELIVERABLE, "target-not-found", text)

    def rest(self, component: Component, why: str) -> None:
        """The component is not going to run: it takes no mail until its next route, and keeps what it has, without the
        requests that somebody waits for."""
        component.resting, text = why, f"{component.id} {why}"
        self._turn_away_for_good(component, text)
        for pending in [each for each in self.correlations if each.queued and each.target == component.id]:
            self.requests.fail(pending, "target-not-found", text)

    def _turn_away_for_good(self, component: Component, text: str) -> None:
        self._waiting.refuse_all(component, "target-not-found")
        for pending in [each for each in self.correlations if each.asleep and each.target == component.id]:
            # Its next attempt would go to whoever is installed under this name by then.
            self.requests.fail(pending, "target-not-found", text)

    def turn_away(self, component: Component) -> None:
        """The component is stopping and takes no more: whoever waits to write to it hears so."""
        self._waiting.refuse_all(component, "stopping")

    def forget(self, worker: Worker) -> None:
        """What this worker asked for is of no use to another."""
        if worker.waiter is not None:
            self._waiting.refuse(worker.waiter, "stopping")
        for pending in self.correlations.of(worker.incarnation):
            self.requests.abandon(pending)
        if worker.home is not None:
            gone = worker.home.mailbox.drop_callbacks(worker.incarnation)
            self.table.counters["discarded-callbacks"] += gone

    def _expire(self, component: Component, message: Message) -> None:
        message.expiry = None
        if component.mailbox.remove(message.id) is not None:
            self._unqueued(message)
            self._expired(component, message)
            self._waiting.admit(component)

    def _expired(self, component: Component, message: Message) -> None:
        component.expired += 1
        self._die(component, message, EXPIRED, "expired", "its time to live was over before it was delivered")

    def _shed(self, component: Component, message: Message) -> None:
        self._die(component, message, DROPPED, "queue-full", f"the mailbox of {component.id} was full")

    def _die(
        self, component: Component, message: Message, reason: str, error: str, text: str, *, final: bool = False
    ) -> None:
        """A message that nobody dealt with: another attempt if it may have one, else a dead letter."""
        pending = message.pending
        if pending is not None and not final and self._try_again(component, message, error):
            return
        if reason == DROPPED:
            component.dropped += 1
        component.dead += 1
        self.dead_letters.add(component.id, message, reason, text)
        self._over(message, "dead", f"{reason}: {text}")
        if pending is not None:
            self.requests.fail(pending, error, text)

    def _over(self, message: Message, end: str, why: str) -> None:
        message.finished = time.monotonic()
        message.end, message.why = end, why[:MAX_WHY]
        message.payload = b""
        message.pending = None
        self.traces.keep(message)

    def _withdraw(self, pending: Pending, why: str) -> None:
        """A request was closed whose message waits somewhere."""
        message: Message | None = None
        component = self.table.components.get(pending.target)
        if pending.waiter is not None:
            message = pending.waiter.message
            self._waiting.leave(pending.waiter)
        elif pending.asleep is not None:
            message = pending.asleep.message
            self._awake(pending)
        elif component is not None:
            message = component.mailbox.remove(pending.message)
            if message is not None:
                self._unqueued(message)
        if message is not None:
            self._over(message, "failed", why)
        if component is not None:
            self._waiting.admit(component)

    # -- another attempt ------------------------------------------------------------------------------------------

    def _try_again(self, component: Component, message: Message, error: str) -> bool:
        """Whether a request that failed is delivered again, later."""
        pending = message.pending
        if pending is None or component.policy is None or component.removed or not self.correlations.is_open(pending):
            return False
        pending.attempts += 1
        now = time.monotonic()
        when = again(component.policy, error, pending.attempts, now, pending.deadline)
        if when is None or not self.table.account.has_room(message.size):
            return False
        message.tell_delivery()
        message.story = [*(message.story or ()), ("retried", now, f"after {error}, attempt {pending.attempts}")]
        self.table.account.used += message.size
        self.table.counters["retries"] += 1
        pending.asleep = Asleep(message, self.timers.schedule(when, functools.partial(self._attempt, pending)))
        return True

    def _awake(self, pending: Pending) -> None:
        if pending.asleep is not None:
            self.timers.cancel(pending.asleep.timer)
            self.table.account.used -= pending.asleep.message.size
            pending.asleep = None

    def _attempt(self, pending: Pending) -> None:
        if pending.asleep is None:
            return
        message = pending.asleep.message
        self._awake(pending)
        component = self.table.components.get(pending.target)
        if component is None:
            self.table.counters["discarded-messages"] += 1
            self._over(message, "failed", "target-not-found")
            self.requests.fail(pending, "target-not-found", f"{pending.target} is not there any more")
            return
        refused = self._offer(component, message)
        if refused == "shed":
            self._shed(component, message)
        elif refused and not self._try_again(component, message, refused):
            self._over(message, "failed", refused)
            self.requests.fail(pending, refused, f"{component.id} did not take it in {pending.attempts} attempts")

    # -- to look at -----------------------------------------------------------------------------------------------

    def _replay(self, message: Message) -> str:
        component = self.table.components.get(message.target) if message.target is not None else None
        if component is None:
            return "target-not-found"
        if len(message.payload) > component.limits.message_size:
            return "too-large"
        if not may_replay(self.table, component, message):
            return "denied"
        return self.post(component, message)

    def _living(self, wanted: int | str) -> Iterator[Message]:
        for component in self.table.components.values():
            yield from component.mailbox.find(wanted)
            for waiter in component.waiting.values():
                if wanted in (waiter.message.id, waiter.message.correlation):
                    yield waiter.message
        for worker in self.table.by_incarnation.values():
            if worker.hand is not None and wanted in (worker.hand.id, worker.hand.correlation):
                yield worker.hand
        for pending in self.correlations:
            if pending.asleep is not None and wanted in (pending.message, pending.correlation):
                yield pending.asleep.message

    # -- for those who build on it ----------------------------------------------------------------------------------

    def fail(self, pending: Pending, error: str, text: str) -> None:
        """See `Requests.fail`."""
        self.requests.fail(pending, error, text)

    def settle(self, pending: Pending) -> bool:
        """See `Requests.settle`."""
        return self.requests.settle(pending)

    def timeout(self, pending: Pending, milliseconds: int) -> None:
        """See `Requests.timeout`."""
        self.requests.timeout(pending, milliseconds)

    def answer_deferred(self, pending: Pending, payload: bytes) -> None:
        """Give the reply to a request that its handler deferred."""
        self.requests.reply(pending, payload, True)

    def violation(self, worker: Worker, why: str) -> None:
        """See `Lives.violation`."""
        self.lives.violation(worker, why)

    def event(self, frame: Event) -> None:
        """Tell control."""
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


def _deadline(worker: Worker) -> float:
    return worker.deadline


def outside(user: str) -> ComponentId:
    """Who a message from outside comes from."""
    return ComponentId(HOST_NAMESPACE, "client", user)
