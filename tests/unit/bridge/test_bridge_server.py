"""The bridge's loop: checked, executed, recorded, answered; and what ends a worker."""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import resource
import socket
import struct
import time

import msgspec
import pytest

from bridge.capabilities import FileRule, Policy, StorageRule
from bridge.session import MAX_REQUEST
from sandbox.types import ComponentId, Limits
from sandbox.wire.bridge_ops import FsError, Op, StorageError
from sandbox.wire.packet import HEADER, PACKET, split
from sandbox.wire.supervisor_frames import BridgeDrop, BridgePolicy, Detach

from .conftest import READER, Gone

pytestmark = pytest.mark.block8_bridge

READ_LOGS = [FileRule("/logs/**", ["read", "list"])]


def open_fds() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def test_a_permitted_read_is_answered_and_recorded(host, logs):
    """A covered path is read, the value comes back and one record says so."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker()
    assert (0, b"alpha\n") == worker.ask(Op.FS_READ, "/logs/a.log")
    (line,) = host.records()
    expected = {"component": "acme/reader/0", "decision": "allowed", "event": "fs.read", "object": "/logs/a.log"}
    assert expected == {key: line[key] for key in expected}
    assert ("ok", {"bytes": 6}, "bridge#1") == (line["result"], line["detail"], line["producer"])


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (Op.FS_WRITE, ("/logs/new", b"x")),
        (Op.FS_APPEND, ("/logs/a.log", b"x")),
        (Op.FS_DELETE, ("/logs/a.log",)),
        (Op.FS_MAKE_DIRECTORY, ("/logs/d",)),
        (Op.FS_RENAME, ("/logs/a.log", "/logs/z.log")),
        (Op.FS_READ, ("/etc/shadow",)),
        (Op.FS_READ, ("/logsx/a.log",)),
        (Op.FS_STAT, ("/",)),
    ],
)
def test_what_no_capability_covers_is_denied_and_recorded(host, logs, op, arguments):
    """Reading alone is granted: every other operation and place is denied, recorded as denied, and changes nothing."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker()
    case, text = worker.ask(op, *arguments)
    assert FsError.DENIED == case
    assert text.startswith(arguments[0] + ": ")
    assert str(logs) not in text
    (line,) = host.records(denied=True)
    assert ("denied", "denied", arguments[0]) == (line["decision"], line["result"], line["object"])
    assert b"alpha\n" == (logs / "a.log").read_bytes()
    assert ["a.log", "sub"] == sorted(os.listdir(logs))
    assert (0, b"alpha\n") == worker.ask(Op.FS_READ, "/logs/a.log"), "the control: what is granted works"


def test_without_a_policy_everything_is_denied(host, logs):
    """A worker attached before its policy has no rights; the same worker has them once the policy is there."""
    worker = host.worker()
    assert FsError.DENIED == worker.ask(Op.FS_READ, "/logs/a.log")[0]
    case, text = worker.ask(Op.STORAGE_GET, "k")
    assert (StorageError.IO_ERROR, True) == (case, text.startswith("denied"))
    host.policy(READ_LOGS, {"/logs": logs}, [StorageRule("self", ["read"])])
    assert (0, b"alpha\n") == worker.ask(Op.FS_READ, "/logs/a.log")
    assert (0, None) == worker.ask(Op.STORAGE_GET, "k")


def test_no_answer_before_the_record_is_written(host, logs):
    """While the auditor is away nothing is answered; afterwards everything is, each recorded exactly once."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker()
    worker.ask(Op.FS_READ, "/logs/a.log")
    host.kill_auditor()
    worker.post(Op.FS_READ, msgspec.msgpack.encode(("/logs/sub/b.log",)))
    for _ in range(20):
        host.turn()
        assert worker.poll() is None
    host.start_auditor()
    assert [0, b"beta\n"] == worker.answer()[1]
    assert ["/logs/a.log", "/logs/sub/b.log"] == [line["object"] for line in host.records()]


def test_a_record_written_but_not_acknowledged_is_not_written_twice(host, logs):
    """The auditor dies between writing and acknowledging: the record sent again is acknowledged, not repeated."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker()
    worker.ask(Op.FS_READ, "/logs/a.log")  # the channel to the auditor is known to it
    auditor = host.auditor
    auditor._send = lambda *_: None  # the acknowledgement is lost with the process
    worker.post(Op.FS_READ, msgspec.msgpack.encode(("/logs/sub/b.log",)))
    host.until(lambda: auditor._ledger.seq == 2)
    assert worker.poll() is None
    host.kill_auditor()
    host.start_auditor()
    assert [0, b"beta\n"] == worker.answer()[1]
    assert [1, 2] == [line["n"] for line in host.records()]


