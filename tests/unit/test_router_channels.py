"""The workers' channels over real sockets: what they hold, whom they wait for, and libzmq's DEALER at the other end."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import cast

import msgspec
import pytest
import zmq
import zmtp_peer
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.errors import ProtocolViolation
from sandbox.wire import zmtp
from sandbox.wire.router_frames import Health
from supervisor.router import channels
from supervisor.router.channels import JOIN, OUT_ALLOWANCE, Channel, Channels, Sent
from supervisor.router.inbound import SMALL, Message
from supervisor.router.mailbox import Account
from supervisor.router.routes import Worker
from supervisor.router.timers import Timers

pytestmark = pytest.mark.block5_messaging

LIMIT = 1 << 20
FRAME = Health(1)
HEAD = msgspec.msgpack.encode(FRAME)


class Bench:
    """Channels with their worker's end, and a loop turned by hand."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.timers = Timers()
        self.violated: list[tuple[Worker, str]] = []
        self.all = Channels(self.epoll, self.timers, Account(), lambda worker, why: self.violated.append((worker, why)))
        self.open: list[Channel] = []

    def pair(self) -> tuple[socket.socket, Channel]:
        """A worker's end and its channel."""
        near, far = zmtp.pair()
        near.settimeout(10)
        return near, self.adopt(far)

    def adopt(self, far: socket.socket) -> Channel:
        channel = self.all.add(far)
        channel.owner = cast(Worker, object())
        channel.inbound.payload_limit = LIMIT
        self.open.append(channel)
        return channel

    def turn(self, channel: Channel) -> list[Message]:
        """Take in what has come from one worker."""
        found = []
        while True:
            try:
                message = channel.next() if channel in self.all.backlog else channel.receive()
            except BlockingIOError:
                return found
            if message is not None:
                found.append(message)
            elif channel.paused:
                return found
            while channel in self.all.backlog:
                self.all.backlog.remove(channel)
                message = channel.next()
                if message is not None:
                    found.append(message)

    def wants(self, channel: Channel, events: int) -> bool:
        """Whether the loop would be told of this."""
        return any(fd == channel._fd and mask & events for fd, mask in self.epoll.poll(0))

    def told(self, channel: Channel) -> bool:
        """Wait until the loop would be told of the channel; False when it never is."""
        return any(fd == channel._fd for fd, _ in self.epoll.poll(10))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for channel in bench.open:
        channel.close()
    bench.epoll.close()


# -- coming in --------------------------------------------------------------------------------------------------


def test_messages_of_every_size(bench: Bench) -> None:
    """What a worker's own Dealer sends is received, whatever way of buffering its size leads to."""
    near, channel = bench.pair()
    with near:
        dealer = zmtp.Dealer(near)
        for size in (0, 1, 255, 256, SMALL - 20, SMALL, SMALL + 20, 65_536, 150_000):
            sent = [b"head", os.urandom(size)]
            dealer.send(sent)
            assert [tuple(sent)] == bench.turn(channel)
        assert (0, 0) == (bench.all.input.used, len(bench.timers))


def test_one_message_a_turn(bench: Bench) -> None:
    """However many messages come at once, `receive` gives one and the others wait for their turns."""
    near, channel = bench.pair()
    with near:
        near.sendall(zmtp.encode_message([b"h", b"p"]) * 3)
        assert (b"h", b"p") == channel.receive()
        assert [channel] == list(bench.all.backlog)
        assert (b"h", b"p") == channel.next()
        assert (b"h", b"p") == channel.next()
        assert 2 == len(bench.all.backlog)


