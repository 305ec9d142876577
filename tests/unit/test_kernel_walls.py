"""Each wall alone, in a forked child: what it must stop works before it stands and fails after.

ADR 1 and the order in `sandbox.cage` rely on exactly these effects. What needs root is skipped by name.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import SIGSYS, Mailbox, become_ordinary, ends, fork, own_namespaces, raw, refused, returns
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import cage
from sandbox.kernel import caps, cgroups, landlock, libc, mounts, process, seccomp

pytestmark = pytest.mark.block4_security
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other uids, or mounts of the machine")
x86_64 = pytest.mark.skipif(libc.MACHINE != "x86_64", reason="speaks of x86-64 call numbers or machine code")
ENOKEY = 126
NUMBERS = {
    "x86_64": {"add_key": 248, "getpid": 39, "sendto": 44, "mmap": 9, "mprotect": 10, "madvise": 28, "futex": 202,
               "socket": 41, "openat": 257, "execve": 59, "clock_gettime": 228, "prctl": 157, "write": 1,
               "recvfrom": 45, "getrandom": 318, "clone": 56},
    "aarch64": {"add_key": 217, "getpid": 172, "sendto": 206, "mmap": 222, "mprotect": 226, "madvise": 233,
                "futex": 98, "socket": 198, "openat": 56, "execve": 221, "clock_gettime": 113, "prctl": 167,
                "write": 64, "recvfrom": 207, "getrandom": 278, "clone": 220},
}[libc.MACHINE]  # fmt: skip


def in_child_of(action: Callable[[], Any]) -> Any:
    """Run `action` in a child of the (forked) caller; its value."""
    return returns(action)


# -- not dumpable -------------------------------------------------------------------------------------------------


def test_no_dump_closes_proc_to_siblings() -> None:
    """A process of the same uid reads /proc/PID/environ and memory before, and gets EACCES after."""

    def child() -> list[int]:
        become_ordinary()
        pid = os.getpid()

        def read() -> list[int]:
            names = [f"/proc/{pid}/{name}" for name in ("environ", "mem", "maps")]
            return [refused(lambda name=name: open(name, "rb").close()) for name in names]

        before = in_child_of(read)
        process.no_dump()
        return [*before, *in_child_of(read), libc.prctl(process.PR_GET_DUMPABLE)]

    assert [0, 0, 0, errno.EACCES, errno.EACCES, errno.EACCES, 0] == returns(child)


# -- no new privileges --------------------------------------------------------------------------------------------

ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
"""A filter of one instruction: return ALLOW."""


def test_a_filter_needs_no_new_privileges() -> None:
    """Without a capability a filter is refused before no_new_privs and taken after: the kernel saw the switch."""

    def child() -> list[int]:
        become_ordinary()
        before = refused(lambda: seccomp.load(ALLOW_ALL))
        process.no_new_privileges()
        return [before, refused(lambda: seccomp.load(ALLOW_ALL)), libc.prctl(process.PR_GET_NO_NEW_PRIVS)]

    assert [errno.EACCES, 0, 1] == returns(child)


@needs_root
def test_no_new_privileges_stops_set_uid_programs() -> None:
    """A set-user-id program runs as its owner before, and as its caller after."""
    owner = 0x6DFFFFFF
    directory = Path(tempfile.mkdtemp())
    if os.statvfs(directory).f_flag & os.ST_NOSUID:
        pytest.skip("the temporary directory is mounted nosuid")
    try:
        directory.chmod(0o755)
        program = directory / "cat"
        shutil.copy("/bin/cat", program)
        os.chown(program, owner, owner)
        program.chmod(0o4755)

        def effective() -> int:
            text = subprocess.run([str(program), "/proc/self/status"], capture_output=True, check=True).stdout.decode()
            return next(int(line.split()[2]) for line in text.splitlines() if line.startswith("Uid:"))

        def child() -> list[bool]:
            become_ordinary()
            before = effective()
            process.no_new_privileges()
            return [before == owner, effective() == os.getuid()]

        assert [True, True] == returns(child)
    finally:
        shutil.rmtree(directory)


# -- no page that was writable becomes executable --------------------------------------------------------------------


def _map_executable() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _make_executable() -> None:
    _protect(5)


def _protect(protection: int) -> None:
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    result = raw(NUMBERS["mprotect"], address, 4096, protection)
    if result < 0:
        raise OSError(-result, "mprotect")


def test_deny_write_execute() -> None:
    """Writable-and-executable memory, and making memory executable later, work before MDWE and are refused after."""

    def child() -> list[int]:
        before = [refused(_map_executable), refused(_make_executable)]
        process.deny_write_execute()
        return [*before, refused(_map_executable), refused(_make_executable)]

    assert [0, 0, errno.EACCES, errno.EACCES] == returns(child)


def test_deny_write_execute_is_for_ever_and_inherited() -> None:
    """The switch cannot be taken back, and a child has it too."""

    def child() -> list[bool]:
        process.deny_write_execute()
        back = refused(lambda: libc.prctl(process.PR_SET_MDWE, 0))
        return [back != 0, in_child_of(lambda: refused(_map_executable)) == errno.EACCES]

    assert [True, True] == returns(child)


_kept: list[Any] = []


def _writable_code() -> int:
    with open("/proc/self/maps", encoding="utf-8") as file:
        return sum("w" in mode and "x" in mode for mode in (line.split()[1] for line in file))


def test_no_writable_code() -> None:
    """Pages that are writable and executable (ctypes has one, the test another) lose writing; callbacks still work."""

    def child() -> list[Any]:
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: n + 1)
        _kept.append(callback)  # freeing it would write into its page
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        before = _writable_code()
        count = process.no_writable_code()
        return [before >= 1, count == before, _writable_code(), callback(41), len(memory)]

    assert [True, True, 0, 42, 4096] == returns(child)


# -- Landlock -----------------------------------------------------------------------------------------------------


@pytest.fixture
def abstract() -> Iterator[bytes]:
    """A listening abstract socket of this process (the kernel chooses the name)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind("")
        listener.listen(4)
        yield listener.getsockname()