# -- violations -----------------------------------------------------------------------------------------------


def violated(host, worker) -> str:
    """The worker's channel is closed, its end asked for, the violation recorded; the reason."""
    frame = host.ended()
    assert (worker.incarnation, "policy") == (frame.incarnation, frame.outcome)
    with pytest.raises(Gone):
        host.until(worker.poll)
    line = host.records(denied=True)[-1]
    assert ("protocol.violation", str(worker.component)) == (line["event"], line["component"])
    assert frame.detail == line["detail"]["why"]
    return frame.detail


@pytest.mark.parametrize(
    "packets",
    [
        [b""],
        [b"\x01"],
        [b"\x01\0\0\0\0\0\0"],
        [HEADER.pack(0, 0, 0)],
        [HEADER.pack(Op.FS_READ, 1, 0)],
        [HEADER.pack(Op.FS_READ, 0, 2**32 - 1) + b"x" * (PACKET - 8)],
        [HEADER.pack(Op.FS_READ, 0, MAX_REQUEST + 1) + b"x" * (PACKET - 8)],
        [HEADER.pack(Op.FS_READ, 0, 5) + b"x"],
        [HEADER.pack(Op.FS_READ, 0, 70_000) + b"x" * 10],
        [HEADER.pack(99, 0, 0)],
        [HEADER.pack(Op.FS_READ | 0x8000, 0, 1) + b"\x90"],
        [b"x" * (PACKET + 1)],
        [split(Op.FS_READ, b"")[0]],
        [split(Op.FS_READ, b"\x90")[0]],
        [split(Op.FS_READ, b"\x91\xc4\x01a")[0]],
        [split(Op.FS_READ, b"\x92\xa1/\xa1/")[0]],
        [split(Op.FS_READ, b"\x91\xa1\xff")[0]],
        [split(Op.FS_READ, b"\x91" * 60_000)[0]],
        [split(Op.FS_READ_RANGE, msgspec.msgpack.encode(("/a", -1, 1)))[0]],
        [split(Op.LOG, msgspec.msgpack.encode((5, "m", None)))[0]],
        [split(Op.STORAGE_SET, msgspec.msgpack.encode(("k", "text")))[0]],
        [split(Op.FS_WRITE, b"x" * 100_000)[0], split(Op.FS_READ, b"x" * 100_000)[1]],
        [split(Op.FS_WRITE, b"x" * 200_000)[0], split(Op.FS_WRITE, b"x" * 200_000)[2]],
    ],
    ids=itertools.count(),
)
def test_a_malformed_frame_ends_the_worker_and_nobody_else(host, logs, packets):
    """Anything that is no request closes the channel, is recorded and asks for the worker's end."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker, other = host.worker(1), host.worker(2)
    for packet in packets:
        worker.post_packet(packet)
    violated(host, worker)
    assert (0, b"alpha\n") == other.ask(Op.FS_READ, "/logs/a.log"), "the control: a good worker is served"


def test_a_hang_up_is_no_violation(host, logs):
    """A worker that just ends is forgotten: nothing recorded, nothing asked of the supervisor."""
    worker = host.worker()
    worker.ask(Op.LOG, 2, "bye", None)
    fds = open_fds()
    worker.sock.close()
    host.until(lambda: open_fds() == fds - 2)
    assert [] == host.frames()
    assert [] == host.records()


def test_a_second_request_while_one_is_in_hand(host, logs):
    """One request at a time: a second one before the first is answered ends the worker."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker()
    worker.ask(Op.FS_READ, "/logs/a.log")
    worker.post(Op.SLEEP, msgspec.msgpack.encode((soon(5_000), soon(5_000))))
    host.turn()
    assert [] == host.frames(), "the control: waiting alone is no violation"
    worker.post(Op.FS_READ, msgspec.msgpack.encode(("/logs/a.log",)))
    assert "a second request while one is in hand" in violated(host, worker)


