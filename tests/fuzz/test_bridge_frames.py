"""Hostile frames on fd 3: whatever a worker sends, the bridge neither dies nor blocks nor serves it wrongly (T51)."""

from __future__ import annotations

import os
import socket
import tempfile
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.capabilities import FileRule, Policy, StorageRule
from bridge.server import Server
from bridge.storage import Storage
from sandbox.types import ComponentId, Limits
from sandbox.wire.audit_frames import RECORD, RECORDED, Record, Recorded
from sandbox.wire.bridge_ops import ANSWER, Op
from sandbox.wire.packet import HEADER, PACKET, Assembler, split
from sandbox.wire.supervisor_frames import AttachBridge, AuditChannel, BridgePolicy, Detach, recv_packet, send_frame

pytestmark = pytest.mark.block8_bridge

HOSTILE, GOOD = ComponentId("acme", "hostile"), ComponentId("acme", "good")

arguments = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["/f", "/d/../f", "/none", "/d", "/", "k"]),
    st.binary(max_size=40),
    st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)
bodies = st.one_of(st.lists(arguments, max_size=5).map(msgspec.msgpack.encode), st.binary(max_size=100))
operations = st.one_of(st.sampled_from([int(op) for op in Op if op != Op.SLEEP]), st.integers(0, 0xFFFF))


def valid(op: int, rest: list[object]) -> bytes:
    """A request of good shape."""
    return split(op, msgspec.msgpack.encode(rest))[0]


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """One packet: well formed, malformed in the body, in the header, or noise."""
    good = st.sampled_from(
        [
            valid(Op.FS_READ, ["/f"]),
            valid(Op.FS_WRITE, ["/f", b"x" * 50]),
            valid(Op.FS_LIST, ["/"]),
            valid(Op.STORAGE_SET, ["k", b"v"]),
            valid(Op.LOG, [2, "m", [["k", "v"]]]),
        ]
    )
    shape = draw(st.integers(0, 3))
    if shape == 0:
        return draw(good)
    if shape == 1:
        return split(draw(operations.filter(bool)), draw(bodies))[0]
    if shape == 2:
        packet = bytearray(draw(good))
        for _ in range(draw(st.integers(1, 4))):
            packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
        return bytes(packet[: draw(st.integers(0, len(packet)))])
    return HEADER.pack(draw(operations), draw(st.integers(0, 3)), draw(st.integers(0, 2**32 - 1))) + draw(
        st.one_of(st.binary(max_size=30), st.just(b"\x91" * (PACKET - 8)), st.just(b"z" * (PACKET - 8)))
    )


class Bridge:
    """A bridge turned by hand, with an auditor that acknowledges everything at once."""

    def __init__(self) -> None:
        self.root = tempfile.TemporaryDirectory()
        os.mkdir(f"{self.root.name}/s")
        os.makedirs(f"{self.root.name}/p/d")
        with open(f"{self.root.name}/secret", "wb") as file:
            file.write(b"secret")
        os.symlink("../secret", f"{self.root.name}/p/link")
        here, dirfd = os.open(".", os.O_RDONLY), os.open(f"{self.root.name}/s", os.O_RDONLY)
        storage = Storage.open(dirfd, 16 << 20)
        os.fchdir(here)
        os.close(here)
        os.close(dirfd)
        self.sup, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sup.setblocking(False)
        self.server = Server(end, storage)
        self.audit, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.audit.setblocking(False)
        self.assembler = Assembler()
        self.say(AuditChannel(), [theirs.fileno()])
        theirs.close()
        limits = Limits(storage=10_000, deadline_ms=1)
        for component in (HOSTILE, GOOD):
            fd = os.open(f"{self.root.name}/p", os.O_PATH)
            files = [FileRule("/**", ["read", "list", "write", "delete"])]
            policy = Policy(files, [StorageRule("self", ["read", "write"])], ["/"], limits)
            self.say(BridgePolicy(component, policy.encode(), ["/"]), [fd])
            os.close(fd)
        self.incarnation = 0

    def say(self, frame: msgspec.Struct, fds: list[int] | None = None) -> None:
        """A word of the supervisor."""
        send_frame(self.sup, frame, fds or [])
        self.turn()

    def turn(self) -> None:
        """One turn of the bridge, which must be short, and of its auditor and supervisor."""
        start = time.thread_time()
        self.server.turn(0)
        assert time.thread_time() - start < 1, "a turn took too long"
        while True:
            try:
                message = self.assembler.feed(self.audit.recv(PACKET))
            except BlockingIOError:
                break
            if message is not None and message[0] == RECORD:
                n = msgspec.msgpack.decode(message[1], type=Record).n
                self.audit.send(split(RECORDED, msgspec.msgpack.encode(Recorded(n, n)))[0])
        while True:
            try:
                recv_packet(self.sup)
            except BlockingIOError:
                return

    def attach(self, component: ComponentId) -> socket.socket:
        """A worker's end."""
        self.incarnation += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.say(AttachBridge(component, self.incarnation), [theirs.fileno()])
        theirs.close()
        return ours

    def serves(self) -> None:
        """A well-behaved worker gets its answer within a few turns."""
        worker = self.attach(GOOD)
        worker.send(valid(Op.STORAGE_EXISTS, ["nothing"]))
        for _ in range(10):
            self.turn()
            try:
                answer = worker.recv(PACKET)
            except BlockingIOError:
                continue
            assert (Op.STORAGE_EXISTS | ANSWER, 0) == HEADER.unpack_from(answer)[:2]
            break
        else:
            raise AssertionError("a good worker was not served")
        worker.close()
        self.say(Detach(self.incarnation, "exited"))


