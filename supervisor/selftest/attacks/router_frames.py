"""T50 and T51 on descriptor 4: what is no message of a worker, as `supervisor.router.inbound` and its loop have it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sandbox.types import ComponentId, Limits
from sandbox.wire import zmtp
from sandbox.wire.router_frames import (
    MAX_TARGETS,
    Broadcast,
    Cancel,
    Deliver,
    Ended,
    GetMetadata,
    HealthReply,
    ListComponents,
    Ready,
    Reply,
    Request,
    Route,
    Send,
    Shutdown,
    Submit,
)
from supervisor.router.inbound import MAX_HEAD
from supervisor.selftest.attacks.frames import FrameAttack

_encode = msgspec.msgpack.encode
_SOMEBODY = ComponentId("selftest", "neighbour")
_UNKNOWN = "undecodable frame"


def message(frame: object, payload: bytes = b"") -> bytes:
    """A structure and its payload as they go over the stream."""
    return zmtp.encode_message([_encode(frame), payload])


def _raw(*parts: bytes) -> bytes:
    return zmtp.encode_message(parts)


def _announced(flags: int, size: int) -> bytes:
    return bytes((flags | zmtp.LONG,)) + size.to_bytes(8, "big")


SEEDS = tuple(
    message(frame)
    for frame in (
        Reply(3, True),
        HealthReply(1, "healthy"),
        Send(1, _SOMEBODY),
        Request(1, _SOMEBODY, 100),
        Cancel(1, "ab"),
        Broadcast(1, [_SOMEBODY]),
        ListComponents(1),
        GetMetadata(1, _SOMEBODY),
    )
)
"""Good messages, one of each shape."""


def attacks() -> Iterator[FrameAttack]:
    """All of them, for a worker that has a message in hand."""

    def state(name: str, *packets: bytes, why: str) -> FrameAttack:
        return FrameAttack("T50", f"router: {name}", packets, why)

    def malformed(name: str, *packets: bytes, why: str, times: int = 1) -> FrameAttack:
        return FrameAttack("T51", f"router: {name}", packets, why, times=times)

    yield state("the answer to a message that is another's", message(Reply(1, True)), why="Reply to nothing in hand")
    yield state("the answer to no message", message(Reply(1 << 62, True)), why="Reply to nothing in hand")
    yield state("health that nobody asked for", message(HealthReply(2, "fine")), why="HealthReply to nothing asked")
    yield state("ready a second time", message(Ready(None, "superb")), why="Ready out of order")
    yield state("an end that does not exist", message(Ended("fine")), why="unknown outcome")
    yield state("an end with a payload", message(Ended("exited"), b"x"), why="Ended with a payload")
    yield state("a frame of the router's", message(Shutdown()), why=_UNKNOWN)
    yield state("a message to itself", message(Deliver(1, _SOMEBODY, 0, 0)), why=_UNKNOWN)
    yield state(
        "control's frame: more rights", message(Route(_SOMEBODY, Limits(), [], "selftest/neighbour", "1")), why=_UNKNOWN
    )
    yield state(
        "control's frame: a message in root's name", message(Submit(1, "root", _SOMEBODY, True, 1)), why=_UNKNOWN
    )
    yield state("another's request cancelled, with a payload", message(Cancel(1, "x"), b"x"), why="with a payload")
    yield state("a request of negative time", message(Request(1, _SOMEBODY, -1)), why="negative timeout")

    yield malformed("one frame", _raw(_encode(ListComponents(1))), why="two frames")
    yield malformed("three frames", _raw(_encode(ListComponents(1)), b"", b""), why="two frames")
    yield malformed("a hundred frames", _raw(*[b""] * 100), why="two frames")
    yield malformed("two empty frames", _raw(b"", b""), why=_UNKNOWN)
    yield malformed("no MessagePack", _raw(b"\xc1", b""), why=_UNKNOWN)
    yield malformed("an unknown tag", _raw(b"\x91\xa4Root", b""), why=_UNKNOWN)
    yield malformed("a tag that is a number", _raw(b"\x91\x01", b""), why=_UNKNOWN)
    yield malformed("a map in place of the array", _raw(b"\x81\xa4type\xa5Reply", b""), why=_UNKNOWN)
    yield malformed("a text that is no UTF-8", _raw(b"\x93\xa5Ended\xa1\xff\xa0", b""), why=_UNKNOWN)
    yield malformed("half a surrogate pair", _raw(b"\x93\xa5Ended\xa3\xed\xa0\x80\xa0", b""), why=_UNKNOWN)
    yield malformed("a field too many", _raw(_encode(["ListComponents", 1, 2]), b""), why=_UNKNOWN)
    yield malformed("a field of another type", _raw(_encode(["ListComponents", "1"]), b""), why=_UNKNOWN)
    yield malformed("bytes behind the structure", _raw(_encode(ListComponents(1)) + b"\0", b""), why=_UNKNOWN)
    yield malformed("100,000 arrays in one another", _raw(b"\x91" * 100_000, b""), why=_UNKNOWN)
    yield malformed("an array of 4 billion elements", _raw(b"\xdd\xff\xff\xff\xff", b""), why=_UNKNOWN)
    yield malformed("too many targets", message(Broadcast(1, [_SOMEBODY] * (MAX_TARGETS + 1))), why=_UNKNOWN)
    yield malformed(
        "a structure one over the limit", _announced(zmtp.MORE, MAX_HEAD + 1), why="structure over the limit"
    )
    yield malformed("a structure of 16 EiB", _announced(zmtp.MORE, (1 << 64) - 1), why="structure over the limit")
    yield malformed("a payload of 16 EiB", b"\x01\x01h" + _announced(0, (1 << 64) - 1), why="payload over the limit")
    yield malformed("a payload of 9 EiB", b"\x01\x01h" + _announced(0, (1 << 63) - 1), why="payload over the limit")
    yield malformed(
        "a message without end", _announced(zmtp.MORE, 100_000) + bytes(100_000), why="two frames", times=50
    )
    yield malformed("ones", b"\xff" * 200, why="reserved flags")
    yield malformed("a reserved bit", b"\x11\0", why="reserved flags")
    yield malformed("another greeting", b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48), why="reserved flags")
    yield malformed("another identity", zmtp.encode_ready(b"DEALER", b"host"), why="command after the handshake")
    yield malformed("a ping", zmtp.encode_command(b"PING", b"\0\x0a"), why="command after the handshake")
    yield malformed("an error", zmtp.encode_command(b"ERROR", b"\x03bad"), why="command after the handshake")
    yield malformed(
        "a command between two frames", b"\x01\x01h" + zmtp.encode_command(b"PING", b"\0\x0a"), why="command after"
    )
    yield malformed("HTTP", b"GET / HTTP/1.1\r\n\r\n", why="flags")
