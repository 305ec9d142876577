"""The receiving half of the workers' ROUTER: any cut of the bytes, any bytes at all, and how much is ever held."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.wire import zmtp
from sandbox.wire.zmtp import COMMAND, LONG, MORE
from supervisor.router.inbound import MAX_HEAD, SMALL, Inbound, Message

pytestmark = pytest.mark.block5_messaging

LIMIT = 100_000


class Reader:
    """Brings a stream in pieces, as `channels` does, and watches what is held."""

    def __init__(self, pieces: list[int], limit: int = LIMIT) -> None:
        self.inbound = Inbound(limit)
        self.pieces, self.turn = pieces, 0
        self.granted = self.most_held = 0

    def read(self, data: bytes) -> list[Message]:
        """All messages; raises what `next` raises."""
        inbound, view, found = self.inbound, memoryview(data), []
        while view:
            tail = inbound.tail
            room = SMALL if tail is None else len(tail)
            assert room, "a large buffer that takes nothing"
            piece = view[: min(room, self.pieces[self.turn % len(self.pieces)] if self.pieces else room)]
            self.turn += 1
            view = view[len(piece) :]
            if tail is None:
                inbound.feed(piece)
            else:
                tail[: len(piece)] = piece
                inbound.filled(len(piece))
            while (message := inbound.next()) is not None:
                found.append(message)
                self.granted = 0
            if inbound.crowded:
                self.granted = self.granted or inbound.most
                assert inbound.need <= self.granted, "more than was asked for"
                inbound.enlarge()
            self.most_held = max(self.most_held, len(inbound._buffer))
            assert len(inbound._buffer) <= max(2 * SMALL, self.granted)
        return found


heads = st.one_of(st.binary(max_size=600), st.integers(SMALL - 12, SMALL + 12).map(bytes), st.just(bytes(MAX_HEAD)))
payloads = st.one_of(st.binary(max_size=600), st.integers(SMALL - 700, SMALL + 12).map(bytes), st.just(bytes(LIMIT)))
streams = st.lists(st.tuples(heads, payloads), min_size=1, max_size=5)
pieces = st.lists(st.one_of(st.integers(1, 20), st.integers(1, 70_000)), max_size=12).map(lambda cut: [*cut, 20_000])


def long_form(part: bytes, more: int) -> bytes:
    """A frame in the long form whatever its size: allowed, if unusual."""
    return bytes((more | LONG,)) + len(part).to_bytes(8, "big") + part


@settings(max_examples=80, deadline=None)
@given(streams, pieces, st.booleans())
def test_any_cut_gives_the_same_messages(sent: list[Message], cut: list[int], long: bool) -> None:
    """However the stream is cut and whichever length form is used, what comes out is what went in, and no more is
    held than the message that is coming needs."""
    if long:
        data = b"".join(long_form(head, MORE) + long_form(payload, 0) for head, payload in sent)
    else:
        data = b"".join(zmtp.encode_message(parts) for parts in sent)
    reader = Reader(cut)
    assert sent == reader.read(data)
    assert b"" == reader.inbound._buffer


def test_one_byte_at_a_time() -> None:
    """A stream that arrives byte by byte is read the same, across every change of buffer."""
    sent = [(b"h", b""), (bytes(300), bytes(SMALL + 5)), (bytes(SMALL + 5), b"p"), (b"", b"")]
    assert sent == Reader([1]).read(b"".join(zmtp.encode_message(parts) for parts in sent))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), pieces)
def test_garbage_is_refused_or_waits(data: bytes, cut: list[int]) -> None:
    """Any bytes whatever give messages, a refusal, or a wait for more: no other exception, no large buffer."""
    reader = Reader(cut)
    with contextlib.suppress(ProtocolViolation):
        assert all(isinstance(part, bytes) for message in reader.read(data) for part in message)


@settings(max_examples=150, deadline=None)
@given(
    streams,
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.binary(max_size=3)), min_size=1, max_size=4),
    pieces,
)
def test_mutated_streams(sent: list[Message], changes: list[tuple[int, int, bytes]], cut: list[int]) -> None:
    """Good streams with bytes changed, removed and added near the headers: refused, or read within the limits."""
    data = bytearray(b"".join(zmtp.encode_message(parts) for parts in sent))
    for at, gone, new in changes:
        data[at : at + gone] = new
    reader = Reader(cut)
    with contextlib.suppress(ProtocolViolation):
        for head, payload in reader.read(bytes(data)):
            assert len(head) <= MAX_HEAD
            assert len(payload) <= LIMIT
    assert reader.most_held <= MAX_HEAD + LIMIT + 18


def announced(flags: int, size: int) -> bytes:
    return bytes((flags | LONG,)) + size.to_bytes(8, "big")


HEAD = b"\x01\x01h"
HOSTILE = {
    "reserved bit in the head": (b"\x09", "reserved"),
    "reserved bit in the payload": (HEAD + b"\x80", "reserved"),
    "command first": (bytes((COMMAND,)), "command"),
    "long command": (bytes((COMMAND | LONG,)), "command"),
    "ping": (zmtp.encode_command(b"PING", b"\x00\x0a"), "command"),
    "ready again": (zmtp.encode_ready(b"DEALER", b"other"), "command"),
    "error": (zmtp.encode_command(b"ERROR", b"\x00"), "command"),
    "command between the frames": (HEAD + zmtp.encode_command(b"PING", b"\x00\x0a"), "command"),
    "command that goes on": (bytes((COMMAND | MORE,)), "command"),
    "one frame": (b"\x00", "two frames"),
    "one long frame": (bytes((LONG,)), "two frames"),
    "three frames": (HEAD + b"\x01", "two frames"),
    "three frames, long": (HEAD + bytes((MORE | LONG,)), "two frames"),
    "head over the limit": (announced(MORE, MAX_HEAD + 1), "structure over"),
    "payload over the limit": (HEAD + announced(0, LIMIT + 1), "payload over"),
    "head of all there is": (announced(MORE, 2**64 - 1), "structure over"),
    "payload of all there is": (HEAD + announced(0, 2**64 - 1), "payload over"),
    "greeting again": (b"\xff" + bytes(8) + b"\x7f", "reserved"),
}


@pytest.mark.parametrize(("data", "why"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_shapes_are_refused(data: bytes, why: str) -> None:
    """Each shape no worker sends is refused as soon as the byte that shows it has come, with nothing allocated."""
    reader = Reader([1])
    with pytest.raises(ProtocolViolation, match=why):
        reader.read(data)
    assert reader.most_held <= len(data)
    assert not reader.granted


def test_at_the_limits() -> None:
    """Positive control of the limits: a structure and a payload of exactly their limit pass."""
    sent = [(bytes(MAX_HEAD), bytes(LIMIT))]
    assert sent == Reader([]).read(zmtp.encode_message(sent[0]))


def test_cleared_in_the_middle() -> None:
    """What is cleared holds nothing, and reads the next stream from its beginning."""
    reader = Reader([])
    reader.read(zmtp.encode_message([bytes(SMALL * 3), b""])[:-100])
    assert reader.most_held > SMALL
    reader.inbound.clear()
    assert b"" == reader.inbound._buffer
    assert [(b"h", b"p")] == reader.read(zmtp.encode_message([b"h", b"p"]))
