"""Each wall alone: what it still stops when all others have fallen.

Every cell is a control: a forked child, one wall and nothing else, one attack. A column whose attack works without any
wall ("baseline") tells which walls stop it; a wall that is expected to stop an attack and does not is a failure.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sandbox.kernel import libc, process
from supervisor.selftest import native, scene
from supervisor.selftest.attack import another_program, describe, gained, one
from supervisor.selftest.attacks.memory import executable
from supervisor.selftest.native import CORE, Result, descend, fork
from supervisor.selftest.numbers import number
from supervisor.selftest.program import Program, Until
from supervisor.selftest.victim import SECRET, Found, Victim, remove_queue
from supervisor.selftest.walls import Prepared, Wall, walls

SECONDS = 5.0
STOPS, PASSES, NO_WALL = "stops", "passes", "no wall"


@dataclass(frozen=True)
class Target:
    """A column: an attack that needs nothing but that it is not stopped.

    Attributes:
        stopped_by: walls that must stop it alone.
        prepare: more for the process, after its scene.
        limits: soft and hard limits raised before anything else, as far as this user may.
        after: removes what the attack may have left, each time.
    """

    name: str
    program: Program
    stopped_by: frozenset[str]
    worked: Callable[[Result], bool] = gained
    scene: str = "contained"
    prepare: Callable[[], None] = lambda: None
    limits: tuple[tuple[int, int], ...] = ()
    after: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Column:
    """A target with its cells, wall by wall."""

    name: str
    baseline: str
    """How it ended without any wall."""
    shown: bool
    """Whether it worked without any wall, on this machine."""
    cells: dict[str, str]
    """Wall to STOPS, PASSES or NO_WALL (this wall cannot stand alone in this column's scene)."""
    how: dict[str, str]
    missing: tuple[str, ...]
    """Walls that had to stop it and did not."""


def _sockaddr(found: Found, kind: str) -> bytes:
    if kind == "tcp":
        return struct.pack("<H", 2) + struct.pack(">H", found.port) + bytes([127, 0, 0, 1]) + bytes(8)
    return struct.pack("<H", 1) + (found.abstract if kind == "abstract" else found.path + b"\0")


def _connect(found: Found, kind: str) -> Program:
    program = Program()
    address = _sockaddr(found, kind)
    sock = program.syscall("socket", 2 if kind == "tcp" else 1, 1, 0, until=Until.OR_GIVE_UP)
    program.syscall("connect", sock, program.data(address), len(address))
    return program


def _single(call: str | int, *words: int | bytes, routine: str = "syscall") -> Program:
    return one(str(call), call, *words, routine=routine).program


def _file(path: bytes) -> Program:
    program = Program()
    fd = program.syscall("openat", -100, program.data(path + b"\0"), 0, 0, until=Until.OR_GIVE_UP)
    program.syscall("read", fd, program.room(16), 6)
    return program


def _write(path: bytes) -> Program:
    program = Program()
    fd = program.syscall("openat", -100, program.data(path + b"/new\0"), 0o101, 0o600, until=Until.OR_GIVE_UP)
    program.syscall("write", fd, program.data(b"written"), 7)
    return program


def _read_memory(found: Found) -> Program:
    program = Program()
    into = program.room(16)
    local, remote = program.room(16), program.data(struct.pack("<QQ", found.address, 8))
    program.step("poke", local, into)
    program.step("poke", local + 8, 8)
    program.syscall("process_vm_readv", found.pid, local, 1, remote, 1, 0, until=Until.OR_GIVE_UP)
    program.step("peek", into)
    return program


def _leaked() -> None:
    fd = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(fd, _LEAK)


_LEAK = 9


def _key() -> None:
    # KEYCTL_JOIN_SESSION_KEYRING, then a key in it: a starter's secret.
    process.new_session_keyring()
    ctypes.CDLL(None).syscall(number("add_key"), b"user", b"selftest", b"x", 1, -3)


def _queue(found: Found) -> Program:
    return _single("mq_open", found.queue, 0o102, 0o600, 0)  # O_CREAT | O_RDWR


def _pending() -> Program:
    program = Program()
    program.syscall("rt_sigprocmask", 0, program.data(struct.pack("<Q", 1 << 39)), 0, 8, until=Until.OR_GIVE_UP)
    info = program.data(struct.pack("<iii", 40, 0, -1).ljust(128, b"\0"))
    me = program.syscall("getpid", until=Until.OR_GIVE_UP)
    program.syscall("rt_sigqueueinfo", me, 40, info, times=64, until=Until.ERROR)
    return program


def _crash() -> Program:
    program = Program()
    program.step("peek", 8)
    return program


def _dumped(result: Result) -> bool:
    return result.outcome == "SIGSEGV" and result.detail == CORE


def _host_name() -> None:
    """A machine's name of its own, whose change from within counts."""
    libc.unshare(process.CLONE_NEWUTS)
    before = os.uname().nodename
    descend(lambda: os.uname().nodename != before)


def set_user_id(found: Found) -> Program:
    """`test -r` on a file that only the program's owner may read; says nothing, ends with 0 if it may."""
    program = Program()
    words = [program.data(text) for text in (b"test\0", b"-r\0", found.owned + b"\0")]
    argv = program.room(8 * (len(words) + 1))
    for index, word in enumerate(words):
        program.step("poke", argv + 8 * index, word)
    program.syscall("execve", program.data(found.borrowed + b"\0"), argv, program.room(8))
    return program


def _being_read() -> Program:
    """Tell the spy at the other end of 4 to read us, and hear whether it could."""
    program = Program()
    answer = program.room(16)
    program.syscall("sendto", 4, program.data(b"x"), 1, 0, 0, 0, until=Until.OR_GIVE_UP)
    program.syscall("recvfrom", 4, answer, 1, 0, 0, 0, until=Until.OR_GIVE_UP)
    program.step("peek", answer)
    return program


def _spy() -> None:
    """Another process of the same user, free of walls, with its end of a new channel 4."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    if fork() == 0:
        ours.close()
        os.close(4)
        try:
            _, ancillary, _, _ = theirs.recvmsg(1, 64)
            pid, _, _ = struct.unpack("<iII", ancillary[0][2][:12])
            with open(f"/proc/{pid}/mem", "rb"):
                theirs.send(b"1")
        except (OSError, IndexError):
            theirs.send(b"0")
        finally:
            os._exit(0)
    os.dup2(ours.fileno(), 4)
    ours.close()
    theirs.close()


def targets(found: Found) -> Iterator[Target]:
    """The columns."""

    def target(name: str, program: Program, stopped_by: str, **more: object) -> Target:
        names = frozenset(part.strip() for part in stopped_by.split(",") if part.strip())
        return Target(name, program, names, **more)  # type: ignore[arg-type]

    yield target("read a file", _file(found.file), "seccomp, Landlock, empty root, NOFILE")
    yield target("write a file", _write(found.directory), "seccomp, Landlock, empty root, NOFILE, FSIZE")
    yield target(
        "run a program",
        _single("execve", b"/bin/true\0", bytes(8), bytes(8)),
        "seccomp, Landlock, empty root",
        worked=another_program,
    )
    yield target(
        "run a set-user-id program",
        set_user_id(found),
        "seccomp, Landlock, no new privs",
        worked=another_program,
        scene="ordinary",
    )
    yield target("another process", _single("clone", int(signal.SIGCHLD), 0, 0, 0, 0, routine="fork"), "seccomp, NPROC")
    yield target("a thread", _single("clone", 0x10900, 0, 0, 0, 0, routine="fork"), "seccomp, NPROC")
    yield target("connect by TCP", _connect(found, "tcp"), "seccomp, net ns, Landlock, NOFILE")
    yield target("connect to an abstract socket", _connect(found, "abstract"), "seccomp, net ns, Landlock, NOFILE")
    yield target("connect to a named socket", _connect(found, "path"), "seccomp, empty root, NOFILE")
    yield target("a socket", _single("socket", 2, 2, 0), "seccomp, NOFILE")
    yield target("signal a process", _single("kill", found.pid, 0), "seccomp, pid ns, Landlock")
    yield target(
        "read a process's memory",
        _read_memory(found),
        "seccomp, Landlock",
        worked=lambda result: gained(result) and result.result() == SECRET,
        scene="ordinary",
    )
    yield target(
        "be read by a process",
        _being_read(),
        "not dumpable",
        worked=lambda result: gained(result) and result.result() & 0xFF == ord("1"),
        scene="ordinary",
        prepare=_spy,
    )
    yield target(
        "mount",
        _single("mount", b"tmpfs\0", b"/tmp\0", b"tmpfs\0", 0, 0),
        "seccomp, capabilities, user ns, Landlock",
    )
    yield target("change root", _single("chroot", b"/\0"), "seccomp, capabilities")
    yield target(
        "rename the machine", _single("sethostname", b"other", 5), "seccomp, capabilities, uts ns", prepare=_host_name
    )
    yield target("a new user namespace", _single("unshare", process.CLONE_NEWUSER), "seccomp, no user ns")
    yield target(
        "run what was written",
        executable().cases[0].program,
        "seccomp, MDWE",
        worked=lambda result: gained(result) and result.result() == 42,
    )
    yield target(
        "a leaked descriptor",
        _single("openat", _LEAK, b"passwd\0", 0, 0),
        "seccomp, descriptors, Landlock, NOFILE",
        prepare=_leaked,
    )
    yield target(
        "the starter's keys",
        _single("keyctl", 10, -3, b"user\0", b"selftest\0", 0),
        "seccomp, keyring",
        prepare=_key,
        scene="ordinary",
    )
    yield target("shared memory", _single("shmat", found.segment, 0, 0), "seccomp, ipc ns")
    yield target("a gigabyte", _single("mmap", 0, 1 << 30, 3, 0x22, -1, 0), "AS, DATA")
    yield target("lock memory", _single("mlock", bytes(8192), 4096), "seccomp, MEMLOCK")
    yield target("a message queue", _queue(found), "seccomp, MSGQUEUE, NOFILE", after=lambda: remove_queue(found))
    yield target(
        "real-time priority",
        _single("sched_setscheduler", 0, 1, struct.pack("<I", 1)),
        "seccomp, RTPRIO",
        limits=((resource.RLIMIT_RTPRIO, 1),),
    )
    yield target("many signals", _pending(), "seccomp, SIGPENDING")
    yield target("leave a core file", _crash(), "CORE, not dumpable", worked=_dumped, scene="core")
    yield target(
        "type into the terminal",
        _single("ioctl", 0, 0x5412, b"x"),
        "seccomp, setsid, descriptors",
        scene="terminal",
    )


def run(progress: Callable[[int, int], None] = lambda *_: None) -> tuple[list[str], list[Column]]:
    """The whole matrix: the walls' names and the columns. Raises OSError when the victim does not come up.

    Args:
        progress: called with the number of columns that are made and of all.
    """
    listed = walls(Prepared())
    with Victim() as victim:
        columns = []
        chosen = list(targets(victim.found))
        for done, target in enumerate(chosen):
            progress(done, len(chosen))
            columns.append(make(target, listed, victim.found))
    return [wall.name for wall in listed], columns


def make(target: Target, listed: list[Wall], found: Found) -> Column:
    """One column, with the walls that are listed."""
    baseline = _cell(target, None, found)
    if not target.worked(baseline):
        return Column(target.name, baseline.detail or describe(baseline), False, {}, {}, ())
    cells, how = {}, {}
    for wall in listed:
        result = _cell(target, wall, found)
        how[wall.name] = describe(result)
        if result.outcome == "wall":
            cells[wall.name] = NO_WALL
        else:
            cells[wall.name] = PASSES if target.worked(result) else STOPS
    missing = tuple(name for name in sorted(target.stopped_by) if cells.get(name) == PASSES)
    return Column(target.name, describe(baseline), True, cells, how, missing)


def _cell(target: Target, wall: Wall | None, found: Found) -> Result:
    def prepare() -> None:
        for which, value in target.limits:
            _raise_limit(which, value)
        if target.scene == "core":
            scene.core_files_stay_here()
            os.chdir(found.directory)
            scene.core_limit()
        scene.SCENES["ordinary" if target.scene == "core" else target.scene]()
        target.prepare()
        if wall is not None:
            wall.put_up()

    try:
        return native.attempt(target.program, prepare, seconds=SECONDS)
    finally:
        target.after()


def _raise_limit(which: int, value: int) -> None:
    """Raise a limit. Raises OSError when this user may not."""
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError) as error:
        raise OSError(0, "this user may not raise the limit that the attack needs") from error
