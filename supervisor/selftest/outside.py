"""T24 to T28, T31 to T36, T38: looked at from outside, in the kernel's own words, while workers run attack programs."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sandbox import cage
from sandbox.types import Outcome
from supervisor.cli.errors import RefusedError, UnreachableError
from supervisor.selftest import native, scene
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict, another_program, describe
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.matrix import set_user_id
from supervisor.selftest.native import Result
from supervisor.selftest.program import Program
from supervisor.selftest.victim import Victim

ROOT = os.geteuid() == 0
GONE_SECONDS = 1.0
"""Longest that anything of a host may outlive its supervisor."""
_ZERO = "0" * 16


@dataclass(frozen=True)
class Context:
    """A running host and its workers; each has answered."""

    host: HostileHost
    workers: list[HostileWorker]

    def pids(self) -> list[int]:
        """Processes of the workers, now."""
        return [worker.living() for worker in self.workers]


def _found(name: str, wrong: object, right: str, shown: bool | str, control: str) -> CaseResult:
    """A case of an outside look: `wrong` is what should not be there; `shown` whether the same look finds it elsewhere,
    or the reason why it cannot be shown."""
    verdict = Verdict.SUCCEEDED if wrong else Verdict.STOPPED
    if isinstance(shown, str):
        return CaseResult(name, verdict, str(wrong) if wrong else right, Shown.CANNOT, shown)
    return CaseResult(name, verdict, str(wrong) if wrong else right, Shown.WORKS if shown else Shown.FAILED, control)


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def links(pid: int) -> dict[str, str]:
    """Descriptors and what they are."""
    return {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


# -- descriptors ------------------------------------------------------------------------------------------------------


def descriptors(context: Context) -> Row:
    """T25."""
    wrong = {}
    for pid in context.pids():
        held = links(pid)
        if set(held) != {"3", "4"} or not all(link.startswith("socket:") for link in held.values()):
            wrong[pid] = held
    own = os.listdir("/proc/self/fd")
    return Row(
        "T25",
        "descriptors of workers",
        ("descriptors",),
        (_found("exactly 3 and 4, sockets", wrong, "3 and 4", set(own) != {"3", "4"}, f"{len(own)} of our own"),),
    )


_kept: list[object] = []
"""Objects whose descriptors must stay open."""


def _open_everything() -> None:
    for _ in range(200):
        os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)
    os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.open("/", os.O_PATH)
    os.memfd_create("selftest")
    os.pidfd_open(os.getpid())
    _kept.extend((select.epoll(), socket.socket(socket.AF_UNIX)))


def leaks(_context: Context) -> Row:
    """T26, T27: the cage's own step in a process that has everything open."""
    program = Program()
    first = program.data(b"\0")
    for fd in range(250):
        program.syscall("fcntl", fd, 1, first)  # F_GETFD

    def held(walls: Callable[[], None]) -> set[int] | None:
        def prepare() -> None:
            scene.channels()
            _open_everything()
            walls()

        result = native.attempt(program, prepare)
        return {fd for fd, value in enumerate(result.answer.results) if value >= 0} if result.answer else None

    before, after = held(lambda: None), held(cage._two_descriptors)
    return Row(
        "T26",
        "descriptors left open: 200 files, a directory, O_PATH, epoll, memfd, pidfd, a socket (T27)",
        ("descriptors",),
        (
            _found(
                "what the cage's step leaves",
                (after ^ {3, 4}) if after is not None else "the step failed",
                "3 and 4",
                before is not None and len(before) > 200,
                f"{len(before or ())} before it",
            ),
        ),
    )


# -- what it sees -----------------------------------------------------------------------------------------------------


def root(context: Context) -> Row:
    """T28."""
    wrong = []
    for pid in context.pids():
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            mounts = file.read().splitlines()
        listed = os.listdir(f"/proc/{pid}/root/")
        where = os.readlink(f"/proc/{pid}/cwd")
        if listed or where != "/" or len(mounts) != 1 or " / / ro," not in mounts[0]:
            wrong.append((pid, listed, where, mounts))
    return Row(
        "T28",
        "root and working directory of workers",
        ("empty root",),
        (_found("an empty, read-only root", wrong, "empty", bool(os.listdir("/")), f"{len(os.listdir('/'))} of ours"),),
    )


def environment(context: Context) -> Row:
    """T31."""
    wrong = []
    for pid in context.pids():
        for name in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if context.host.canary.encode() in file.read():
                    wrong.append((pid, name))
    supervisor = context.host.pids()["supervisor"]
    shown: bool | str
    try:
        with open(f"/proc/{supervisor}/environ", "rb") as file:
            shown = context.host.canary.encode() in file.read()
    except PermissionError:
        shown = "the supervisor's environment is closed to its own user"
    return Row(
        "T31",
        "a secret in the environment of who started the host",
        ("empty environment",),
        (_found("environment and command line of workers", wrong, "not there", shown, "there, in the supervisor's"),),
    )


