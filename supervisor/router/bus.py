"""What control asks: routes, stops, health checks, the state, and messages from people outside.

Which socket a message came in by says who may have sent it: only control can reach this one. When control restarts it
comes back under a new routing id and sends its routes again; workers and mailboxes notice nothing of it.
"""

from __future__ import annotations

import functools
import time

import msgspec

from sandbox.wire import UNDECODABLE
from sandbox.wire.router_frames import (
    AskTrace,
    CheckHealth,
    Dead,
    DeadLetters,
    Query,
    Rest,
    Route,
    RouteState,
    Settings,
    State,
    Stop,
    Submit,
    Submitted,
    SubmitTopic,
    ToRouter,
    Unroute,
)
from supervisor.router.correlation import Result
from supervisor.router.delivery import Delivery, outside
from supervisor.router.outside import Outside
from supervisor.router.routes import Component

MAX_LISTED = 4_000
"""Dead letters in one answer: with texts of `MAX_SHOWN` characters their structures fit into one frame."""
MAX_SHOWN = 200


class Bus:
    """Answers control."""

    def __init__(self, delivery: Delivery, way_in: Outside) -> None:
        self._delivery = delivery
        self._outside = way_in
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
            case SubmitTopic():
                answer = functools.partial(self._answer, peer, frame.id)
                self._outside.publish(outside(frame.user), None, frame.topic, payload, frame.options, answer)
            case Dead():
                self._dead(peer, frame)
            case AskTrace():
                trace = self._delivery.traces.find(frame.message)
                self._delivery.to_bus(peer, msgspec.structs.replace(trace, id=frame.id))
            case Settings():
                self._delivery.control = peer
                self._settings(frame)
            case Route():
                self._delivery.control = peer
                self._route(frame)
            case Query():
                self._delivery.control = peer
                now = time.monotonic()
                states = [_state(component, now) for component in self._table.components.values()]
                self._delivery.to_bus(peer, State(frame.id, states, dict(self._table.counters)))
            case Unroute() | Rest() | Stop() | CheckHealth():
                component = self._table.components.get(frame.component)
                if component is None:
                    self._table.counters["unknown-on-bus"] += 1
                elif isinstance(frame, Unroute):
                    self._delivery.lives.remove(component, frame.why)
                elif isinstance(frame, Rest):
                    self._delivery.rest(component, frame.why)
                elif isinstance(frame, Stop):
                    self._delivery.lives.stop(component, frame.drain, frame.timeout_ms)
                else:
                    self._delivery.lives.check_health(component, frame.timeout_ms)

    def _route(self, frame: Route) -> None:
        component, new = self._table.put(frame)
        if not new:
            return
        for worker in sorted(self._table.waiting_for(frame.component), key=lambda worker: worker.incarnation):
            self._delivery.lives.adopt(component, worker)

    def _settings(self, frame: Settings) -> None:
        self._table.settings = frame
        self._table.generation += 1
        for changed in self._table.on_settings:
            changed(frame)

    def _submit(self, peer: bytes, frame: Submit, payload: bytes) -> None:
        self._outside.post(
            outside(frame.user),
            None,
            frame.target,
            payload,
            functools.partial(self._answer, peer, frame.id),
            timeout_ms=max(frame.timeout_ms, 1) if frame.request else 0,
            options=frame.options,
        )

    def _dead(self, peer: bytes, frame: Dead) -> None:
        letters, payload = self._delivery.dead_letters, b""
        match frame.action:
            case "list":
                found, count = letters.list(frame.component, min(frame.most, MAX_LISTED))
                short = [msgspec.structs.replace(each, text=each.text[:MAX_SHOWN]) for each in found]
                answer = DeadLetters(frame.id, short, count)
            case "show":
                one = letters.show(frame.letter)
                answer = DeadLetters(frame.id, [] if one is None else [one[0]], int(one is not None))
                payload = b"" if one is None else one[1]
            case "replay":
                count, error = letters.replay(frame.letter, frame.component)
                answer = DeadLetters(frame.id, count=count, error=error)
            case "purge":
                answer = DeadLetters(frame.id, count=letters.purge(frame.letter, frame.component))
        self._delivery.to_bus(peer, answer, payload)

    def _answer(self, peer: bytes, number: int, result: Result) -> None:
        frame = Submitted(
            number, result.error, result.text, result.some, result.message, result.correlation, result.number
        )
        self._delivery.to_bus(peer, frame, result.payload)


def _state(component: Component, now: float) -> RouteState:
    worker = component.worker
    return RouteState(
        component=component.id,
        attached=None if worker is None else worker.incarnation,
        ready=component.ready,
        health=component.health,
        depth=len(component.mailbox),
        delivered=component.delivered,
        failed=component.failed,
        denied=component.denied,
        busy=worker is not None and worker.hand is not None,
        waiting_bytes=component.mailbox.bytes,
        sent=component.sent,
        dropped=component.dropped,
        expired=component.expired,
        redelivered=component.redelivered,
        dead=component.dead,
        rate=component.meter.rate(now),
        subscriptions=sorted(component.subscriptions),
        timers=component.alarms,
        breaker="" if component.breaker is None else component.breaker.state(now),
    )