def _connect(address: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(address)


def _bind_tcp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))


def test_landlock_denies_all(abstract: bytes, tmp_path: Path) -> None:
    """Files, directories, TCP, abstract sockets and signals work before; after `restrict_all` none does."""
    parent = os.getpid()

    def attempts() -> list[int]:
        return [
            refused(lambda: open("/proc/self/status", "rb").close()),
            refused(lambda: os.listdir("/")),
            refused(lambda: open("/dev/null", "wb").close()),
            refused(lambda: open(f"{tmp_path}/{os.urandom(4).hex()}", "wb").close()),
            refused(_bind_tcp),
            refused(lambda: _connect(abstract)),
            refused(lambda: os.kill(parent, 0)),
        ]

    def child() -> list[int]:
        before = attempts()
        process.no_new_privileges()
        landlock.restrict_all(landlock.abi())
        return before + attempts()

    wanted = [0] * 7 + [errno.EACCES] * 5 + [errno.EPERM] * 2
    assert wanted == returns(child)


def test_landlock_needs_no_new_privileges() -> None:
    """Positive control of the order: without a capability and before no_new_privs it is refused."""

    def child() -> int:
        become_ordinary()
        return refused(lambda: landlock.restrict_all(landlock.abi()))

    assert errno.EPERM == returns(child)


def test_landlock_leaves_no_descriptor() -> None:
    """The ruleset's descriptor is closed, whether it was enforced or not."""

    def child() -> bool:
        before = os.listdir("/proc/self/fd")
        become_ordinary()
        refused(lambda: landlock.restrict_all(landlock.abi()))
        return before == os.listdir("/proc/self/fd")

    assert returns(child)


@pytest.mark.parametrize("version", [0, 1, 5])
def test_landlock_refuses_an_old_kernel(version: int) -> None:
    """Less than the wanted ABI is an error, never a weaker wall."""
    with pytest.raises(OSError, match=f"ABI {version}"):
        landlock.restrict_all(version)


# -- capabilities -------------------------------------------------------------------------------------------------


def _mount() -> None:
    libc.mount("none", "/tmp", "tmpfs", 0)


def _exec_effective() -> int:
    """CapEff of a program this process executes."""
    text = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, check=True).stdout.decode()
    return next(int(line.split()[1], 16) for line in text.splitlines() if line.startswith("CapEff:"))


def test_drop_all() -> None:
    """Mounting and naming the machine work as 0 of an own namespace before, and not after; no execve brings it back."""

    def child() -> dict[str, Any]:
        own_namespaces(process.CLONE_NEWNS | process.CLONE_NEWUTS)
        before = [refused(_mount), refused(lambda: socket.sethostname("before")), _exec_effective() != 0]
        caps.drop_all()
        return {
            "before": before,
            "after": [refused(_mount), refused(lambda: socket.sethostname("after")), _exec_effective() != 0],
            "held": caps.held(),
            "bounding": [cap for cap in range(caps.LAST + 1) if libc.prctl(23, cap)],
            "ambient": [cap for cap in range(caps.LAST + 1) if libc.prctl(process.PR_CAP_AMBIENT, 1, cap)],
            "securebits": libc.prctl(27),
            "unlock": refused(lambda: libc.prctl(process.PR_SET_SECUREBITS, 0)),
            "uid": os.geteuid(),
        }

    assert {
        "before": [0, 0, True],
        "after": [errno.EPERM, errno.EPERM, False],
        "held": 0,
        "bounding": [],
        "ambient": [],
        "securebits": 0x2F,
        "unlock": errno.EPERM,
        "uid": 0,
    } == returns(child)


def test_zeroing_alone_is_not_enough() -> None:
    """Positive control of bounding set and securebits: with empty sets alone, execve as 0 brings everything back."""

    def child() -> list[bool]:
        own_namespaces(0)
        caps.drop_held()
        return [caps.held() == 0, _exec_effective() != 0]

    assert [True, True] == returns(child)


def test_drop_held_and_no_new_privileges() -> None:
    """What control and router do: without CAP_SETPCAP, empty sets and no_new_privs; a program gains nothing."""

    def child() -> list[int]:
        become_ordinary()
        caps.drop_held()
        process.no_new_privileges()
        return [caps.held(), _exec_effective()]

    assert [0, 0] == returns(child)