@pytest.mark.parametrize("count", [1, 100, 253])
def test_descriptors_sent_by_a_worker_never_arrive(host, logs, count):
    """SCM_RIGHTS ends the worker; the bridge's number of descriptors does not grow, whatever is in flight."""
    host.policy(READ_LOGS, {"/logs": logs})
    for incarnation in range(1, 20):
        worker = host.worker(incarnation)
        host.turn()
        before = open_fds()
        one, two = socket.socketpair()
        passed = array.array("i", [one.fileno(), two.fileno(), worker.sock.fileno()] * 85)[:count]
        body = split(Op.FS_READ, msgspec.msgpack.encode(("/logs/a.log",)))[0]
        worker.sock.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        one.close()
        two.close()
        assert "descriptor" in violated(host, worker)
        assert before - 1 == open_fds(), "only the worker's own channel is gone"
        worker.sock.close()


def test_a_flood_does_not_starve_others(host, logs):
    """One worker with a large half-sent request and many that ask: each turn serves everybody once."""
    host.policy([*READ_LOGS, FileRule("/logs/**", ["write"])], {"/logs": logs})
    slow = host.worker(1)
    packets = split(Op.FS_WRITE, msgspec.msgpack.encode(("/logs/big", b"z" * (1 << 20))))
    slow.post_packet(packets[0])
    others = [host.worker(incarnation) for incarnation in range(2, 12)]
    for _ in range(5):
        for other in others:
            other.post(Op.FS_READ, msgspec.msgpack.encode(("/logs/a.log",)))
        for other in others:
            assert [0, b"alpha\n"] == other.answer()[1]
    for packet in packets[1:]:
        slow.post_packet(packet)
    assert [0, None] == slow.answer()[1]
    assert 1 << 20 == (logs / "big").stat().st_size


def test_each_turn_takes_one_request_per_worker(host):
    """A worker that has two requests waiting has one of them served in one turn."""
    workers = [host.worker(incarnation) for incarnation in (1, 2)]
    host.turn()
    served: list[int] = []
    serve = host.server._serve
    host.server._serve = lambda session, kind, body: (served.append(session.incarnation), serve(session, kind, body))
    for worker in workers:
        worker.post_packet(split(Op.LOG, msgspec.msgpack.encode((2, "one", None)))[0])
        worker.post_packet(split(Op.LOG, msgspec.msgpack.encode((2, "two", None)))[0])
    host.server.turn(0)
    assert [1, 2] == sorted(served)


def test_a_slow_reader_of_a_large_answer_gets_all_of_it(host, logs):
    """An answer of 8 MiB waits in parts until the worker reads; others are served meanwhile."""
    data = os.urandom(8 << 20)
    (logs / "big").write_bytes(data)
    host.policy(READ_LOGS, {"/logs": logs})
    slow, other = host.worker(1), host.worker(2)
    slow.post(Op.FS_READ, msgspec.msgpack.encode(("/logs/big",)))
    for _ in range(10):
        assert (0, b"alpha\n") == other.ask(Op.FS_READ, "/logs/a.log")
    assert [0, data] == slow.answer()[1]
    assert (0, b"alpha\n") == slow.ask(Op.FS_READ, "/logs/a.log"), "idle again"


def test_without_descriptors_to_spare_calls_fail_and_the_bridge_goes_on(host, logs):
    """T30: at its limit of descriptors a file call answers io-error; storage goes on, and files when there is room."""
    host.policy(READ_LOGS, {"/logs": logs}, [StorageRule("self", ["read"])])
    worker = host.worker()
    assert 0 == worker.ask(Op.FS_READ, "/logs/a.log")[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    fillers = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(worker.sock.fileno()))
        answers = [worker.ask(Op.FS_READ, "/logs/a.log"), worker.ask(Op.STORAGE_GET, "k")]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
    assert [(FsError.IO_ERROR, "/logs/a.log: the host has no descriptor to spare"), (0, None)] == answers
    assert 0 == worker.ask(Op.FS_READ, "/logs/a.log")[0]


# -- rights that change ---------------------------------------------------------------------------------------