def test_half_a_message_has_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message begun and not finished is a violation after HALF_SECONDS; a finished one leaves no timer."""
    monkeypatch.setattr(channels, "HALF_SECONDS", 0.0)
    near, channel = bench.pair()
    with near:
        near.sendall(zmtp.encode_message([b"h", b"p"])[:-1])
        assert [] == bench.turn(channel)
        bench.timers.run()
        assert [(channel.owner, "half a message for 0 s")] == bench.violated
    near, channel = bench.pair()
    with near:
        near.sendall(zmtp.encode_message([b"h", b"p"])[:-1])
        bench.turn(channel)
        near.sendall(b"p")
        assert [(b"h", b"p")] == bench.turn(channel)
        bench.timers.run()
        assert 1 == len(bench.violated)


def test_hang_up(bench: Bench) -> None:
    """The end of the stream is told after everything that came before it, also when answers were left unread."""
    near, channel = bench.pair()
    zmtp.Dealer(near).send([b"last", b"words"])
    channel.send(FRAME)
    near.close()
    assert (b"last", b"words") == channel.receive()
    with pytest.raises(EOFError):
        channel.receive()


def test_large_messages_wait_for_room(bench: Bench) -> None:
    """Announced lengths are reserved before they are allocated; who finds no room is not read, and goes on in turn."""
    bench.all.input = Account(int(2.5 * LIMIT))
    ends = [bench.pair() for _ in range(4)]
    begun = zmtp.encode_message([b"h", bytes(LIMIT)])[: 2 * SMALL]
    rest = zmtp.encode_message([b"h", bytes(LIMIT)])[2 * SMALL :]
    for near, channel in ends:
        near.sendall(begun)
        bench.turn(channel)
    assert [False, False, True, True] == [channel.paused for _, channel in ends]
    assert bench.all.input.used <= bench.all.input.limit
    assert 2 == len(bench.timers), "the time of those that are not read stands still"
    near, channel = ends[2]
    near.sendall(bytes(4))
    assert not bench.wants(channel, select.EPOLLIN)

    def finish(near: socket.socket, channel: Channel, data: bytes) -> list[Message]:
        found = []
        while data:
            data = data[near.send(data[:100_000]) :]
            found += bench.turn(channel)
        return found

    assert [(b"h", bytes(LIMIT))] == finish(*ends[0], rest)
    assert [False, True] == [channel.paused for _, channel in ends[2:]]
    ends[1][1].shut()
    assert not ends[3][1].paused
    assert [(b"h", bytes(LIMIT))] == finish(*ends[2], rest[4:])
    assert [(b"h", bytes(LIMIT))] == finish(*ends[3], rest)
    assert 0 == bench.all.input.used
    for near, _ in ends:
        near.close()


def test_room_is_asked_for_once(bench: Bench) -> None:
    """A long structure takes room for the longest payload too: two that hold some and want more would wait for each
    other for ever."""
    bench.all.input = Account(LIMIT + 200_000)
    ends = [bench.pair() for _ in range(2)]
    for near, channel in ends:
        near.sendall(zmtp.encode_message([bytes(100_000), bytes(LIMIT)])[:50_000])
        bench.turn(channel)
    assert [False, True] == [channel.paused for _, channel in ends]
    for near, _ in ends:
        near.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(
                st.binary(max_size=40),
                st.just(zmtp.encode_message([b"h", b"p"])),
                st.integers(0, LIMIT + 1).map(lambda size: b"\x01\x01h\x02" + size.to_bytes(8, "big")),
                st.integers(1, 40_000).map(bytes),
            ),
        ),
        max_size=30,
    )
)
def test_any_bytes_from_many(steps: list[tuple[int, bytes]]) -> None:
    """Whatever several workers send in whatever order, the room and the backlog stay right, and end at nothing."""
    bench = Bench()
    bench.all.input = Account(2 * LIMIT)
    ends = [bench.pair() for _ in range(4)]
    for which, data in steps:
        near, channel = ends[which]
        near.setblocking(False)
        if channel._fd < 0:
            continue
        try:
            near.send(data)
            bench.turn(channel)
        except BlockingIOError:
            continue
        except ProtocolViolation:
            channel.shut()
            while channel in bench.all.backlog:
                bench.all.backlog.remove(channel)
        assert sum(channel._reserved for _, channel in ends) == bench.all.input.used <= bench.all.input.limit
    for near, channel in ends:
        channel.close()
        near.close()
    assert (0, 0, 0) == (bench.all.input.used, len(bench.all), len(bench.timers))
    bench.epoll.close()


# -- going out --------------------------------------------------------------------------------------------------


def test_send_is_the_encoding(bench: Bench) -> None:
    """Small and large messages, sent at once or in parts, are read by a worker's Dealer as they were."""
    near, channel = bench.pair()
    with near:
        dealer = zmtp.Dealer(near)
        for size in (0, 1, 255, 256, JOIN, JOIN + 1, LIMIT, 3 * LIMIT):
            payload = os.urandom(size)
            assert Sent.OK is channel.send(FRAME, payload)
            got: list[bytes] = []
            if channel._queue:
                # The kernel took a part: the rest follows as the worker reads.
                assert bench.wants(channel, select.EPOLLOUT) is False
                reader = threading.Thread(target=lambda into: into.extend(dealer.recv()), args=(got,))
                reader.start()
                while channel._queue:
                    assert bench.told(channel)
                    channel.flush()
                reader.join()
            else:
                got = dealer.recv()
            assert [HEAD, payload] == got
            assert 0 == bench.all.account.used
        assert not bench.wants(channel, select.EPOLLOUT)