def test_keep_only() -> None:
    """Exactly the named capabilities stay, and they work."""

    def child() -> list[int]:
        own_namespaces(process.CLONE_NEWNS | process.CLONE_NEWUTS)
        caps.keep_only(caps.SYS_ADMIN)
        mask = caps.held()
        works = refused(lambda: socket.sethostname("kept"))
        gone = refused(lambda: os.chroot("/"))
        return [mask, works, gone]

    assert [1 << caps.SYS_ADMIN, 0, errno.EPERM] == returns(child)


def test_drop_bounding_keeps_what_is_named() -> None:
    """The bounding set is exactly `keep`."""

    def child() -> list[int]:
        own_namespaces(0)
        caps.drop_bounding(keep=(caps.KILL, caps.SETUID))
        return [cap for cap in range(caps.LAST + 1) if libc.prctl(23, cap)]

    assert [caps.KILL, caps.SETUID] == returns(child)


def test_dropping_without_the_power_is_an_error() -> None:
    """Without CAP_SETPCAP `drop_all` raises instead of leaving the bounding set as it is."""

    def child() -> int:
        become_ordinary()
        return refused(caps.drop_all)

    assert errno.EPERM == returns(child)


def test_last_capability_is_the_kernels() -> None:
    """`caps.LAST` is what the kernel says it is, so none is forgotten."""
    assert int(Path("/proc/sys/kernel/cap_last_cap").read_text()) == caps.LAST


# -- the empty root -----------------------------------------------------------------------------------------------


def test_empty_root() -> None:
    """Before, the machine's files; after, nothing to read, nothing can be made, and `..` leads nowhere."""

    def child() -> dict[str, Any]:
        own_namespaces(process.CLONE_NEWNS)
        before = [len(os.listdir("/")) > 0, refused(lambda: os.stat("/etc/passwd"))]
        mounts.enter_empty_root()
        here, above = os.stat("/"), os.stat("/../..")
        os.chdir("..")
        return {
            "before": before,
            "files": os.listdir("/"),
            "passwd": refused(lambda: os.stat("/etc/passwd")),
            "proc": refused(lambda: os.stat("/proc/self")),
            "make": refused(lambda: os.mkdir("/x")),
            "write": refused(lambda: open("/x", "wb").close()),
            "chmod": refused(lambda: os.chmod("/", 0o777)),
            "above": (here.st_dev, here.st_ino) == (above.st_dev, above.st_ino),
            "cwd": os.getcwd(),
            "up": os.listdir("../../.."),
        }

    assert {
        "before": [True, 0],
        "files": [],
        "passwd": errno.ENOENT,
        "proc": errno.ENOENT,
        "make": errno.EROFS,
        "write": errno.EROFS,
        "chmod": errno.EROFS,
        "above": True,
        "cwd": "/",
        "up": [],
    } == returns(child)


def test_empty_root_stays_read_only_without_capabilities() -> None:
    """It can be made writable by who has the power over it (positive control), and not any more without."""

    def remount() -> None:
        libc.mount("none", "/", None, mounts.MS_REMOUNT | mounts.MS_BIND)

    def child(drop: bool) -> int:
        own_namespaces(process.CLONE_NEWNS)
        mounts.enter_empty_root()
        if drop:
            caps.drop_all()
        return refused(remount)

    assert [0, errno.EPERM] == [returns(lambda: child(False)), returns(lambda: child(True))]


def test_a_descriptor_from_before_still_leads_out() -> None:
    """Why descriptors are closed: an open directory of the old root is as good as the old root."""

    def child() -> list[bool]:
        own_namespaces(process.CLONE_NEWNS)
        old = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        mounts.enter_empty_root()
        outside = len(os.listdir(old)) > 0
        process.close_range(3)
        return [outside, refused(lambda: os.listdir(old)) == errno.EBADF]

    assert [True, True] == returns(child)


# -- descriptors --------------------------------------------------------------------------------------------------


def _open_numbers() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the listing's own descriptor
        found.append(int(name))
    return sorted(found)


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(3, 60), min_size=1, max_size=8, unique=True),
    chosen=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    kept=st.lists(st.integers(100, 140), max_size=3, unique=True),
)
def test_place_fds(numbers: list[int], chosen: list[int], kept: list[int]) -> None:
    """Whatever numbers they had: the wanted files are 3, 4, ..., inheritable; what was to stay stays; nothing else."""

    def child() -> list[Any]:
        process.close_range(3)
        inode = {}
        for number in [*numbers, *kept]:
            fd = os.memfd_create("x", os.MFD_CLOEXEC)
            if fd != number:
                # Numbers taken earlier are wanted numbers too: park, then move.
                os.dup2(fd, number, inheritable=False)
                if fd not in inode:
                    os.close(fd)
            inode[number] = os.fstat(number).st_ino
        wanted = [numbers[index % len(numbers)] for index in chosen]
        process.place_fds(*wanted, keep_open=tuple(kept))
        placed = list(range(3, 3 + len(wanted)))
        return [
            [os.fstat(fd).st_ino for fd in placed] == [inode[number] for number in wanted],
            all(os.get_inheritable(fd) for fd in placed),
            all(os.fstat(number).st_ino == inode[number] for number in kept),
            [fd for fd in _open_numbers() if fd > 2] == sorted([*placed, *kept]),
        ]

    assert [True] * 4 == returns(child)


