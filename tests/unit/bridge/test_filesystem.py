"""The filesystem executor against a directory its owner fills with traps (T41, T43 to T46, T48)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import socket
import stat
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import filesystem, openat2, paths
from bridge.capabilities import FileRule
from bridge.paths import ERRNO, FsFailure, Place, failure
from sandbox.wire.bridge_ops import FsError, NodeKind, Op

pytestmark = pytest.mark.block8_bridge

SECRET = b"outside\n"


@pytest.fixture
def tree(tmp_path):
    """A bound directory and a secret beside it."""
    (tmp_path / "secret").write_bytes(SECRET)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").write_bytes(b"alpha")
    (inside / "d").mkdir()
    (inside / "d" / "b").write_bytes(b"beta")
    return inside


@pytest.fixture
def place(tree):
    """The place, as the O_PATH descriptor of a host without detached mounts (the harder case)."""
    opened = Place(os.open(tree, os.O_PATH | os.O_DIRECTORY))
    yield opened
    opened.close()


def case(call, *args) -> FsError:
    """The case a call fails with."""
    with pytest.raises(FsFailure) as caught:
        call(*args)
    assert "/" not in caught.value.message, "no path of the host"
    return caught.value.case


# -- the operations -------------------------------------------------------------------------------------------


def test_read_and_ranges(place, tree):
    """Whole files and ranges; nothing past the end; too much is refused."""
    assert b"alpha" == filesystem.read(place, ("a",))
    assert b"beta" == filesystem.read(place, ("d", "b"))
    assert b"lph" == filesystem.read_range(place, ("a",), 1, 3)
    assert b"pha" == filesystem.read_range(place, ("a",), 2, 100)
    for offset in (5, 6, 2**63 - 1, 2**63, 2**64 - 1):
        assert b"" == filesystem.read_range(place, ("a",), offset, 10)
    assert FsError.TOO_LARGE == case(filesystem.read_range, place, ("a",), 0, filesystem.MAX_DATA + 1)
    with (tree / "big").open("wb") as file:
        file.truncate(filesystem.MAX_DATA + 1)
    assert FsError.TOO_LARGE == case(filesystem.read, place, ("big",))
    os.truncate(tree / "big", filesystem.MAX_DATA)
    assert filesystem.MAX_DATA == len(filesystem.read(place, ("big",)))
    assert FsError.NOT_FOUND == case(filesystem.read, place, ("none",))
    assert FsError.IS_A_DIRECTORY == case(filesystem.read, place, ("d",))
    assert FsError.IS_A_DIRECTORY == case(filesystem.read, place, ())
    assert FsError.NOT_A_DIRECTORY == case(filesystem.read, place, ("a", "x"))


def test_write_replaces_whole_files(place, tree):
    """A write makes or replaces a file of mode 0600; a reader that has the old one open keeps it."""
    with (tree / "a").open("rb") as old:
        filesystem.write(place, ("a",), b"new")
        assert b"alpha" == old.read()
    assert b"new" == (tree / "a").read_bytes()
    filesystem.write(place, ("d", "c"), b"")
    assert 0o600 == stat.S_IMODE((tree / "d" / "c").stat().st_mode)
    assert FsError.IS_A_DIRECTORY == case(filesystem.write, place, ("d",), b"x")
    assert FsError.NOT_FOUND == case(filesystem.write, place, ("none", "x"), b"x")
    assert FsError.DENIED == case(filesystem.write, place, (), b"x")
    assert FsError.TOO_LARGE == case(filesystem.write, place, ("x",), b"x" * (filesystem.MAX_DATA + 1))
    assert ["a", "d"] == sorted(os.listdir(tree)), "nothing half written is left"


def test_append(place, tree):
    """Append adds at the end and makes a missing file."""
    filesystem.append(place, ("a",), b"+")
    filesystem.append(place, ("n",), b"one")
    filesystem.append(place, ("n",), b"two")
    assert (b"alpha+", b"onetwo") == ((tree / "a").read_bytes(), (tree / "n").read_bytes())
    assert FsError.IS_A_DIRECTORY == case(filesystem.append, place, ("d",), b"x")


def test_delete_and_directories(place, tree):
    """Files and empty directories go; others answer their case; the bound place itself stays."""
    assert FsError.NOT_EMPTY == case(filesystem.delete, place, ("d",))
    filesystem.delete(place, ("d", "b"))
    filesystem.delete(place, ("d",))
    assert FsError.NOT_FOUND == case(filesystem.delete, place, ("d",))
    assert FsError.DENIED == case(filesystem.delete, place, ())
    filesystem.make_directory(place, ("e",))
    assert 0o700 == stat.S_IMODE((tree / "e").stat().st_mode)
    for name in (("e",), ("a",), ()):
        assert FsError.ALREADY_EXISTS == case(filesystem.make_directory, place, name)
    assert FsError.NOT_FOUND == case(filesystem.make_directory, place, ("x", "y"))


def test_list_and_stat(place, tree):
    """Entries are sorted, typed and sized; half-written files and inexpressible names do not show."""
    (tree / "link").symlink_to("a")
    os.mkfifo(tree / "fifo")
    (tree / (paths.TEMPORARY + "0" * 16)).write_bytes(b"half")
    os.close(os.open(os.fsencode(tree) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    expected = [("a", NodeKind.FILE, 5), ("d", NodeKind.DIRECTORY, 0), ("fifo", NodeKind.OTHER, 0)]
    assert [*expected, ("link", NodeKind.OTHER, 0)] == filesystem.list_directory(place, ())
    os.utime(tree / "a", ns=(0, 1_234_567_890))
    assert (NodeKind.FILE, 5, 1, 234_567_890) == filesystem.status(place, ("a",))
    assert (NodeKind.OTHER, 0) == filesystem.status(place, ("link",))[:2]
    assert (NodeKind.DIRECTORY, 0) == filesystem.status(place, ())[:2]
    assert FsError.NOT_A_DIRECTORY == case(filesystem.list_directory, place, ("a",))


def test_list_is_capped(place, tree, monkeypatch):
    """At most so many entries, the first by name; a directory beyond all measure is refused."""
    monkeypatch.setattr(filesystem, "MAX_ENTRIES", 3)
    for number in range(9, 0, -1):
        (tree / "d" / str(number)).touch()
    assert ["1", "2", "3"] == [name for name, _, _ in filesystem.list_directory(place, ("d",))]
    monkeypatch.setattr(filesystem, "MAX_SCAN", 5)
    assert FsError.TOO_LARGE == case(filesystem.list_directory, place, ("d",))


def test_rename(place, tree):
    """Files move and replace files; directories move only where that is allowed."""
    filesystem.rename(place, ("a",), ("d", "b"), False)
    assert b"alpha" == (tree / "d" / "b").read_bytes()
    assert FsError.DENIED == case(filesystem.rename, place, ("d",), ("e",), False)
    filesystem.rename(place, ("d",), ("e",), True)
    assert b"alpha" == (tree / "e" / "b").read_bytes()
    assert FsError.INVALID_PATH == case(filesystem.rename, place, ("e",), ("e", "f"), True)
    assert FsError.NOT_FOUND == case(filesystem.rename, place, ("x",), ("y",), True)
    assert FsError.DENIED == case(filesystem.rename, place, (), ("y",), True)


def test_leftovers_of_a_killed_bridge_do_not_hold_a_directory(place, tree):
    """A directory that looks empty to the guest can be deleted although a half-written file lies in it."""
    (tree / "e").mkdir()
    (tree / "e" / (paths.TEMPORARY + "ab" * 8)).write_bytes(b"half")
    assert [] == filesystem.list_directory(place, ("e",))
    filesystem.delete(place, ("e",))
    assert not (tree / "e").exists()


# -- traps ----------------------------------------------------------------------------------------------------

LINKS = ["/etc", "../secret", "..", "../..", "/proc/self/root", "/proc/self/fd/0", "a", "missing", "../missing"]


@pytest.mark.parametrize("target", LINKS)
def test_links_are_never_followed(place, tree, target):
    """T41, T44, T45: a link anywhere on the way, whatever it points to, is denied for every operation."""
    (tree / "link").symlink_to(target)
    (tree / "d" / "up").symlink_to("..")
    for parts in (("link",), ("link", "secret"), ("d", "up", "a"), ("d", "up", "link")):
        for call, *rest in (
            (filesystem.read,),
            (filesystem.read_range, 0, 10),
            (filesystem.write, b"x"),
            (filesystem.append, b"x"),
            (filesystem.delete,),
            (filesystem.list_directory,),
            (filesystem.rename, ("moved",), True),
        ):
            assert FsError.DENIED == case(call, place, parts, *rest), (call, parts)
        assert FsError.DENIED == case(filesystem.rename, place, ("a",), parts, True)
    assert FsError.DENIED == case(filesystem.make_directory, place, ("link", "x"))
    assert SECRET == (tree.parent / "secret").read_bytes()
    assert b"alpha" == filesystem.read(place, ("a",)), "the control: the same calls work on a plain file"


def test_the_links_would_work_without_the_wall(tree):
    """Positive control: a plain open follows the very links the executor refuses."""
    (tree / "link").symlink_to("../secret")
    assert SECRET == (tree / "link").read_bytes()
    dirfd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    fd = os.open("link", os.O_RDONLY, dir_fd=dirfd)
    assert SECRET == os.read(fd, 100)
    os.close(fd)
    os.close(dirfd)


@pytest.mark.parametrize("name", ["..", "../secret", "d/../../secret", "/etc/passwd", "/proc/self/fd/3"])
def test_openat2_is_a_wall_of_its_own(tree, name):
    """Even text no parser lets through does not leave the directory; a plain openat does."""
    dirfd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError) as caught:
        openat2.open_beneath(dirfd, name, os.O_RDONLY)
    assert errno.EXDEV == caught.value.errno
    os.close(os.open(".." if name.startswith("/proc") else name, os.O_RDONLY, dir_fd=dirfd))
    os.close(dirfd)


def test_special_files_are_never_opened(place, tree):
    """T41: FIFOs, sockets and devices are refused without being opened, so nothing blocks and no driver runs."""
    os.mkfifo(tree / "special")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tree)
        server.bind("sock")
        os.chdir(here)
    names = ["special", "sock"]
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            names.append("null")
    for name in names:
        for call, *rest in (
            (filesystem.read,),
            (filesystem.write, b"x"),
            (filesystem.append, b"x"),
            (filesystem.delete,),
            (filesystem.rename, ("moved",), True),
        ):
            assert FsError.INVALID_PATH == case(call, place, (name,), *rest)
        assert FsError.INVALID_PATH == case(filesystem.rename, place, ("a",), (name,), True)
        assert NodeKind.OTHER == filesystem.status(place, (name,))[0]


def test_hard_links_are_not_written(place, tree):
    """A file with another name, perhaps outside, can be read but not written; with one name it can."""
    os.link(tree.parent / "secret", tree / "hard")
    assert FsError.DENIED == case(filesystem.append, place, ("hard",), b"x")
    assert FsError.DENIED == case(filesystem.write, place, ("hard",), b"x")
    assert SECRET == filesystem.read(place, ("hard",)) == (tree.parent / "secret").read_bytes()
    os.unlink(tree.parent / "secret")
    filesystem.append(place, ("hard",), b"x")
    assert SECRET + b"x" == (tree / "hard").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_inside_is_not_crossed(place, tree):
    """T41: a bind mount below the bound place is another place; it was not granted."""
    libc = ctypes.CDLL(None, use_errno=True)
    (tree / "m").mkdir()
    (tree.parent / "other").mkdir()
    (tree.parent / "other" / "s").write_bytes(SECRET)
    if libc.mount(os.fsencode(tree.parent / "other"), os.fsencode(tree / "m"), None, 4096, None):
        pytest.skip("this environment does not let root mount")
    try:
        assert SECRET == (tree / "m" / "s").read_bytes(), "the control: it is there"
        assert FsError.DENIED == case(filesystem.read, place, ("m", "s"))
        assert FsError.DENIED == case(filesystem.write, place, ("m", "x"), b"x")
        assert FsError.DENIED == case(filesystem.list_directory, place, ("m",))
    finally:
        libc.umount2(os.fsencode(tree / "m"), 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_mount_refuses_every_change(tree):
    """T46: through a read-only place nothing changes; the same calls work on the writable one."""
    libc = ctypes.CDLL(None, use_errno=True)
    bound = tree.parent / "ro"
    bound.mkdir()
    if libc.mount(os.fsencode(tree), os.fsencode(bound), None, 4096, None):
        pytest.skip("this environment does not let root mount")
    try:
        assert 0 == libc.mount(None, os.fsencode(bound), None, 4096 | 32 | 1, None)
        read_only = Place(os.open(bound, os.O_PATH | os.O_DIRECTORY))
        calls = [
            (filesystem.write, ("n",), b"x"),
            (filesystem.write, ("a",), b"x"),
            (filesystem.append, ("a",), b"x"),
            (filesystem.append, ("n2",), b"x"),
            (filesystem.make_directory, ("nd",)),
            (filesystem.rename, ("a",), ("z",), True),
            (filesystem.delete, ("z",)),
        ]
        (tree / "z").touch()
        for call, *rest in calls:
            assert FsError.READ_ONLY == case(call, read_only, *rest), call
        assert b"alpha" == filesystem.read(read_only, ("a",))
        read_only.close()
        writable = Place(os.open(tree, os.O_PATH | os.O_DIRECTORY))
        for call, *rest in calls:
            call(writable, *rest)
        writable.close()
    finally:
        libc.umount2(os.fsencode(bound), 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    """ENOSPC answers no-space, the old content stays, no half-written file is left; with room the write works."""
    libc = ctypes.CDLL(None, use_errno=True)
    small = tmp_path / "small"
    small.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(small), b"tmpfs", 0, b"size=256k"):
        pytest.skip("this environment does not let root mount")
    try:
        place = Place(os.open(small, os.O_PATH | os.O_DIRECTORY))
        filesystem.write(place, ("f",), b"old")
        filesystem.append(place, ("g",), b"old")
        assert FsError.NO_SPACE == case(filesystem.write, place, ("f",), b"x" * 300_000)
        assert FsError.NO_SPACE == case(filesystem.append, place, ("g",), b"x" * 300_000)
        assert [("f", 0, 3), ("g", 0, 3)] == filesystem.list_directory(place, ())
        assert ["f", "g"] == sorted(os.listdir(small))
        filesystem.write(place, ("f",), b"x" * 100_000)
        place.close()
    finally:
        libc.umount2(os.fsencode(small), 2)


# -- races ----------------------------------------------------------------------------------------------------


def exchange(dirfd: int, one: bytes, other: bytes) -> None:
    """renameat2(RENAME_EXCHANGE)."""
    ctypes.CDLL(None, use_errno=True).renameat2(dirfd, one, dirfd, other, 2)


@contextlib.contextmanager
def swapping(tree, one: bytes, other: bytes):
    """Exchange two names as fast as possible in a second thread."""
    dirfd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(dirfd, one, other)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.close(dirfd)


def race(place, tree, rounds: int) -> tuple[int, int]:
    """Read and write through names that are swapped for links to the outside; how often each ended well and ill."""
    good = bad = 0
    for _ in range(rounds):
        for parts in (("f",), ("dir", "secret")):
            for call, *rest in ((filesystem.read,), (filesystem.append, b"!"), (filesystem.write, b"inside\n")):
                try:
                    value = call(place, parts, *rest)
                except FsFailure as error:
                    # NOT_A_DIRECTORY: a link when it was opened, swapped back when asked what it was.
                    harmless = (FsError.DENIED, FsError.IO_ERROR, FsError.NOT_FOUND, FsError.NOT_A_DIRECTORY)
                    assert error.case in harmless, error
                    bad += 1
                else:
                    assert value is None or not value.startswith(SECRET)
                    good += 1
    return good, bad


def set_race(tree) -> None:
    """A file and a link to the secret; a directory and a link to the one above."""
    (tree / "f").write_bytes(b"inside\n")
    (tree / "g").symlink_to("../secret")
    (tree / "dir").mkdir()
    (tree / "dir" / "secret").write_bytes(b"inside\n")
    (tree / "rid").symlink_to("..")


@pytest.mark.parametrize(("one", "other"), [(b"f", b"g"), (b"dir", b"rid")])
def test_a_swap_race_never_escapes(place, tree, one, other):
    """T41: with names exchanged for links all the time, nothing outside is read or changed, and calls still succeed."""
    set_race(tree)
    with swapping(tree, one, other):
        good, _bad = race(place, tree, 300)
    assert good > 0
    assert SECRET == (tree.parent / "secret").read_bytes()


def test_the_race_is_real(tree):
    """Positive control: look first, open by name after, and the swap wins."""
    set_race(tree)
    stolen = False
    with swapping(tree, b"f", b"g"):
        for _ in range(200_000):
            if stat.S_ISREG(os.lstat(tree / "f").st_mode) and (tree / "f").read_bytes() == SECRET:
                stolen = True
                break
    assert stolen


@pytest.mark.long
def test_a_long_swap_race_never_escapes(place, tree):
    """The same for many rounds."""
    set_race(tree)
    with swapping(tree, b"f", b"g"), swapping(tree, b"dir", b"rid"):
        race(place, tree, 2_000)
    assert SECRET == (tree.parent / "secret").read_bytes()


def test_a_fifo_swapped_in_does_not_block(place, tree, monkeypatch):
    """Between look and use the file becomes a FIFO: the open neither blocks nor succeeds."""
    real, calls = paths.open_beneath, []

    def swap_then_open(dirfd, path, flags, mode=0):
        calls.append(flags)
        if len(calls) == 2:
            os.unlink(tree / "a")
            os.mkfifo(tree / "a")
        return real(dirfd, path, flags, mode)

    monkeypatch.setattr(paths, "open_beneath", swap_then_open)
    assert FsError.INVALID_PATH == case(filesystem.read, place, ("a",))
    assert len(calls) == 3


def test_a_tree_that_keeps_moving_is_an_error(monkeypatch):
    """EAGAIN is tried again a bounded number of times."""
    calls = []

    def again(*_):
        calls.append(1)
        ctypes.set_errno(errno.EAGAIN)
        return -1

    monkeypatch.setattr(openat2, "_syscall", again)
    with pytest.raises(BlockingIOError):
        openat2.open_beneath(0, "x", 0)
    assert openat2.TRIES == len(calls)


# -- as an ordinary user --------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_an_ordinary_user_is_told_denied(tree):
    """Without rights of its own the bridge's answer is denied; with them the same read works."""
    (tree / "a").chmod(0o600)
    tree.chmod(0o755)
    place = Place(os.open(tree, os.O_PATH | os.O_DIRECTORY))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(54321, 54321, 54321)
            os.setresuid(54321, 54321, 54321)
            try:
                filesystem.read(place, ("a",))
            except FsFailure as error:
                status = 0 if error.case == FsError.DENIED else 2
            try:
                filesystem.write(place, ("n",), b"x")
                status = 3
            except FsFailure as error:
                status = status if error.case == FsError.DENIED else 4
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert b"alpha" == filesystem.read(place, ("a",))
    place.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="detached id-mapped mounts need root")
