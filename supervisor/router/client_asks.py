"""What programs outside ask: to send, request, publish and subscribe, each answered once.

Rights are checked on the way in (`outside`) and, of subscriptions, here; a denial is in the audit log before the client
hears of it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import msgspec

from bridge.capabilities import InvalidPattern, may_subscribe, validate_topic_pattern
from sandbox.types import ComponentId
from sandbox.wire import UNDECODABLE
from sandbox.wire.client_frames import (
    ClientAnswer,
    ClientCancel,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientSubscribe,
    ClientUnsubscribe,
    FromClient,
)
from supervisor.router.connections import MAX_SUBSCRIPTIONS, Client
from supervisor.router.correlation import Result
from supervisor.router.delivery import Delivery
from supervisor.router.outside import Outside
from supervisor.router.topics import Topics

MAX_ASKS = 1_024
"""What one connection has asked and was not answered yet."""
MAX_USER_ASKS = 4_096
"""The same of all connections of a user, beyond which he makes no further requests: others have to have room."""
HOLD_SECONDS = 0.02
"""How long a connection is not read that sent more than its user may."""
DENIED_SECONDS = 1.0
"""How long, when its user was denied too much lately: each denial is a record in the audit log."""

_Answered = ClientSend | ClientRequest | ClientPublish | ClientSubscribe | ClientUnsubscribe


class ClientAsks:
    """Answers clients.

    Args:
        delivery: for timers, counters, the audit log and cancelled requests.
        way_in: the way of a message from outside.
        topics: what they subscribe to.
        violated: called for a client that broke the protocol.
    """

    def __init__(
        self, delivery: Delivery, way_in: Outside, topics: Topics, violated: Callable[[Client, str], None]
    ) -> None:
        self._delivery, self._outside, self._topics, self._violated = delivery, way_in, topics, violated
        self._timers, self._counters = delivery.timers, delivery.table.counters
        self._decoder: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)

    def handle(self, client: Client, head: bytes, payload: bytes) -> None:
        """Act on one message of a client."""
        try:
            frame = self._decoder.decode(head)
        except UNDECODABLE as error:
            self._violated(client, f"undecodable frame: {error}"[:200])
            return
        kind = type(frame).__name__
        if isinstance(frame, ClientCancel | ClientSubscribe | ClientUnsubscribe) and payload:
            self._violated(client, f"{kind} with a payload")
            return
        if isinstance(frame, ClientCancel):
            self._cancel(client, frame.ask)
            return
        if frame.ask in client.asks:
            self._violated(client, f"{kind} with a number that is in use")
            return
        client.asks[frame.ask] = None
        if not client.user.bucket.take(time.monotonic()):
            self._answer(client, frame.ask, Result("rate-limited", f"more than {client.user.rights.rate} a second"))
            self._hold(client, HOLD_SECONDS)
            return
        if len(client.asks) > MAX_ASKS:
            self._answer(client, frame.ask, Result("queue-full", "too much was asked that is not answered yet"))
            return
        self._carry_out(client, frame, payload)
        if not client.user.denials.has(time.monotonic(), 1):
            self._hold(client, DENIED_SECONDS)

    def _carry_out(self, client: Client, frame: _Answered, payload: bytes) -> None:
        match frame:
            case ClientSend() | ClientRequest():
                self._message(client, frame, payload)
            case ClientPublish():
                self._outside.publish(
                    client.user.id,
                    client.user.rights.messaging,
                    frame.topic,
                    payload,
                    frame.options,
                    functools.partial(self._answer, client, frame.ask),
                    room=client.user.publishing,
                    spent=client.user.bucket.spend,  # each is a message that was sent
                )
            case ClientSubscribe():
                self._subscribe(client, frame)
            case ClientUnsubscribe():
                known = frame.pattern in client.patterns
                if known:
                    del client.patterns[frame.pattern]
                    self._topics.unlisten(frame.pattern, client)
                self._answer(client, frame.ask, Result("" if known else "invalid", "" if known else "no subscription"))

    def _message(self, client: Client, frame: ClientSend | ClientRequest, payload: bytes) -> None:
        try:
            target = ComponentId.parse_target(frame.target)
        except ValueError as error:
            self._answer(client, frame.ask, Result("invalid", str(error)[:300]))
            return
        if isinstance(frame, ClientRequest) and client.user.asked >= MAX_USER_ASKS:
            self._answer(client, frame.ask, Result("queue-full", f"{client.user.id} waits for {MAX_USER_ASKS} answers"))
            return
        pending = self._outside.post(
            client.user.id,
            client.user.rights.messaging,
            target,
            payload,
            functools.partial(self._answer, client, frame.ask),
            timeout_ms=frame.timeout_ms if isinstance(frame, ClientRequest) else 0,
            wait_ms=frame.wait_ms if isinstance(frame, ClientSend) else None,
            options=frame.options,
        )
        if pending is not None and frame.ask in client.asks:
            client.asks[frame.ask] = pending

    def _subscribe(self, client: Client, frame: ClientSubscribe) -> None:
        user, pattern = client.user, frame.pattern
        try:
            validate_topic_pattern(pattern)
        except InvalidPattern as error:
            self._answer(client, frame.ask, Result("invalid", f"{error.message}: {error.hint}"))
            return
        if not may_subscribe(user.rights.messaging, pattern):
            user.denials.spend(1)
            denied = Result("denied", f"{user.id} may not subscribe to {pattern}")
            self._delivery.audit.record(
                "messaging.subscribe",
                str(user.id),
                "denied",
                pattern,
                "denied",
                detail={"why": "sender"},
                on_recorded=lambda _seq: self._answer(client, frame.ask, denied),
            )
        elif pattern not in client.patterns and len(client.patterns) >= MAX_SUBSCRIPTIONS:
            self._answer(client, frame.ask, Result("queue-full", f"more than {MAX_SUBSCRIPTIONS} subscriptions"))
        else:
            client.patterns[pattern] = None
            self._topics.listen(pattern, client)
            self._answer(client, frame.ask, Result())

    def _cancel(self, client: Client, ask: int) -> None:
        pending = client.asks.get(ask)
        if pending is not None:
            del client.asks[ask]
            self._delivery.settle(pending)
            self._counters["cancelled-by-clients"] += 1

    def _answer(self, client: Client, ask: int, result: Result) -> None:
        """Tell a client what became of what it asked, unless it is gone or does not want to know any more."""
        if client.closed or ask not in client.asks:
            return
        del client.asks[ask]
        frame = ClientAnswer(
            ask, result.error, result.text, result.some, result.message, result.correlation, result.number
        )
        if not client.send(frame, result.payload):
            self._violated(client, "does not read its connection")

    def _hold(self, client: Client, seconds: float) -> None:
        channel = client.channel
        if channel.hold():
            self._timers.schedule(time.monotonic() + seconds, channel.release)