@settings(max_examples=25, deadline=None)
@given(first=st.integers(3, 30), length=st.integers(-2, 20))
def test_close_range(first: int, length: int) -> None:
    """Exactly the descriptors from first to last are closed; an empty range closes none."""

    def child() -> bool:
        process.close_range(3)
        for number in range(3, 40):
            os.dup2(0, number)
        process.close_range(first, first + length)
        closed = set(range(first, first + length + 1))
        return [fd for fd in _open_numbers() if fd > 2] == [n for n in range(3, 40) if n not in closed]

    assert returns(child)


def test_the_cage_leaves_two_descriptors() -> None:
    """`_two_descriptors` leaves 3 and 4 alone, standard streams included."""

    def child() -> list[bool]:
        for number in (3, 4, 5, 90):
            os.dup2(0, number)
        before = len(_open_numbers()) > 4
        cage._two_descriptors()
        return [before, [fd for fd in range(200) if refused(lambda fd=fd: os.fstat(fd)) == 0] == [3, 4]]

    assert [True, True] == returns(child)


# -- keys ---------------------------------------------------------------------------------------------------------


def _add_key(name: bytes) -> int:
    texts = [ctypes.create_string_buffer(text) for text in (b"user", name, b"secret")]
    return raw(NUMBERS["add_key"], *[ctypes.addressof(text) for text in texts], 6, (1 << 64) - 3)


def _search_key(name: bytes) -> int:
    return refused(lambda: libc.syscall("keyctl", 10, -3, b"user\0", name + b"\0", 0))


def test_session_keyring() -> None:
    """A key of the starter's session is found before, and cannot be found after."""
    name = f"airssys-test-{os.getpid()}".encode()

    def child() -> list[Any]:
        process.new_session_keyring()  # not into the session of whoever runs the tests
        assert _add_key(name) > 0
        before = _search_key(name)
        process.new_session_keyring()
        return [before, _search_key(name)]

    assert [0, ENOKEY] == returns(child)


# -- limits -------------------------------------------------------------------------------------------------------


def _write_file() -> None:
    with tempfile.TemporaryFile() as file:
        os.write(file.fileno(), b"x")


def _fork() -> None:
    pid = fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _map_much() -> None:
    mmap.mmap(-1, 1 << 30).close()


def _lock_memory() -> None:
    with mmap.mmap(-1, 4096) as memory:
        address = ctypes.c_char.from_buffer(memory)
        result = ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(ctypes.addressof(address)), 4096)
        number = ctypes.get_errno()
        del address
    if result != 0:
        raise OSError(number, "mlock")


def _open_one() -> None:
    os.close(os.open("/dev/null", os.O_RDONLY))


@pytest.mark.parametrize(
    ("action", "which", "value", "wanted"),
    [
        (_write_file, resource.RLIMIT_FSIZE, 0, errno.EFBIG),
        (_fork, resource.RLIMIT_NPROC, 0, errno.EAGAIN),
        (_map_much, resource.RLIMIT_AS, 512 << 20, errno.ENOMEM),
        (_lock_memory, resource.RLIMIT_MEMLOCK, 0, errno.EPERM),
        (_open_one, resource.RLIMIT_NOFILE, 0, errno.EMFILE),
    ],
    ids=["FSIZE", "NPROC", "AS", "MEMLOCK", "NOFILE"],
)
def test_limit(action: Callable[[], None], which: int, value: int, wanted: int) -> None:
    """What the limit forbids works before it, fails after it, and the limit cannot be raised again."""

    def child() -> list[Any]:
        become_ordinary()
        before = refused(action)
        process.set_limit(which, value)
        after = refused(action)
        try:
            resource.setrlimit(which, (value + 1, value + 1))
        except (ValueError, OSError):
            return [before, after, "kept"]
        return [before, after, "raised"]

    assert [0, wanted, "kept"] == returns(child)


def test_no_core() -> None:
    """A crash leaves no core dump under the limit."""

    def crash(limited: bool) -> int:
        with tempfile.TemporaryDirectory() as directory:
            pid = fork()
            if pid == 0:
                os.chdir(directory)
                if limited:
                    process.set_limit(resource.RLIMIT_CORE, 0)
                else:
                    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
                    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGSEGV)
            return os.waitpid(pid, 0)[1]

    if not os.WCOREDUMP(crash(False)):
        pytest.skip("this machine writes no core dumps anyway")
    assert not os.WCOREDUMP(crash(True))


@settings(max_examples=25, deadline=None)
@given(hard=st.integers(0, 1 << 40), value=st.integers(0, 1 << 40))
def test_set_limit_never_raises_a_limit(hard: int, value: int) -> None:
    """Soft and hard become the value or the present hard limit, whichever is lower."""

    def child() -> list[int]:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (hard, hard))
        process.set_limit(resource.RLIMIT_SIGPENDING, value)
        return list(resource.getrlimit(resource.RLIMIT_SIGPENDING))

    present = resource.getrlimit(resource.RLIMIT_SIGPENDING)[1]
    if present != resource.RLIM_INFINITY:
        hard = min(hard, present)  # whoever runs the tests may not be able to raise it
    assert [min(hard, value)] * 2 == returns(child)