def _memory_has(pid: int, wanted: bytes) -> bool:
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        spans = [line.split()[0] for line in file if line.split()[1].startswith("r") and "[v" not in line]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for span in spans:
            start, end = (int(text, 16) for text in span.split("-"))
            try:
                memory.seek(start)
                if wanted in (memory.read(end - start) or b""):
                    return True
            except (OSError, OverflowError):
                continue  # a page nobody has touched in a device's mapping
    return False


def heap(context: Context) -> Row:
    """T32: the memory of a worker cloned after another one handled a secret."""
    first, second = context.workers[0], context.workers[1]
    canary = os.urandom(24)
    program = Program()
    program.answer(program.data(canary), len(canary))
    first.run(program)
    old = second.living()
    die = Program()
    die.syscall("getpid")
    second.run(die)
    later = second.living(after=old)
    zygote = context.host.pids()["zygote"]
    shown: bool | str
    try:
        shown = _memory_has(first.living(), canary)
        wrong = [pid for pid in (later, zygote) if _memory_has(pid, canary)]
    except PermissionError as error:
        shown, wrong = f"this user may not read it: {error.strerror}", []
    return Row(
        "T32",
        "a component's secret in memory of workers cloned later, and in the zygote's",
        ("a zygote that handles no component",),
        (_found("their memory", wrong, "not there", shown, "there, in its own worker's"),),
    )


# -- identity ---------------------------------------------------------------------------------------------------------


def identity(context: Context) -> Row:
    """T33, T34."""
    wrong: list[object] = []
    uids = []
    for pid in context.pids():
        said = status(pid)
        wanted = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), _ZERO)
        wanted |= {"NoNewPrivs": "1", "Seccomp": "2", "Threads": "1"}
        if ROOT:
            wanted["Groups"] = ""
            ids = {*said["Uid"].split(), *said["Gid"].split()}
            if len(ids) != 1 or "0" in ids:
                wrong.append((pid, said["Uid"], said["Gid"]))
            uids.append(said["Uid"].split()[0])
        wrong += [(pid, key, said[key]) for key, value in wanted.items() if said[key] != value]
    own = status(os.getpid())
    cases = [
        _found("capabilities, filter, no_new_privs", wrong, "none, on, on", own["CapBnd"] != _ZERO, "ours differ"),
    ]
    if ROOT:
        shared = len(set(uids)) != len(uids)
        cases.append(_found("a uid of its own, not 0", uids if shared else "", "own", True, "ours is 0"))
    else:
        cases.append(CaseResult("a uid of its own", Verdict.STOPPED, "lost", Shown.CANNOT, "own uids need root"))
    return Row("T33", "identity and privileges (T34)", ("own uids", "capabilities", "no new privs"), tuple(cases))


def set_user_id_program(context: Context) -> Row:
    """T35."""
    with Victim() as victim:
        program = set_user_id(victim.found)
        result = context.workers[0].run(program)
        control = native.attempt(program, scene.SCENES["ordinary"])
    stopped = result.outcome == Outcome.POLICY
    verdict = Verdict.STOPPED if stopped else Verdict.SUCCEEDED if another_program(result) else Verdict.ODD
    shown = Shown.WORKS if another_program(control) else Shown.FAILED if ROOT else Shown.CANNOT
    how = describe(control) if ROOT else "needs another user's program, and so root"
    return Row(
        "T35",
        "a set-user-id program",
        ("seccomp", "no new privs"),
        (CaseResult("execve", verdict, describe(result), shown, how),),
    )


def _pry(target: int) -> Program:
    """Everything a process could do to another of its own uid, but killing it."""
    program = Program()
    for name in ("mem", "maps", "environ", "fd", "root", "cwd"):
        program.syscall("openat", -100, program.data(f"/proc/{target}/{name}".encode() + b"\0"), 0, 0)
    program.syscall("ptrace", 0x4206, target, 0, 0)  # PTRACE_SEIZE
    pidfd = program.syscall("pidfd_open", target, 0)
    program.syscall("pidfd_getfd", pidfd, 3, 0)
    return program


_PRIED = ("mem", "maps", "environ", "fd", "root", "cwd", "ptrace", None, "pidfd_getfd")


