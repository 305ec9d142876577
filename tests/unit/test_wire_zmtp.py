"""The ZMTP DEALER end: codec, splitting, hostile peers, and a real libzmq ROUTER."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest
import zmq
import zmtp_peer
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.wire import zmtp

pytestmark = pytest.mark.block5_messaging

GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"NULL" + bytes(16) + bytes(32)
READY_ROUTER = zmtp.encode_command(
    b"READY", b"\x0bSocket-Type" + struct.pack(">I", 6) + b"ROUTER" + b"\x08Identity" + struct.pack(">I", 0)
)


class ScriptedSocket:
    """Hands out `data` in pieces of the given sizes, then end of file; keeps what is sent."""

    def __init__(self, data: bytes, pieces: list[int]) -> None:
        self.data, self.pieces, self.sent = data, pieces, b""
        self.calls = 0

    def recv_into(self, view: memoryview) -> int:
        piece = self.pieces[self.calls % len(self.pieces)] if self.pieces else len(view)
        self.calls += 1
        taken = self.data[: min(piece, len(view))]
        view[: len(taken)] = taken
        self.data = self.data[len(taken) :]
        return len(taken)

    def sendall(self, data: bytes) -> None:
        self.sent += data


def scripted(data: bytes, pieces: list[int] | None = None, **limits: int) -> tuple[zmtp.Dealer, ScriptedSocket]:
    sock = ScriptedSocket(data, pieces or [])
    return zmtp.Dealer(cast(Any, sock), **limits), sock


messages = st.lists(
    st.lists(st.one_of(st.binary(max_size=600), st.integers(65_530, 65_540).map(bytes)), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(messages, st.lists(st.integers(1, 70_000), min_size=1, max_size=20), st.integers(0, 4))
def test_any_split_gives_the_same_messages(sent: list[list[bytes]], pieces: list[int], ping_at: int) -> None:
    """However the stream is cut, and with a PING anywhere, the messages that come out are those that went in."""
    encoded = [zmtp.encode_message(parts) for parts in sent]
    encoded.insert(min(ping_at, len(encoded) - 1), zmtp.encode_command(b"PING", b"\x00\x0acontext"))
    dealer, sock = scripted(b"".join(encoded), pieces)
    assert sent == [dealer.recv() for _ in sent]
    assert zmtp.encode_command(b"PONG", b"context") == sock.sent
    with pytest.raises(EOFError):
        dealer.recv()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_one_byte_at_a_time(parts: list[bytes]) -> None:
    """A stream that arrives byte by byte is read the same."""
    dealer, _ = scripted(zmtp.encode_message(parts), [1])
    assert parts == dealer.recv()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 140_000).map(bytes), min_size=1, max_size=4))
def test_send_is_the_encoding(parts: list[bytes]) -> None:
    """Small messages go out in one call, large ones in several; the bytes are the same."""
    dealer, sock = scripted(b"")
    dealer.send(parts)
    assert zmtp.encode_message(parts) == sock.sent


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_garbage_is_refused_or_ends(data: bytes, pieces: list[int]) -> None:
    """Any bytes whatever give messages, a refusal or the end of the file, and no other exception."""
    dealer, _ = scripted(data, pieces, max_frame=4096)
    with contextlib.suppress(ProtocolViolation, EOFError):
        while True:
            assert all(isinstance(part, bytes) for part in dealer.recv())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08\x00", "reserved"),
        (b"\x80\x00", "reserved"),
        (b"\x05\x05\x04PING", "claims to go on"),
        (b"\x02" + (2**63).to_bytes(8, "big"), "over the limit"),
        (b"\x02" + (4097).to_bytes(8, "big"), "over the limit"),
        (b"\x06" + (zmtp.MAX_COMMAND + 1).to_bytes(8, "big"), "over the limit"),
        (b"\x01\x00" * 9, "too many frames"),
        (b"\x04\x00", "without a name"),
        (b"\x04\x02\x05P", "without a name"),
        (b"\x04\x01\x00", "without a name"),
        (zmtp.encode_command(b"PING"), "unexpected command"),
        (zmtp.encode_command(b"PING", bytes(19)), "unexpected command"),
        (zmtp.encode_command(b"PONG"), "unexpected command"),
        (zmtp.encode_command(b"SUBSCRIBE", b"x"), "unexpected command"),
        (zmtp.encode_command(b"ERROR", b"\x03bad"), "unexpected command"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_hostile_frames_are_refused(data: bytes, why: str) -> None:
    """Each shape no ROUTER sends is a protocol violation that says so."""
    dealer, _ = scripted(data, max_frame=4096)
    with pytest.raises(ProtocolViolation, match=why):
        dealer.recv()


def test_frame_at_the_limit_is_accepted() -> None:
    """Positive control of the limits: exactly `max_frame` bytes and exactly `max_parts` frames pass."""
    parts = [bytes(4096)] * 8
    dealer, _ = scripted(zmtp.encode_message(parts), max_frame=4096)
    assert parts == dealer.recv()


def test_end_of_file_in_a_large_body() -> None:
    """A peer that dies in the middle of a large frame is an end of file, not a hang."""
    dealer, _ = scripted(zmtp.encode_message([bytes(100_000)])[:-1])
    with pytest.raises(EOFError):
        dealer.recv()


@pytest.mark.parametrize("identity", [b"\x00abc", bytes(range(1, 256)) + b"x"])
def test_impossible_identities(identity: bytes) -> None:
    """Routing ids libzmq would not honour are refused."""
    with pytest.raises(ValueError, match="routing id"):
        zmtp.encode_ready(b"DEALER", identity)


@given(st.dictionaries(st.text("abcXYZ-", min_size=1).map(lambda t: t.lower().encode()), st.binary(), max_size=5))
def test_properties_round_trip(properties: dict[bytes, bytes]) -> None:
    """Metadata written by the codec is read back."""
    data = b"".join(bytes((len(k),)) + k + struct.pack(">I", len(v)) + v for k, v in properties.items())
    assert properties == zmtp.parse_properties(data)


@given(st.binary(max_size=60))
def test_properties_of_garbage(data: bytes) -> None:
    """Malformed metadata raises ProtocolViolation and nothing else."""
    with contextlib.suppress(ProtocolViolation):
        zmtp.parse_properties(data)


def answer(data: bytes) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    return ours, theirs


def test_handshake_reads_not_one_byte_too_many() -> None:
    """What the router sends right after READY is left for the Dealer."""
    ours, theirs = answer(GREETING + READY_ROUTER + zmtp.encode_message([b"first", b""]))
    with ours, theirs:
        zmtp_peer.dealer(ours, b"w1")
        assert [b"first", b""] == zmtp.Dealer(ours).recv()
        assert 64 + len(zmtp.encode_ready(b"DEALER", b"w1")) == len(theirs.recv(4096))


def patched(at: int, value: int) -> bytes:
    return GREETING[:at] + bytes((value,)) + GREETING[at + 1 :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (patched(0, 0xFE) + READY_ROUTER, "does not speak"),
        (patched(9, 0x7E) + READY_ROUTER, "does not speak"),
        (patched(10, 2) + READY_ROUTER, "major version"),
        (patched(12, ord("P")) + READY_ROUTER, "mechanism"),
        (patched(16, 1) + READY_ROUTER, "mechanism"),
        (patched(32, 1) + READY_ROUTER, "set bits"),
        (patched(63, 1) + READY_ROUTER, "set bits"),
        (GREETING + READY_ROUTER.replace(b"ROUTER", b"DEALER"), "not a ROUTER"),
        (GREETING + zmtp.encode_command(b"READY"), "not a ROUTER"),
        (GREETING + zmtp.encode_command(b"ERROR", b"\x02no"), "refused"),
        (GREETING + zmtp.encode_command(b"HELLO", b"x"), "did not answer READY"),
        (GREETING + zmtp.encode_message([b"hello"]), "message before READY"),
        (GREETING + b"\x06" + (zmtp.MAX_COMMAND + 1).to_bytes(8, "big"), "over the limit"),
        (GREETING + zmtp.encode_command(b"READY", b"\x0bSocket-Type\xff\xff\xff\xff"), "metadata"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_handshake_refuses_other_peers(data: bytes, why: str) -> None:
    """Anything but a ZMTP 3 ROUTER with NULL security is refused, by name."""
    ours, theirs = answer(data)
    with ours, theirs, pytest.raises(ProtocolViolation, match=why):
        zmtp_peer.dealer(ours, b"w1")


def test_handshake_notices_the_end() -> None:
    """A peer that hangs up in the middle is told as such."""
    ours, theirs = answer(GREETING[:40])
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises(EOFError):
        zmtp_peer.dealer(ours, b"w1")


def test_pair() -> None:
    """Both ends are past the handshake, blocking and close-on-exec, and nothing lies on the stream."""
    dealer, router = zmtp.pair()
    with dealer, router:
        for end in (dealer, router):
            assert (True, False) == (end.getblocking(), end.get_inheritable())
            with pytest.raises(BlockingIOError):
                end.recv(1, socket.MSG_DONTWAIT)
        zmtp.Dealer(dealer).send([b"head", b"payload"])
        assert zmtp.encode_message([b"head", b"payload"]) == router.recv(4096)


# -- against libzmq -------------------------------------------------------------------------------------------


@pytest.fixture
def router() -> Iterator[tuple[zmq.Socket[bytes], str]]:
    """A real ROUTER on a listening socket made elsewhere, as the supervisor makes it, and its path."""
    with tempfile.TemporaryDirectory() as directory, zmq.Context() as context:
        path = os.path.join(directory, "r")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(16)
        with context.socket(zmq.ROUTER) as sock:
            sock.linger = 0
            sock.rcvtimeo = sock.sndtimeo = 10_000
            sock.setsockopt(zmq.ROUTER_MANDATORY, 1)
            sock.setsockopt(zmq.HEARTBEAT_IVL, 50)
            sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
            sock.setsockopt(zmq.USE_FD, listener.detach())
            sock.bind("ipc://" + path)
            yield sock, path


def connect(path: str, identity: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    sock.settimeout(10)
    zmtp_peer.dealer(sock, identity)
    return sock


def test_libzmq_router_both_ways(router: tuple[zmq.Socket[bytes], str]) -> None:
    """Messages of every size class go both ways under the identity of the handshake."""
    sock, path = router
    with connect(path, b"worker-1") as end:
        dealer = zmtp.Dealer(end)
        for size in (0, 1, 255, 256, 65_535, 65_536, 65_537, 1 << 20, 3 << 20):
            parts = [b"head", os.urandom(size)]
            got: list[list[bytes]] = []
            reader = threading.Thread(target=lambda into: into.append(sock.recv_multipart()), args=(got,))
            reader.start()
            dealer.send(parts)
            reader.join()
            assert [[b"worker-1", *parts]] == got
            sock.send_multipart([b"worker-1", *parts])
            assert parts == dealer.recv()


def test_libzmq_ping_is_answered(router: tuple[zmq.Socket[bytes], str]) -> None:
    """libzmq's heartbeat finds the peer alive: its PINGs are answered while the Dealer waits, and the link stays."""
    sock, path = router
    seen: list[bytes] = []
    with connect(path, b"w") as end:

        class Watching(zmtp.Dealer):
            def _command(self, body: bytes) -> None:
                seen.append(body)
                super()._command(body)
                if len(seen) == 3:
                    sock.send_multipart([b"w", b"done"])

        assert [b"done"] == Watching(end).recv()
    assert [b"\x04PING"] * 3 == [body[:5] for body in seen]


def test_libzmq_hang_up(router: tuple[zmq.Socket[bytes], str]) -> None:
    """When the router goes, the Dealer sees the end of the file."""
    sock, path = router
    with connect(path, b"w") as end:
        sock.close(0)
        with pytest.raises((EOFError, ConnectionError)):
            zmtp.Dealer(end).recv()
