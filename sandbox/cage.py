"""The cage: every wall around a worker, in the order in which it goes up.

`enter` is the whole order in one function. Each step is fatal: the exception names it, the supervisor is told, and the
worker never runs. The tenant's code, its start functions included, runs only after `enter` has returned and the
supervisor has checked the result from outside. The reasons for the order:

* Whatever does not depend on the component goes up first. A worker then waits, a blank, for its component: caged
  already, under the first filter. It may wait in a pool, or find its component waiting: the order is the same.
* The zygote already lives in the empty root inside a user namespace that the supervisor owns, so a worker needs no
  mount work; it takes seven namespaces of its own on top (clone made the pid namespace).
* The uid changes before the worker's own user namespace is made, because namespaces are counted per uid: with
  `max_user_namespaces = 1` in the zygote's namespace a worker's uid can make exactly this one.
* The worker's user namespace has no id map at all: no id in it means anything.
* PDEATHSIG comes after the last change of credentials, which clears it; Landlock needs no_new_privs.
* Loading native code needs executable pages, so it happens under the first filter; after it MDWE forbids them for good.
* Everything that still needs a descriptor comes before descriptors are forbidden; the last filter forbids all of these
  calls.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from sandbox.errors import SetupFailed
from sandbox.kernel import caps, cgroups, landlock, process, seccomp

T = TypeVar("T")

BRIDGE_FD = 3
ROUTER_FD = 4
SIX_NAMESPACES = (
    process.CLONE_NEWUSER
    | process.CLONE_NEWNS
    | process.CLONE_NEWNET
    | process.CLONE_NEWIPC
    | process.CLONE_NEWUTS
    | process.CLONE_NEWCGROUP
)
"""All but the pid namespace, which clone made."""
STACK = 8 << 20
"""Bytes of stack of a worker."""


class Blueprint(msgspec.Struct, frozen=True):
    """What the zygote prepared once for all workers."""

    first_filter: bytes
    last_filter: bytes
    landlock_abi: int
    mapped: int
    """Bytes the zygote itself has mapped; a worker's limits come on top."""
    own_uids: bool
    """Whether each worker has a uid of its own (the host was started as root)."""
    user_sysctl: int | None = None
    """Without own uids: a descriptor of /proc/sys/user, to forbid further user namespaces from inside."""
    reservation: int = 0
    """Bytes of address space that each linear memory reserves and never touches; RLIMIT_AS alone counts them."""
    lost: frozenset[str] = frozenset()
    """Names of walls this machine cannot put up and the operator agreed to lose (`sandbox.walls`)."""


class Component(Protocol):
    """What a worker is made for, from the cage's side."""

    def receive(self) -> None:
        """Wait for the component on fd 3. Raises EOFError when the supervisor needs no worker any more."""

    def load(self) -> list[tuple[int, int]]:
        """Turn its code into executable pages; run none of it. Returns the spans (address, length) that were found."""

    def memory(self, reservation: int) -> tuple[int, int]:
        """Bytes of data and of address space it may use, beyond what a worker has mapped anyway.

        Args:
            reservation: see `Blueprint`.
        """


class _Steps:
    """Runs steps and names the one that failed."""

    def __init__(self, lost: frozenset[str]) -> None:
        self._lost = lost

    def __call__(self, name: str, action: Callable[..., T], *arguments: object) -> T:
        try:
            return action(*arguments)
        except (SetupFailed, EOFError):
            raise
        except Exception as error:
            raise SetupFailed(f"hardening step failed: {error}", subject=name) from error

    def unless_lost(self, wall: str, name: str, action: Callable[..., object], *arguments: object) -> None:
        """The same, but for a wall that was agreed to be lost on this machine."""
        if wall not in self._lost:
            self(name, action, *arguments)


