"""The outside check: what the kernel says of a worker, or a compiler, that says it is sealed.

Read from /proc/PID by the supervisor, which owns the process's user namespace and so may read a process that is not
dumpable. Any difference kills it before it gets its first message, or a stranger's bytes. Reference: proc(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from supervisor.parent.errors import OutsideCheckFailed, exhausted

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_NO_MORE = (
    "Max core file size",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max msgqueue size",
    "Max realtime priority",
)
_ZERO = "0000000000000000"
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


Namespaces = dict[str, frozenset[str]]
"""Per kind of namespace, those a worker must not be in."""


def own_namespaces() -> Namespaces:
    """The supervisor's own namespaces, to be compared with."""
    return {name: frozenset({os.readlink(f"/proc/self/ns/{name}")}) for name in NAMESPACES}


def with_namespaces(namespaces: Namespaces, pid: int) -> Namespaces:
    """These and the ones of `pid` (the zygote's: a worker that stayed in one would share it with all others).

    Raises:
        OSError: the process is gone or cannot be read.
    """
    return {name: known | {os.readlink(f"/proc/{pid}/ns/{name}")} for name, known in namespaces.items()}


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def filters_of(pid: int) -> int:
    """How many system-call filters a process is under; they are inherited. Raises OSError when it is gone."""
    return int(_status(pid).get("Seccomp_filters", "0"))


def _limits(pid: int) -> dict[str, tuple[str, str]]:
    """Soft and hard value of each resource limit."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        rows = [(line[:26].strip(), line[26:].split()) for line in file.readlines()[1:]]
    return {name: (values[0], values[1]) for name, values in rows}


@dataclass(frozen=True)
class Wanted:
    """What a sealed process must be.

    Attributes:
        uid: the outside uid, four times, as its gid.
        own_uid: whether that uid is its own; without, supplementary groups cannot be emptied and are not checked.
        foreign: what none of its namespaces may be, the host's and the zygote's.
        filters: how many system-call filters it is under, those inherited and its own.
        descriptors: number to the beginning of what it leads to.
        limits: name in /proc/PID/limits to the wanted value, soft and hard, beside those that must be 0.
    """

    uid: int
    own_uid: bool
    foreign: Namespaces
    filters: int
    descriptors: dict[str, str]
    limits: dict[str, int]


def check(pid: int, uid: int, own_uid: bool, foreign: Namespaces, inherited: int) -> None:
    """Check a sealed worker: two filters of its own, two sockets, no file to write.

    Args:
        pid: the worker, a child of ours that has not been waited for (so the number cannot be another's).
        uid, own_uid, foreign: see `Wanted`.
        inherited: how many filters the zygote is under.

    Raises:
        OutsideCheckFailed: something differs; the message says what was found and what was wanted.
    """
    descriptors = {"3": "socket:", "4": "socket:"}
    check_process(pid, Wanted(uid, own_uid, foreign, inherited + 2, descriptors, {"Max file size": 0}))


def check_process(pid: int, wanted: Wanted) -> None:
    """Check a sealed process, a child of ours that has not been waited for.

    Raises:
        OutsideCheckFailed: something differs; the message says what was found and what was wanted.
        Exhausted: there is nothing to look with.
    """
    try:
        status = _status(pid)
        descriptors = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in sorted(os.listdir(f"/proc/{pid}/fd"), key=int)}
        namespaces = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            mounts = file.read().splitlines()
        limits = _limits(pid)
    except OSError as error:
        if (used_up := exhausted(error, str(pid))) is not None:
            raise used_up from error
        raise OutsideCheckFailed(f"cannot read the process's state: {error}", subject=str(pid)) from error
    lines = {
        "PPid": str(os.getpid()),
        "Uid": "\t".join([str(wanted.uid)] * 4),
        "Gid": "\t".join([str(wanted.uid if wanted.own_uid else os.getgid())] * 4),
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Seccomp_filters": str(wanted.filters),
        "Threads": "1",
        **dict.fromkeys(_CAPABILITIES, _ZERO),
    }
    if wanted.own_uid:
        lines["Groups"] = ""
    for key, value in lines.items():
        if status.get(key) != value:
            raise OutsideCheckFailed(f"{key} is {status.get(key)!r}, wanted {value!r}", subject=str(pid))
    for name, number in {**dict.fromkeys(_NO_MORE, 0), **wanted.limits}.items():
        if limits.get(name) != (str(number), str(number)):
            found = " and ".join(limits.get(name, ("not there",)))
            raise OutsideCheckFailed(f"limit of {name} is {found}, wanted {number}", subject=str(pid))
    if not status.get("NSpid", "").endswith("\t1"):
        raise OutsideCheckFailed(
            f"not the first process of its pid namespace: {status.get('NSpid')!r}", subject=str(pid)
        )
    if descriptors.keys() != wanted.descriptors.keys() or not all(
        descriptors[fd].startswith(kind) for fd, kind in wanted.descriptors.items()
    ):
        raise OutsideCheckFailed(
            f"descriptors are {list(descriptors)} {list(descriptors.values())}, wanted {wanted.descriptors}",
            subject=str(pid),
        )
    shared = [name for name in NAMESPACES if namespaces[name] in wanted.foreign[name]]
    if shared:
        raise OutsideCheckFailed(f"namespaces shared with host or zygote: {', '.join(shared)}", subject=str(pid))
    if len(mounts) != 1 or " / / ro," not in mounts[0] or " tmpfs " not in mounts[0]:
        raise OutsideCheckFailed(f"mounts are {mounts}, wanted one read-only empty root", subject=str(pid))
