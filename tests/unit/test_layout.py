"""The root directory: what is made, what is refused, and that nothing of somebody else's is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.parent import layout, spawn
from supervisor.parent.errors import AlreadyRunning, RootError
from supervisor.parent.identities import Identities

pytestmark = pytest.mark.block7_lifecycle
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: files of other uids")
BLOCK = 0x6C000000
"""First id of a block nobody has, for tests started as root."""


def identities(block: int = BLOCK) -> Identities:
    """As `claim` would give them, without holding a block."""
    return Identities(block, 0) if ROOT else Identities(None, os.geteuid())


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path (a socket's has 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="ly-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def prepared(place: Path, who: Identities | None = None) -> Iterator[layout.Layout]:
    """A prepared root, closed at the end."""
    found = layout.prepare(str(place / "lib"), str(place / "run"), str(place / "run" / "api.sock"), who or identities())
    try:
        yield found
    finally:
        for sock in (found.api, found.bus, found.clients):
            sock.close()
        for fd in (found.storage_fd, found.audit_fd, found.log_fd, *found.locks):
            os.close(fd)


def refused(place: Path, error: type[Exception] = RootError, who: Identities | None = None) -> str:
    """The text of the refusal."""
    with pytest.raises(error) as caught, prepared(place, who):
        pass
    return str(caught.value)


def snapshot(path: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Owner, mode, inode and content of everything below a directory."""
    found = {}
    for entry in sorted(path.rglob("*")):
        state = entry.lstat()
        body = entry.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        found[str(entry)] = (state.st_uid, state.st_mode, state.st_ino, body)
    return found


def test_others_may_be_let_in(place: Path) -> None:
    """Where other users may talk to components they reach the clients' socket, and cannot list what is beside it."""
    found = layout.prepare(
        str(place / "lib"), str(place / "run"), str(place / "run" / "api.sock"), identities(), shared=True
    )
    for sock in (found.api, found.bus, found.clients):
        sock.close()
    for fd in (found.storage_fd, found.audit_fd, found.log_fd, *found.locks):
        os.close(fd)
    modes = [oct((place / "run" / name).stat().st_mode & 0o777) for name in ("clients", "clients/router.sock", "bus")]
    assert ["0o711", "0o666", "0o710"] == modes


# -- a good root --------------------------------------------------------------------------------------------------


def test_what_is_made(place: Path) -> None:
    """Directories and sockets with their owners and modes, as the module's table says."""
    who = identities()
    with prepared(place, who):
        wanted = {
            "lib/control": (who.control, 0o40700),
            "lib/storage": (who.bridge, 0o40700),
            "lib/audit": (who.auditor, 0o40700),
            "run/api.sock": (who.supervisor, 0o140666),
            "run/bus": (who.supervisor, 0o40710),
            "run/bus/router.sock": (who.supervisor, 0o140666),
            "run/clients": (who.supervisor, 0o40700),
            "run/clients/router.sock": (who.supervisor, 0o140600),
            "run/host.log": (os.geteuid(), 0o100600),
        }
        found = {name: ((place / name).lstat().st_uid, (place / name).lstat().st_mode) for name in wanted}
        assert {k: (u, oct(m)) for k, (u, m) in wanted.items()} == {k: (u, oct(m)) for k, (u, m) in found.items()}
        assert f"{os.getpid()}\n" == (place / "run" / "host.lock").read_text()


