"""What confines each process of the host, read in /proc while it runs (proc(5)), for `airssys doctor`.

The supervisor reads it because it alone can look at the namespaces of processes that are not dumpable: caged ones live
in user namespaces it owns, and plain ones it looks at while it starts them (`Services.seen_of`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable

from sandbox.kernel import landlock
from sandbox.policy.rules import allowed_calls
from sandbox.wire.supervisor_frames import Confinement

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
LIMITS = (
    "Max address space",
    "Max core file size",
    "Max data size",
    "Max file size",
    "Max locked memory",
    "Max open files",
    "Max processes",
)
"""The resource limits worth showing."""
_WITHOUT_FILES = ("supervisor", "bridge")
"""Processes whose Landlock domain leaves files alone: the one mounts, the other takes grants while it runs."""


def namespaces(pid: int | str) -> dict[str, str]:
    """The namespaces a process is in, by kind; empty where they cannot be read."""
    try:
        return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
    except OSError:
        return {}


def measure(
    processes: Iterable[tuple[str, int]], seen: Callable[[int], dict[str, str] | None], lost: frozenset[str]
) -> list[Confinement]:
    """What confines each of these processes; one that is gone meanwhile is left out.

    Args:
        processes: name and pid, children of ours that have not been waited for, or this process.
        seen: namespaces of a process that cannot be read any more.
        lost: walls the host runs without.
    """
    own = namespaces("self")
    found = []
    for name, pid in processes:
        try:
            status, limits, root = _status(pid), _limits(pid), _root(pid)
        except OSError:
            continue
        there = namespaces(pid) or seen(pid)
        policy = "worker" if "/" in name else name
        found.append(
            Confinement(
                name=name,
                pid=pid,
                uid=int(status["Uid"].split()[1]),
                gid=int(status["Gid"].split()[1]),
                groups=len(status["Groups"].split()),
                capabilities=int(status["CapEff"], 16),
                bounding=int(status["CapBnd"], 16),
                no_new_privileges=status["NoNewPrivs"] == "1",
                filters=int(status.get("Seccomp_filters", "0")),
                threads=int(status["Threads"]),
                namespaces=[kind for kind in NAMESPACES if there[kind] != own[kind]] if there else None,
                root=root,
                limits=limits,
                calls=_calls(policy),
                landlock=_landlock(name, lost),
            )
        )
    return found


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _limits(pid: int) -> dict[str, int]:
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        rows = {line[:26].strip(): line[26:].split() for line in file.readlines()[1:]}
    return {name: -1 if rows[name][1] == "unlimited" else int(rows[name][1]) for name in LIMITS}


def _root(pid: int) -> str:
    def mounts(of: int | str) -> list[str]:
        with open(f"/proc/{of}/mountinfo", encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()

    there = mounts(pid)
    if len(there) == 1 and " / / ro," in there[0] and " tmpfs " in there[0]:
        return "empty"
    # The first number of a line is the mount's, which no other namespace has.
    own = {line.split(" ", 1)[0] for line in mounts("self")}
    return "the machine's" if {line.split(" ", 1)[0] for line in there} & own else "own mounts"


@functools.cache
def _calls(policy: str) -> int:
    return len(allowed_calls(policy))


@functools.cache
def _landlock(name: str, lost: frozenset[str]) -> str:
    version = landlock.abi()
    if "landlock" in lost:
        return f"ABI {version}, lost in part" if version else "none"
    return f"ABI {version}: TCP, scopes" if name in _WITHOUT_FILES else f"ABI {version}: files, TCP, scopes"