def test_through_a_detached_mount(tree, monkeypatch):
    """A grant as the supervisor makes it: links fail even without openat2's walls, read-only is the mount's word."""
    from sandbox.kernel import mounts

    (tree / "link").symlink_to("a")
    walls = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | mounts.ATTR_NOEXEC | mounts.ATTR_NOSYMFOLLOW
    for attributes in (walls, walls | mounts.ATTR_RDONLY):
        directory = os.open(tree, os.O_PATH | os.O_DIRECTORY)
        mount = mounts.clone_mount(directory)
        mounts.set_attributes(mount, attributes, None)
        os.close(directory)
        place = Place(mount)
        assert b"alpha" == filesystem.read(place, ("a",))
        assert FsError.DENIED == case(filesystem.read, place, ("link",))
        with monkeypatch.context() as patch:
            patch.setattr(openat2, "RESOLVE", 0)
            patch.setattr(openat2, "ALWAYS", os.O_CLOEXEC)
            with pytest.raises(OSError) as caught:
                openat2.open_beneath(mount, "link", os.O_RDONLY)
            assert errno.ELOOP == caught.value.errno
            fd = openat2.open_beneath(mount, "../../../../../..", os.O_PATH)
            assert os.fstat(fd).st_ino == tree.stat().st_ino, "nothing lies above a detached mount"
            os.close(fd)
        if attributes & mounts.ATTR_RDONLY:
            assert FsError.READ_ONLY == case(filesystem.write, place, ("n",), b"x")
            assert FsError.READ_ONLY == case(filesystem.append, place, ("a",), b"x")
            assert FsError.READ_ONLY == case(filesystem.delete, place, ("a",))
        else:
            filesystem.write(place, ("n",), b"x")
            filesystem.append(place, ("n",), b"y")
            filesystem.rename(place, ("n",), ("d", "m"), False)
            assert b"xy" == filesystem.read(place, ("d", "m"))
            filesystem.delete(place, ("d", "m"))
        place.close()


