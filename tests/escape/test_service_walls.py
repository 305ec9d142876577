"""Attacks from inside each of the host's own processes, and their work, behind the walls that the process puts up.

A forked child takes the place of the process: it calls the same function with the same arguments (`CLOSE`) and then
tries the attack. The control is the same attack by a child that did not: it succeeds, or at least comes back.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import errno
import functools
import importlib
import mmap
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import SIGSYS, Ended, become_ordinary, ends, fork, own_namespaces, raw, returns

from sandbox.kernel import landlock, libc, probe, process, seccomp
from sandbox.kernel.confine import confine, confine_in_place, confine_parent, preload

pytestmark = pytest.mark.block4_security
CAGED, PLAIN = ("auditor", "bridge"), ("router", "control")
SERVICES = (*CAGED, *PLAIN)
EVERYBODY = (*SERVICES, "zygote", "supervisor")


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Skip by name what this machine cannot do."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of children load the same few filters."""
    monkeypatch.setattr(seccomp, "compile_policy", _compile)


_compile = functools.cache(seccomp.compile_policy)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for everybody, with one of the process's own in it and a file beside that."""
    with tempfile.TemporaryDirectory(prefix="as-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        for path in (directory, directory / "own", directory / "own" / "below"):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        (directory / "outside").write_text("outside")
        (directory / "outside").chmod(0o666)
        yield directory


def _directory(place: Path) -> int:
    return os.open(place / "own", os.O_RDONLY | os.O_DIRECTORY)


def _caged(policy: str, place: Path, **more: Any) -> int:
    own_namespaces(
        process.CLONE_NEWNS
        | process.CLONE_NEWNET
        | process.CLONE_NEWIPC
        | process.CLONE_NEWUTS
        | process.CLONE_NEWCGROUP
    )
    directory = _directory(place)
    confine("as-test", policy, 256, **more | ({"keeps": [directory]} if policy == "auditor" else {}))
    return directory


def _plain(policy: str, place: Path) -> int:
    # The interpreter may lie in a directory that is closed to that uid; the host shows it to its processes.
    preload()
    become_ordinary()
    directory = _directory(place)
    confine_in_place("as-test", policy, owns=[str(place / "own")] if policy == "control" else [])
    return directory


def _zygote(place: Path) -> int:
    bpf, version, directory = seccomp.compile_policy("zygote"), landlock.abi(), _directory(place)
    process.no_new_privileges()
    landlock.restrict(version)
    seccomp.load(bpf)
    return directory


def _supervisor(place: Path) -> int:
    directory = _directory(place)
    confine_parent()
    return directory


CLOSE: dict[str, Callable[[Path], int]] = {
    "auditor": lambda place: _caged("auditor", place),
    "bridge": lambda place: _caged("bridge", place, files=False),
    "router": lambda place: _plain("router", place),
    "control": lambda place: _plain("control", place),
    "zygote": _zygote,
    "supervisor": _supervisor,
}
"""What each process does to itself; a descriptor of the directory `own` comes out."""


def inside(name: str, place: Path, action: Callable[[int], Any]) -> Ended:
    """How a process of that kind ends that does something with its directory behind its walls."""
    seccomp.compile_policy(name)  # once, for all children

    def child() -> Any:
        process.close_range(3)  # a fresh process has nothing of the runner's, and its limit of descriptors counts them
        return action(CLOSE[name](place))

    return ends(child)


def outside(place: Path, action: Callable[[int], Any]) -> Ended:
    """The same without walls."""
    return ends(lambda: action(_directory(place)))


# -- calls that nobody has ------------------------------------------------------------------------------------------

_memory = ctypes.create_string_buffer(256)
AT = ctypes.addressof(_memory)
CALLS: dict[str, tuple[int, ...]] = {
    "socket AF_INET": (2, 1, 0),
    "socket AF_INET6": (10, 2, 0),
    "socket AF_NETLINK": (16, 3, 0),
    "socket AF_PACKET": (17, 3, 0),
    "socket AF_VSOCK": (40, 1, 0),
    "socket AF_ALG": (38, 5, 0),
    "ptrace TRACEME": (0, 0, 0, 0),
    "bpf": (0, AT, 0),
    "perf_event_open": (AT, 0, 0, 0, 0),
    "io_uring_setup": (1, AT),
    "userfaultfd": (0,),
    "add_key": (AT, AT, 0, 0, 0),
    "request_key": (AT, AT, 0, 0),
    "init_module": (AT, 0, AT),
    "finit_module": (99, AT, 0),
    "kexec_load": (0, 0, 0, 99),
    "setns": (99, 0),
    "process_vm_readv": (1, AT, 0, AT, 0, 0),
    "pidfd_getfd": (99, 0, 0),
    "kcmp": (1, 1, 99, 0, 0),
    "personality": (0x0400000,),
    "chroot": (AT,),
    "mknodat": (99, AT, 0o20666, 0x0103),
    "execveat": (99, AT, 0, 0, 0),
    "ioctl TIOCSTI": (0, 0x5412, AT),
    "ioctl TIOCSTI, high bits": (0, 1 << 32 | 0x5412, AT),
    "socket AF_INET, high bits": (1 << 32 | 2, 1, 0),
    "shmget": (0, 0, 0),
    "bind": (99, AT, 16),
    "tgkill of another signal": (1, 1, 15),
}
"""Calls with arguments that do no harm where they are let through."""


def _call(name: str) -> Callable[[int], int]:
    number = seccomp.number_of(name.split(maxsplit=1)[0])
    assert number is not None
    return lambda _directory: raw(number, *CALLS[name])


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_nobody_has(name: str, place: Path) -> None:
    """The call comes back where there are no walls, and ends each of the host's processes by SIGSYS."""
    free = outside(place, _call(name))
    assert (0, "") == (free.signal, free.error)
    assert dict.fromkeys(EVERYBODY, SIGSYS) == {who: inside(who, place, _call(name)).signal for who in EVERYBODY}


# -- calls that only those have who start processes -----------------------------------------------------------------


def _execute(_directory: int) -> None:
    os.execv("/bin/true", ["true"])


def _fork(_directory: int) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _unshare(_directory: int) -> int:
    libc.unshare(process.CLONE_NEWUSER)
    return 0


def _mount(_directory: int) -> int:
    return raw(seccomp.number_of("mount") or 0, AT, AT, AT, 0, 0)


def _kill(_directory: int) -> int:
    os.kill(os.getppid(), 0)
    return 0


@pytest.mark.parametrize("action", [_execute, _fork, _unshare, _mount, _kill])
@pytest.mark.parametrize("name", SERVICES)
def test_services_start_nothing(name: str, action: Callable[[int], Any], place: Path) -> None:
    """No program, no process, no namespace, no mount, no signal: each works outside and ends a service by SIGSYS."""
    free = outside(place, action)
    assert (0, "") == (free.signal, free.error)
    assert SIGSYS == inside(name, place, action).signal


@pytest.mark.parametrize("action", [_execute, _fork])
def test_the_zygote_starts_workers_alone(action: Callable[[int], Any], place: Path) -> None:
    """Neither a program nor a child of its own."""
    assert 0 == outside(place, action).signal
    assert SIGSYS == inside("zygote", place, action).signal


# -- executable memory ----------------------------------------------------------------------------------------------


def _executable(_directory: int) -> list[int]:
    mapped = raw(seccomp.number_of("mmap") or 0, 0, 4096, 7, 0x22, -1, 0)
    page = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return [min(mapped, 0), raw(seccomp.number_of("mprotect") or 0, address, 4096, 5)]


@pytest.mark.parametrize("name", SERVICES)
def test_no_executable_memory(name: str, place: Path) -> None:
    """A page cannot be made executable, nor mapped so; the process gets an error and lives."""
    assert [0, 0] == outside(place, _executable).value
    assert [-errno.EACCES] * 2 == inside(name, place, _executable).value


def test_the_supervisor_makes_no_executable_memory(place: Path) -> None:
    """MDWE, for itself alone: what it starts maps libraries as it likes."""

    def both(directory: int) -> list[list[int]]:
        own = _executable(directory)
        return [own, returns(lambda: _executable(directory))]

    assert [[0, 0], [0, 0]] == outside(place, both).value
    assert [[-errno.EACCES] * 2, [0, 0]] == inside("supervisor", place, both).value


# -- files ------------------------------------------------------------------------------------------------------------


def _refusals(place: Path) -> Callable[[int], list[int]]:
    def attempt(action: Callable[[], Any]) -> int:
        try:
            action()
        except OSError as error:
            return error.errno or -1
        return 0

    def attempts(_directory: int) -> list[int]:
        return [
            attempt(lambda: os.open(place / "outside", os.O_RDONLY)),
            attempt(lambda: os.open(place / "outside", os.O_WRONLY)),
            attempt(lambda: os.open(place / "new", os.O_WRONLY | os.O_CREAT)),
            attempt(lambda: os.open("/proc/1/environ", os.O_RDONLY)),
        ]

    return attempts


@pytest.mark.parametrize("name", ["auditor", "bridge", "router", "control", "zygote"])
def test_files_of_others(name: str, place: Path) -> None:
    """A file that everybody may read and write is not there, or closed."""
    free = outside(place, _refusals(place)).value
    assert [0, 0, 0] == free[:3]
    found = inside(name, place, _refusals(place))
    assert (0, "") == (found.signal, found.error)
    assert set(found.value) <= {errno.EACCES, errno.ENOENT}, found


# -- sockets and signals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["control", "supervisor"])
def test_abstract_sockets(name: str, place: Path) -> None:
    """Who may make a socket reaches no abstract one outside: Landlock's scope."""
    address = f"\0as-{os.getpid()}-{name}"

    def connect(_directory: int) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(address)
            except OSError as error:
                return error.errno or -1
        return 0

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(8)
        assert 0 == outside(place, connect).value
        assert errno.EPERM == inside(name, place, connect).value


def test_the_supervisor_signals_its_own_alone(place: Path) -> None:
    """A stranger of the same uid, or any process where it holds CAP_KILL, is out of reach; a child is not."""
    me = os.getpid()

    def signals(_directory: int) -> list[int]:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        found = []
        for pid, number in ((me, 0), (child, signal.SIGKILL)):
            pidfd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(pidfd, number)
                found.append(0)
            except OSError as error:
                found.append(error.errno or -1)
        os.waitpid(child, 0)
        return found

    assert [0, 0] == outside(place, signals).value
    assert [errno.EPERM, 0] == inside("supervisor", place, signals).value


@pytest.mark.parametrize("name", ["auditor", "bridge", "zygote", "supervisor"])
def test_the_one_signal_reaches_no_stranger(name: str, place: Path) -> None:
    """SIGABRT, which the filters let through for abort(3), ends a stranger of the same uid; Landlock refuses it."""
    number = seccomp.number_of("tgkill") or 0

    def victims_end(behind: Callable[[Path, Callable[[int], Any]], Ended]) -> tuple[int, int]:
        victim = fork()
        if victim == 0:
            signal.pause()
            os._exit(0)
        said = behind(place, lambda _directory: raw(number, victim, victim, signal.SIGABRT)).value
        if said != 0:  # else the signal is on its way, and SIGKILL would overtake it
            os.kill(victim, signal.SIGKILL)
        return said, os.WTERMSIG(os.waitpid(victim, 0)[1])

    assert (0, signal.SIGABRT) == victims_end(outside)
    assert (-errno.EPERM, signal.SIGKILL) == victims_end(functools.partial(inside, name))


# -- what must work ---------------------------------------------------------------------------------------------------


def _keep(directory: int) -> str:
    fd = os.open("new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600, dir_fd=directory)
    os.write(fd, b"a line\n")
    os.fdatasync(fd)
    os.ftruncate(fd, 3)
    os.fchmod(fd, 0o640)
    os.rename("new", "old", src_dir_fd=directory, dst_dir_fd=directory)
    assert "old" in os.listdir(directory)
    text = os.pread(fd, 10, 0).decode()
    os.close(fd)
    os.unlink("old", dir_fd=directory)
    return text


def test_the_auditor_keeps_files(place: Path) -> None:
    """It makes, appends to, cuts, syncs, renames and removes files of its directory."""
    assert "a l" == inside("auditor", place, _keep).value


def test_the_bridge_uses_a_grant(place: Path) -> None:
    """A directory it was given is used in all ways, moving between its directories included."""

    def use(directory: int) -> list[str]:
        below = os.open("below", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.mkdir("made", dir_fd=below)
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory))
        os.rename("file", "moved", src_dir_fd=directory, dst_dir_fd=below)
        found = sorted(os.listdir(below))
        os.unlink("moved", dir_fd=below)
        os.rmdir("made", dir_fd=below)
        return found

    assert ["made", "moved"] == inside("bridge", place, use).value


def test_control_keeps_a_database(place: Path) -> None:
    """A database with its journal, threads, directories made and removed, the user database."""

    def work(_directory: int) -> list[Any]:
        import pwd

        with contextlib.suppress(KeyError):
            pwd.getpwuid(os.getuid())
        tree = place / "own" / "tree"
        tree.mkdir()
        (tree / "file").write_text("x")
        (tree / "file").rename(tree / "other")
        with contextlib.closing(sqlite3.connect(place / "own" / "db")) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE t (x)")
            with database:
                database.execute("INSERT INTO t VALUES (1)")
            rows = database.execute("SELECT x FROM t").fetchall()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            squares = list(pool.map(lambda n: n * n, range(4)))
        (tree / "other").unlink()
        tree.rmdir()
        return [len(rows), squares]

    assert [1, [0, 1, 4, 9]] == inside("control", place, work).value


def test_the_router_has_threads(place: Path) -> None:
    """libzmq's and the interpreter's."""

    def work(_directory: int) -> list[int]:
        import zmq

        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(1))
        thread.start()
        thread.join()
        with zmq.Context() as context:
            one, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
            one.bind("inproc://x")
            other.connect("inproc://x")
            one.send(b"12")
            done.append(len(other.recv()))
            one.close()
            other.close()
        return done

    importlib.import_module("zmq")
    assert [1, 2] == inside("router", place, work).value


@pytest.mark.parametrize("name", SERVICES)
def test_a_late_import_is_an_error_at_most(name: str, place: Path) -> None:
    """A library that is first asked for behind the walls does not end the process: the import fails."""
    assert "xxlimited" not in sys.modules

    def late(_directory: int) -> str:
        try:
            importlib.import_module("xxlimited")
        except ImportError:
            return "refused"
        return "imported"

    assert "imported" == outside(place, late).value
    assert "refused" == inside(name, place, late).value


@pytest.mark.parametrize("name", EVERYBODY)
def test_an_abort_is_told_as_one(name: str, place: Path) -> None:
    """A broken invariant of a library ends the process as what it is, by SIGABRT, and not as a forbidden call."""

    def abort(_directory: int) -> None:
        os.abort()

    assert signal.SIGABRT == inside(name, place, abort).signal