class _Sized:
    """A component of one byte of data and two of address space."""

    def receive(self) -> None: ...

    def load(self) -> list[tuple[int, int]]:
        return []

    def memory(self, reservation: int) -> tuple[int, int]:
        return 1, 2 + reservation


def test_the_cages_limits() -> None:
    """`_limits` and `_memory` set exactly the limits ADR 1 names, soft and hard alike."""

    def child() -> dict[str, list[int]]:
        cage._limits()
        cage._memory(1 << 40, 4, _Sized())
        names = ["AS", "DATA", "STACK", "CORE", "FSIZE", "NPROC", "MEMLOCK", "MSGQUEUE", "RTPRIO", "SIGPENDING"]
        return {name: list(resource.getrlimit(getattr(resource, f"RLIMIT_{name}", 14))) for name in names}

    limits = returns(child)
    zero = ("CORE", "FSIZE", "NPROC", "MEMLOCK", "MSGQUEUE", "RTPRIO")
    assert {name: [0, 0] for name in zero} == {name: limits[name] for name in zero}
    assert [cage.STACK] * 2 == limits["STACK"]
    assert [16, 16] == limits["SIGPENDING"]
    assert [[(1 << 40) + 6] * 2, [(1 << 40) + 1] * 2] == [limits["AS"], limits["DATA"]]


# -- system calls -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policies() -> dict[str, bytes]:
    """The three policies, compiled."""
    return {name: seccomp.compile_policy(name) for name in ("worker", "worker-load", "compiler")}


def _behind(bpf: bytes | None, action: Callable[[], Any], *more: int) -> Any:
    """Run `action` in a child with two sockets as 3 and 4, behind a filter (or, as the control, without).

    `more` are descriptors it has from 5 on.
    """

    def child() -> Any:
        pairs = [socket.socketpair(), socket.socketpair()]
        process.place_fds(pairs[0][0].fileno(), pairs[1][0].fileno(), *more)
        buffer = ctypes.create_string_buffer(16)
        globals()["_buffer"] = ctypes.addressof(buffer)
        for pair in pairs:
            for sock in pair:
                sock.detach()
        libc.keep_heap_in_brk()
        if bpf is not None:
            process.no_new_privileges()
            seccomp.load(bpf)
        return action()

    return ends(child)


_buffer = 0
HIGH = 1 << 32

