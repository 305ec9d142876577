"""What a broken or hostile worker may send: it costs that worker its life, and nobody else anything."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.wire import zmtp
from sandbox.wire.router_frames import (
    MAX_TTL_MS,
    Ack,
    Broadcast,
    Cancel,
    CancelTimer,
    Defer,
    Ended,
    GetMetadata,
    HealthReply,
    Initialize,
    ListComponents,
    MessagingRule,
    Options,
    Publish,
    Ready,
    Reply,
    Request,
    Respond,
    Send,
    SetTimer,
    Subscribe,
)
from supervisor.router import channels, loop
from supervisor.router.inbound import MAX_HEAD
from tests.unit.router_host import METADATA, TALK, FakeWorker, Host, cid, encode

pytestmark = pytest.mark.block5_messaging


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def raw(*parts: bytes) -> Callable[[FakeWorker, int], None]:
    return lambda worker, _hand: worker.dealer.send(parts)


def stream(data: bytes) -> Callable[[FakeWorker, int], None]:
    return lambda worker, _hand: worker.sock.sendall(data)


def announced(flags: int, size: int) -> bytes:
    return bytes((flags | zmtp.LONG,)) + size.to_bytes(8, "big")


def frame(struct: msgspec.Struct, payload: bytes = b"") -> Callable[[FakeWorker, int], None]:
    return lambda worker, _hand: worker.send(struct, payload)


IDLE = {
    "reply": frame(Reply(1, False)),
    "health": frame(HealthReply(1, "healthy")),
    "ready-twice": frame(Ready(METADATA, "healthy")),
    "send": frame(Send(1, cid("acme/b"))),
    "publish": frame(Publish(1, "t.x")),
    "subscribe": frame(Subscribe(1, "t.x")),
    "respond": frame(Respond(1, "token")),
    "timer": frame(SetTimer(1, 1)),
    "list": frame(ListComponents(1)),
    "ended-unknown": frame(Ended("fine")),
    "ended-payload": frame(Ended("exited"), b"x"),
    "one-frame": raw(encode(Ended("exited"))),
    "three-frames": raw(encode(Ended("exited")), b"", b""),
    "many-frames": raw(*[b""] * 100),
    "empty": raw(b"", b""),
    "not-msgpack": raw(b"\xc1", b""),
    "bad-utf8": raw(b"\x93\xa5Ended\xa1\xff\xa0", b""),
    "surrogate": raw(b"\x93\xa5Ended\xa3\xed\xa0\x80\xa0", b""),
    "unknown-tag": raw(b"\x91\xa4Root", b""),
    "router-frame": raw(b"\x91\xa8Shutdown", b""),
    "extra-field": raw(encode(["Ended", "exited", "", 1]), b""),
    "trailing": raw(encode(Ended("exited")) + b"\x00", b""),
    "deep": raw(b"\x91" * 100_000, b""),
    "long-head": raw(encode(Ended("exited", "x" * (1 << 20))), b""),
    "head-over-the-limit": stream(announced(zmtp.MORE, MAX_HEAD + 1)),
    "head-of-all-there-is": stream(announced(zmtp.MORE, 2**64 - 1)),
    "payload-of-all-there-is": stream(b"\x01\x01h" + announced(0, 2**64 - 1)),
    "never-ending-message": stream((announced(zmtp.MORE, 100_000) + bytes(100_000)) * 300),
    "garbage": stream(b"\xff" * 200),
    "another-greeting": stream(b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)),
    "ready-command": stream(zmtp.encode_ready(b"DEALER", b"somebody-else")),
    "ping": stream(zmtp.encode_command(b"PING", b"\x00\x0a")),
    "error-command": stream(zmtp.encode_command(b"ERROR", b"\x03bad")),
    "command-between": stream(b"\x01\x01h" + zmtp.encode_command(b"PING", b"\x00\x0a")),
    "reserved-bit": stream(b"\x11\x00"),
    "http": stream(b"GET / HTTP/1.1\r\n\r\n"),
    "big-integer": raw(encode(["Reply", 2**64 - 1, False]), b""),
}
WORKING = {
    "too-many-targets": frame(Broadcast(1, [cid("acme/b")] * 257)),
    "announces-too-large-a-payload": stream(b"\x01\x01h" + announced(0, 1001)),
    "reply-wrong-id": lambda worker, hand: worker.send(Reply(hand + 1, False)),
    "reply-unannounced": lambda worker, hand: worker.send(Reply(hand, False), b"x"),
    "reply-error-and-payload": lambda worker, hand: worker.send(Reply(hand, True, "error"), b"x"),
    "reply-too-large": lambda worker, hand: worker.send(Reply(hand, True), bytes(1001)),
    "send-too-large": frame(Send(1, cid("acme/b")), bytes(1001)),
    "cancel-payload": frame(Cancel(1, "x"), b"x"),
    "negative-timeout": frame(Request(1, cid("acme/b"), -1)),
    "health": frame(HealthReply(1, "healthy")),
    "ready": frame(Ready(METADATA, "healthy")),
    "publish-too-large": frame(Publish(1, "t.x"), bytes(1001)),
    "respond-too-large": frame(Respond(1, "t"), bytes(1001)),
    "timer-too-large": frame(SetTimer(1, 1), bytes(1001)),
    "subscribe-payload": frame(Subscribe(1, "t.x"), b"x"),
    "defer-payload": frame(Defer(1), b"x"),
    "cancel-timer-payload": frame(CancelTimer(1, "1"), b"x"),
    "long-topic": frame(Publish(1, "t" * 257)),
    "long-pattern": frame(Subscribe(1, "t" * 257)),
    "long-token": frame(Respond(1, "t" * 65)),
    "long-error": frame(Respond(1, "t", "e" * 4097)),
    "long-key": frame(Send(1, cid("acme/b"), Options(key="k" * 257))),
    "long-content-type": frame(Send(1, cid("acme/b"), Options(content_type="k" * 129))),
    "unknown-priority": frame(Send(1, cid("acme/b"), Options(priority=4))),
    "negative-ttl": frame(Send(1, cid("acme/b"), Options(ttl_ms=-1))),
    "endless-ttl": frame(Send(1, cid("acme/b"), Options(ttl_ms=MAX_TTL_MS + 1))),
    "negative-delay": frame(SetTimer(1, -1)),
    "priority-of-text": raw(encode(["Send", 1, ["acme", "b", "0"], ["high", 0, "", None]]), b""),
}


def bystander(host: Host) -> Callable[[], None]:
    """A second component, and the check that it is served as before."""
    worker = host.start("acme/bystander")

    def check() -> None:
        host.control.submit("acme/bystander", b"ping")
        got, payload = worker.message()
        worker.reply(got, payload)
        assert b"ping" == host.control.submitted()[1]

    check()
    return check


@pytest.mark.parametrize("attack", IDLE.values(), ids=IDLE)
def test_hostile_while_idle(host: Host, attack: Callable[[FakeWorker, int], None]) -> None:
    """A frame out of place from an idle worker: recorded, killed once, others untouched."""
    check = bystander(host)
    worker = host.start("acme/a", TALK)
    worker.sock.settimeout(0.2)  # what is refused by its announced length is not read
    with contextlib.suppress(TimeoutError):
        attack(worker, 0)
    host.violated(worker)
    with contextlib.suppress(TimeoutError):
        attack(worker, 0)
    check()
    host.nothing_asked()
    host.died(worker, "policy")
    check()


@pytest.mark.parametrize("attack", WORKING.values(), ids=WORKING)
def test_hostile_while_working(host: Host, attack: Callable[[FakeWorker, int], None]) -> None:
    """The same with a message in hand: its asker hears `target-ended` when the worker is dead."""
    check = bystander(host)
    worker = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")], message_size=1000)
    host.control.submit("acme/a")
    attack(worker, worker.message()[0].id)
    host.violated(worker)
    check()
    host.died(worker, "policy")
    assert "target-ended" == host.control.submitted()[0].error


def test_well_behaved_positive_control(host: Host) -> None:
    """What the attacks bend: the same frames in their place are accepted."""
    worker = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")], message_size=1000)
    host.control.submit("acme/a")
    hand = worker.message()[0]
    assert 5 == worker.ask(Send(1, cid("acme/b")), bytes(1000)).case
    worker.send(Reply(hand.id, True), bytes(1000))
    assert bytes(1000) == host.control.submitted()[1]
    worker.send(Ended("exited"))
    assert "exited" == host.control.event("ended").outcome
    host.nothing_asked()


def test_speaks_before_initialize(host: Host) -> None:
    """A worker that answers before it was asked, before its route is even known, is ended."""
    worker = host.connect("acme/a")
    host.attach(worker)
    host.settle()
    worker.send(Ready(METADATA, "healthy"))
    host.violated(worker)


@pytest.mark.parametrize("ready", [Ready(METADATA, "superb"), Ready(None, "healthy")])
def test_impossible_ready(host: Host, ready: Ready) -> None:
    """A Ready with an unknown health, or neither metadata nor an error, is a violation."""
    host.route("acme/a")
    worker = host.connect("acme/a")
    host.attach(worker)
    worker.take(Initialize)
    worker.send(ready)
    host.violated(worker)


def test_asks_and_never_reads(host: Host) -> None:
    """A worker that asks without end and reads no answer is ended; meanwhile others are served."""
    check = bystander(host)
    host.start("acme/b", TALK)
    worker = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")], deadline_ms=60_000)
    host.control.submit("acme/a", request=False)
    host.control.submitted()
    worker.message()
    flood = zmtp.encode_message([encode(GetMetadata(1, cid("acme/b"))), b""]) * 1000
    worker.sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        for _ in range(100):
            worker.sock.sendall(flood)
            check()
    end = host.violated(worker)
    assert "does not read its channel" == end.detail
    check()


@pytest.mark.parametrize("begun", [1, 30_000, 1_000_000])
def test_half_a_message(host: Host, monkeypatch: pytest.MonkeyPatch, begun: int) -> None:
    """A message that is begun and not finished costs its own worker, also when nothing is in hand."""
    check = bystander(host)
    worker = host.start("acme/a", TALK)
    monkeypatch.setattr(channels, "HALF_SECONDS", 0.05)
    worker.sock.sendall(zmtp.encode_message([encode(Ended("exited")), bytes(1 << 20)])[:begun])
    assert "half a message for 0.05 s" == host.violated(worker).detail
    check()


def test_drip_feed(host: Host) -> None:
    """A message that comes byte by byte is taken like any other, and nobody waits for it."""
    check = bystander(host)
    worker = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")])
    host.control.submit("acme/a")
    for byte in zmtp.encode_message([encode(Reply(worker.message()[0].id, True)), b"slow"]):
        worker.sock.sendall(bytes((byte,)))
    assert b"slow" == host.control.submitted()[1]
    check()


def test_hangs_up_while_idle(host: Host) -> None:
    """A worker that closes its end gets nothing more, and is ended when it is not dead within its deadline."""
    check = bystander(host)
    worker = host.start("acme/a", TALK, deadline_ms=50)
    worker.sock.shutdown(socket.SHUT_WR)
    end = host.end_asked()
    assert (worker.incarnation, "killed", "closed its channel") == (end.incarnation, end.outcome, end.detail)
    check()


def test_descriptors_are_dropped(host: Host) -> None:
    """Descriptors that come with a worker's messages are never installed: it is served as before, nothing is kept."""
    worker = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")])
    host.control.submit("acme/a")
    hand = worker.message()[0]
    reader, writer = os.pipe()
    fds = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        message = zmtp.encode_message([encode(ListComponents(1)), b""])
        socket.send_fds(worker.sock, [message], [writer] * 253)
        assert isinstance(worker.recv()[0], Ack)
    worker.reply(hand, b"done")
    assert b"done" == host.control.submitted()[1]
    assert fds == len(os.listdir("/proc/self/fd"))
    os.close(writer)
    assert b"" == os.read(reader, 1), "nobody holds the other end"
    os.close(reader)


