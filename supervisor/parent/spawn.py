"""Starting the host's own processes: fresh interpreters, each as little as its work needs.

Two kinds. A *plain* child (control, router) gets its own uid, no capability and, where the supervisor may make them,
mount, net, ipc, uts and cgroup namespaces. A *caged* child (zygote, bridge,
auditor, compiler) is exec'd inside a user namespace that the supervisor owns, with mount, net, ipc, uts and cgroup
namespaces of its own; it imports what it needs and then shuts itself into an empty root (`sandbox.kernel.confine`).
Being exec'd there makes it readable for its owner, the supervisor, whatever it does to itself (ptrace(2), "access mode
checks").
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sandbox.kernel import caps, cgroups, libc, mounts, process
from sandbox.wire import supervisor_frames as frames
from supervisor.parent.errors import SpawnFailed, exhausted

CAGED_NAMESPACES = (
    process.CLONE_NEWUSER
    | process.CLONE_NEWNS
    | process.CLONE_NEWNET
    | process.CLONE_NEWIPC
    | process.CLONE_NEWUTS
    | process.CLONE_NEWCGROUP
)
PLAIN_NAMESPACES = (
    process.CLONE_NEWNS | process.CLONE_NEWNET | process.CLONE_NEWIPC | process.CLONE_NEWUTS | process.CLONE_NEWCGROUP
)
"""What a plain child gets where the supervisor may make it: a network without devices, no IPC object of the host."""
_STEP_SECONDS = 10.0
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Kind:
    """How a child runs.

    Attributes:
        uid: outside uid (and gid).
        caged: in a user namespace of its own.
        reads: paths it opens by name, besides the interpreter's.
        writes: directories it writes into by name.
        extra: first outside id and count mapped to 1.. inside, besides 0.
        own_pids: the first process of a pid namespace of its own (caged processes that start no others).
    """

    uid: int
    caged: bool
    extra: tuple[int, int] | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    own_pids: bool = False


def interpreter_trees() -> list[str]:
    """Directories and files a fresh interpreter of this installation reads."""
    # The first entry of sys.path is the script's or the current directory; children run isolated, without it.
    return sorted({*_installation(), *[p for p in sys.path[1:] if p and os.path.exists(p)]})


def _installation() -> set[str]:
    return {sys.prefix, sys.base_prefix, sys.executable}


def unreadable() -> str | None:
    """The first thing of this installation that the host's own uids could not read, or None.

    Closed directories above are no obstacle (`mounts.expose`); closed files and directories of the installation are.
    """
    for tree in sorted(_installation()):
        path = os.path.realpath(tree)
        mode = os.stat(path).st_mode
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) or path == os.path.realpath(sys.executable) else 0)
        if mode & wanted != wanted:
            return path
    for module in ("sandbox", "bridge", "supervisor"):
        file = sys.modules[module].__file__ if module in sys.modules else None
        if file is not None:
            if os.stat(os.path.dirname(file)).st_mode & 0o005 != 0o005:
                return os.path.dirname(file)
            if not os.stat(file).st_mode & stat.S_IROTH:
                return file
    return None


def spawn(
    module: str,
    arguments: list[str],
    fds: list[int],
    kind: Kind,
    log_fd: int,
    privileged: bool,
    groups: Sequence[int] = (),
    look: Callable[[int], None] | None = None,
) -> int:
    """Start `python -I -B -m module arguments` with `fds` as 3, 4, ...; return its pid.

    Args:
        privileged: the supervisor was started as root and holds `privileges.KEPT`.
        groups: descriptors by which it joins its control groups, first of all (`cgroups.Tree.prepare`).
        look: called with its pid when its namespaces are made; a plain child can be looked into only then.

    Raises:
        SpawnFailed: the child did not get as far as exec.
    """
    parent = os.getpid()
    opened: list[int] = []
    try:
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
        status_r, status_w, go_r, go_w = opened
        pid = process.raw_clone(_clone_flags(privileged)) if kind.own_pids else os.fork()
    except OSError as error:
        frames.close_all(opened)
        raise _refused(error, module) from error
    if pid == 0:
        # The other ends must not live here: the child would wait for itself when the supervisor dies.
        os.close(status_r)
        os.close(go_w)
        _tied_to(parent)
        _child(module, arguments, fds, kind, log_fd, privileged, status_w, go_r, groups)
    os.close(status_w)
    os.close(go_r)
    try:
        if _status(status_r) != b"u":
            raise SpawnFailed("the child failed before its namespaces were made", subject=module)
        if look is not None:
            look(pid)
        if kind.caged:
            _write_maps(pid, kind, privileged)
        os.write(go_w, b"g")
        words = _status(status_r)
        if words:
            raise SpawnFailed(f"the child failed before exec: {words.decode(errors='replace')}", subject=module)
    except SpawnFailed:
        end(pid)
        raise
    except OSError as failure:
        end(pid)
        raise _refused(failure, module) from failure
    finally:
        os.close(status_r)
        os.close(go_w)
    return pid


def _refused(error: OSError, module: str) -> SpawnFailed:
    return exhausted(error, module) or SpawnFailed(f"cannot start the process: {error}", subject=module)


def pidfd_of(pid: int) -> int:
    """A descriptor of a child that was just started; where there is none to be had, the child is ended.

    Raises:
        Exhausted, SpawnFailed: the child is gone.
    """
    try:
        pidfd = libc.syscall("pidfd_open", pid, 0)
    except OSError as error:
        end(pid)
        raise exhausted(error) or SpawnFailed(f"no descriptor of the process: {error}") from error
    os.set_inheritable(pidfd, False)
    return pidfd


def end(pid: int) -> None:
    """Kill a child that nobody waits for yet, and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _clone_flags(privileged: bool) -> int:
    # A pid namespace is made by clone, not by unshare, for the child itself to be in it. Without privilege it needs
    # the new user namespace in the same call.
    return process.CLONE_NEWPID | (0 if privileged else process.CLONE_NEWUSER)


