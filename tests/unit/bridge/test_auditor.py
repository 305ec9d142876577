"""The auditor's process: acknowledged means written, whatever dies or fills up; reading back; its client."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audit import auditor as auditor_module
from bridge.audit.auditor import Auditor, BadSync, parse_sync
from bridge.audit.chain import verify
from bridge.audit.client import AuditClient, AuditUnavailable, BlockingAuditClient
from bridge.audit.files import load_key, load_public_key, log_files
from bridge.audit.guestlog import GuestLog
from sandbox.errors import ProtocolViolation
from sandbox.wire.audit_frames import LOG_LINE, READ, RECORD, LogLine, Read, Record, Recorded
from sandbox.wire.packet import HEADER, Assembler, recv_message, split
from sandbox.wire.supervisor_frames import AuditorState, Producer, Up, recv_packet, send_frame

pytestmark = pytest.mark.block9_monitoring

CHILD = """
import os, resource, socket, sys
from bridge.audit import main
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
main.run(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[4], rotate_size=int(sys.argv[5]))
"""
decode = msgspec.msgpack.Decoder(Up | AuditorState).decode


class Process:
    """An auditor in a child process."""

    def __init__(self, root, sync: str = "50ms", fsize: int = 0, rotate: int = 64 << 20) -> None:
        self.sup, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sup.settimeout(20)
        dirfd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        fds = (end.fileno(), dirfd)
        arguments = [sys.executable, "-c", CHILD, *map(str, fds), str(fsize), sync, str(rotate)]
        self.child = subprocess.Popen(arguments, pass_fds=fds, stderr=subprocess.PIPE)
        end.close()
        os.close(dirfd)

    def frame(self) -> msgspec.Struct:
        """The next thing it tells the supervisor."""
        return decode(recv_packet(self.sup)[0])

    def channel(self, name: str) -> socket.socket:
        """A producer's channel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(20)
        send_frame(self.sup, Producer(name), [theirs.fileno()])
        theirs.close()
        return ours

    def blocking(self, name: str) -> BlockingAuditClient:
        """A producer that waits."""
        return BlockingAuditClient(self.channel(name))

    def kill(self) -> None:
        """SIGKILL."""
        self.child.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> int:
        """Hang up and wait for its end."""
        self.sup.close()
        self.child.stderr.read()
        self.child.stderr.close()
        return self.child.wait(20)


@pytest.fixture
def start(tmp_path):
    """Start auditors on one directory."""
    started: list[Process] = []

    def run(**options) -> Process:
        started.append(Process(tmp_path, **options))
        assert Up() == started[-1].frame()
        return started[-1]

    yield run
    for process in started:
        if process.child.returncode is None:
            process.close()


def lines(path) -> list[bytes]:
    """All lines of the audit log."""
    dirfd = os.open(path, os.O_RDONLY)
    names = log_files(dirfd)
    os.close(dirfd)
    return [line for name in names for line in (path / name).read_bytes().split(b"\n") if line]


def check(path) -> list[dict]:
    """Verify the log with its own public key; the lines that producers recorded."""
    key = load_public_key((path / "audit.pub").read_bytes())
    verify(lines(path), key)
    return [entry for entry in map(msgspec.json.decode, lines(path)) if entry["producer"] != "auditor"]


def record(client: BlockingAuditClient, number: int, **options) -> int:
    """One ordinary record."""
    return client.record("fs.read", "acme/reader/0", "allowed", f"/logs/{number}", "ok", **options)


# -- the process ----------------------------------------------------------------------------------------------