def test_replacing_a_policy_closes_the_old_grants(host, logs, tmp_path):
    """After a new policy the old places are gone, descriptors included, for a worker that lives on."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "c").write_bytes(b"gamma")
    worker = host.worker()
    host.policy(READ_LOGS, {"/logs": logs})
    assert 0 == worker.ask(Op.FS_READ, "/logs/a.log")[0]
    fds = open_fds()
    host.policy([FileRule("/other/*", ["read"])], {"/other": other})
    assert FsError.DENIED == worker.ask(Op.FS_READ, "/logs/a.log")[0]
    assert (0, b"gamma") == worker.ask(Op.FS_READ, "/other/c")
    assert fds == open_fds()
    host.send(BridgeDrop(READER, False))
    assert FsError.DENIED == worker.ask(Op.FS_READ, "/other/c")[0]
    assert fds - 1 == open_fds()


def test_a_policy_that_does_not_decode_grants_nothing(host, logs):
    """Broken policy bytes leave the component without rights, are recorded, and leave no descriptor."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker()
    assert 0 == worker.ask(Op.FS_READ, "/logs/a.log")[0]
    fds = open_fds()
    fd = os.open(logs, os.O_PATH)
    for policy, guests in ((b"junk", ["/logs"]), (Policy(READ_LOGS).encode(), ["/logs", "/more"])):
        host.send(BridgePolicy(READER, policy, guests), [fd])
        assert FsError.DENIED == worker.ask(Op.FS_READ, "/logs/a.log")[0]
        assert "policy.invalid" == host.records(denied=True)[-2]["event"]
    os.close(fd)
    assert fds - 1 == open_fds()


def test_the_longest_bound_root_wins(host, logs, tmp_path):
    """With `/logs` and `/logs/sub` bound, a path below the second goes there and nowhere else."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "b.log").write_bytes(b"inner")
    host.policy(READ_LOGS, {"/logs": logs, "/logs/sub": inner})
    worker = host.worker()
    assert (0, b"inner") == worker.ask(Op.FS_READ, "/logs/sub/b.log")
    assert (0, b"alpha\n") == worker.ask(Op.FS_READ, "/logs/a.log")


def test_detach_and_a_new_incarnation(host, logs):
    """Detach closes the channel; the next incarnation of the same component has the same rights."""
    host.policy(READ_LOGS, {"/logs": logs})
    worker = host.worker(1)
    assert 0 == worker.ask(Op.FS_READ, "/logs/a.log")[0]
    host.send(Detach(1, "trap"))
    with pytest.raises(Gone):
        host.until(worker.poll)
    assert 0 == host.worker(2).ask(Op.FS_READ, "/logs/a.log")[0]


def test_one_component_is_not_another(host, logs):
    """Identity is the socket: rights and stored values of one component are not another's."""
    writer = ComponentId("acme", "reader", "1")
    host.policy(READ_LOGS, {"/logs": logs}, [StorageRule("self", ["read", "write"])])
    host.policy([], {}, [StorageRule("self", ["read", "write"])], component=writer)
    one, two = host.worker(1), host.worker(2, writer)
    assert (0, None) == one.ask(Op.STORAGE_SET, "k", b"one")
    assert (0, None) == two.ask(Op.STORAGE_GET, "k")
    assert (0, []) == two.ask(Op.STORAGE_LIST_KEYS, None)
    assert (0, b"one") == one.ask(Op.STORAGE_GET, "k")
    assert FsError.DENIED == two.ask(Op.FS_READ, "/logs/a.log")[0]


def test_purge_drops_values(host):
    """A drop with purge removes what the component stored, and is recorded; without it values stay."""
    rules = [StorageRule("self", ["read", "write"])]
    host.policy([], {}, rules)
    worker = host.worker()
    worker.ask(Op.STORAGE_SET, "k", b"v")
    host.send(BridgeDrop(READER, False))
    host.policy([], {}, rules)
    assert (0, b"v") == worker.ask(Op.STORAGE_GET, "k")
    host.send(BridgeDrop(READER, True))
    host.policy([], {}, rules)
    assert (0, None) == worker.ask(Op.STORAGE_GET, "k")
    assert ["storage.purge"] == [line["event"] for line in host.records() if line["event"].startswith("storage.p")]


# -- services -------------------------------------------------------------------------------------------------


