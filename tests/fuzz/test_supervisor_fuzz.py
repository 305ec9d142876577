"""Hostile frames from control, router, bridge, auditor and zygote: the supervisor ends who sent them and nothing else.

A real `Supervisor` turned by hand: its children are channels without processes, its spawning is cut off.
"""

from __future__ import annotations

import array
import contextlib
import os
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.kernel.cgroups import Tree
from sandbox.types import ComponentId, Limits, Outcome
from sandbox.wire import supervisor_frames as frames
from sandbox.wire import zmtp
from supervisor.config import HostConfig
from supervisor.control import memfd
from supervisor.parent import layout
from supervisor.parent.errors import SpawnFailed
from supervisor.parent.identities import Identities
from supervisor.parent.main import Supervisor
from supervisor.parent.services import Services
from supervisor.parent.workers import Worker

pytestmark = pytest.mark.block3_actors
NAMES = ("control", "router", "bridge", "auditor", "zygote")
COMPONENT = ComponentId("acme", "reader")


class Turned:
    """The supervisor, the far ends of its channels, and who was to be killed."""

    def __init__(self, root: Path) -> None:
        self.layout = layout.prepare(
            str(root / "lib"), str(root / "run"), str(root / "run" / "api.sock"), Identities(None, os.geteuid())
        )
        config = HostConfig(str(root), str(root / "lib"), str(root / "run"), bind_roots=(str(root),))
        self.supervisor = Supervisor(
            config, self.layout, Identities(None, os.geteuid()), Tree("none", {}), {}, False, lambda: None
        )
        self.far: dict[str, socket.socket] = {}
        self.killed: list[str] = []
        for name in NAMES:
            child = self.supervisor.children[name]
            child.kill = lambda number=9, name=name: self.killed.append(name)  # type: ignore[method-assign]
            self.connect(name)
            child.ready = True
            child.restarts = 0
        self.supervisor._phase = "running"

    def connect(self, name: str) -> None:
        """A fresh channel."""
        child = self.supervisor.children[name]
        if child.sock is not None:
            with contextlib.suppress(KeyError):
                self.supervisor.selector.unregister(child.sock)
            child.sock.close()
            self.far[name].close()
        child._drop_queue()
        child.sock, self.far[name] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child.sock.setblocking(False)
        self.far[name].setblocking(False)
        self.supervisor.selector.register(child.sock, selectors.EVENT_READ, ("child", child))

    def worker(self, incarnation: int, stage: str) -> Worker:
        """A worker without a process, in place of the one of that number."""
        workers = self.supervisor.workers
        old = workers.by_incarnation.get(incarnation)
        if old is not None:
            workers.forget(old)
        request = frames.StartWorker(incarnation, COMPONENT, incarnation, Limits())
        ours, theirs = socket.socketpair()
        code = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        zygote = self.supervisor.children["zygote"]
        worker = Worker(incarnation, 0, 0, ours, theirs, zygote, time.monotonic() + 60, stage=stage)
        worker.claim, worker.code = request, code
        workers.by_incarnation[incarnation] = workers.by_number[incarnation] = worker
        return worker

    def say(self, name: str, body: bytes, descriptors: int = 0) -> list[bytes]:
        """A packet from a child, handled; what the child is answered. Whatever is raised is a finding."""
        child = self.supervisor.children[name]
        fds = [memfd.sealed("x", b"") for _ in range(descriptors)]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.far[name].sendmsg([body], ancillary)
        frames.close_all(fds)
        self.supervisor._child_event(child, selectors.EVENT_READ)
        answers = []
        with contextlib.suppress(BlockingIOError, EOFError, ConnectionError):
            while True:
                body, got = frames.recv_packet(self.far[name])
                frames.close_all(got)
                answers.append(body)
        return answers

    def close(self) -> None:
        """Let go of everything."""
        for worker in self.supervisor.workers.by_number.values():
            worker.close()
        for name in NAMES:
            child = self.supervisor.children[name]
            if child.sock is not None:
                child.sock.close()
            self.far[name].close()
            child._drop_queue()
        for sock in (self.layout.api, self.layout.bus, self.layout.clients):
            sock.close()
        for fd in (self.layout.storage_fd, self.layout.audit_fd, self.layout.log_fd, *self.layout.locks):
            os.close(fd)
        self.supervisor.audit.close()
        self.supervisor.selector.close()


def _no_pair() -> tuple[socket.socket, socket.socket]:
    raise SpawnFailed("no channels here")


def _no_compiler(self: Services, *arguments: Any) -> int:
    raise SpawnFailed("no compiler here")