FORBIDDEN: dict[str, Callable[[], int]] = {
    "getpid": lambda: raw(NUMBERS["getpid"]),
    "socket": lambda: raw(NUMBERS["socket"], 1, 1, 0),
    "openat": lambda: raw(NUMBERS["openat"], -100, _buffer, 0),
    "execve": lambda: raw(NUMBERS["execve"], _buffer, 0, 0),
    "clone": lambda: raw(NUMBERS["clone"], process.CLONE_NEWNS | 0x200, 0, 0, 0, 0),
    "prctl": lambda: raw(NUMBERS["prctl"], process.PR_GET_DUMPABLE),
    "write to 3": lambda: raw(NUMBERS["write"], 3, _buffer, 0),
    "sendto 5": lambda: raw(NUMBERS["sendto"], 5, _buffer, 0, 0, 0, 0),
    "sendto 2": lambda: raw(NUMBERS["sendto"], 2, _buffer, 0, 0, 0, 0),
    "sendto -1": lambda: raw(NUMBERS["sendto"], -1, _buffer, 0, 0, 0, 0),
    "sendto 5 with high bits": lambda: raw(NUMBERS["sendto"], HIGH | 5, _buffer, 0, 0, 0, 0),
    "sendto with flags": lambda: raw(NUMBERS["sendto"], 3, _buffer, 0, 0x40, 0, 0),
    "sendto with an address": lambda: raw(NUMBERS["sendto"], 3, _buffer, 0, 0, _buffer, 2),
    "recvfrom with an address": lambda: raw(NUMBERS["recvfrom"], 3, _buffer, 0, 0, _buffer, _buffer),
    "recvfrom with flags": lambda: raw(NUMBERS["recvfrom"], 3, _buffer, 0, 0x40, 0, 0),
    "mmap executable": lambda: raw(NUMBERS["mmap"], 0, 4096, 7, 0x22, -1, 0),
    "mmap growsdown": lambda: raw(NUMBERS["mmap"], 0, 4096, 3 | 0x01000000, 0x22, -1, 0),
    "mmap at an address": lambda: raw(NUMBERS["mmap"], 0x10000000, 4096, 3, 0x32, -1, 0),
    "mmap of a file": lambda: raw(NUMBERS["mmap"], 0, 4096, 1, 0x2, 3, 0),
    "mmap shared": lambda: raw(NUMBERS["mmap"], 0, 4096, 3, 0x21, -1, 0),
    "mprotect executable": lambda: raw(NUMBERS["mprotect"], 0, 4096, 5),
    "madvise, other advice": lambda: raw(NUMBERS["madvise"], 0, 4096, 3),
    "futex wait": lambda: raw(NUMBERS["futex"], _buffer, 128, 1, 0, 0, 0),
    "futex requeue": lambda: raw(NUMBERS["futex"], _buffer, 3, 0, 0, 0, 0),
    "clock of another process": lambda: raw(NUMBERS["clock_gettime"], -6 & 0xFFFFFFFF, _buffer),
    "getrandom RANDOM": lambda: raw(NUMBERS["getrandom"], _buffer, 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_worker_filter_kills(policies: dict[str, bytes], name: str) -> None:
    """The call comes back (with whatever answer) without the filter, and ends the process by SIGSYS behind it."""
    action = FORBIDDEN[name]
    free = _behind(None, lambda: [action(), "came back"])
    assert (0, "came back") == (free.signal, free.value[1])
    assert SIGSYS == _behind(policies["worker"], action).signal


ALLOWED: dict[str, Callable[[], Any]] = {
    "mmap, munmap": lambda: _use_memory(),
    "sendto 3": lambda: raw(NUMBERS["sendto"], 3, _buffer, 0, 0, 0, 0) in (0, -errno.EPIPE),
    "sendto 4": lambda: raw(NUMBERS["sendto"], 4, _buffer, 0, 0, 0, 0) in (0, -errno.EPIPE),
    "recvfrom 3": lambda: raw(NUMBERS["recvfrom"], 3, _buffer, 1, 0, 0, 0) == 0,
    "recvfrom 4 with meaningless high bits": lambda: raw(NUMBERS["recvfrom"], HIGH | 4, _buffer, 1, 0, 0, 0) == 0,
    "clock_gettime": lambda: [raw(NUMBERS["clock_gettime"], clock, _buffer) for clock in (0, 1)] == [0, 0],
    "madvise MADV_DONTNEED": lambda: raw(NUMBERS["madvise"], 0, 0, 4) == 0,
    "getrandom": lambda: [raw(NUMBERS["getrandom"], _buffer, 1, flags) >= 0 for flags in (0, 1, 4)] == [True] * 3,
    "futex wake": lambda: raw(NUMBERS["futex"], _buffer, 129, 1, 0, 0, 0) == 0,
    "python at work": lambda: len(repr([bytes(n) for n in range(0, 1 << 20, 1 << 16)])) > 0,
}


def _use_memory() -> bool:
    with mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[0] = 1
        return memory[0] == 1


@pytest.mark.parametrize("name", ALLOWED)
def test_worker_filter_allows(policies: dict[str, bytes], name: str) -> None:
    """What a worker lives on works behind the filter."""
    ended = _behind(policies["worker"], ALLOWED[name])
    assert (0, "", True) == (ended.signal, ended.error, ended.value)


@pytest.mark.parametrize("name", ["getpid", "socket", "openat", "execve", "mmap shared", "sendto 5", "write to 3"])
def test_load_filter_kills(policies: dict[str, bytes], name: str) -> None:
    """While code is loaded there are already no files, no sockets, no programs."""
    assert SIGSYS == _behind(policies["worker-load"], FORBIDDEN[name]).signal


def test_load_filter_allows_code() -> None:
    """Positive control: executable memory is possible in that phase (MDWE ends it)."""
    ended = _behind(seccomp.compile_policy("worker-load"), lambda: refused(_make_executable))
    assert (0, "", 0) == (ended.signal, ended.error, ended.value)


def _map_over(protection: int) -> int:
    """Put a file's pages over memory of this process's own; 0, or the error's number."""
    address = raw(NUMBERS["mmap"], 0, 4096, 3, 0x22, -1, 0)
    return min(raw(NUMBERS["mmap"], address, 4096, protection, 0x12, 5, 0), 0)


def test_load_filter_maps_files_read_only(policies: dict[str, bytes]) -> None:
    """A file's pages may be put over others to be read, and neither to be written nor executed; nothing may become
    writable and executable. Without the filter all of it works (the control)."""
    actions = [*(partial(_map_over, protection) for protection in (1, 3, 5)), partial(refused, partial(_protect, 7))]
    file = os.memfd_create("some file")
    os.ftruncate(file, 4096)
    try:
        assert [0, 0, 0, 0] == [_behind(None, action, file).value for action in actions]
        ended = [_behind(policies["worker-load"], action, file) for action in actions]
    finally:
        os.close(file)
    assert [0, SIGSYS, SIGSYS, SIGSYS] == [each.signal for each in ended]
    assert 0 == ended[0].value


def test_compiler_filter(policies: dict[str, bytes]) -> None:
    """The compiler may write to 4, and to nothing else; it opens nothing."""
    allowed = _behind(policies["compiler"], lambda: raw(NUMBERS["write"], 4, _buffer, 0))
    assert 0 == allowed.signal
    assert allowed.value in (0, -errno.EPIPE)
    for name in ("write to 3", "openat", "socket", "execve", "mmap executable", "mmap of a file"):
        assert (name, SIGSYS) == (name, _behind(policies["compiler"], FORBIDDEN[name]).signal)


@x86_64
def test_other_system_call_tables(policies: dict[str, bytes]) -> None:
    """The same numbers mean other calls in the 32-bit and x32 tables: both end the process."""
    # getpid by int 0x80: mov eax, 20; int 0x80; ret. sendto's number is getsid there.
    code = bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3])
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    free = _behind(None, lambda: call() == os.getpid())
    if free.signal == 0:
        assert free.value, "positive control: the 32-bit table answers"
        assert SIGSYS == _behind(policies["worker"], call).signal
    x32 = 0x40000000 | NUMBERS["recvfrom"]
    assert 0 == _behind(None, lambda: raw(x32, 3, _buffer, 0, 0, 0, 0)).signal
    assert SIGSYS == _behind(policies["worker"], lambda: raw(x32, 3, _buffer, 0, 0, 0, 0)).signal


