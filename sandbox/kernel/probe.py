"""What this machine's kernel can do for us, wall by wall; `airssys doctor` shows it, `airssys up` insists on it.

Each wall is tried in a child that ends, not looked up by version: distributions switch things off and port them back.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from typing import NamedTuple

from sandbox.kernel import landlock, libc, mounts, process, seccomp
from sandbox.walls import WALLS

FIRST_UID = 0x70000000
"""Default of `workers.uid-range-start`."""
UIDS = 4000 << 16
"""How many ids from there on belong to hosts."""


class Wall(NamedTuple):
    """One wall.

    state: "on" (can stand here), "lost" (cannot, because the host is started by an ordinary user), "missing" (cannot
    on this machine).
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


def _mseal() -> None:
    # Never unmapped again: the child's end takes it.
    page = mmap.mmap(-1, mmap.PAGESIZE)
    libc.syscall("mseal", ctypes.addressof(ctypes.c_char.from_buffer(page)), mmap.PAGESIZE, 0)


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


def probe(first_uid: int = FIRST_UID) -> list[Wall]:
    """Every wall and its state on this machine for this user. Changes nothing; forks short-lived children.

    Args:
        first_uid: where the ids of hosts started as root begin.
    """
    root = os.geteuid() == 0
    found = {
        "machine": _machine(),
        "namespaces": _namespaced(),
        "seccomp": _stands("" if seccomp.available() else "no SECCOMP_RET_KILL_PROCESS", "filter, KILL_PROCESS"),
        "libseccomp": _stands(
            "" if seccomp.library_available() else "libseccomp.so.2 cannot be loaded", "compiles the policies"
        ),
        "landlock": _landlock(),
        "mdwe": _stands(_in_child(_mdwe), "no page becomes executable after loading"),
        "mseal": _stands(_in_child(_mseal), "the pages of native code stay as they are"),
        "openat2": _stands(_in_child(_openat2), "bridge opens beneath grants only"),
    }
    if root:
        found["grant mounts"] = _stands(_in_child(_id_mapped_mount), "detached, id-mapped, no symbolic links")
        found["own uids"] = _own_uids(first_uid)
    else:
        found["grant mounts"] = ("lost", "needs root: grants are O_PATH directories, openat2 alone guards")
        found["own uids"] = ("lost", "needs root: all workers share your uid, and your groups stay")
    found["cgroup"] = _cgroups(root)
    return [Wall(name, *found[name]) for name in WALLS]


def _stands(failure: str, good: str) -> tuple[str, str]:
    return ("missing", failure) if failure else ("on", good)


def _machine() -> tuple[str, str]:
    machine = platform.machine()
    return _stands("" if machine in ("x86_64", "aarch64") else f"{machine} is not covered", machine)


def _namespaced() -> tuple[str, str]:
    failure = _in_child(_namespaces)
    if failure and _no_sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        failure += "; kernel.apparmor_restrict_unprivileged_userns forbids them to ordinary users"
    return _stands(failure, "user, mount, pid, net, ipc, uts, cgroup and an empty root")


def _landlock() -> tuple[str, str]:
    version = landlock.abi()
    lacks = landlock.lacks(version)
    return _stands(
        f"ABI {version}, needed {landlock.WANTED_ABI}; not restricted: {lacks}" if lacks else "",
        f"ABI {version}: all file system and network rights, signal and abstract socket scopes",
    )


def _own_uids(first: int) -> tuple[str, str]:
    # Root of a container has the ids that its user namespace maps, and no others (user_namespaces(7)).
    spans = [[int(word) for word in line.split()] for line in _no_sysctl("/proc/self/uid_map").splitlines()]
    if any(start <= first and first + UIDS <= start + count for start, _, count in spans):
        return "on", "one uid per worker, groups empty"
    return "missing", f"the user namespace this host starts in has not the ids from {first} on"


def _cgroups(root: bool) -> tuple[str, str]:
    controllers = set(_no_sysctl("/sys/fs/cgroup/cgroup.controllers").split())
    if {"memory", "pids"} <= controllers and os.access("/sys/fs/cgroup/cgroup.procs", os.W_OK):
        return "on", "v2: memory.max, pids.max"
    if root and all(os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in ("memory", "pids")):
        return "on", "v1: memory.limit_in_bytes, pids.max"
    without = "rlimits alone bound memory and processes"
    if root:
        return "missing", f"no memory and pids controllers that can be written: {without}"
    return "lost", f"no delegated controllers: {without}"