def enter(blueprint: Blueprint, uid: int, groups: list[int], component: Component) -> None:
    """Put up every wall around this process, and on the way wait for its component and load it.

    Args:
        blueprint: prepared by the zygote.
        uid: the worker's id inside the zygote's namespace.
        groups: descriptors of the control groups to join.
        component: what the worker is for.

    Raises:
        SetupFailed: a step failed; `subject` is its name. The process must end.
        EOFError: the supervisor hung up while the worker waited for its component.
    """
    step = _Steps(blueprint.lost)
    # 1. Limited from the first moment; out of the starter's session and keys.
    step("control group", cgroups.join, groups)
    step("setsid", os.setsid)
    step("umask", os.umask, 0o077)
    step("keyring", process.new_session_keyring)
    # 2. An identity of its own, then namespaces of its own.
    if blueprint.own_uids:
        step("uid", _become, uid)
    step("namespaces", os_unshare, SIX_NAMESPACES)
    if blueprint.user_sysctl is not None:
        step("no further user namespaces", _forbid_user_namespaces, blueprint.user_sysctl)
    # 3. No capability, now or ever.
    step("capabilities", caps.drop_all)
    # 4. Limits that are the same for all.
    step("limits", _limits)
    # 5. Switches.
    step("not dumpable", process.no_dump)
    step("speculation", process.no_speculation)
    step("huge pages", process.no_huge_pages)
    step("die with the supervisor", process.die_with_parent)
    step("no new privileges", process.no_new_privileges)
    # 6. No file system, no network, no signals.
    step("stray descriptors", _three_descriptors)
    step("landlock", landlock.restrict_all, blueprint.landlock_abi, "landlock" in blueprint.lost)
    # 7. First filter. What waits here is a blank: it has no component, and nothing else is left to take from it.
    step("first filter", seccomp.load, blueprint.first_filter)
    step("component", component.receive)
    # 8. The component's native code, then never again an executable page, and these pages for ever as they are.
    code = step("load", component.load)
    step.unless_lost("mdwe", "no executable memory", process.deny_write_execute)
    step.unless_lost("mseal", "sealed code", process.seal_pages, code)
    # 9. The component's own limits; two descriptors and never another.
    step("memory", _memory, blueprint.mapped, blueprint.reservation, component)
    step("descriptors", _two_descriptors)
    step("no descriptors", process.set_limit, resource.RLIMIT_NOFILE, 0)
    # 10. The last filter. Nothing after this line can be undone or repeated.
    step("last filter", seccomp.load, blueprint.last_filter)


def os_unshare(flags: int) -> None:
    """unshare(2) (os.unshare exists from Python 3.12 on)."""
    from sandbox.kernel import libc

    libc.unshare(flags)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid) or os.getgroups():
        raise OSError(0, "the uid change did not hold")


def _forbid_user_namespaces(directory: int) -> None:
    # The sysctl directory shows the opener's own namespace, so this writes the new one's limit.
    fd = os.open("max_user_namespaces", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def _limits() -> None:
    process.set_limit(resource.RLIMIT_STACK, STACK)
    for which in (
        resource.RLIMIT_CORE,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_MEMLOCK,
        resource.RLIMIT_MSGQUEUE,
        resource.RLIMIT_RTPRIO,
    ):
        process.set_limit(which, 0)
    process.set_limit(resource.RLIMIT_SIGPENDING, 16)


def _three_descriptors() -> None:
    # One slot beside the channels: Landlock's ruleset now, the component's code later.
    process.close_range(0, BRIDGE_FD - 1)
    process.close_range(ROUTER_FD + 1)
    process.set_limit(resource.RLIMIT_NOFILE, ROUTER_FD + 2)


def _memory(mapped: int, reservation: int, component: Component) -> None:
    data, address_space = component.memory(reservation)
    process.set_limit(resource.RLIMIT_DATA, mapped + data)
    process.set_limit(resource.RLIMIT_AS, mapped + address_space)


def _two_descriptors() -> None:
    process.close_range(0, BRIDGE_FD - 1)
    process.close_range(ROUTER_FD + 1)