def test_filters_only_add() -> None:
    """A filter that allows everything, loaded later, gives nothing back."""

    def child() -> None:
        process.no_new_privileges()
        seccomp.load(seccomp.compile_policy("worker-load"))
        seccomp.load(ALLOW_ALL)
        os.getpid()

    assert SIGSYS == ends(child).signal


def test_a_broken_filter_is_refused() -> None:
    """Bytes that are no program are an error, not a silent nothing."""

    def child() -> int:
        process.no_new_privileges()
        return refused(lambda: seccomp.load(b"\xff" * 16))

    assert errno.EINVAL == returns(child)


# -- control groups -----------------------------------------------------------------------------------------------


def _gone(condition: Callable[[], bool]) -> bool:
    """Poll: the kernel lets go of a group a moment after its last process."""
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _grouped(tree: cgroups.Tree, name: str, memory: int, action: Callable[[], Any]) -> tuple[int, Any]:
    """Run `action` in a child that is put into a group first; its wait status and value."""
    mailbox = Mailbox()
    groups = tree.prepare(name, memory)
    go_r, go_w = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            os.read(go_r, 1)
            cgroups.join(groups)
            mailbox.put([tree.holds(name, os.getpid()), action()])
        finally:
            os._exit(0)
    try:
        assert not tree.holds(name, pid)
    finally:
        os.write(go_w, b"g")
        os.close(go_r)
        os.close(go_w)
        for fd in groups:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
    held, value = mailbox.get() if status == 0 else (True, None)
    mailbox.close()
    assert held
    return status, value


@needs_root
def test_control_group() -> None:
    """In a real group a second process and too much memory are refused by the kernel; everything goes away again."""

    def eat() -> int:
        block = bytearray(96 << 20)
        block[:: resource.getpagesize()] = b"x" * len(block[:: resource.getpagesize()])
        return len(block)

    def child() -> Any:
        tree = cgroups.create(f"airssys-test-{os.getpid()}", 0)
        if tree.backend == "none":
            return tree.reason
        try:
            forks = [_grouped(tree, "w1", 256 << 20, lambda: refused(_fork))[1], refused(_fork)]
            eaten, killed = _grouped(tree, "roomy", 512 << 20, eat), _grouped(tree, "tight", 32 << 20, eat)
            oom = [tree.out_of_memory("roomy"), tree.out_of_memory("tight")]
            removed = [_gone(lambda name=name: tree.remove(name)) for name in ("w1", "roomy", "tight", "never")]
        finally:
            tree.dissolve()
        left = [path for path in tree.paths.values() if tree.backend == "v1" and os.path.exists(path)]
        return [forks, eaten, os.WTERMSIG(killed[0]), oom, removed, left]

    found = returns(child)
    if isinstance(found, str):
        pytest.skip(f"no control groups here: {found}")
    assert [[errno.EAGAIN, 0], [0, 96 << 20], signal.SIGKILL, [False, True], [True] * 4, []] == found


@needs_root
def test_a_group_is_limited_after_it_was_joined() -> None:
    """A process that is in its group before anybody knows its limits meets them all the same once they are set."""

    def child() -> Any:
        tree = cgroups.create(f"airssys-test-{os.getpid()}", 0)
        if tree.backend == "none":
            return tree.reason
        ends = []
        try:
            for name, limit in (("w1", None), ("w2", 32 << 20)):
                groups = tree.make(name)
                joined_r, joined_w = os.pipe()
                go_r, go_w = os.pipe()
                pid = fork()
                if pid == 0:
                    cgroups.join(groups)
                    os.write(joined_w, b"j")
                    os.read(go_r, 1)
                    block = bytearray(96 << 20)
                    block[::4096] = b"x" * len(block[::4096])
                    os._exit(0)
                os.read(joined_r, 1)
                if limit is not None:
                    tree.limit(name, limit)
                os.write(go_w, b"g")
                ends.append((os.waitpid(pid, 0)[1], tree.out_of_memory(name)))
                _gone(lambda name=name: tree.remove(name))
        finally:
            tree.dissolve()
        return [list(end) for end in ends]

    found = returns(child)
    if isinstance(found, str):
        pytest.skip(f"no control groups here: {found}")
    assert [[0, False], [signal.SIGKILL, True]] == found


