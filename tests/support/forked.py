"""Run a function in a forked child and bring back how it ended, whatever walls went up meanwhile.

The answer comes back through shared memory, not through a descriptor: a child that closed every descriptor, lost its
file system or loaded a filter of 11 calls can still give it.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox.kernel import libc, process

_ROOM = 1 << 20
ORDINARY = 0x6E000000
"""First of the uids nobody has, which tests started as root take on."""


class Ended(NamedTuple):
    """How a child ended: what it returned, or the error it raised, or the signal that killed it."""

    value: Any
    error: str
    errno: int
    status: int
    signal: int


class Mailbox:
    """Shared memory with one JSON value in it; writing needs no system call."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM)

    def put(self, value: Any) -> None:
        """Leave a value (JSON)."""
        body = json.dumps(value).encode()
        self._memory[8 : 8 + len(body)] = body
        self._memory[:8] = len(body).to_bytes(8, "little")

    def get(self) -> Any:
        """The value left last; None when there is none."""
        length = int.from_bytes(self._memory[:8], "little")
        return json.loads(self._memory[8 : 8 + length]) if length else None

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


def fork() -> int:
    """os.fork for tests whose runner has threads (Python 3.12 warns of them)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _where(error: BaseException) -> str:
    # Reading sources for a traceback may be what the walls forbid: names and lines alone.
    steps = []
    trace = error.__traceback__
    while trace is not None:
        steps.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(steps[1:])


def ends(action: Callable[[], Any]) -> Ended:
    """Run `action` in a forked child and wait for its end."""
    mailbox = Mailbox()
    pid = fork()
    if pid == 0:
        try:
            mailbox.put({"value": action()})
        except BaseException as error:
            mailbox.put(
                {
                    "error": f"{type(error).__name__}: {error} ({_where(error)})",
                    "errno": getattr(error, "errno", 0) or 0,
                }
            )
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    said = mailbox.get() or {}
    mailbox.close()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Ended(
        said.get("value"), said.get("error", ""), said.get("errno", 0), os.waitstatus_to_exitcode(status), number
    )


def returns(action: Callable[[], Any]) -> Any:
    """What `action` returned in a forked child; anything else fails the test with the child's own words."""
    ended = ends(action)
    assert (0, "") == (ended.signal, ended.error), f"the child was to return: {ended}"
    return ended.value


def refused(action: Callable[[], Any]) -> int:
    """errno of the OSError that `action` raises; 0 when it raised none. For use inside a child."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def become_ordinary() -> None:
    """As root: become a uid nobody has, without a capability, dumpable as a program of that user would be."""
    if os.geteuid() == 0:
        uid = ORDINARY + os.getpid() % (1 << 22)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        libc.prctl(process.PR_SET_DUMPABLE, 1)


def own_namespaces(flags: int) -> None:
    """A user namespace in which this process is 0, and others; every capability inside."""
    uid, gid = os.geteuid(), os.getegid()
    libc.unshare(process.CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def raw(number: int, *arguments: int) -> int:
    """A system call by number with any 64-bit arguments: its value, or minus errno."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    result = call(ctypes.c_long(number), *[ctypes.c_ulong(a & (1 << 64) - 1) for a in arguments])
    return -ctypes.get_errno() if result == -1 else int(result)


SIGSYS = int(signal.SIGSYS)