def test_acknowledged_means_written(start, tmp_path):
    """When a record is acknowledged its line is in the file; the files are for their owner alone."""
    process = start()
    client = process.blocking("bridge#1")
    for number in range(1, 6):
        assert number == record(client, number)
        assert number == len(lines(tmp_path))
    assert {0o600} == {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.jsonl")}
    client.close()
    assert 0 == process.close()
    assert ["/logs/1", "/logs/5"] == [entry["object"] for entry in check(tmp_path)][::4]
    assert "audit.checkpoint" == msgspec.json.decode(lines(tmp_path)[-1])["event"], "signed at the end"


def test_kill_9_loses_nothing_acknowledged(start, tmp_path):
    """Killed between records: everything acknowledged is there once, what is sent again is not there twice."""
    expected: list[int] = []
    for round_ in range(4):
        process = start(sync="always" if round_ % 2 else "50ms")
        client = process.blocking("bridge#1")
        if expected:
            assert record(client, expected[-1], n=expected[-1]) > 0, "sent again: acknowledged, not repeated"
        for number in range(round_ * 10 + 1, round_ * 10 + 11):
            record(client, number, n=number)
            expected.append(number)
        process.kill()
        client.close()
        assert expected == [entry["n"] for entry in check(tmp_path)]


def test_kill_9_in_the_middle_of_a_stream(start, tmp_path):
    """Killed while records stream in: after a resend of what was not acknowledged each is there exactly once."""
    count, acknowledged = 400, set()
    for attempt in range(6):
        process = start(rotate=20_000)
        client = AuditClient(process.channel("bridge#1"))
        for number in range(1, count + 1):
            if number not in acknowledged:
                client._next = number
                client.record("e", "", "info", str(number), on_recorded=lambda _seq, n=number: acknowledged.add(n))
        goal = count if attempt == 5 else min(count, len(acknowledged) + 40)
        while len(acknowledged) < goal:
            select.select([client.fileno()], [client.fileno()] if client.wants_write else [], [], 20)
            client.on_writable()
            client.on_readable()
        process.kill() if attempt < 5 else process.close()
        while client.on_readable():
            select.select([client.fileno()], [], [], 20)
        numbers = [entry["n"] for entry in check(tmp_path)]
        assert sorted(set(numbers)) == numbers
        assert acknowledged <= set(numbers)
    assert list(range(1, count + 1)) == numbers
    assert list(tmp_path.glob("audit.0*.jsonl")), "it was rotated on the way"


@pytest.mark.long
def test_kill_9_many_times(start, tmp_path):
    """Fifty kills at moments the scheduler picks."""
    number = 0
    for _ in range(50):
        process = start(rotate=30_000)
        client = process.blocking("bridge#1")
        timer = threading.Timer(0.05, process.child.kill)
        timer.start()
        with pytest.raises(AuditUnavailable):
            while True:
                record(client, number + 1, n=number + 1)
                number += 1
        timer.join()
        process.close()
        client.close()
        assert number <= max(entry["n"] for entry in check(tmp_path)) <= number + 1
        number = max(entry["n"] for entry in check(tmp_path))


def test_a_torn_line_is_cut_and_said(start, tmp_path):
    """Half a line left by a crash is removed at the start, and a record says how much."""
    process = start()
    client = process.blocking("bridge#1")
    record(client, 1)
    client.close()
    process.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"component":"acme')
    process = start()
    client = process.blocking("bridge#2")
    record(client, 2)
    client.close()
    process.close()
    check(tmp_path)
    recovered = [entry for entry in map(msgspec.json.decode, lines(tmp_path)) if entry["event"] == "audit.recovered"]
    assert [{"bytes": 18}] == [entry["detail"] for entry in recovered]


def test_a_broken_chain_is_not_served(start, tmp_path):
    """On a log that was tampered with the auditor does not come up, and says which line."""
    process = start()
    client = process.blocking("bridge#1")
    for number in range(1, 4):
        record(client, number)
    client.close()
    process.close()
    changed = (tmp_path / "audit.jsonl").read_bytes().replace(b"/logs/2", b"/logs/9")
    (tmp_path / "audit.jsonl").write_bytes(changed)
    broken = Process(tmp_path)
    with pytest.raises(EOFError):
        broken.frame()
    error = broken.child.stderr.read().decode()
    assert 1 == broken.close()
    assert "E_AUDIT_CHAIN" in error
    assert "line 3" in error
    assert changed == (tmp_path / "audit.jsonl").read_bytes()


def test_a_full_disk_stops_acknowledgements_not_the_log(start, tmp_path):
    """At a size limit nothing more is acknowledged and the supervisor is told; with room again it all goes on."""
    process = start(fsize=2_000)
    client = AuditClient(process.channel("bridge#1"))
    done: list[int] = []
    for number in range(1, 21):
        client.record("fs.read", "acme/reader/0", "allowed", f"/logs/{number}", "ok", on_recorded=done.append)
        if len(done) == number - 1:
            select.select([client.fileno()], [], [], 1)
            client.on_readable()
    state = process.frame()
    assert (False, "EFBIG") == (state.ok, state.text)
    client.on_readable()
    assert 0 < len(done) < 20
    data = (tmp_path / "audit.jsonl").read_bytes()
    assert data.endswith(b"\n"), "no part of a line is left"
    assert len(done) == len(lines(tmp_path))
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert AuditorState(True) == process.frame()
    while len(done) < 20:
        select.select([client.fileno()], [], [], 20)
        client.on_readable()
    client.close()
    process.close()
    assert list(range(1, 21)) == [entry["n"] for entry in check(tmp_path)]


@pytest.mark.parametrize(
    "packets",
    [
        [split(RECORD, b"junk")[0]],
        [split(RECORD, msgspec.msgpack.encode(Record(0, "e", "", "info", "")))[0]],
        [split(99, b"")[0]],
        [b"x"],
        [HEADER.pack(RECORD, 1, 5) + b"x" * 5],
        [split(READ, msgspec.msgpack.encode(Read(1, "audit", -1, 10)))[0]],
        [split(LOG_LINE, b"\x90")[0]],
        [split(RECORD, msgspec.msgpack.encode(Record(1, "e", "", "info", "", "", {"k": "v"})) + b"x")[0]],
    ],
    ids=range(8),
)
def test_a_producer_that_breaks_the_protocol_is_cut_off(start, tmp_path, packets):
    """Its channel is closed and the violation recorded; others go on. Reading is for control alone."""
    process = start()
    other, hostile = process.blocking("control#1"), process.channel("router#1")
    for packet in packets:
        hostile.send(packet)
    assert b"" == hostile.recv(100)
    hostile.close()
    record(other, 1)
    events = [msgspec.json.decode(line) for line in other.read("audit").lines]
    assert ["protocol.violation", "fs.read"] == sorted((entry["event"] for entry in events), reverse=True)
    assert "router#1" == next(entry["object"] for entry in events if entry["event"].startswith("protocol"))
    other.close()


# -- reading back ---------------------------------------------------------------------------------------------


@pytest.fixture
def filled(start):
    """An auditor with 300 records over several files, every tenth denied, of two components."""
    process = start(rotate=20_000)
    client = process.blocking("control#1")
    for number in range(1, 301):
        decision = "denied" if number % 10 == 0 else "allowed"
        client.record("fs.read", f"acme/c{number % 2}/0", decision, str(number), "ok")
    yield client
    client.close()


def objects(result) -> list[int]:
    """Which of the records came back."""
    assert "" == result.error
    return [int(entry["object"]) for entry in map(msgspec.json.decode, result.lines) if entry["producer"] != "auditor"]


def test_tail_is_the_newest_oldest_first(filled):
    """`after` -1 gives the newest lines; `last` is where to go on."""
    result = filled.read("audit", limit=5)
    assert [296, 297, 298, 299, 300] == objects(result)
    assert [] == filled.read("audit", after=result.last).lines
    filled.record("e", "", "info", "301")
    assert [301] == objects(filled.read("audit", after=result.last))


def test_filters(filled):
    """Denied lines, lines of a component, both, over all files."""
    assert list(range(10, 301, 10)) == objects(filled.read("audit", denied=True))
    assert list(range(281, 301, 2)) == objects(filled.read("audit", component="acme/c1", limit=10))
    assert [] == objects(filled.read("audit", component="acme/c1/0", denied=True))
    assert [290, 300] == objects(filled.read("audit", component="acme/c0/0", denied=True, limit=2))
    assert [] == filled.read("audit", component="acme/c").lines


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_paging_sees_every_line_once(filled, limit):
    """Going on from `last` walks the whole log, filtered or not, without gaps or repeats."""
    for options, expected in (({}, list(range(1, 301))), ({"denied": True}, list(range(10, 301, 10)))):
        seen, after = [], 0
        while True:
            result = filled.read("audit", after=after, limit=limit, **options)
            seen += objects(result)
            if result.last == after:
                break
            after = result.last
        assert expected == seen


def test_an_unknown_stream_is_an_error_not_a_hang(filled):
    """The answer says so."""
    assert "no such stream" == filled.read("secrets").error


def test_logs_are_read_back_and_rotated(tmp_path):
    """Guest logs have numbers of their own that survive restarts; two files of bounded size are kept."""
    dirfd = os.open(tmp_path, os.O_RDONLY)
    log = GuestLog(dirfd, max_size=2_000)
    for number in range(100):
        log.write([LogLine("acme/reader/0", "info", f"line {number}", [("k", "v")])])
    log.close()
    assert ["logs.1.jsonl", "logs.jsonl"] == sorted(os.listdir(tmp_path))
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())
    log = GuestLog(dirfd, max_size=2_000)
    assert 100 == log.seq
    log.close()
    os.close(dirfd)