def test_a_worker_that_does_not_read(bench: Bench) -> None:
    """What waits for it is bounded by number and by bytes, counts in the account, and goes with the channel."""
    near, channel = bench.pair()
    with near:
        sent = 0
        while channel.send(FRAME, bytes(10_000)) is Sent.OK:
            sent += 1
            assert sent < 1000
        assert Sent.FULL is channel.send(FRAME, bytes(10_000))
        assert channel.queued == bench.all.account.used <= LIMIT + OUT_ALLOWANCE
        assert len(channel._queue) <= channels.MAX_QUEUED
        channel.shut()
        assert 0 == bench.all.account.used
    near, channel = bench.pair()
    with near:
        assert Sent.OK is channel.send(FRAME, bytes(3 * LIMIT)), "a message alone is not refused for its size"
        assert Sent.FULL is channel.send(FRAME, bytes(LIMIT))
        assert channel.queued < 3 * LIMIT + 100


def test_nobody_there(bench: Bench) -> None:
    """To a worker whose end is closed nothing is sent, and nothing waits for it."""
    near, channel = bench.pair()
    near.close()
    assert Sent.GONE is channel.send(FRAME)
    channel.shut()
    assert Sent.GONE is channel.send(FRAME)
    channel.shut()
    near, channel = bench.pair()
    assert Sent.OK is channel.send(FRAME, bytes(LIMIT))
    near.close()
    channel.flush()
    assert 0 == bench.all.account.used


def test_an_idle_channel_is_small(bench: Bench) -> None:
    """A worker that has answered and is idle costs the router little beside its descriptor."""
    import tracemalloc

    tracemalloc.start()
    try:
        ends = [bench.pair() for _ in range(50)]
        for near, channel in ends:
            zmtp.Dealer(near).send([b"h", bytes(30_000)])
            assert 1 == len(bench.turn(channel))
        ours = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, f"*/supervisor/router/{name}.py") for name in ("channels", "inbound")]
        )
        assert sum(trace.size for trace in ours.statistics("filename")) < 50 * 2048
    finally:
        tracemalloc.stop()
    for near, _ in ends:
        near.close()


# -- libzmq at the other end ------------------------------------------------------------------------------------


def test_libzmq_dealer_both_ways(bench: Bench) -> None:
    """An ordinary pyzmq DEALER makes its handshake with ours and exchanges messages of every size with a channel."""
    with tempfile.TemporaryDirectory() as directory, zmq.Context() as context:
        path = os.path.join(directory, "r")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, context.socket(zmq.DEALER) as peer:
            listener.bind(path)
            listener.listen()
            listener.settimeout(10)
            peer.linger = 0
            peer.rcvtimeo = 10_000
            peer.setsockopt(zmq.IDENTITY, b"me")
            peer.connect(f"ipc://{path}")
            far, _ = listener.accept()
            far.settimeout(10)
            assert b"me" == zmtp_peer.router(far)
            channel = bench.adopt(far)
            for size in (0, 1, 255, 256, SMALL, 65_536, LIMIT):
                payload = os.urandom(size)
                peer.send_multipart([b"head", payload])
                found: list[Message] = []
                while not found:
                    assert bench.told(channel)
                    found = bench.turn(channel)
                assert [(b"head", payload)] == found
                assert Sent.OK is channel.send(FRAME, payload)
                while channel._queue:
                    assert bench.told(channel)
                    channel.flush()
                assert [HEAD, payload] == peer.recv_multipart()
            peer.send_multipart([b"one", b"two", b"three"])
            assert bench.told(channel)
            with pytest.raises(ProtocolViolation, match="two frames"):
                bench.turn(channel)
