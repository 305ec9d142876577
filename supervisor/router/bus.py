"""What control asks: routes, stops, health checks, the state, and messages from people outside.

Which socket a message came in by says who may have sent it: only control can reach this one. When control restarts it
comes back under a new routing id and sends its routes again; workers and mailboxes notice nothing of it.
"""

from __future__ import annotations

import time

import msgspec

from sandbox.wire import UNDECODABLE
from sandbox.wire.router_frames import (
    CheckHealth,
    Query,
    Route,
    RouteState,
    State,
    Stop,
    Submit,
    Submitted,
    ToRouter,
    Unroute,
)
from supervisor.router.correlation import MAX_SUBMITS, MAX_TIMEOUT_MS
from supervisor.router.delivery import Delivery, outside
from supervisor.router.mailbox import Message
from supervisor.router.permissions import Permissions
from supervisor.router.routes import Component


class Bus:
    """Answers control."""

    def __init__(self, delivery: Delivery, permissions: Permissions) -> None:
        self._delivery = delivery
        self._permissions = permissions
        self._table = delivery.table
        self._decoder: msgspec.msgpack.Decoder[ToRouter] = msgspec.msgpack.Decoder(ToRouter)

    def handle(self, peer: bytes, head: bytes, payload: bytes) -> None:
        """Carry out one frame; what does not decode is counted and dropped."""
        try:
            frame = self._decoder.decode(head)
        except UNDECODABLE:
            self._table.counters["malformed-on-bus"] += 1
            return
        match frame:
            case Submit():
                self._submit(peer, frame, payload)
            case Route():
                self._delivery.control = peer
                self._route(frame)
            case Query():
                self._delivery.control = peer
                states = [_state(component) for component in self._table.components.values()]
                self._delivery.to_bus(peer, State(frame.id, states, dict(self._table.counters)))
            case Unroute() | Stop() | CheckHealth():
                component = self._table.components.get(frame.component)
                if component is None:
                    self._table.counters["unknown-on-bus"] += 1
                elif isinstance(frame, Unroute):
                    self._delivery.remove(component)
                elif isinstance(frame, Stop):
                    self._delivery.stop(component, frame.drain)
                else:
                    self._delivery.check_health(component)

    def _route(self, frame: Route) -> None:
        component, new = self._table.put(frame)
        if not new:
            return
        for worker in sorted(self._table.waiting_for(frame.component), key=lambda worker: worker.incarnation):
            self._delivery.adopt(component, worker)

    def _submit(self, peer: bytes, frame: Submit, payload: bytes) -> None:
        sender = outside(frame.user)
        component = self._table.components.get(frame.target)
        if component is None:
            self._refuse(peer, frame, "target-not-found", f"there is no {frame.target}")
        elif not self._permissions.accepts_outside(component, sender):
            component.denied += 1
            self._delivery.audit.record(
                "messaging.request" if frame.request else "messaging.send",
                str(sender),
                "denied",
                str(frame.target),
                "denied",
                on_recorded=lambda _seq: self._refuse(
                    peer, frame, "denied", f"{frame.target} does not accept {sender}"
                ),
            )
        elif len(payload) > component.limits.message_size:
            self._refuse(peer, frame, "too-large", f"{frame.target} takes {component.limits.message_size} bytes")
        elif frame.request and self._delivery.correlations.submits >= MAX_SUBMITS:
            self._refuse(peer, frame, "queue-full", "too many requests from outside are open")
        else:
            self._post(peer, frame, payload, component)

    def _post(self, peer: bytes, frame: Submit, payload: bytes, component: Component) -> None:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        message = Message(
            self._delivery.message_id(),
            False,
            outside(frame.user),
            seconds,
            nanoseconds,
            payload,
            content_type=frame.content_type,
        )
        if frame.request:
            pending = self._delivery.correlations.open(frame.target, peer=peer, submit=frame.id)
            pending.message = message.id
            message.pending, message.correlation = pending, pending.correlation
            self._delivery.timeout(pending, min(max(frame.timeout_ms, 1), MAX_TIMEOUT_MS))
        refused = self._delivery.post(component, message)
        if refused:
            text = f"{frame.target} is shutting down" if refused == "stopping" else f"{frame.target}'s mailbox is full"
            if message.pending is not None:
                self._delivery.fail(message.pending, refused, text)
            else:
                self._refuse(peer, frame, refused, text)
            return
        self._table.counters["allowed"] += 1
        if not frame.request:
            self._delivery.to_bus(peer, Submitted(frame.id))

    def _refuse(self, peer: bytes, frame: Submit, error: str, text: str) -> None:
        self._delivery.to_bus(peer, Submitted(frame.id, error, text))


def _state(component: Component) -> RouteState:
    worker = component.worker
    return RouteState(
        component=component.id,
        attached=None if worker is None else worker.incarnation,
        ready=worker is not None and worker.accepts_messages,
        health=component.health,
        depth=len(component.mailbox),
        delivered=component.delivered,
        failed=component.failed,
        denied=component.denied,
        busy=worker is not None and worker.hand is not None,
        sent=component.sent,
        subscriptions=sorted(component.subscriptions),
        timers=component.alarms,
    )
