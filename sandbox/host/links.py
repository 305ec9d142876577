"""The worker's two channels as host functions see them. One worker, one process, one thread: module state is right.

`bridge` answers on fd 3, one request at a time; `router` acknowledges on fd 4 what the guest asks while it works.
Sleeping is here too: `airssys:core` and WASI both have it, and it is one and the same request.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId, Outcome
from sandbox.wire import UNDECODABLE, packet, router_frames
from sandbox.wire.bridge_ops import ANSWER, Op
from sandbox.wire.zmtp import Dealer

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
_to_worker = msgspec.msgpack.Decoder(router_frames.ToWorker)


class ChannelClosed(Exception):
    """A channel hung up: the host is ending, or has decided to end this worker."""


class GuestStopped(Exception):
    """A host function does not return: the guest has asked for its end, or for what must not be. The worker ends."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class Bridge:
    """fd 3: ask, wait for the answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._assembler = packet.Assembler()

    def ask(self, op: Op, *arguments: Any) -> tuple[int, Any]:
        """`(0, value)`, or `(case, text)` where case is 1 + the index in the interface's error variant.

        Raises:
            ChannelClosed: the bridge is gone.
            ProtocolViolation: the answer is not one.
        """
        try:
            packet.send_message(self._sock, op, _encoder.encode(arguments))
            kind, body = packet.recv_message(self._sock, self._assembler)
        except (EOFError, OSError) as error:
            raise ChannelClosed("bridge") from error
        if kind != op | ANSWER:
            raise ProtocolViolation("answer to another request", subject=hex(kind))
        try:
            case, value = _decoder.decode(body)
        except (*UNDECODABLE, TypeError, ValueError) as error:
            raise ProtocolViolation("undecodable answer") from error
        return case, value


class Router:
    """fd 4: frames in both directions; `ask` waits for the acknowledgement of one question."""

    def __init__(self, dealer: Dealer) -> None:
        self._dealer = dealer
        self._asks = 0

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> None:
        """Send one frame with its payload."""
        try:
            self._dealer.send([_encoder.encode(frame), payload])
        except OSError as error:
            raise ChannelClosed("router") from error

    def receive(self) -> tuple[router_frames.ToWorker, bytes]:
        """The next frame and its payload.

        Raises:
            ChannelClosed: the router is gone.
            ProtocolViolation: not two parts, or not a frame for a worker.
        """
        try:
            parts = self._dealer.recv()
        except (EOFError, OSError) as error:
            raise ChannelClosed("router") from error
        if len(parts) != 2:
            raise ProtocolViolation("a router message has two parts", subject=str(len(parts)))
        try:
            return _to_worker.decode(parts[0]), parts[1]
        except UNDECODABLE as error:
            raise ProtocolViolation("undecodable router frame") from error

    def next_ask(self) -> int:
        """A number for the next question."""
        self._asks += 1
        return self._asks

    def acknowledged(self, ask: int) -> router_frames.Ack:
        """Wait for the acknowledgement of `ask`; nothing else may come while a message is in hand."""
        frame, _ = self.receive()
        if not isinstance(frame, router_frames.Ack) or frame.ask != ask:
            raise ProtocolViolation("expected an acknowledgement", subject=type(frame).__name__)
        return frame


class Links:
    """What host functions reach. Filled in by the worker before it instantiates the guest."""

    bridge: Bridge
    router: Router
    self_id: ComponentId
    message_size: int
    topics: bool = False
    """Whether the guest has a `topic-handler`."""
    hand: router_frames.Deliver | router_frames.Publication | router_frames.Callback | None = None
    """What the guest is called with."""
    payload: bytes = b""
    """Of a callback that tells of a failure: its text is in there."""
    deadline: int = 0
    """Until when the guest's call must be over, nanoseconds of CLOCK_MONOTONIC."""

    def allow(self, milliseconds: int) -> None:
        """A call of the guest begins and has this long. The router counts from a moment before, and has the last word;
        a little less here means that a guest which oversleeps is told so by the bridge and need not be killed."""
        early = min(EARLY_MS, milliseconds / 10)
        self.deadline = time.monotonic_ns() + int((milliseconds - early) * 1_000_000)


links = Links()
EARLY_MS = 10
"""Milliseconds before its deadline at which a sleeping guest ends."""
FOREVER = (1 << 63) - 1
"""A time that never comes, nanoseconds of CLOCK_MONOTONIC."""


def sleep_until(when: int) -> None:
    """Wait in the bridge until `when`, nanoseconds of CLOCK_MONOTONIC; what is past costs no request.

    Raises:
        GuestStopped: the call's deadline comes first, or the bridge wakes the guest early.
    """
    if when <= time.monotonic_ns():
        return
    case, _ = links.bridge.ask(Op.SLEEP, min(when, FOREVER), links.deadline)
    if case:
        raise GuestStopped(Outcome.DEADLINE, "asleep until its deadline")
    if time.monotonic_ns() < when:
        # A guest that slept on would ask again at once, for ever: early means that it is to stop.
        raise GuestStopped(Outcome.KILLED, "woken before its time")