# -- errors ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(sorted(errno.errorcode)))
def test_every_kernel_error_has_a_case(number):
    """Each errno becomes a case with a text that is ours, not the kernel's, and names no path."""
    made = failure(OSError(number, "kernel words", "/host/path"))
    assert isinstance(made.case, FsError)
    assert "host/path" not in made.message
    assert "kernel words" not in made.message
    assert (number in ERRNO) or made.case == FsError.IO_ERROR


HOSTILE = [
    "..", "/..", "/logs/..", "/logs/../secret", "/logs/./a.log", "/logs//a.log", "/logs/a.log/", "/logs/", "logs/a.log",
    "", "/logs/\0", "/logs/a\nb", "/" + "a/" * 3000, "/logs/" + "a" * 300, "/logs/.airssys-0123456789abcdef",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=itertools.count())
def test_hostile_paths_are_invalid(host, logs, path):
    """T43: malformed paths answer invalid-path for every operation that takes one; nothing is touched."""
    access = ["read", "list", "write", "delete"]
    host.policy([FileRule("/**", access)], {"/logs": logs})
    worker = host.worker()
    for op, *rest in (
        (Op.FS_READ,), (Op.FS_READ_RANGE, 0, 1), (Op.FS_WRITE, b""), (Op.FS_APPEND, b""), (Op.FS_DELETE,),
        (Op.FS_MAKE_DIRECTORY,), (Op.FS_LIST,), (Op.FS_STAT,), (Op.FS_RENAME, "/logs/n"),
    ):  # fmt: skip
        assert FsError.INVALID_PATH == worker.ask(op, path, *rest)[0]
    assert FsError.INVALID_PATH == worker.ask(Op.FS_RENAME, "/logs/a.log", path)[0]
    assert (0, b"alpha\n") == worker.ask(Op.FS_READ, "/logs/a.log")
    assert ["a.log", "sub"] == sorted(os.listdir(logs))


