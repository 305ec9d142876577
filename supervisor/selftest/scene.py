"""Scenes: what a control's process is before its program runs. Nothing of the cage stands in them.

* `ordinary`: a user nobody is, without any privilege. As root the self-test takes a uid of its own for it, so that
  what works does not work because of root; an ordinary user's controls are that user.
* `contained`: the same, with all capabilities in a user namespace of its own, in which its mounts are its own too: for
  attacks that need a privilege but must not touch the machine.
* `terminal`: `ordinary` with a controlling terminal, a new pseudo terminal, as descriptor 0.
* `unlimited`: `ordinary`, no_new_privs set, so that filters may be loaded.

In each of them descriptors 3 and 4 are channels as a worker has them, with somebody at the other end.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
import termios
from collections.abc import Callable

from sandbox.kernel import libc, mounts, process
from supervisor.selftest.native import descend

FIRST_UID = 0x6D000000
"""First of the uids that nobody has; as root each control takes one of them."""
_UIDS = 1 << 22
CHANNELS = (3, 4)
_kept: list[object] = []
"""What must live as long as the process."""


UID = FIRST_UID + os.getpid() % _UIDS if os.geteuid() == 0 else os.geteuid()
"""The uid of all controls of this process, and of what is forked from it."""


def become(uid: int) -> None:
    """As root: become a user without any privilege, open to debuggers as an ordinary program is."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        libc.prctl(process.PR_SET_DUMPABLE, 1)


def channels() -> None:
    """Descriptors 3 and 4, connected as a worker's are; a message waits on each."""
    for target, kind in zip(CHANNELS, (socket.SOCK_SEQPACKET, socket.SOCK_STREAM), strict=True):
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)
        _kept.append(high)
        os.dup2(ours.fileno(), target)
        os.write(high, b"a message")
        for sock in (ours, theirs):
            if sock.fileno() not in CHANNELS:
                sock.close()
            else:
                sock.detach()


def _ordinary() -> None:
    become(UID)
    channels()


def own_namespace(flags: int = 0) -> None:
    """A user namespace in which this process is 0, and others; every capability inside."""
    uid, gid = os.geteuid(), os.getegid()
    libc.unshare(process.CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        # By descriptor: opening a text file may import a codec, from where this uid may not read.
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, text.encode())
        os.close(fd)


def _contained() -> None:
    _ordinary()
    own_namespace(process.CLONE_NEWNS)
    mounts.make_private()


def _terminal() -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    os.dup2(slave, 0)
    _kept.append(master)
    descend()  # in the terminal's session, but not its leader: who leads cannot leave
    _ordinary()


def _unlimited() -> None:
    _ordinary()
    process.no_new_privileges()


SCENES: dict[str, Callable[[], None]] = {
    "ordinary": _ordinary,
    "contained": _contained,
    "terminal": _terminal,
    "unlimited": _unlimited,
}


CORE_SIZE = 4096
"""A core file of this length shows as much as a whole one."""


def core_limit() -> None:
    """Let the process leave a core file."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    size = CORE_SIZE if hard == resource.RLIM_INFINITY else min(CORE_SIZE, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (size, hard))


def core_files_stay_here() -> None:
    """Raises OSError where core(5) sends core files to another place than the working directory, or to a program."""
    fd = os.open("/proc/sys/kernel/core_pattern", os.O_RDONLY | os.O_CLOEXEC)
    pattern = os.read(fd, 200)
    os.close(fd)
    if pattern.startswith((b"|", b"/")):
        raise OSError(0, "core files leave the directory here, as core(5) has it")


def allow_all() -> bytes:
    """A filter of one instruction, which lets everything through."""
    return struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