def test_cannot_answer_or_cancel_for_another(host: Host) -> None:
    """Ids of another worker's messages and requests are worth nothing: identity is the channel."""
    asker = host.start("acme/asker", [*TALK, MessagingRule(source="host/client/*")])
    target = host.start("acme/target", TALK)
    thief = host.start("acme/thief", [*TALK, MessagingRule(source="host/client/*")])
    for name, worker in (("acme/asker", asker), ("acme/thief", thief)):
        host.control.submit(name, request=False)
        host.control.submitted()
        worker.message()
    asked = asker.ask(Request(1, cid("acme/target"), 20_000), b"secret").text
    hand = target.message()[0]
    assert 2 == thief.ask(Cancel(1, asked)).case
    thief.send(Reply(hand.id, True), b"forged")
    host.violated(thief)
    asker.send(Reply(1, False))
    target.reply(hand, b"true")
    assert b"true" == asker.callback()[1]


def test_replayed_reply(host: Host) -> None:
    """An answer is taken once: the same again ends the worker, and whoever asked has the first."""
    worker = host.start("acme/a")
    host.control.submit("acme/a")
    host.control.submit("acme/a")
    first = worker.message()[0]
    worker.reply(first, b"once")
    assert b"once" == host.control.submitted()[1]
    worker.message()
    worker.reply(first, b"again")
    assert "Reply to nothing in hand" == host.violated(worker).detail
    host.died(worker, "policy")
    assert "target-ended" == host.control.submitted()[0].error