def test_log_lines_reach_the_log_cut_to_size(host):
    """Level, message and context arrive; a message beyond 16 KiB is cut."""
    worker = host.worker()
    assert (0, None) == worker.ask(Op.LOG, 3, "hello\x1b[31m", [("k", "v")])
    assert (0, None) == worker.ask(Op.LOG, 0, "x" * 40_000, None)
    host.turn()
    first, second = host.records(stream="logs")
    assert ("warn", "hello\x1b[31m", [["k", "v"]]) == (first["level"], first["message"], first["context"])
    assert ("trace", 16 * 1024 + 3) == (second["level"], len(second["message"]))


@pytest.mark.parametrize(
    ("limits", "passing"),
    [(Limits(log_lines=2, log_bytes=64 << 20), 10), (Limits(log_lines=10_000, log_bytes=80), 4)],
    ids=["lines", "bytes"],
)
def test_a_log_flood_is_shed_and_said(host, monkeypatch, limits, passing):
    """Beyond five seconds' lines, or bytes, lines are dropped: said once at the cut, and how many at its end."""
    clock = [1000.0]
    monkeypatch.setattr("bridge.server.time.monotonic", lambda: clock[0])
    host.policy([], {}, limits=limits)
    worker = host.worker()

    def log(text):
        worker.post(Op.LOG, msgspec.msgpack.encode((2, text, None)))
        while worker.poll() is None:
            host.turn()

    for number in range(passing + 10):
        log(f"{number:03d}" + "x" * 97)
    clock[0] += 5
    log("after")
    host.turn()
    lines = [line["message"] for line in host.records(stream="logs", limit=100)]
    assert [f"{number:03d}" for number in range(passing)] == [line[:3] for line in lines[:passing]]
    assert lines[passing].startswith("log lines are dropped from here on")
    assert ["10 log lines were dropped: too many at once", "after"] == lines[passing + 1 :]


def soon(milliseconds: int) -> int:
    """A point in time as SLEEP has it."""
    return time.monotonic_ns() + milliseconds * 1_000_000


def test_sleep_ends_at_its_time_and_at_the_deadline(host):
    """Never a nanosecond early; a deadline that comes first is told as one; what is past is answered at once."""
    worker = host.worker()
    until = soon(20)
    assert (0, None) == worker.ask(Op.SLEEP, until, soon(10_000))
    assert time.monotonic_ns() >= until
    deadline = soon(20)
    assert (1, None) == worker.ask(Op.SLEEP, 2**63, deadline)
    assert time.monotonic_ns() >= deadline
    assert (0, None) == worker.ask(Op.SLEEP, 1, soon(10_000))
    assert (1, None) == worker.ask(Op.SLEEP, 2**63, 0), "a worker may call its deadline past; it harms nobody"


def test_a_deadline_that_never_comes_is_not_believed(host, monkeypatch):
    """Whatever the worker says, a sleep ends when the longest deadline that its component can have is over."""
    monkeypatch.setattr("bridge.server.START_MS", 10)
    host.policy([], {}, limits=Limits(deadline_ms=60))
    worker = host.worker()
    least = soon(60)
    assert (1, None) == worker.ask(Op.SLEEP, 2**63, 2**63)
    assert time.monotonic_ns() >= least


def test_a_detached_sleeper_is_forgotten(host):
    """The timer of a worker that ended answers nobody."""
    worker = host.worker()
    worker.post(Op.SLEEP, msgspec.msgpack.encode((soon(1), soon(1))))
    host.turn()
    host.send(Detach(1, "killed"))
    other = host.worker(1)
    host.until(lambda: not host.server._timers)
    host.turn()
    assert other.poll() is None


def test_packet_header_is_what_the_worker_speaks():
    """The header's layout is part of the contract with the worker."""
    assert struct.Struct("<HHI").pack(1, 0, 3) + b"abc" == split(1, b"abc")[0]


def test_attach_twice_closes_the_first(host, logs):
    """The supervisor's word replaces: an incarnation has one channel."""
    host.policy(READ_LOGS, {"/logs": logs})
    first = host.worker(7)
    host.turn()
    second = host.worker(7)
    with pytest.raises(Gone):
        host.until(first.poll)
    assert 0 == second.ask(Op.FS_READ, "/logs/a.log")[0]