def test_names_that_look_like_traps_are_names(host, logs):
    """Backslashes, unicode dots and percent signs make ordinary files."""
    host.policy([FileRule("/logs/*", ["read", "write"])], {"/logs": logs})
    worker = host.worker()
    for name in ("..\\..\\etc", "\u2024\u2024", "%2e%2e", "...", "~", "$HOME", "-rf"):
        assert (0, None) == worker.ask(Op.FS_WRITE, f"/logs/{name}", name.encode())
        assert name.encode() == (logs / name).read_bytes()


def test_rename_across_places_and_rights(host, logs, tmp_path):
    """T48: both ends must be in one place, and a move must not widen rights."""
    other = tmp_path / "other"
    other.mkdir()
    everything = ["read", "list", "write", "delete"]
    rules = [
        FileRule("/logs/**", everything),
        FileRule("/other/**", everything),
        FileRule("/drop/*", ["write", "delete"]),
    ]
    host.policy(rules, {"/logs": logs, "/other": other, "/drop": other})
    worker = host.worker()
    assert FsError.DENIED == worker.ask(Op.FS_RENAME, "/logs/a.log", "/other/a.log")[0]
    assert (0, None) == worker.ask(Op.FS_RENAME, "/logs/a.log", "/logs/sub/a.log")
    assert (0, None) == worker.ask(Op.FS_RENAME, "/logs/sub", "/logs/bus")
    host.policy([FileRule("/logs/x", ["write", "delete"]), FileRule("/logs/y", ["read", "write"])], {"/logs": logs})
    (logs / "x").write_bytes(b"not for reading")
    case_, text = worker.ask(Op.FS_RENAME, "/logs/x", "/logs/y")
    assert (FsError.DENIED, True) == (case_, "widen" in text)
    assert FsError.DENIED == worker.ask(Op.FS_READ, "/logs/y")[0] or not (logs / "y").exists()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_appends_add_up(tmp_path_factory, parts):
    """A file appended to is the parts in order."""
    root = tmp_path_factory.mktemp("append")
    place = Place(os.open(root, os.O_PATH | os.O_DIRECTORY))
    for part in parts:
        filesystem.append(place, ("f",), part)
    if parts:
        assert b"".join(parts) == filesystem.read(place, ("f",))
    place.close()