def test_no_control_group_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no controller the tree says so, and every operation on it is harmless."""
    monkeypatch.setattr(cgroups, "V1_ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "V2_ROOT", str(tmp_path))
    tree = cgroups.create("airssys-test", None)
    assert [] == tree.prepare("w1", 1)
    assert tree.holds("w1", os.getpid())
    assert ("none", False, True) == (tree.backend, tree.out_of_memory("w1"), tree.remove("w1"))
    assert "v2:" in tree.reason
    assert "v1:" in tree.reason
    tree.dissolve()


def test_version_two_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The unified hierarchy gets its limits in the files the kernel documents (here a directory stands for it)."""
    monkeypatch.setattr(cgroups, "V2_ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "_own_v2_group", lambda: "/user.slice/x")
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "user.slice" / "x").mkdir(parents=True)
    tree = cgroups.create("airssys-test", None)
    base = tmp_path / "user.slice" / "x"
    assert ("v2", str(base / "workers")) == (tree.backend, tree.paths["v2"])
    assert str(os.getpid()) == (base / "host" / "cgroup.procs").read_text()
    (base / "workers" / "w1").mkdir()
    (base / "workers" / "w1" / "cgroup.procs").touch()
    monkeypatch.setattr(os, "mkdir", lambda path: None)
    cgroups.join(tree.prepare("w1", 1 << 20))
    group = base / "workers" / "w1"
    assert [str(1 << 20), "1", "0"] == [(group / n).read_text() for n in ("memory.max", "pids.max", "cgroup.procs")]
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n")
    assert tree.out_of_memory("w1")
    assert not tree.remove("w1"), "a group with something in it is tried again later"


# -- exposing trees below closed directories ------------------------------------------------------------------------


@needs_root
def test_expose() -> None:
    """Below a 0700 directory another uid reaches the wanted trees, writes only where allowed, sees nothing else."""
    closed = Path(tempfile.mkdtemp())
    uid = 0x6DFFFFFE
    try:
        for name in ("wanted/deep", "secret", "state"):
            (closed / name).mkdir(parents=True)
        (closed / "wanted" / "deep" / "file").write_text("found")
        (closed / "single").write_text("one file")
        (closed / "secret" / "key").write_text("secret")
        os.chown(closed / "state", uid, uid)
        closed.chmod(0o700)
        for path in (closed / "wanted", closed / "wanted" / "deep", closed / "secret"):
            path.chmod(0o777)

        def look() -> list[Any]:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            return [
                refused(lambda: open(closed / "wanted" / "deep" / "file").close()),
                refused(lambda: open(closed / "single").close()),
                refused(lambda: open(closed / "secret" / "key").close()),
                refused(lambda: open(closed / "wanted" / "new", "w").close()),
                refused(lambda: open(closed / "state" / "new", "w").close()),
                sorted(os.listdir(closed)) if os.access(closed, os.R_OK) else [],
            ]

        def child() -> list[Any]:
            libc.unshare(process.CLONE_NEWNS)
            mounts.make_private()
            before = returns(look)
            mounts.expose([str(closed / "wanted"), str(closed / "wanted" / "deep"), str(closed / "single")],
                          [str(closed / "state")])  # fmt: skip
            return [before, returns(look)]

        before, after = returns(child)
        assert [[errno.EACCES] * 5, []] == [before[:5], before[5]]
        assert [0, 0, errno.ENOENT, errno.EROFS, 0] == after[:5]
        assert ["single", "state", "wanted"] == after[5]
        assert ["secret", "single", "state", "wanted"] == sorted(os.listdir(closed)), "outside nothing changed"
    finally:
        shutil.rmtree(closed)


# -- a worker is its grandparent's child ----------------------------------------------------------------------------


def test_clone_parent() -> None:
    """With CLONE_PARENT the caller's parent waits for the new process, which is 1 of its own pid namespace."""
    mailbox = Mailbox()

    def middle() -> int:
        libc.unshare(process.CLONE_NEWUSER)
        pid = process.raw_clone(process.CLONE_PARENT | process.CLONE_NEWPID)
        if pid == 0:
            mailbox.put([os.getpid(), os.getppid()])
            os._exit(23)
        return pid

    pid = returns(middle)
    result = os.waitid(os.P_PID, pid, os.WEXITED)
    assert result is not None
    assert (pid, os.CLD_EXITED, 23) == (result.si_pid, result.si_code, result.si_status)
    assert [1, 0] == mailbox.get()
    mailbox.close()


def test_without_clone_parent() -> None:
    """Positive control: an ordinary child of the middle process is not ours to wait for."""

    def middle() -> int:
        pid = process.raw_clone(0)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return pid

    pid = returns(middle)
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED)


def test_die_with_parent() -> None:
    """A process that asked for it is gone when its parent is; one that did not lives on."""

    def middle(asks: bool) -> list[int]:
        reader, writer = os.pipe()
        pid = fork()
        if pid == 0:
            if asks:
                process.die_with_parent()
            os.write(writer, b"r")
            signal.pause()
        os.read(reader, 1)
        return [pid]

    for asks in (True, False):
        (pid,) = returns(lambda asks=asks: middle(asks))
        pidfd = _pidfd(pid)
        try:
            if asks:
                assert pidfd is None or _ends(pidfd)
            else:
                assert pidfd is not None
                assert not _dead(pidfd)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            if pidfd is not None:
                os.close(pidfd)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _dead(pidfd: int) -> bool:
    import select

    return bool(select.select([pidfd], [], [], 0)[0])


def _ends(pidfd: int) -> bool:
    import select

    return bool(select.select([pidfd], [], [], 10)[0])