@pytest.fixture(scope="module")
def turned() -> Iterator[Turned]:
    """One supervisor for all examples: it must go on after each."""
    root = Path(tempfile.mkdtemp(prefix="fz-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zmtp, "pair", _no_pair)
        patch.setattr(Services, "compiler", _no_compiler)
        found = Turned(root)
        yield found
        found.close()
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def fresh(turned: Turned) -> None:
    """No frame of an earlier test waits in a channel."""
    for name in NAMES:
        turned.connect(name)


numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**63]))
texts = st.one_of(
    st.sampled_from(["killed", "deadline", "policy", "exited", "", "/", "/etc", "a\0b"]), st.text(max_size=8)
)
components = st.one_of(
    st.just(["acme", "reader", "0"]),
    st.lists(texts, min_size=3, max_size=3),
    st.builds(lambda n: ["a" * n, "b", "c"], st.integers(60, 60_000)),
)
limits = st.one_of(st.just([1, 2, 3, 4, 5, 6]), st.lists(numbers, min_size=6, max_size=6))
mounts = st.one_of(
    st.lists(st.tuples(texts, texts, st.booleans()), max_size=3), st.just([["/d", "/nowhere", False]] * 300)
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.floats(), texts, st.binary(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=6,
)
shaped = st.one_of(
    st.tuples(st.just("StartWorker"), numbers, components, numbers, limits),
    st.tuples(st.just("KillWorker"), numbers, numbers, texts),
    st.tuples(st.just("Compile"), numbers, numbers, numbers),
    st.tuples(st.just("SetPolicy"), numbers, components, st.binary(max_size=60_000), mounts),
    st.tuples(st.just("DropPolicy"), numbers, components, st.booleans()),
    st.tuples(st.just("Snapshot"), numbers, numbers),
    st.tuples(st.just("Up")),
    st.tuples(st.just("EndWorker"), numbers, texts, st.one_of(texts, st.just("x" * 60_000))),
    st.tuples(st.just("AuditorState"), st.booleans(), st.one_of(texts, st.just("é" * 30_000))),
    st.tuples(st.just("Forked"), numbers, numbers.filter(lambda pid: pid <= 0 or pid > 2**31)),
    st.lists(anything, max_size=6).map(tuple),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A frame of good shape with odd values, then perhaps changed in a few bytes, cut, or noise."""
    body = msgspec.msgpack.encode(draw(shaped))
    for _ in range(draw(st.integers(0, 3)) if draw(st.booleans()) else 0):
        changed = bytearray(body)
        changed[draw(st.integers(0, min(len(body), 200) - 1))] = draw(st.integers(0, 255))
        body = bytes(changed)
    if draw(st.integers(0, 9)) == 0:
        body = body[: draw(st.integers(1, len(body)))]
    if draw(st.integers(0, 19)) == 0:
        body = draw(st.one_of(st.binary(min_size=1, max_size=50), st.just(b"\x91" * 50_000)))
    return body[: frames.MAX]


def _names_a_process(body: bytes) -> bool:
    """Whether a changed byte made the zygote's answer name a process of this machine (tested by itself below)."""
    try:
        answer = msgspec.msgpack.decode(body, type=frames.Forked)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return answer.pid > 0


@given(name=st.sampled_from(NAMES), body=bodies(), descriptors=st.integers(0, 3))
@settings(max_examples=600, deadline=None)
def test_no_frame_ends_the_supervisor(turned: Turned, name: str, body: bytes, descriptors: int) -> None:
    """Whatever a child sends is answered, or gets that child killed; nothing is raised and nobody else is killed."""
    if name == "zygote" and _names_a_process(body):
        return
    for incarnation, stage in ((1, "live"), (2, "cloning"), (3, "sealing")):
        if incarnation not in turned.supervisor.workers.by_incarnation:
            turned.worker(incarnation, stage)
    turned.killed.clear()
    turned.say(name, body, descriptors)
    assert set(turned.killed) <= {name}
    if name == "control" and not turned.killed:
        turned.supervisor._phase = "running"
    turned.connect(name)
    turned.supervisor._timeout()
    assert turned.say("control", msgspec.msgpack.encode(frames.Snapshot(7)))[-1:] != [], "and it still answers"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body", [b"\xc1", b"\x91\xa2\xff\xfe", b"\x91" * 60_000, b"\x92\xa2Up\x01", b"\x90"], ids=lambda b: repr(b[:8])
)
def test_no_frame_at_all(turned: Turned, name: str, body: bytes) -> None:
    """Undecodable bytes end exactly the child that sent them."""
    turned.killed.clear()
    assert [] == turned.say(name, body)
    assert [name] == turned.killed
    turned.connect(name)


@pytest.mark.parametrize(
    ("name", "frame", "descriptors"),
    [
        ("control", frames.Snapshot(1), 1),
        ("control", frames.StartWorker(1, COMPONENT, 9, Limits()), 0),
        ("control", frames.StartWorker(1, COMPONENT, 9, Limits()), 2),
        ("control", frames.StartWorker(1, ComponentId("A", "b"), 9, Limits()), 1),
        ("control", frames.Compile(1, 1, 1), 1),
        ("control", frames.EndWorker(1, "policy", ""), 0),
        ("router", frames.Snapshot(1), 0),
        ("router", frames.Up(), 1),
        ("router", frames.AuditorState(True), 0),
        ("router", frames.EndWorker(1, "exited", ""), 0),
        ("bridge", frames.StopHost(1), 0),
        ("auditor", frames.StopHost(1), 0),
        ("zygote", frames.EndWorker(1, "policy", ""), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_not_theirs_to_say(turned: Turned, name: str, frame: msgspec.Struct, descriptors: int) -> None:
    """Another process's frame, a wrong number of descriptors, a wrong reason: the sender is killed, nothing happens."""
    if 1 not in turned.supervisor.workers.by_incarnation:
        turned.worker(1, "live")
    turned.supervisor.workers.by_incarnation[1].verdict = None
    turned.killed.clear()
    turned.say(name, msgspec.msgpack.encode(frame), descriptors)
    assert [name] == turned.killed
    assert turned.supervisor.workers.by_incarnation[1].verdict is None
    assert "running" == turned.supervisor._phase
    turned.connect(name)


def test_what_is_theirs_to_say(turned: Turned) -> None:
    """Positive control: the router may end a worker, with a reason of any length, and control is answered."""
    turned.worker(1, "live")
    turned.killed.clear()
    turned.say("router", msgspec.msgpack.encode(frames.EndWorker(1, "deadline", "x" * 60_000)))
    assert Outcome.DEADLINE is turned.supervisor.workers.by_incarnation[1].verdict
    assert frames.MAX_TEXT == len(turned.supervisor.workers.by_incarnation[1].detail)
    (answer,) = turned.say("control", msgspec.msgpack.encode(frames.DropPolicy(5, COMPONENT)))
    assert frames.Done(5) == msgspec.msgpack.decode(answer, type=frames.ToControl)
    assert [] == turned.killed


def test_many_workers_are_told_in_parts(turned: Turned) -> None:
    """However many live, each answer fits a packet, and all of them together name every worker once."""
    before = dict(turned.supervisor.workers.by_incarnation)
    turned.supervisor.workers.by_incarnation.clear()
    sample = turned.worker(10, "live")
    name = ComponentId("a" * 64, "b" * 64, "c" * 64)
    for incarnation in range(10, 1000):
        request = frames.StartWorker(1, name, incarnation, Limits())
        worker = Worker(incarnation, 0, 2**31, sample.bridge, sample.router, sample.zygote, 0.0, stage="live")
        worker.claim, worker.pid = request, 2**22
        turned.supervisor.workers.by_incarnation[incarnation] = worker
    found: list[int] = []
    after, more = -1, True
    while more:
        (body,) = turned.say("control", msgspec.msgpack.encode(frames.Snapshot(1, after)))
        assert len(body) <= frames.MAX
        living = msgspec.msgpack.decode(body, type=frames.Living)
        found += [worker.incarnation for worker in living.workers]
        after, more = found[-1], living.more
    assert list(range(10, 1000)) == found
    turned.supervisor.workers.by_incarnation = before
    sample.close()


# -- what the zygote names ----------------------------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that is not our child: its parent ends when its input does."""
    script = (
        "import os, sys\npid = os.fork()\n"
        "if pid == 0:\n    sys.stdin.read()\n    os._exit(0)\n"
        "print(pid, flush=True)\nsys.stdin.read()\nos.waitpid(pid, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        yield int(parent.stdout.readline())
        parent.communicate()


@pytest.mark.parametrize("asked", [True, False], ids=["as the answer", "unasked"])
def test_a_strangers_pid_is_not_killed(turned: Turned, stranger: int, asked: bool) -> None:
    """A pid that is not the supervisor's child is refused; the process it belongs to gets no signal."""
    old = turned.supervisor.workers.by_incarnation.get(5)
    if old is not None:
        turned.supervisor.workers.forget(old)
    if asked:
        turned.worker(5, "cloning")
    pidfd = os.pidfd_open(stranger)
    try:
        turned.say("zygote", msgspec.msgpack.encode(frames.Forked(5, stranger)))
        assert 5 not in turned.supervisor.workers.by_incarnation
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            assert [] == selector.select(0.2), "it lives"
    finally:
        os.close(pidfd)


def test_a_child_of_ours_is_adopted(turned: Turned) -> None:
    """Positive control: a process that is our child becomes the worker."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        worker = turned.worker(6, "cloning")
        turned.say("zygote", msgspec.msgpack.encode(frames.Forked(6, child.pid)))
        assert ("sealing", child.pid) == (worker.stage, worker.pid)
        turned.supervisor.selector.unregister(worker.bridge)
        turned.supervisor.selector.unregister(worker.pidfd)
        turned.supervisor.workers.forget(worker)


def test_a_process_of_the_host_is_no_worker(turned: Turned) -> None:
    """The zygote cannot name the router, or another worker's process, to have it killed."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        router = turned.supervisor.children["router"]
        router.pid, router.pidfd = child.pid, os.pidfd_open(child.pid)
        turned.worker(7, "cloning")
        turned.killed.clear()
        turned.say("zygote", msgspec.msgpack.encode(frames.Forked(7, child.pid)))
        assert ["zygote"] == turned.killed
        os.close(router.pidfd)
        router.pid, router.pidfd = 0, -1
        turned.connect("zygote")
        other = turned.worker(8, "live")
        other.pid = child.pid
        turned.supervisor.workers._pids.add(child.pid)
        turned.say("zygote", msgspec.msgpack.encode(frames.Forked(7, child.pid)))
        assert 7 not in turned.supervisor.workers.by_incarnation
        assert child.poll() is None
        turned.supervisor.workers.forget(other)


def test_killed_while_being_cloned(turned: Turned) -> None:
    """A worker that control gave up before its process existed does not come to life afterwards."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        worker = turned.worker(9, "cloning")
        turned.say("control", msgspec.msgpack.encode(frames.KillWorker(1, 9, "killed")))
        turned.say("zygote", msgspec.msgpack.encode(frames.Forked(9, child.pid)))
        assert "failed" == worker.stage
        assert -signal.SIGKILL == child.wait()
        turned.supervisor.selector.unregister(worker.pidfd)
        turned.supervisor.workers.forget(worker)


def test_no_memory_for_a_start_is_refused(turned: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MemoryError on the way of a start is its refusal, E_EXHAUSTED, and closes what was given."""

    def none(*_: object) -> None:
        raise MemoryError

    turned.killed.clear()
    before = sorted(os.listdir("/proc/self/fd"))
    turned.supervisor._phase = "running"  # whatever the frames of other tests made of it
    for name in NAMES:
        turned.supervisor.children[name].ready = True
    for where, what in ((turned.supervisor.pool, "take"), (turned.supervisor.compilers, "begin")):
        monkeypatch.setattr(where, what, none)
    start = frames.StartWorker(5, COMPONENT, 5, Limits())
    (answer,) = turned.say("control", msgspec.msgpack.encode(start), 1)
    assert ("E_EXHAUSTED", 5) == (_refusal(answer).code, _refusal(answer).n)
    (answer,) = turned.say("control", msgspec.msgpack.encode(frames.Compile(6, 1 << 30, 10)), 2)
    assert ("E_EXHAUSTED", 6) == (_refusal(answer).code, _refusal(answer).n)
    assert before == sorted(os.listdir("/proc/self/fd"))
    assert [] == turned.killed


def test_no_memory_for_a_frame_ends_the_child_that_sent_it(turned: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a frame can be neither done nor refused, its sender is killed: the next one is told everything."""

    def none(*_: object) -> None:
        raise MemoryError

    turned.killed.clear()
    monkeypatch.setattr(turned.supervisor, "_frame", none)
    turned.say("router", msgspec.msgpack.encode(frames.Up()))
    assert ["router"] == turned.killed


def test_descriptors_there_was_no_room_for(turned: Turned) -> None:
    """A start whose code could not be taken is refused; the same packet from one who may send none ends it."""
    start = msgspec.msgpack.encode(frames.StartWorker(5, COMPONENT, 5, Limits()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def lost(name: str, body: bytes) -> None:
        fd = os.memfd_create("x", os.MFD_CLOEXEC)
        socket.send_fds(turned.far[name], [body], [fd])
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd, hard))  # the next free number is not allowed
        try:
            turned.supervisor._child_event(turned.supervisor.children[name], selectors.EVENT_READ)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(fd)

    turned.killed.clear()
    lost("control", start)
    body, _ = frames.recv_packet(turned.far["control"])
    assert ("E_EXHAUSTED", 5) == (_refusal(body).code, _refusal(body).n)
    assert [] == turned.killed
    lost("bridge", start)
    assert ["bridge"] == turned.killed


def _refusal(body: bytes) -> frames.Failed:
    return msgspec.msgpack.decode(body, type=frames.Failed)