def _tied_to(parent: int) -> None:
    """Die with the supervisor from the first moment on (it may be dead already).

    In a pid namespace of its own a process sees no parent; there the closed pipe tells that it is dead.
    """
    process.die_with_parent()
    if os.getppid() not in (0, parent):
        os._exit(1)


def _status(reader: int) -> bytes:
    """What the child says; empty when exec closed the pipe."""
    ready, _, _ = select.select([reader], [], [], _STEP_SECONDS)
    if not ready:
        raise SpawnFailed("the child does not answer")
    return os.read(reader, 4096)


def _write_maps(pid: int, kind: Kind, privileged: bool) -> None:
    lines = f"0 {kind.uid} 1\n"
    if kind.extra is not None:
        lines += f"1 {kind.extra[0]} {kind.extra[1]}\n"
    files = [("gid_map", lines), ("uid_map", lines)]
    if not privileged:
        files = [("setgroups", "deny"), ("gid_map", f"0 {os.getgid()} 1\n"), ("uid_map", f"0 {os.getuid()} 1\n")]
    for name, text in files:
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _child(
    module: str,
    arguments: list[str],
    fds: list[int],
    kind: Kind,
    log_fd: int,
    privileged: bool,
    status_w: int,
    go_r: int,
    groups: Sequence[int],
) -> NoReturn:
    status = status_w
    try:
        cgroups.join(list(groups))  # while the uid is still the supervisor's, whose groups they are
        os.setsid()
        process.reset_signals()
        null = os.open("/dev/null", os.O_RDWR)
        status, go, log, null = (process.move_high(fd) for fd in (status_w, go_r, log_fd, null))
        os.umask(0o022)  # the way to the interpreter is made for another uid
        if privileged:
            libc.unshare(process.CLONE_NEWNS if kind.caged else PLAIN_NAMESPACES)
            mounts.make_private()
            mounts.expose([*interpreter_trees(), *kind.reads], kind.writes)
        # Its files in /proc must belong to this uid for its namespaces to be seen and its maps to be written. A change
        # of uid, or the process itself, ends that.
        libc.prctl(process.PR_SET_DUMPABLE, 1)
        if kind.caged:
            made = process.CLONE_NEWUSER if kind.own_pids and not privileged else 0
            libc.unshare(CAGED_NAMESPACES & ~made)
            process.die_with_parent()  # new credentials cleared it
        os.write(status, b"u")
        if os.read(go, 1) != b"g":
            os._exit(1)
        if kind.caged:
            if privileged:
                os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        else:
            if privileged:
                os.setgroups([])
                os.setresgid(kind.uid, kind.uid, kind.uid)
                os.setresuid(kind.uid, kind.uid, kind.uid)
            caps.drop_held()
            process.no_new_privileges()
        process.die_with_parent()
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        process.place_fds(*fds, keep_open=(status,))
        os.chdir("/")
        os.umask(0o077)
        os.execve(
            sys.executable, [sys.executable, "-I", "-B", "-m", module, *arguments], {} if kind.caged else _ENVIRONMENT
        )
    except BaseException as error:
        os.write(status, f"{type(error).__name__}: {error}".encode(errors="replace")[:2000])
    finally:
        os._exit(127)
