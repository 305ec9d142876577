"""The root directory: who owns what in it, the lock, the sockets.

    lib/            state
      control/      registry, trust store, packages, cache and its key      control
      storage/      the components' stored values                           bridge
      audit/        audit log, components' logs, signing key                auditor
    run/
      api.sock      the API, open to all; the caller is known by SO_PEERCRED
      bus/          the router's endpoint for control
      clients/      the router's endpoint for programs outside, each known by SO_PEERCRED
      host.lock, host.pid, host.log

All of it is made while still privileged, and every path is used through a directory descriptor opened without
following links, because what lies below lib/ belongs to less privileged processes.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from dataclasses import dataclass

from supervisor.parent.errors import AlreadyRunning, RootError
from supervisor.parent.identities import Identities

MARKER = ".airssys-root"
_MARKER_TEXT = b"airssys host root, layout 1\n"
_BACKLOG = 4096
LOG_MAX = 10 << 20
"""Bytes of host.log above which the next start begins a new one and keeps the old as host.log.1."""
SOCKET_PATH_MAX = 100
"""Longest path of a Unix socket we bind (unix(7) allows 107 bytes)."""


@dataclass
class Layout:
    """Open descriptors of a prepared root. The supervisor passes them on; nobody else opens these paths."""

    state: str
    run: str
    control_dir: str
    storage_fd: int
    audit_fd: int
    log_fd: int
    locks: list[int]
    api: socket.socket
    bus: socket.socket
    bus_path: str
    clients: socket.socket
    boot: str


def prepare(state: str, run: str, api_path: str, identities: Identities, *, shared: bool = False) -> Layout:
    """Make or check the root and open everything the host needs of it.

    Args:
        shared: whether other users than the host's own and root may talk to components.

    Raises:
        RootError: foreign, not a directory, not ours, or a path too long for a socket.
        AlreadyRunning: a live host holds the lock.
    """
    for socket_path in (api_path, f"{run}/bus/router.sock", f"{run}/clients/router.sock"):
        _check_length(socket_path)
    base = os.path.dirname(state)
    if (state, run) == (f"{base}/lib", f"{base}/run"):  # one root for all, AIRSSYS_ROOT
        own_root(base)
    for path in (state, run):
        _own_directory(path)
    try:
        return _open_all(state, run, api_path, identities, shared)
    except OSError as error:
        raise RootError(
            f"cannot prepare the root: {error.strerror or error}", subject=str(error.filename or run)
        ) from error


def _open_all(state: str, run: str, api_path: str, identities: Identities, shared: bool) -> Layout:
    # Both: two hosts may share the one without the other (another XDG_RUNTIME_DIR, another STATE_DIRECTORY).
    locks = [_lock(run), _lock(state)]
    _rotate(f"{run}/host.log")
    log_fd = os.open(f"{run}/host.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    control_fd = _service_directory(state, "control", identities.control, identities)
    os.close(control_fd)
    storage_fd = _service_directory(state, "storage", identities.bridge, identities)
    audit_fd = _service_directory(state, "audit", identities.auditor, identities)
    bus_dir = _bus_directory(run, identities)
    api = _listen(api_path, identities, mode=0o666)
    bus = _listen(f"{bus_dir}/router.sock", identities, mode=0o666)
    clients_dir = _clients_directory(run, identities, shared)
    clients = _listen(f"{clients_dir}/router.sock", identities, mode=0o666 if shared else 0o600)
    return Layout(
        state=state,
        run=run,
        control_dir=f"{state}/control",
        storage_fd=storage_fd,
        audit_fd=audit_fd,
        log_fd=log_fd,
        locks=locks,
        api=api,
        bus=bus,
        bus_path=f"{bus_dir}/router.sock",
        clients=clients,
        boot=os.urandom(4).hex(),
    )


def own_root(path: str) -> None:
    """Make sure that `path`, an AIRSSYS_ROOT, is ours; an empty directory becomes so. Raises RootError."""
    _own_directory(path, expected=frozenset({"etc", "lib", "run"}))


def _own_directory(path: str, expected: frozenset[str] = frozenset()) -> None:
    """Make sure that the directory is ours: made by us, or empty but for `expected`.

    Raises:
        RootError: a link, another user's, open to others' writing, or holding something else.
    """
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        raise RootError(f"cannot make the directory: {error.strerror}", subject=path) from error
    if not stat.S_ISDIR(status.st_mode):
        raise RootError("not a directory (symbolic links are not followed)", subject=path)
    if status.st_uid != os.geteuid():
        raise RootError("the directory belongs to another user", subject=path, hint="choose a root of your own")
    if status.st_mode & 0o022:
        raise RootError("the directory can be written by others", subject=path, hint="chmod go-w it")
    marker = os.path.join(path, MARKER)
    try:
        fd = os.open(marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        if set(os.listdir(path)) - expected:
            raise RootError(
                "the directory is not empty and holds no airssys host", subject=path, hint="choose an empty directory"
            ) from None
        _make_marker(marker)
        return
    except OSError as error:
        raise RootError(f"cannot read the root's marker: {error.strerror}", subject=marker) from error
    try:
        found = os.read(fd, 100) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    if found != _MARKER_TEXT:
        raise RootError("made by another version of airssys", subject=marker, hint="move the directory away")


def _make_marker(path: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(_MARKER_TEXT)
    except OSError as error:
        raise RootError(f"cannot write into the root: {error.strerror}", subject=path) from error


def _rotate(path: str) -> None:
    try:
        if os.lstat(path).st_size > LOG_MAX:
            os.rename(path, f"{path}.1")
    except FileNotFoundError:
        return


def _lock(run: str) -> int:
    fd = os.open(f"{run}/host.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AlreadyRunning(
            "a host is already running on this root", subject=run, hint="airssys status, or airssys down"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _service_directory(parent: str, name: str, uid: int, identities: Identities) -> int:
    path = os.path.join(parent, name)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if identities.base is not None and os.fstat(fd).st_uid != uid:
        _give_tree(fd, uid, path)
    return fd


def _give_tree(directory: int, uid: int, path: str) -> None:
    """Give a service's tree to its (new) uid. Hard links are refused: one could lead to a file of somebody else's."""
    with os.scandir(directory) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                child = os.open(
                    entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory
                )
                try:
                    _give_tree(child, uid, f"{path}/{entry.name}")
                finally:
                    os.close(child)
            elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                file = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
                try:
                    if os.fstat(file).st_nlink == 1:
                        os.fchown(file, uid, uid)
                finally:
                    os.close(file)
            else:
                raise RootError(
                    "something that is no plain file stands in the state directory", subject=f"{path}/{entry.name}"
                )
    os.fchown(directory, uid, uid)


def _bus_directory(run: str, identities: Identities) -> str:
    path, mode = os.path.join(run, "bus"), 0o710
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
    if identities.base is not None:
        # Control may enter it, by its group.
        os.chown(path, identities.supervisor, identities.control, follow_symlinks=False)
    os.chmod(path, mode)
    return path


def _clients_directory(run: str, identities: Identities, shared: bool) -> str:
    # Nothing but the socket is in there. Others may pass through to it, and no further; who they are, the router asks.
    path, mode = os.path.join(run, "clients"), 0o711 if shared else 0o700
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
    if identities.base is not None:
        os.chown(path, identities.supervisor, identities.supervisor, follow_symlinks=False)
    os.chmod(path, mode)
    return path


def _check_length(path: str) -> None:
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise RootError(
            "the root's path is too long for a socket", subject=path, hint=f"at most {SOCKET_PATH_MAX} bytes in all"
        )


def _listen(path: str, identities: Identities, mode: int) -> socket.socket:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    old = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    finally:
        os.umask(old)
    if identities.base is not None:
        os.chown(path, identities.supervisor, identities.supervisor, follow_symlinks=False)
    sock.listen(_BACKLOG)
    return sock
