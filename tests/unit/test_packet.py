"""SEQPACKET framing: what is split comes together again, every other shape is refused."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.wire.packet import CHUNK, HEADER, MAX_MESSAGE, PACKET, Assembler, recv_message, send_message, split

pytestmark = pytest.mark.block8_bridge

kinds = st.integers(1, 0xFFFF)
lengths = st.one_of(
    st.integers(0, 300),
    st.integers(1, 4).flatmap(lambda n: st.integers(n * CHUNK - 2, n * CHUNK + 2)),
    st.integers(0, 5 * CHUNK),
)


def body_of(length: int, seed: int = 0) -> bytes:
    """Bytes in which every chunk differs from every other."""
    return b"".join((seed + n).to_bytes(8, "big") for n in range((length + 7) // 8))[:length]


def collect(packets: list[bytes], limit: int = MAX_MESSAGE) -> tuple[list[tuple[int, bytes]], bool]:
    """What an assembler makes of packets: whole messages until a violation, and whether there was one."""
    assembler, messages = Assembler(limit), []
    for packet in packets:
        try:
            message = assembler.feed(packet)
        except ProtocolViolation:
            return messages, True
        if message is not None:
            messages.append(message)
    return messages, False


@given(kind=kinds, length=lengths)
@settings(deadline=None)
def test_round_trip(kind: int, length: int) -> None:
    """A message of any kind and length comes back as it was, in packets no longer than a packet may be."""
    body = body_of(length)
    packets = split(kind, body)
    assert max(len(packet) for packet in packets) <= PACKET
    assert max(1, -(-length // CHUNK)) == len(packets)
    assert ([(kind, body)], False) == collect(packets)


@given(messages=st.lists(st.tuples(kinds, lengths), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_messages_in_a_row(messages: list[tuple[int, int]]) -> None:
    """One assembler takes message after message; nothing of one is in the next."""
    bodies = [(kind, body_of(length, seed * 1_000_000)) for seed, (kind, length) in enumerate(messages)]
    packets = [packet for kind, body in bodies for packet in split(kind, body)]
    assert (bodies, False) == collect(packets)


@given(kind=kinds, length=lengths, at=st.integers(0, 1 << 16), byte=st.integers(0, 7), value=st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_a_changed_header_never_changes_the_body(kind: int, length: int, at: int, byte: int, value: int) -> None:
    """A byte of any header changed: refused, or never complete, or whole; never other bytes than were sent."""
    body = body_of(length)
    packets = split(kind, body)
    index = at % len(packets)
    changed = bytearray(packets[index])
    changed[byte] = value
    same = bytes(changed) == packets[index]
    packets[index] = bytes(changed)
    messages, refused = collect(packets)
    if same:
        assert ([(kind, body)], False) == (messages, refused)
    elif len(packets) > 1:
        # With chunks each header vouches for the others.
        assert [] == messages
    else:
        new_kind, number, total = HEADER.unpack_from(changed)
        whole = new_kind != 0 and number == 0 and total == length
        waits = new_kind != 0 and number == 0 and length == CHUNK and CHUNK < total <= MAX_MESSAGE
        assert ([(new_kind, body)] if whole else [], not whole and not waits) == (messages, refused)


@given(kind=kinds, chunks=st.integers(2, 4), change=st.sampled_from(["swap", "drop", "double", "short", "long", "mix"]))
@settings(deadline=None)
def test_chunks_out_of_order(kind: int, chunks: int, change: str) -> None:
    """Chunks exchanged, lost, repeated, cut, lengthened or of two messages mixed never make a message."""
    packets = split(kind, body_of(chunks * CHUNK - 5))
    if change == "swap":
        packets[0], packets[1] = packets[1], packets[0]
    elif change == "drop":
        del packets[-2]
    elif change == "double":
        packets.insert(1, packets[1] if chunks > 2 else packets[0])
    elif change == "short":
        packets[-1] = packets[-1][:-1]
    elif change == "long":
        packets[-1] += b"x"
    else:
        packets[1] = split(kind % 0xFFFF + 1, body_of(chunks * CHUNK - 5))[1]
    assert ([], True) == collect(packets)


@given(st.binary(max_size=40))
def test_noise(packet: bytes) -> None:
    """Any bytes are a message that says exactly what they say, or a violation, or a wait; nothing else is raised."""
    messages, _ = collect([packet])
    for kind, body in messages:
        assert packet == HEADER.pack(kind, 0, len(body)) + body


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"", "impossible length"),
        (b"\1\0\0\0\0\0\0", "impossible length"),
        (HEADER.pack(1, 0, CHUNK + 1) + b"x" * (CHUNK + 1), "impossible length"),
        (HEADER.pack(0, 0, 0), "kind 0"),
        (HEADER.pack(1, 0, MAX_MESSAGE + 1) + b"x" * CHUNK, "over the limit"),
        (HEADER.pack(1, 1, 1) + b"x", "first chunk"),
        (HEADER.pack(1, 0, 2) + b"x", "first chunk"),
        (HEADER.pack(1, 0, CHUNK + 1) + b"x", "first chunk"),
    ],
    ids=["empty", "short", "long", "kind 0", "limit", "chunk 1 first", "less than total", "first chunk not full"],
)
def test_refused(packet: bytes, why: str) -> None:
    """Each impossible first packet is refused for its own reason."""
    with pytest.raises(ProtocolViolation, match=why):
        Assembler().feed(packet)


@given(limit=st.integers(0, 3 * CHUNK), over=st.integers(-1, 1))
@settings(deadline=None)
def test_limit(limit: int, over: int) -> None:
    """Exactly the limit passes, one byte more is refused at its first packet, before anything is kept."""
    length = max(0, limit + over)
    packets = split(7, body_of(length))
    assembler = Assembler(limit)
    if length > limit:
        with pytest.raises(ProtocolViolation):
            assembler.feed(packets[0])
        assert assembler._body is None
    else:
        assert ([(7, body_of(length))], False) == collect(packets, limit)


def test_over_a_socket() -> None:
    """Message by message over a real channel; the end of the peer is EOFError, also in the middle of a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assembler = Assembler()
        for length in (0, 1, CHUNK, CHUNK + 1):
            send_message(ours, 9, body_of(length))
            assert (9, body_of(length)) == recv_message(theirs, assembler)
        ours.send(split(9, body_of(2 * CHUNK))[0])
        ours.close()
        with pytest.raises(EOFError):
            recv_message(theirs, assembler)
