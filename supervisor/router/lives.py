"""The life of a worker as the router sees it.

    attach -> Initialize -> Ready -> ( message or callback -> Reply | health check -> HealthReply )* -> Shutdown -> end

Each step has a deadline, and when it passes the supervisor is asked to kill, once. A worker that breaks the protocol is
reported the same way and hears nothing more. Its mailbox stays; what becomes of messages is `delivery`'s.
"""

from __future__ import annotations

import functools
import math
import random
import time
from typing import TYPE_CHECKING

from sandbox.types import START_MS, Outcome
from sandbox.wire.router_frames import Ended, Event, HealthReply, Initialize, Metadata, Ready
from sandbox.wire.supervisor_frames import AttachRouter, Detach, EndWorker
from supervisor.router.channels import Channel, Sent
from supervisor.router.deadlines import Deadlines, disarm
from supervisor.router.ports import SupervisorLink
from supervisor.router.routes import Component, Phase, Worker

if TYPE_CHECKING:
    from supervisor.router.delivery import Delivery

START_SECONDS = START_MS / 1000
"""Least time a worker has to become ready, seconds."""
MOST_TOGETHER = 1.0
"""Longest time by which a health check comes late, so that others are made with it, seconds."""
SPREAD = 0.2
"""Part of an interval by which the first health check comes early, at most: those started together are asked apart."""
MAX_TEXT = 16 * 1024
"""Longest text of a worker passed on, characters."""
HEALTH = frozenset({"healthy", "degraded", "unhealthy", "unknown"})


