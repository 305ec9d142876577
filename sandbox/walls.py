"""The walls by name: what each stops, what to do where it cannot stand, and which a host may run without.

The names are the words of configuration, `doctor`, `status` and the audit log. `sandbox.kernel.probe` finds out what
stands on a machine; `supervisor.parent.consent` decides whether that is enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Facts(NamedTuple):
    """What is known of a wall on any machine."""

    stops: str
    """What it stops, for `doctor`."""
    remedy: str
    """What to do where it is missing."""


WALLS: dict[str, Facts] = {
    "machine": Facts("rules read as another processor's calls", "use x86-64 or aarch64"),
    "namespaces": Facts(
        "seeing any file, process, network or IPC object of the machine",
        "enable user namespaces (user.max_user_namespaces), or start as root",
    ),
    "seccomp": Facts("every system call but the few a worker needs", "Linux 4.14"),
    "libseccomp": Facts("a host without filters: it compiles them", "install the package libseccomp2"),
    "landlock": Facts(
        "files, sockets and signals a second time, behind filter and namespaces", "Linux 6.12 with Landlock enabled"
    ),
    "mdwe": Facts("new native code in a worker, whatever the filter says", "Linux 6.3"),
    "mseal": Facts("unmapping or changing the pages native code lies in", "Linux 6.10 on a 64-bit machine"),
    "openat2": Facts("paths that lead out of a granted directory", "Linux 5.6"),
    "grant mounts": Facts(
        "links, devices and writes in granted directories, by the kernel itself",
        "start as root, on Linux 5.12 or newer",
    ),
    "own uids": Facts(
        "one worker, or one process of the host, acting on another as the same user",
        "start as root of the machine, or of a container that has the ids of workers.uid-range-start",
    ),
    "cgroup": Facts(
        "memory beyond a component's limit, the kernel's own for it included; a second process",
        "start as root where the memory and pids controllers can be written, or have them delegated",
    ),
}
"""Every wall that depends on the machine or on who starts the host, in the order of the documents."""

MAY_BE_ACCEPTED = ("landlock", "mdwe", "mseal", "cgroup", "grant mounts")
"""Walls that a `degraded` host may run without, once each is named in `workers.accept-lost`. The others hold the cage
up: without namespaces, filters or an empty root there is none."""

NEED_ROOT = ("own uids", "grant mounts", "cgroup")
"""Walls that an ordinary user's host runs without: starting it as one is the consent."""


def spell(names: Iterable[str]) -> str:
    """Names as one argument of a process."""
    return ",".join(sorted(names))


def parse(text: str) -> frozenset[str]:
    """The names `spell` wrote.

    Raises:
        ValueError: one is no wall that can be lost.
    """
    names = frozenset(filter(None, text.split(",")))
    if unknown := names - {*MAY_BE_ACCEPTED, *NEED_ROOT}:
        raise ValueError(f"not walls that can be lost: {spell(unknown)}")
    return names