def siblings(context: Context) -> Row:
    """T36: another process that got hold of a worker's uid."""
    title, walls = "a process with a worker's own uid, outside", ("not dumpable", "user namespace")
    if not ROOT:
        why = "workers have this user's own uid, who owns their namespaces"
        return Row("T36", title, walls, (CaseResult("", Verdict.STOPPED, "not tried", Shown.CANNOT, why),))
    pid = context.workers[0].living()
    uid = int(status(pid)["Uid"].split()[0])

    def become() -> None:
        scene.become(uid)

    def opened(result: Result) -> set[str]:
        values = result.answer.results if result.answer else ()
        return {name for name, value in zip(_PRIED, values, strict=False) if name and value >= 0}

    reader, writer = os.pipe()
    sibling = native.fork()
    if sibling == 0:
        try:
            scene.channels()
            become()
            os.write(writer, b"x")
            signal.pause()
        finally:
            os._exit(0)
    try:
        os.read(reader, 1)
        control = opened(native.attempt(_pry(sibling), become))
    finally:
        os.kill(sibling, signal.SIGKILL)
        os.waitpid(sibling, 0)
        os.close(reader)
        os.close(writer)
    reached = opened(native.attempt(_pry(pid), become))
    names = [name for name in _PRIED if name]
    return Row(
        "T36",
        title,
        walls,
        tuple(
            _found(name, "reached" if name in reached else "", "refused", name in control, "an ordinary process's")
            for name in names
        ),
    )


def core_files(context: Context) -> Row:
    """T38: workers that crash, with a look for files named core wherever they could be."""
    places = ("/", os.getcwd(), context.host.base, context.host.root)
    cases = []
    for name, routine, words in (("a fault", "peek", (8,)), ("an undefined instruction", "undefined", ())):
        program = Program()
        program.step(routine, *words)
        before = _cores(places)
        result = context.workers[0].run(program)
        new = _cores(places) - before
        with tempfile.TemporaryDirectory(prefix="airssys-core-") as scratch:
            control = native.attempt(program, functools.partial(_dump_into, scratch))
        shown: bool | str = control.detail == native.CORE or "core files are off, or go elsewhere, on this machine"
        cases.append(_found(name, sorted(new), describe(result), shown, "dumped core"))
    return Row("T38", "core files", ("CORE", "not dumpable"), tuple(cases))


def _cores(places: Iterable[str]) -> set[str]:
    return {f"{place}/{name}" for place in places for name in os.listdir(place) if name.startswith("core")}


def _dump_into(directory: str) -> None:
    scene.core_files_stay_here()
    os.chdir(directory)
    scene.core_limit()


# -- the end ----------------------------------------------------------------------------------------------------------


def descendants(pid: int) -> set[int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, KeyError):
                parents[int(name)] = int(status(int(name))["PPid"])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def supervisor_killed(context: Context) -> Row:
    """T24. The host is gone afterwards."""
    busy = Program()
    busy.syscall("munmap", 1, 4096, times=(1 << 32) - 1)

    def keep_busy(worker: HostileWorker) -> None:
        with contextlib.suppress(UnreachableError, RefusedError):
            worker.run(busy)

    threads = [threading.Thread(target=keep_busy, args=(worker,), daemon=True) for worker in context.workers]
    pids = context.pids()
    supervisor = context.host.pids()["supervisor"]
    for thread in threads:
        thread.start()
    everything = descendants(supervisor) | set(pids)
    poll = select.poll()
    pidfds = {os.pidfd_open(pid): pid for pid in everything}
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    time.sleep(0.05)  # the workers are at it
    main = next(pidfd for pidfd, pid in pidfds.items() if pid == supervisor)
    signal.pidfd_send_signal(main, signal.SIGKILL)
    killed = time.monotonic()
    left = dict(pidfds)
    while left and (rest := killed + GONE_SECONDS - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(rest * 1000):
            poll.unregister(pidfd)
            left.pop(pidfd, None)
    took = time.monotonic() - killed
    remaining = {pid: _comm(pid) for pid in left.values()}
    for pidfd in pidfds:
        if pidfd in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    return Row(
        "T24",
        "the supervisor killed while workers run native loops",
        ("death with the supervisor", "channels"),
        (
            _found(
                f"what is left after {GONE_SECONDS:.0f} s",
                remaining,
                f"nothing of {len(everything)} processes after {took * 1000:.0f} ms",
                _orphan_survives(),
                "an ordinary child outlives its parent",
            ),
        ),
    )


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def _orphan_survives() -> bool:
    reader, writer = os.pipe()
    parent = native.fork()
    if parent == 0:
        child = native.fork()
        if child == 0:
            signal.pause()
        os.write(writer, child.to_bytes(4, "little"))
        signal.pause()
        os._exit(0)
    os.close(writer)
    child = int.from_bytes(os.read(reader, 4), "little")
    os.close(reader)
    pidfd = os.pidfd_open(child)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    survives = not select.select([pidfd], [], [], 0.05)[0]
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    return survives


CHECKS: dict[str, Callable[[Context], Row]] = {
    "T25": descriptors,
    "T26": leaks,
    "T28": root,
    "T31": environment,
    "T32": heap,
    "T33": identity,
    "T35": set_user_id_program,
    "T36": siblings,
    "T38": core_files,
}
"""By the id of their rows; `supervisor_killed` comes last and apart."""


def run(context: Context, wanted: Callable[[str], bool]) -> Iterator[Row]:
    """The rows that are wanted, in order."""
    for name, check in CHECKS.items():
        if wanted(name):
            yield check(context)
