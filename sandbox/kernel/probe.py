"""What this machine's kernel can do for us, wall by wall; `airssys doctor` shows it, `airssys up` insists on it."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable
from typing import NamedTuple

from sandbox.kernel import landlock, libc, mounts, process, seccomp


class Wall(NamedTuple):
    """One wall.

    state: "on" (can stand here), "lost" (cannot, the host runs and says so), "missing" (cannot, and the host refuses
    to start without it).
    """

    name: str
    state: str
    detail: str


def _in_child(action: Callable[[], None]) -> str:
    """Run `action` in a forked child; "" when it worked, else the error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                action()
                os.write(writer, b"ok")
            except OSError as error:
                os.write(writer, str(error).encode()[:500])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return "" if text == "ok" else text or "the probe died"


def _namespaces() -> None:
    libc.unshare(
        process.CLONE_NEWUSER
        | process.CLONE_NEWNS
        | process.CLONE_NEWPID
        | process.CLONE_NEWNET
        | process.CLONE_NEWIPC
        | process.CLONE_NEWUTS
        | process.CLONE_NEWCGROUP
    )
    mounts.enter_empty_root()


def _mdwe() -> None:
    process.deny_write_execute()


def _id_mapped_mount() -> None:
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = mounts.clone_mount(directory)
    mounts.set_attributes(tree, mounts.ATTR_NOSUID | mounts.ATTR_NOSYMFOLLOW | mounts.ATTR_NODEV)


def _openat2() -> None:
    import struct

    fd = libc.syscall("openat2", mounts.AT_FDCWD, b"/\0", struct.pack("<QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0x04), 24)
    os.close(fd)


def _no_sysctl(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def probe() -> list[Wall]:
    """Every wall and its state on this machine for this user. Changes nothing; forks short-lived children."""
    root = os.geteuid() == 0
    walls = []

    def need(name: str, failure: str, good: str, hint: str) -> None:
        walls.append(Wall(name, "missing" if failure else "on", f"{failure}; {hint}" if failure else good))

    machine = platform.machine()
    known = machine in ("x86_64", "aarch64")
    need("machine", "" if known else f"{machine} is not covered", machine, "use x86-64 or aarch64")
    userns = _in_child(_namespaces)
    restricted = _no_sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    need(
        "namespaces",
        userns,
        "user, mount, pid, net, ipc, uts, cgroup and an empty root",
        "unprivileged user namespaces are restricted here: start as root, or set "
        "kernel.apparmor_restrict_unprivileged_userns=0"
        if restricted
        else "enable user namespaces (user.max_user_namespaces), or start as root",
    )
    need("seccomp", "" if seccomp.available() else "no SECCOMP_RET_KILL_PROCESS", "filter, KILL_PROCESS", "Linux 4.14")
    need(
        "libseccomp",
        "" if seccomp.library_available() else "libseccomp.so.2 cannot be loaded",
        "compiles the policies",
        "install the package libseccomp2",
    )
    version = landlock.abi()
    need(
        "landlock",
        "" if version >= landlock.WANTED_ABI else f"ABI {version}, needed {landlock.WANTED_ABI}",
        f"ABI {version}: all file system and network rights, signal and abstract socket scopes",
        "Linux 6.12 with Landlock enabled",
    )
    need("mdwe", _in_child(_mdwe), "no page becomes executable after loading", "Linux 6.3")
    need("openat2", _in_child(_openat2), "bridge opens beneath grants only", "Linux 5.6")
    if root:
        failure = _in_child(_id_mapped_mount)
        walls.append(
            Wall(
                "grant mounts",
                "lost" if failure else "on",
                failure + ": grants are O_PATH directories" if failure else "detached, id-mapped, no symbolic links",
            )
        )
        walls.append(Wall("own uids", "on", "one uid per worker, groups empty"))
    else:
        walls.append(Wall("grant mounts", "lost", "needs root: grants are O_PATH directories, openat2 alone guards"))
        walls.append(Wall("own uids", "lost", "needs root: all workers share your uid, and your groups stay"))
    walls.append(_cgroup_wall(root))
    return walls


def _cgroup_wall(root: bool) -> Wall:
    try:
        controllers = set(_no_sysctl("/sys/fs/cgroup/cgroup.controllers").split())
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        controllers = set()
    if {"memory", "pids"} <= controllers and (root or os.access("/sys/fs/cgroup/cgroup.procs", os.W_OK)):
        return Wall("cgroup", "on", "v2: memory.max, pids.max")
    if root and os.path.isdir("/sys/fs/cgroup/memory") and os.path.isdir("/sys/fs/cgroup/pids"):
        return Wall("cgroup", "on", "v1: memory.limit_in_bytes, pids.max")
    return Wall("cgroup", "lost", "no delegated controllers: rlimits alone bound memory and processes")