def test_sockets_listen(place: Path) -> None:
    """Both endpoints take connections at once."""
    with prepared(place) as found:
        for path in (found.bus_path, str(place / "run" / "api.sock"), str(place / "run" / "clients" / "router.sock")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(path)


def test_descriptors_do_not_leak_into_children(place: Path) -> None:
    """Every descriptor is close-on-exec."""
    with prepared(place) as found:
        fds = [found.storage_fd, found.audit_fd, found.log_fd, *found.locks]
        fds += [sock.fileno() for sock in (found.api, found.bus, found.clients)]
        assert [False] * len(fds) == [os.get_inheritable(fd) for fd in fds]


def test_used_again(place: Path) -> None:
    """A root that was used is taken again: stale sockets are replaced, state stays, the log goes on."""
    with prepared(place) as first:
        os.write(first.log_fd, b"first\n")
        (place / "lib" / "storage" / "data.mdb").write_bytes(b"values")
        old = (place / "run" / "api.sock").stat().st_ino, first.boot
    with prepared(place) as second:
        os.write(second.log_fd, b"second\n")
        assert b"values" == (place / "lib" / "storage" / "data.mdb").read_bytes()
        assert "first\nsecond\n" == (place / "run" / "host.log").read_text()
        assert old[1] != second.boot


def test_below_a_link(place: Path) -> None:
    """Positive control of the refused link: a link above the root is the operator's own affair."""
    (place / "real").mkdir()
    (place / "link").symlink_to(place / "real")
    (place / "real" / "root").mkdir()
    with prepared(place / "link" / "root"):
        assert (place / "real" / "root" / "lib" / "control").is_dir()


# -- refused roots ------------------------------------------------------------------------------------------------


def test_foreign(place: Path) -> None:
    """A directory of another user is refused and not written into."""
    if ROOT:
        (place / "lib").mkdir()
        os.chown(place / "lib", 12345, 12345)
        assert "another user" in refused(place)
        assert [] == os.listdir(place / "lib")
    else:
        with pytest.raises(RootError, match="another user"):
            layout.prepare("/usr/lib", str(place / "run"), str(place / "api.sock"), identities())


@pytest.mark.parametrize("which", ["lib", "run"])
def test_occupied(place: Path, which: str) -> None:
    """A directory with something in it and no marker is refused, and stays as it was."""
    (place / which).mkdir()
    (place / which / "thesis.txt").write_text("ten years")
    before = snapshot(place / which)
    assert "not empty" in refused(place)
    assert before == snapshot(place / which)


@pytest.mark.parametrize("which", ["lib", "run"])
def test_symbolic_link(place: Path, tmp_path: Path, which: str) -> None:
    """A root that is a link is refused, and nothing is made behind it."""
    (place / which).symlink_to(tmp_path)
    assert "symbolic links" in refused(place)
    assert [] == os.listdir(tmp_path)


def test_file(place: Path) -> None:
    """A file is no root."""
    (place / "lib").write_text("x")
    refused(place)
    assert "x" == (place / "lib").read_text()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_writable_by_others(place: Path, mode: int) -> None:
    """A directory that group or others may write is refused, with what to do."""
    (place / "lib").mkdir()
    (place / "lib").chmod(mode)
    assert "chmod go-w" in refused(place)


@pytest.mark.parametrize("how", ["text", "link", "directory", "fifo"])
def test_marker_of_something_else(place: Path, how: str) -> None:
    """A marker of another version, and one that is no plain file, are refused without being followed or waited for."""
    (place / "lib").mkdir()
    marker = place / "lib" / layout.MARKER
    if how == "text":
        marker.write_text("airssys host root, layout 999\n")
    elif how == "link":
        (place / "good").write_bytes(layout._MARKER_TEXT)
        marker.symlink_to(place / "good")
    elif how == "directory":
        marker.mkdir()
    else:
        os.mkfifo(marker)
    refused(place)


@pytest.mark.parametrize(
    ("parent", "name"),
    [("lib", "control"), ("lib", "storage"), ("lib", "audit"), ("run", "host.lock"), ("run", "host.log")],
)
def test_link_inside_the_root(place: Path, parent: str, name: str) -> None:
    """A link where a service's directory, the lock or the log belongs is refused; what it points to stays as it was."""
    with prepared(place):
        pass
    target = place / parent / name
    directory = target.is_dir()
    shutil.rmtree(target) if directory else target.unlink()
    victim = place / "victim"
    victim.mkdir() if directory else victim.write_text("precious")
    target.symlink_to(victim)
    before = victim.lstat().st_uid, [] if directory else victim.read_text()
    refused(place)
    assert before == (victim.lstat().st_uid, os.listdir(victim) if directory else victim.read_text())


def test_path_too_long(place: Path) -> None:
    """A root whose sockets could not be bound is refused before anything is made."""
    deep = place / ("x" * 90)
    assert "too long" in refused(deep)
    assert not deep.exists()


@pytest.mark.parametrize("over", [0, 1])
def test_longest_path(place: Path, over: int) -> None:
    """Exactly the limit works, one byte more does not."""
    rest = layout.SOCKET_PATH_MAX - len(f"{place}//run/clients/router.sock") + over
    deep = place / ("y" * rest)
    if over:
        assert "too long" in refused(deep)
    else:
        with prepared(deep):
            pass


# -- one host at a time -------------------------------------------------------------------------------------------


def test_second_host(place: Path) -> None:
    """While one host holds the root another is refused, and the first one's sockets and log stay untouched."""
    with prepared(place):
        before = snapshot(place)
        assert "already running" in refused(place, AlreadyRunning)
        assert before == snapshot(place)
    with prepared(place):
        pass  # positive control: free again


def test_a_dead_hosts_lock_is_free(place: Path) -> None:
    """The lock is the kernel's: a lock file alone, with whatever number in it, refuses nobody."""
    with prepared(place):
        pass
    (place / "run" / "host.lock").write_text("1\n")
    with prepared(place):
        assert f"{os.getpid()}\n" == (place / "run" / "host.lock").read_text()


# -- giving state to a new block of uids --------------------------------------------------------------------------


@pytest.fixture
def used(place: Path) -> Path:
    """A root whose services left files, under the first block."""
    who = identities()
    with prepared(place, who):
        for name, uid in (("control", who.control), ("storage", who.bridge), ("audit", who.auditor)):
            below = place / "lib" / name / "deep" / "deeper"
            below.mkdir(parents=True)
            (below / "file").write_text(name)
            for path in (below / "file", below, below.parent):
                os.chown(path, uid, uid)
    return place


@needs_root
def test_a_new_block(used: Path) -> None:
    """Every file of a service is its new uid's, modes and contents as they were."""
    who = identities(BLOCK + (1 << 16))
    modes = {path: path.lstat().st_mode for path in (used / "lib").rglob("*")}
    with prepared(used, who):
        for name, uid in (("control", who.control), ("storage", who.bridge), ("audit", who.auditor)):
            found = [used / "lib" / name, *(used / "lib" / name).rglob("*")]
            assert 4 == len(found)
            assert {(uid, uid)} == {(p.lstat().st_uid, p.lstat().st_gid) for p in found}
    assert modes == {path: path.lstat().st_mode for path in modes}


@needs_root
def test_the_same_block(used: Path) -> None:
    """Under the same block nothing is touched, foreign files included: no walk through what a service wrote."""
    stray = used / "lib" / "storage" / "stray"
    stray.write_text("x")
    with prepared(used):
        assert 0 == stray.stat().st_uid


@needs_root
@pytest.mark.parametrize("how", ["hard link", "symbolic link", "fifo", "socket", "deep hard link"])
def test_what_a_service_could_have_left(used: Path, how: str) -> None:
    """A hard link to somebody's file, a link, a pipe: refused by name, and the file keeps its owner."""
    victim = used / "victim"
    victim.write_text("precious")
    stray = used / "lib" / "storage" / ("deep/deeper/stray" if how == "deep hard link" else "stray")
    if "hard" in how:
        os.link(victim, stray)
    elif how == "symbolic link":
        stray.symlink_to(victim)
    elif how == "fifo":
        os.mkfifo(stray)
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(stray))
    text = refused(used, who=identities(BLOCK + (1 << 16)))
    assert "no plain file" in text
    assert "stray" in text
    assert 0 == victim.stat().st_uid


def test_a_closed_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host's own uids could not read is found before anything starts; an open one passes."""
    tree = tmp_path / "packages"
    tree.mkdir(mode=0o755)
    monkeypatch.setattr(spawn, "_installation", lambda: {str(tree)})
    before = spawn.unreadable()
    tree.chmod(0o700)
    assert str(tree) == spawn.unreadable()
    tree.chmod(0o755)
    assert before == spawn.unreadable()