class Lives:
    """Begins, watches and ends workers.

    Args:
        delivery: gives idle workers what is to be done, and takes what dead ones had in hand.
        supervisor: who starts and ends workers.
    """

    def __init__(self, delivery: Delivery, supervisor: SupervisorLink) -> None:
        self._delivery, self._supervisor = delivery, supervisor
        self._table, self._audit = delivery.table, delivery.audit
        self.deadlines = Deadlines(delivery.timers, self._expired, self._over_cpu)

    # -- attach and start -------------------------------------------------------------------------------------

    def attach(self, frame: AttachRouter, channel: Channel[Worker]) -> None:
        """A checked worker and its channel: initialise it, or wait for its route."""
        known = self._table.by_incarnation.get(frame.incarnation)
        if known is not None:
            # The supervisor starts numbers over only after a loss of its own: the old one is gone.
            self._finish(known, Outcome.KILLED, "replaced")
        worker = Worker(channel, frame.component, frame.incarnation, frame.pid)
        self._table.add(worker)
        self.deadlines.arm(worker, START_SECONDS)
        component = self._table.components.get(frame.component)
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
        self.deadlines.arm(
            worker, max(limits.deadline_ms / 1000, START_SECONDS), max(limits.cpu_ms / 1000, START_SECONDS)
        )
        if worker.channel.send(Initialize(component.env, limits, args=component.args)) is Sent.OK:
            worker.phase = Phase.INITIALIZING
        else:
            self.close(worker, "closed its channel")

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
            self.close(worker, "did not exit after initialisation failed")
            return
        component.health = frame.health
        worker.phase = Phase.IDLE
        disarm(worker)
        self.note_refusal(worker, frame.memory_refused)
        self._event("ready", worker, text=frame.health, metadata=frame.metadata)
        if component.successor is worker:
            old, component.worker, component.successor = component.worker, worker, None
            if old is not None:
                self._retire(old)
        self._check_later(worker, 1 - SPREAD * random.random())  # noqa: S311 - spreads load, guards nothing
        self._delivery.advance(worker)

    def _retire(self, worker: Worker) -> None:
        """A newer worker has taken over: finish what is in hand, then shut down."""
        worker.stop, worker.drain = True, False
        self._delivery.forget(worker)
        self._delivery.advance(worker)

    def note_refusal(self, worker: Worker, asked: int) -> None:
        """Record, once for each worker, that it was refused memory: the guest hears -1 and may keep it to itself."""
        if asked > 0 and not worker.refusal_noted:
            worker.refusal_noted = True
            detail: dict[str, str | int] = {"asked": asked, "limit": worker.limits.memory}
            self._audit.record("limit.reached", str(worker.component), "denied", "memory", "refused", detail=detail)

    # -- health and stop --------------------------------------------------------------------------------------

    def _check_later(self, worker: Worker, part: float = 1.0) -> None:
        """Schedule the next health check of a worker: after its component's interval, or `part` of it."""
        component = worker.home
        worker.health_at = None
        if component is not None and component.health_interval:
            # Those that are due at about the same time are asked in one turn: waking up costs more than asking.
            step = min(component.health_interval / 30, MOST_TOGETHER)
            when = math.ceil((time.monotonic() + part * component.health_interval) / step) * step
            worker.health_at = self._delivery.timers.schedule(when, functools.partial(self._check, worker))

    def _check(self, worker: Worker) -> None:
        component = worker.home
        if component is None or worker.phase is Phase.CLOSED or worker.stop:
            worker.health_at = None
            return
        if worker.phase is not Phase.HEALTH:
            worker.check_health, worker.health_ms = True, component.health_ms
        self._check_later(worker)
        self._delivery.advance(worker)

    def check_health(self, component: Component, milliseconds: int = 0) -> None:
        """Ask for health as soon as no message is in hand; nothing happens without a worker.

        Args:
            milliseconds: how long the answer may take; 0: its deadline.
        """
        if component.worker is not None:
            component.worker.check_health = True
            component.worker.health_ms = milliseconds
            self._delivery.advance(component.worker)

    def health_reply(self, worker: Worker, frame: HealthReply) -> None:
        """The answer to a health check."""
        if worker.phase is not Phase.HEALTH or worker.home is None or frame.id != worker.number:
            self.violation(worker, "HealthReply to nothing asked")
            return
        if frame.health not in HEALTH:
            self.violation(worker, "unknown health")
            return
        # That all is still well is told to nobody: of a thousand who have nothing to do, each says so again and again.
        news = frame.health != worker.home.health or frame.health == "unhealthy"
        worker.home.health = frame.health
        worker.phase = Phase.IDLE
        disarm(worker)
        if news:
            self._event("health", worker, text=frame.health)
        self._delivery.advance(worker)

    def stop(self, component: Component, drain: bool, milliseconds: int = 0) -> None:
        """Shut the component's workers down; without one there is nothing to wait for.

        With `drain`, new messages are refused as `stopping` from now until the next worker attaches, and what waits is
        delivered first. Without, the mailbox keeps what it has and takes more.

        Args:
            milliseconds: what the guest's `shutdown` may take; 0: its deadline.
        """
        component.draining = drain
        if drain:
            self._delivery.turn_away(component)
        if component.worker is None and component.successor is None:
            self._delivery.event(Event("stopped", component.id, 0))
        for worker in (component.worker, component.successor):
            if worker is not None:
                worker.stop, worker.drain, worker.told_stopped, worker.stop_ms = True, drain, True, milliseconds
                self._delivery.advance(worker)

    # -- ends -------------------------------------------------------------------------------------------------

    def hung_up(self, worker: Worker) -> None:
        """Its end of the channel is closed: most likely it is dead and the supervisor is about to say so."""
        worker.channel.shut()
        if worker.phase is not Phase.CLOSED:
            self.close(worker, "closed its channel")

    def ended(self, worker: Worker, frame: Ended) -> None:
        """The worker's last words; that it is dead, the supervisor says."""
        if worker.ended or frame.outcome not in set(Outcome):
            self.violation(worker, "Ended twice or with an unknown outcome")
            return
        worker.ended, worker.words = True, frame.detail.partition("\n")[0][:MAX_TEXT]
        self._event("ended", worker, text=frame.detail, outcome=frame.outcome)
        self.close(worker, "did not exit after its last words")

    def violation(self, worker: Worker, why: str) -> None:
        """The worker broke the protocol: record it and have it killed."""
        if worker.end_asked:
            return
        self._table.counters["violations"] += 1
        self._audit.record(
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
        disarm(worker)
        self._supervisor.send(EndWorker(worker.incarnation, outcome.value, detail))
        worker.channel.shut()

    def close(self, worker: Worker, why: str) -> None:
        """Nothing more is sent to it; it has one deadline's time to be dead."""
        worker.phase = Phase.CLOSED
        worker.closing = why
        self.deadlines.arm(worker, worker.limits.deadline_ms / 1000)

    def _expired(self, worker: Worker) -> None:
        limit = worker.limits.deadline_ms
        match worker.phase:
            case Phase.WORKING:
                what = "callback" if worker.hand is not None and worker.hand.callback else "message"
                self._end(worker, Outcome.DEADLINE, f"{what} not finished within {limit} ms")
            case Phase.INITIALIZING:
                self._end(worker, Outcome.DEADLINE, f"not ready within {max(limit, START_SECONDS * 1000):.0f} ms")
            case Phase.HEALTH:
                self._end(worker, Outcome.DEADLINE, f"health not told within {worker.health_ms or limit} ms")
            case Phase.STOPPING:
                self._end(worker, Outcome.KILLED, "shutdown took too long")
            case Phase.WAITING | Phase.CLOSED:
                self._end(worker, Outcome.KILLED, worker.closing)
            case Phase.IDLE:
                return

    def _over_cpu(self, worker: Worker) -> None:
        text = f"CPU time: more than {worker.limits.cpu_ms} ms"
        self._end(worker, Outcome.DEADLINE, f"{text} in {worker.phase.value}")

    def detach(self, frame: Detach) -> None:
        """The supervisor says that the worker is dead; the caller has taken in what it had said before."""
        worker = self._table.by_incarnation.get(frame.incarnation)
        if worker is not None:
            self._finish(worker, frame.outcome, frame.detail)

    def _finish(self, worker: Worker, outcome: str, detail: str) -> None:
        if self._table.by_incarnation.get(worker.incarnation) is not worker:
            return
        disarm(worker)
        if worker.health_at is not None:
            self._delivery.timers.cancel(worker.health_at)
            worker.health_at = None
        worker.phase = Phase.CLOSED
        worker.end_asked = True
        worker.channel.close()
        self._table.discard(worker)
        component, hand, worker.hand = worker.home, worker.hand, None
        if component is not None:
            if component.worker is worker:
                component.worker, component.successor = component.successor, None
                component.health = "unknown"
            elif component.successor is worker:
                component.successor = None
            self._delivery.forget(worker)
            if hand is not None:
                told = worker.words or detail
                self._delivery.lost(component, hand, f"the worker ended: {outcome}{': ' + told if told else ''}")
        self._delivery.fail_deferred(worker)
        if worker.told_stopped:
            self._event("stopped", worker, text=detail, outcome=outcome)
        if component is not None and component.worker is not None:
            self._delivery.advance(component.worker)

    def remove(self, component: Component, why: str = "was removed") -> None:
        """The component is gone: what waits for it fails, and hears why."""
        self._table.forget(component)
        for worker in (component.worker, component.successor):
            if worker is not None:
                self._delivery.forget(worker)
        self._delivery.drain(component, why)

    def _event(
        self, kind: str, worker: Worker, text: str = "", outcome: str = "", metadata: Metadata | None = None
    ) -> None:
        self._delivery.event(Event(kind, worker.component, worker.incarnation, text[:MAX_TEXT], outcome, metadata))