def test_lost_log_lines_are_said(tmp_path, monkeypatch):
    """Lines that could not be written are counted in the next one that could."""
    dirfd = os.open(tmp_path, os.O_RDONLY)
    log = GuestLog(dirfd)

    def full(_fd, _data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.audit.files.os.write", full)
        log.write([LogLine("a/b/0", "info", "one")] * 3)
        log.write([LogLine("a/b/0", "info", "two")] * 2)
    log.write([LogLine("a/b/0", "info", "three")])
    log.close()
    os.close(dirfd)
    messages = [msgspec.json.decode(line)["message"] for line in (tmp_path / "logs.jsonl").read_bytes().splitlines()]
    assert ["5 log lines were lost: the log could not be written", "three"] == messages


# -- in one process -------------------------------------------------------------------------------------------


@pytest.fixture
def inside(tmp_path):
    """An auditor object that is turned by hand, and its supervisor's end."""
    sup, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dirfd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    made = Auditor(end, dirfd, load_key(dirfd), "50ms")
    yield made, sup
    made.close()
    sup.close()


def test_a_full_queue_makes_producers_wait(inside, monkeypatch):
    """While the disk refuses, the queue is bounded: the producer's channel is not read further."""
    made, sup = inside
    monkeypatch.setattr(auditor_module, "MAX_PENDING", 10)
    monkeypatch.setattr(auditor_module, "RETRY", 0.0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send_frame(sup, Producer("bridge#1"), [theirs.fileno()])
    theirs.close()
    client = AuditClient(ours)
    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(made._ledger, "write", lambda _batch: (_ for _ in ()).throw(OSError(28, "full")))
        for _ in range(50):
            client.record("e", "", "info", "", on_recorded=done.append)
        for _ in range(20):
            made.turn(0)
        assert 10 == len(made._pending)
    for _ in range(20):
        made.turn(0)
        client.on_readable()
    assert list(range(1, 51)) == done
    client.close()


def test_a_producer_that_does_not_read_is_no_harm(inside, monkeypatch):
    """Acknowledgements wait in a bounded queue; another producer is served all the while."""
    made, sup = inside
    monkeypatch.setattr(auditor_module, "MAX_OUTBOX", 20)
    clients = []
    for name in ("bridge#1", "router#1"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        send_frame(sup, Producer(name), [theirs.fileno()])
        theirs.close()
        clients.append(AuditClient(ours))
        made.turn(0)
    deaf, other = clients
    heard: list[int] = []
    done: list[int] = []
    for _ in range(2_000):
        deaf.record("e", "", "info", "", on_recorded=heard.append)
        deaf.on_writable()
        made.turn(0)
    assert len(made._channels["bridge#1"].outbox) <= 20
    other.record("e", "", "info", "", on_recorded=done.append)
    for _ in range(3):
        made.turn(0)
        other.on_readable()
    assert 1 == len(done)
    while len(heard) < 2_000:
        deaf.on_writable()
        deaf.on_readable()
        made.turn(0)
    deaf.close()
    other.close()


def test_large_records_and_reads_in_chunks(inside):
    """A record and an answer beyond one packet arrive whole."""
    made, sup = inside
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send_frame(sup, Producer("control#1"), [theirs.fileno()])
    theirs.close()
    client = AuditClient(ours)
    detail = {f"k{number}": "x" * 8_000 for number in range(12)}
    done: list[int] = []
    results: list = []
    for _ in range(20):
        client.record("e", "", "info", "o" * 9_000, detail=detail, on_recorded=done.append)
    client.read("audit", results.append, limit=100)
    while not results:
        client.on_writable()
        made.turn(0)
        client.on_readable()
    while len(done) < 20:
        client.on_writable()
        made.turn(0)
        client.on_readable()
    client.read("audit", results.append, limit=100)
    while len(results) < 2:
        made.turn(0)
        client.on_readable()
    assert 20 == len(results[1].lines)
    assert 8192 == len(msgspec.json.decode(results[1].lines[0])["object"])
    client.close()


# -- the client -----------------------------------------------------------------------------------------------


def test_the_client_queues_until_there_is_a_channel():
    """Records made without an auditor are sent to the first one, those not acknowledged again to the next."""
    client = AuditClient()
    done: list[int] = []
    for _ in range(3):
        client.record("e", "", "info", "", on_recorded=done.append)
    client.log("a/b/0", "info", "a line")
    assert (-1, False, 3) == (client.fileno(), client.connected, client.pending)
    for acknowledge in (1, 2):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.replace(ours)
        first = msgspec.msgpack.decode(recv_message(theirs, Assembler())[1], type=Record)
        assert 1 + len(done) == first.n
        for number in range(first.n, first.n + acknowledge):
            theirs.send(split(2, msgspec.msgpack.encode(Recorded(number, number * 10)))[0])
        theirs.close()
        assert not client.on_readable()
        assert not client.connected
    assert [10, 20, 30] == done
    assert 0 == client.pending


def test_records_of_a_producer_that_died_are_written(inside, tmp_path):
    """What a producer sent before it died is recorded, although it never read what it was sent."""
    made, sup = inside
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send_frame(sup, Producer("bridge#1"), [theirs.fileno()])
    theirs.close()
    client = AuditClient(ours)
    client.record("e", "", "info", "first")
    for _ in range(3):
        made.turn(0)
    client.record("e", "", "info", "second")
    client.close()
    for _ in range(3):
        made.turn(0)
    assert ["first", "second"] == [entry["object"] for entry in check(tmp_path)]


def test_the_client_bounds_its_log_queue(monkeypatch):
    """Without an auditor log lines wait up to a bound; more are dropped and counted; records never are."""
    monkeypatch.setattr("bridge.audit.client.MAX_LOG_QUEUE", 5)
    client = AuditClient()
    for _ in range(8):
        client.log("a/b/0", "info", "x")
        client.record("e", "", "info", "")
    client.log("a/b/0", "info", "x" * 70_000)
    assert (4, 8) == (client.dropped_logs, client.pending)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_a_hostile_auditor_only_disconnects(packets):
    """Whatever comes from the other end, the client closes or goes on, and loses nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = AuditClient(ours)
    client.record("e", "", "info", "")
    for packet in packets:
        try:
            theirs.send(packet)
        except BrokenPipeError:
            break
        client.on_readable()
    theirs.close()
    client.on_readable()
    assert not client.connected
    assert client.pending <= 1
    client.close()


def test_a_blocking_client_tells_of_the_auditors_end():
    """A hang-up is an error with a stable code; an answer of another kind is a violation."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(split(5, msgspec.msgpack.encode([1, [], 0, ""]))[0])
    client = BlockingAuditClient(ours)
    with pytest.raises(ProtocolViolation):
        record(client, 1)
    theirs.close()
    with pytest.raises(AuditUnavailable) as caught:
        record(client, 2)
    assert "E_AUDIT_UNAVAILABLE" == caught.value.code
    client.close()


@pytest.mark.parametrize(("text", "seconds"), [("always", 0), ("50ms", 0.05), ("2s", 2)])
def test_sync_settings(text, seconds):
    """A duration or `always`."""
    assert seconds == parse_sync(text)


@pytest.mark.parametrize("text", ["", "0ms", "never", "50", "-1s", "1e3ms", "50 ms"])
def test_bad_sync_settings(text):
    """Anything else is refused."""
    with pytest.raises(BadSync):
        parse_sync(text)
