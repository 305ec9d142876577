"""The walls around the host's own processes: from a fresh process to one that holds what its work needs.

Two kinds, as they are started (`supervisor.parent.spawn`). A *caged* one (auditor, bridge) is exec'd inside a user
namespace that maps one id; it enters an empty root with every module imported. A *plain* one (router, control) has its
final uid and no capability and keeps the host's root, of which Landlock leaves it little. Both end with a filter of
their own, `sandbox/policy/NAME.toml`, after which no wall can be moved.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from collections.abc import Iterable

from sandbox.kernel import caps, landlock, mounts, process, seccomp

_NOTHING = (
    resource.RLIMIT_CORE,
    resource.RLIMIT_MEMLOCK,
    resource.RLIMIT_MSGQUEUE,
    resource.RLIMIT_RTPRIO,
)
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/dev/null",
    "/dev/urandom",
    "/sys/devices/system/cpu",
)
"""What libraries read on any machine: users' names, the time zone, the number of processors."""
_LATE = (
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.utf_16",
    "encodings.utf_16_be",
    "encodings.utf_16_le",
    "encodings.utf_32",
    "linecache",
    "queue",
    "traceback",
    "unicodedata",
)


def confine(
    name: str,
    policy: str,
    descriptors: int,
    *,
    files: bool = True,
    keeps: Iterable[int] = (),
    lost: frozenset[str] = frozenset(),
) -> None:
    """A caged process enters an empty root and gives up every capability for good.

    Args:
        name: the process's name.
        policy: its filter.
        descriptors: RLIMIT_NOFILE from now on, or what the machine allows if that is less.
        files: whether Landlock handles files. The bridge takes grants at run time, which Landlock cannot add.
        keeps: open directories in which it keeps files.
        lost: walls the host runs without (`sandbox.walls`).

    Raises:
        OSError, PolicyError: a step failed; the process must end.
    """
    # What needs a library, a file or /proc.
    preload()
    bpf = seccomp.compile_policy(policy)
    version = landlock.abi()
    process.no_writable_code()
    process.set_name(name)
    process.new_session_keyring()
    # No file system, no capability, now or ever.
    mounts.enter_empty_root()
    caps.drop_all()
    process.set_limit(resource.RLIMIT_NPROC, 0)
    process.set_limit(resource.RLIMIT_NOFILE, descriptors)
    _close(version, bpf, lost, files, [landlock.Allowed(fd, landlock.KEEPS) for fd in keeps])


def confine_in_place(
    name: str,
    policy: str,
    *,
    reads: Iterable[str] = (),
    owns: Iterable[str] = (),
    lost: frozenset[str] = frozenset(),
) -> None:
    """A plain process keeps its root and gives up what its work does not need.

    Args:
        name: the process's name.
        policy: its filter.
        reads: paths it reads beside the installation's and the system's libraries; one that is not there is left out.
        owns: trees it keeps files in.
        lost: walls the host runs without (`sandbox.walls`).

    Raises:
        OSError, PolicyError: a step failed; the process must end.
    """
    preload()
    bpf = seccomp.compile_policy(policy)
    version = landlock.abi()
    process.no_writable_code()
    process.set_name(name)
    process.new_session_keyring()
    wanted = [(path, landlock.READS) for path in (*installation(), *_SYSTEM, *reads)]
    wanted += [(path, landlock.OWNS) for path in owns]
    opened = [entry for path, rights in wanted if (entry := landlock.open_allowed(path, rights)) is not None]
    try:
        _close(version, bpf, lost, True, opened)
    finally:
        for entry in opened:
            os.close(entry.fd)


def _close(version: int, bpf: bytes, lost: frozenset[str], files: bool, allowed: list[landlock.Allowed]) -> None:
    for which in _NOTHING:
        process.set_limit(which, 0)
    process.no_dump()
    process.die_with_parent()
    process.no_new_privileges()
    if "mdwe" not in lost:
        process.deny_write_execute()
    landlock.restrict(version, "landlock" in lost, files=files, allowed=allowed)
    # Nothing after this line can be undone or repeated.
    seccomp.load(bpf)


def installation() -> list[str]:
    """Directories and files that this interpreter imports from."""
    found = {sys.prefix, sys.base_prefix, *(path for path in sys.path if path)}
    return sorted(path for path in found if os.path.exists(path))


def preload() -> None:
    """Import what the interpreter would import by itself at some later time, when no library can be loaded any more."""
    for module in _LATE:
        importlib.import_module(module)


def confine_parent(lost: frozenset[str] = frozenset()) -> None:
    """The supervisor, which must still mount and start processes: what of the above it can live with.

    Its filter is the union of its own needs and those of every process that it starts, for filters are inherited;
    so are no_new_privs and the Landlock domain (TCP, abstract sockets, signals to strangers). Executable memory it
    denies to itself alone.

    Raises:
        OSError, PolicyError: a step failed; the host must not start.
    """
    preload()
    bpf = seccomp.compile_policy("supervisor")
    version = landlock.abi()
    process.no_writable_code()
    for which in _NOTHING:
        process.set_limit(which, 0)
    process.no_dump()
    process.no_new_privileges()
    if "mdwe" not in lost:
        process.deny_write_execute(inherited=False)
    landlock.restrict(version, "landlock" in lost, files=False)
    seccomp.load(bpf)