@pytest.fixture(scope="module")
def bridge():
    """One bridge for all examples: what one leaves behind must not hurt the next."""
    made = Bridge()
    yield made
    made.server.close()
    made.sup.close()
    made.audit.close()
    made.root.cleanup()


def attack(bridge: Bridge, sent: list[bytes]) -> None:
    """Send the packets as fast as the channel takes them; then the bridge must be as before."""
    fds = len(os.listdir("/proc/self/fd"))
    worker = bridge.attach(HOSTILE)
    for packet in sent:
        try:
            worker.send(packet)
        except (BlockingIOError, ConnectionError):
            pass
        bridge.turn()
    for _ in range(4):
        bridge.turn()
    while True:
        try:
            answer = worker.recv(PACKET)
        except (BlockingIOError, ConnectionError):
            break
        if not answer:
            break
        assert HEADER.unpack_from(answer)[0] & ANSWER
        assert b"secret" not in answer
    worker.close()
    bridge.say(Detach(bridge.incarnation, "policy"))
    bridge.serves()
    assert fds == len(os.listdir("/proc/self/fd")), "descriptors leak"


@settings(deadline=None, max_examples=300)
@given(st.lists(packets(), min_size=1, max_size=6))
def test_no_frame_kills_or_blocks_the_bridge(bridge, sent):
    """Mutated and invented frames: the worker may lose its channel, nothing else happens."""
    attack(bridge, sent)


@pytest.mark.long
@settings(deadline=None, max_examples=20_000)
@given(st.lists(packets(), min_size=1, max_size=10))
def test_no_frame_kills_or_blocks_the_bridge_long(bridge, sent):
    """The same for longer."""
    attack(bridge, sent)


def in_flight(bridge: Bridge, rounds: int) -> None:
    """Descriptors with each of so many requests, the channel's own among them; none of them may stay."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    # A socket that is in flight to itself: nobody but the kernel's collector can close it.
    socket.send_fds(pair[0], [b"x"], [sock.fileno() for sock in pair])
    fds = len(os.listdir("/proc/self/fd"))
    for number in range(rounds):
        worker = bridge.attach(HOSTILE)
        passed = [worker.fileno(), *(sock.fileno() for sock in pair)] * 85
        socket.send_fds(worker, [valid(Op.STORAGE_USAGE, [])], passed[: number % 253 + 1])
        bridge.turn()
        assert b"" == worker.recv(PACKET), "the channel is closed"
        worker.close()
        bridge.say(Detach(bridge.incarnation, "policy"))
    bridge.serves()
    assert fds == len(os.listdir("/proc/self/fd")), "descriptors leak"
    for sock in pair:
        sock.close()


def test_descriptors_in_flight(bridge):
    """T29: a thousand requests with 1 to 253 descriptors cost their workers the channel and leave nothing."""
    in_flight(bridge, 1000)


@pytest.mark.long
def test_descriptors_in_flight_long(bridge):
    """The same for longer."""
    in_flight(bridge, 10_000)


def test_the_attack_can_succeed_in_being_served(bridge):
    """Positive control: a well-formed request on the same path is executed and answered."""
    worker = bridge.attach(HOSTILE)
    worker.send(valid(Op.STORAGE_SET, ["k", b"v"]))
    for _ in range(5):
        bridge.turn()
    assert b"\x92\x00\xc0" == worker.recv(PACKET)[HEADER.size :]
    worker.close()
    bridge.say(Detach(bridge.incarnation, "exited"))
