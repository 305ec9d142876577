"""A compiler that leaves out one step of its cage (first argument) and, told to begin, attacks (second argument).

Started by the tests in place of `python -m sandbox.compiler`; the third argument is its supervisor's pid, the others
are the compiler's own. An attack
runs where the stranger's bytes would be compiled, behind every wall that is up, and exits 0 when it succeeds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from sandbox import compiler
from sandbox.kernel import caps, mounts, process, seccomp

_call = ctypes.CDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long
_buffer = ctypes.create_string_buffer(4096)
_path = ctypes.create_string_buffer(b"/usr/bin/true")
victim = 0
"""Pid of the process to signal and to trace, as the attacker's supervisor counts."""
_empty = (ctypes.c_char_p * 1)(None)


def _raw(number: int, *arguments: int) -> bool:
    return int(_call(ctypes.c_long(number), *[ctypes.c_ulong(a & (1 << 64) - 1) for a in arguments])) >= 0


def _fork() -> bool:
    pid = int(_call(ctypes.c_long(56), *[ctypes.c_ulong(a) for a in (int(signal.SIGCHLD), 0, 0, 0, 0)]))
    if pid == 0:
        os._exit(0)
    return pid > 0


def _grow() -> bool:
    kept = []
    try:
        for _ in range(64):
            kept.append(bytearray(64 << 20))
    except MemoryError:
        return False
    return True


def _spin() -> bool:
    while True:
        pass


# x86-64 numbers: the tests that use these are skipped elsewhere.
ATTACKS: dict[str, Callable[[], bool]] = {
    "open a file": lambda: _raw(257, -100, ctypes.addressof(_path), 0),
    "make a socket": lambda: _raw(41, 2, 1, 0),
    "make a process": _fork,
    "run a program": lambda: _raw(59, ctypes.addressof(_path), ctypes.addressof(_empty), ctypes.addressof(_empty)),
    "signal its supervisor": lambda: _raw(62, victim, 0),
    "trace a process": lambda: _raw(101, 0x4206, victim, 0, 0),
    "make a user namespace": lambda: _raw(272, process.CLONE_NEWUSER),
    "mount": lambda: _raw(165, ctypes.addressof(_path), ctypes.addressof(_path), 0, 4096, 0),
    "make a memfd": lambda: _raw(319, ctypes.addressof(_path), 0),
    "duplicate a descriptor": lambda: _raw(32, 4),
    "write into the component": lambda: _raw(1, 3, ctypes.addressof(_buffer), 1),
    "become dumpable": lambda: _raw(157, process.PR_SET_DUMPABLE, 1, 0, 0, 0),
    "another filter": lambda: _raw(317, 2, 0, ctypes.addressof(_buffer)),
    "io_uring": lambda: _raw(425, 1, ctypes.addressof(_buffer)),
    "load a BPF program": lambda: _raw(321, 0, ctypes.addressof(_buffer), 48),
    "take all memory": _grow,
    "spin": _spin,
    "nothing": lambda: True,
}


def _nothing(*arguments: object) -> None:
    return None


def _refuse(*arguments: object) -> None:
    raise OSError(5, "refused on purpose")


def leave_out(step: str) -> None:
    """Patch the cage."""
    if step == "filter":
        seccomp.load = _nothing
    elif step == "capabilities":
        caps.drop_all = _nothing
    elif step == "root":
        mounts.enter_empty_root = _nothing
    elif step == "descriptors":
        process.close_range = _nothing
    elif step == "limits":
        compiler._limits = _nothing
    elif step == "keyring refuses":
        process.new_session_keyring = _refuse
    elif step == "descriptors refuse":
        compiler._three_descriptors = _refuse
    elif step == "filter refuses":
        seccomp.load = _refuse
    elif step != "nothing":
        raise ValueError(step)


if __name__ == "__main__":
    leave_out(sys.argv[1])
    attack, victim = sys.argv[2], int(sys.argv[3])
    if attack:
        compiler._work = lambda engine, path: 0 if ATTACKS[attack]() else 77
    compiler.run(sys.argv[4:])
