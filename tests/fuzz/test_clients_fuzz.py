"""Hostile streams on the clients' socket: whatever comes, however it is cut, the router serves the others as before."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.wire import UNDECODABLE, client_frames, zmtp
from sandbox.wire.client_frames import (
    ClientCancel,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientSubscribe,
    ClientUnsubscribe,
)
from sandbox.wire.router_frames import MAX_TOPIC, Options
from supervisor.router.handshake import GREETING, MAX_BYTES, Handshake
from tests.unit.router_host import encode
from tests.unit.test_router_clients import Clients, Dealer

pytestmark = pytest.mark.block5_messaging

_from_client = msgspec.msgpack.Decoder(client_frames.FromClient)
GOOD = GREETING + zmtp.encode_ready(b"DEALER")
anything = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.text(max_size=300),
    st.binary(max_size=20),
    st.lists(st.integers(-9, 9), max_size=5),
    st.just(list(msgspec.to_builtins(Options()))),
)
names = st.sampled_from([f"Client{name}" for name in ("Send", "Request", "Cancel", "Publish", "Subscribe", "Welcome")])
shapes = st.tuples(names, st.lists(anything, max_size=5)).map(lambda each: msgspec.msgpack.encode([each[0], *each[1]]))
frames = st.one_of(
    st.builds(ClientSend, st.integers(1, 9), st.sampled_from(["acme/a", "acme/*", "acme/a/*", "x", "a/b/c/d", "é/b"])),
    st.builds(ClientRequest, st.integers(1, 9), st.sampled_from(["acme/a", ""]), st.integers(1, 5)),
    st.builds(ClientCancel, st.integers(1, 9)),
    st.builds(ClientPublish, st.integers(1, 9), st.sampled_from(["a", "a.b", "a..b", ">", ""])),
    st.builds(ClientSubscribe, st.integers(1, 9), st.sampled_from(["a", "a.>", ">", "*.*", ".", "a.>.b"])),
    st.builds(ClientUnsubscribe, st.integers(1, 9), st.sampled_from(["a", "a.>"])),
).map(encode)
messages = st.tuples(frames | shapes | st.binary(max_size=40), st.binary(max_size=50)).map(zmtp.encode_message)
streams = st.one_of(
    st.binary(max_size=200),
    st.lists(messages, max_size=6).map(lambda each: GOOD + b"".join(each)),
    st.tuples(st.lists(messages, max_size=3), st.binary(max_size=30)).map(lambda m: GOOD + b"".join(m[0]) + m[1]),
    st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
        lambda flip: GOOD[: flip[0]] + bytes((flip[1],)) + GOOD[flip[0] + 1 :]
    ),
)


@pytest.fixture(scope="module")
def net() -> Iterator[tuple[Clients, Dealer]]:
    with Clients() as clients:
        clients.settings()
        clients.host.route("acme/a")
        yield clients, clients.client()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=streams, cut=st.integers(1, 300))
@example(stream=GOOD + b"\x01\x01\x90\x02" + b"\xff" * 8, cut=1)
def test_the_router_outlives_every_stream(net: tuple[Clients, Dealer], stream: bytes, cut: int) -> None:
    """A connection may say anything in any pieces: another one is answered afterwards, and nothing of it stays open."""
    clients, good = net
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(clients.host.clients_path)
        try:
            for at in range(0, len(stream), cut):
                sock.sendall(stream[at : at + cut])
        except ConnectionError:
            pass  # it has had enough
    ask = good.request("acme/nobody")
    answer, _ = good.answer()
    assert (ask, "target-not-found") == (answer.ask, answer.error)


@settings(max_examples=500)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(1, 80), max_size=20))
@example(data=GOOD + b"rest", cuts=[1] * 20)
def test_handshakes_hold_little(data: bytes, cuts: list[int]) -> None:
    """However it is cut a handshake comes to the same end, holding no more than it may."""

    def run(sizes: list[int]) -> tuple[str, bytes]:
        handshake, at = Handshake(), 0
        sizes = [*sizes, len(data)]
        while at < len(data) and sizes:
            piece = data[at : at + min(sizes.pop(0), handshake.wanted)]
            at += len(piece)
            assert len(handshake.rest) + len(piece) <= MAX_BYTES
            try:
                if handshake.feed(piece):
                    return "open", handshake.rest + data[at:]
            except ProtocolViolation:
                return "refused", b""
        return "waiting", b""

    whole, rest = run([])
    assert (whole, rest) == run(cuts)


def test_the_real_handshake_opens() -> None:
    """Positive control of the one above: in one piece, with what comes behind it, and byte by byte."""
    whole = Handshake()
    assert whole.feed(GOOD + b"x")
    assert b"x" == whole.rest
    slow = Handshake()
    assert [False] * (len(GOOD) - 1) + [True] == [slow.feed(GOOD[i : i + 1]) for i in range(len(GOOD))]


@settings(max_examples=500)
@given(data=shapes | st.binary(max_size=80))
def test_what_decodes_is_bounded(data: bytes) -> None:
    """A structure that decodes is within its bounds; everything else is one of the errors that are caught."""
    try:
        frame = _from_client.decode(data)
    except UNDECODABLE:
        return
    assert 1 <= frame.ask < 1 << 53
    assert len(getattr(frame, "topic", "")) <= MAX_TOPIC
    assert len(getattr(frame, "target", "")) <= client_frames.MAX_ID
    assert encode(frame)
