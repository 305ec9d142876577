"""The outside check: what the kernel says of a worker that says it is sealed.

Read from /proc/PID by the supervisor, which owns the worker's user namespace and so may read a process that is not
dumpable. Any difference kills the worker before its first message. Reference: proc(5).
"""

from __future__ import annotations

import os

from supervisor.parent.errors import OutsideCheckFailed

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_NO_MORE = (
    "Max core file size",
    "Max file size",
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


def _limits(pid: int) -> list[tuple[str, str, str]]:
    """Name, soft and hard value of the limits that must be 0."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        rows = [(line[:26].strip(), *line[26:].split()[:2]) for line in file.readlines()[1:]]
    return [(name, soft, hard) for name, soft, hard in rows if name in _NO_MORE]


def check(pid: int, uid: int, own_uid: bool, foreign: Namespaces) -> None:
    """Check a sealed worker.

    Args:
        pid: the worker, a child of ours that has not been waited for (so the number cannot be another's).
        uid: the outside uid it must have, four times, as its gid.
        own_uid: whether uids are per worker; without, supplementary groups cannot be emptied and are not checked.
        foreign: what none of its namespaces may be, the host's and the zygote's.

    Raises:
        OutsideCheckFailed: something differs; the message says what was found and what was wanted.
    """
    try:
        status = _status(pid)
        descriptors = sorted(os.listdir(f"/proc/{pid}/fd"), key=int)
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in descriptors]
        namespaces = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
            mounts = file.read().splitlines()
        limits = _limits(pid)
    except OSError as error:
        raise OutsideCheckFailed(f"cannot read the worker's state: {error}", subject=str(pid)) from error
    wanted = {
        "PPid": str(os.getpid()),
        "Uid": "\t".join([str(uid)] * 4),
        "Gid": "\t".join([str(uid if own_uid else os.getgid())] * 4),
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Seccomp_filters": "2",
        "Threads": "1",
        **dict.fromkeys(_CAPABILITIES, _ZERO),
    }
    if own_uid:
        wanted["Groups"] = ""
    for key, value in wanted.items():
        if status.get(key) != value:
            raise OutsideCheckFailed(f"{key} is {status.get(key)!r}, wanted {value!r}", subject=str(pid))
    for name, soft, hard in limits:
        if (soft, hard) != ("0", "0"):
            raise OutsideCheckFailed(f"limit of {name} is {soft} and {hard}, wanted 0", subject=str(pid))
    if not status.get("NSpid", "").endswith("\t1"):
        raise OutsideCheckFailed(
            f"not the first process of its pid namespace: {status.get('NSpid')!r}", subject=str(pid)
        )
    if descriptors != ["3", "4"] or not all(link.startswith("socket:") for link in links):
        raise OutsideCheckFailed(
            f"descriptors are {descriptors} {links}, wanted two sockets, 3 and 4", subject=str(pid)
        )
    shared = [name for name in NAMESPACES if namespaces[name] in foreign[name]]
    if shared:
        raise OutsideCheckFailed(f"namespaces shared with host or zygote: {', '.join(shared)}", subject=str(pid))
    if len(mounts) != 1 or " / / ro," not in mounts[0] or " tmpfs " not in mounts[0]:
        raise OutsideCheckFailed(f"mounts are {mounts}, wanted one read-only empty root", subject=str(pid))