def test_no_descriptor_left(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker for whom the router has no descriptor is ended by name, and nobody else."""
    check = bystander(host)
    monkeypatch.setattr(loop, "SPARE_FDS", 1 << 30)
    worker = host.connect("acme/a")
    host.attach(worker)
    end = host.end_asked()
    assert (worker.incarnation, "killed") == (end.incarnation, end.outcome)
    assert "no descriptor left" in end.detail
    check()


SEEDS = [
    encode(seed)
    for seed in (
        Ready(METADATA, "healthy"),
        Reply(3, True),
        HealthReply(1, "healthy"),
        Send(1, cid("acme/b")),
        Request(1, cid("acme/b"), 100),
        Cancel(1, "ab"),
        Broadcast(1, [cid("acme/b")]),
        ListComponents(1),
        GetMetadata(1, cid("acme/b")),
        Ended("trap", "x"),
    )
]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good frame with some bytes changed, removed or added."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data)


class Siege:
    """One router over all examples of the fuzz test; every example is a fresh worker."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.check = bystander(host)
        host.route("acme/b", TALK)
        host.route("acme/a", [*TALK, MessagingRule(source="host/client/*")])

    def attack(self, messages: list[list[bytes]]) -> None:
        host = self.host
        worker = host.start("acme/a", route=False)
        host.control.submit("acme/a", request=False)
        host.control.submitted()
        worker.message()
        with contextlib.suppress(ConnectionError):
            for parts in messages:
                worker.dealer.send(parts)
        self.check()
        host.died(worker)
        host.sup.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                host.sup.recv(65536)
        host.sup.settimeout(20)


@pytest.fixture(scope="module")
def siege() -> Iterator[Siege]:
    with Host() as host:
        host.auditor.sock.close()  # nobody reads it here; the records stay in the router, a few hundred
        yield Siege(host)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.tuples(mutations(), st.binary(max_size=10)).map(list),
            st.lists(st.binary(max_size=40), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_mutated_frames(siege: Siege, messages: list[list[bytes]]) -> None:
    """Whatever a worker sends, the router lives, serves the others, and lets the worker be replaced."""
    siege.attack(messages)
