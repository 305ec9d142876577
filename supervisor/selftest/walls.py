"""The walls of the cage one by one, each put up by the cage's own step or the primitive that step uses.

For the matrix "each wall alone": a control's process puts up one of these and nothing else. What a wall needs in order
to stand by itself (a capability in a namespace of its own) the scene gives; the cage takes it from elsewhere.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass

from sandbox import cage
from sandbox.kernel import caps, landlock, libc, mounts, process, seccomp
from supervisor.selftest.native import descend

MEMORY = 256 << 20
"""Address space that a limited control may have beyond what it has."""


@dataclass(frozen=True)
class Wall:
    """A wall: its name in the report, and how it is put up in the calling process (raises OSError)."""

    name: str
    put_up: Callable[[], None]


class Prepared:
    """What walls need from a process that is still free: made once, before any control is forked."""

    def __init__(self) -> None:
        self.filter = seccomp.compile_policy("worker")
        self.landlock = landlock.abi()
        self.address_space, self.data = process.address_space(), process.data()


def _namespace(flag: int) -> Callable[[], None]:
    def unshare() -> None:
        libc.unshare(flag)
        if flag == process.CLONE_NEWPID:
            descend()  # only children are in it

    return unshare


def _empty_root() -> None:
    libc.unshare(process.CLONE_NEWNS)
    mounts.enter_empty_root()


def _no_user_namespaces() -> None:
    # Open at once: what is behind the name may be another namespace's later.
    fd = os.open("/proc/sys/user/max_user_namespaces", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, b"0")
    os.close(fd)


def _limit(which: int, value: int = 0) -> Callable[[], None]:
    return lambda: process.set_limit(which, value)


def walls(prepared: Prepared) -> list[Wall]:
    """All of them, in the cage's order."""

    def filter_() -> None:
        process.no_new_privileges()  # without a capability the kernel takes no filter otherwise
        seccomp.load(prepared.filter)

    def landlock_() -> None:
        process.no_new_privileges()
        landlock.restrict_all(prepared.landlock)

    limits = {
        "AS": (resource.RLIMIT_AS, prepared.address_space + MEMORY),
        "DATA": (resource.RLIMIT_DATA, prepared.data + MEMORY),
        "CORE": (resource.RLIMIT_CORE, 0),
        "FSIZE": (resource.RLIMIT_FSIZE, 0),
        "NPROC": (resource.RLIMIT_NPROC, 0),
        "MEMLOCK": (resource.RLIMIT_MEMLOCK, 0),
        "MSGQUEUE": (resource.RLIMIT_MSGQUEUE, 0),
        "RTPRIO": (resource.RLIMIT_RTPRIO, 0),
        "SIGPENDING": (resource.RLIMIT_SIGPENDING, 16),
        "NOFILE": (resource.RLIMIT_NOFILE, 0),
    }
    return [
        Wall("setsid", os.setsid),
        Wall("keyring", process.new_session_keyring),
        Wall("user ns", _namespace(process.CLONE_NEWUSER)),
        Wall("empty root", _empty_root),
        Wall("pid ns", _namespace(process.CLONE_NEWPID)),
        Wall("net ns", _namespace(process.CLONE_NEWNET)),
        Wall("ipc ns", _namespace(process.CLONE_NEWIPC)),
        Wall("uts ns", _namespace(process.CLONE_NEWUTS)),
        Wall("no user ns", _no_user_namespaces),
        Wall("capabilities", caps.drop_all),
        *(Wall(name, _limit(which, value)) for name, (which, value) in limits.items()),
        Wall("not dumpable", process.no_dump),
        Wall("no new privs", process.no_new_privileges),
        Wall("descriptors", cage._two_descriptors),
        Wall("MDWE", process.deny_write_execute),
        Wall("Landlock", landlock_),
        Wall("seccomp", filter_),
    ]


_BEFORE: dict[str, str] = {"no user ns": "empty root", "Landlock": "NOFILE"}
"""Walls that need, while they go up, what another one takes away."""


def together(listed: list[Wall]) -> Callable[[], None]:
    """Put up several of them, in the cage's order as far as each can still stand; raises OSError."""
    ordered = list(listed)
    for early, late in _BEFORE.items():
        names = [wall.name for wall in ordered]
        if early in names and late in names:
            ordered.insert(names.index(late), ordered.pop(names.index(early)))

    def put_up() -> None:
        for wall in ordered:
            if wall.name == "setsid" and os.getsid(0) == os.getpid():
                continue  # stands: who leads a session cannot found another
            try:
                wall.put_up()
            except OSError as error:
                raise OSError(error.errno, f"{wall.name}: {error.strerror or error}") from error

    return put_up
