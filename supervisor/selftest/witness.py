"""The kernel log as a witness: where in the attack's machine code a worker died, and at which call.

A filter that kills leaves an audit record with the call's number and the instruction's address. The page offset of
that address shows whether it was one of the attack's own calls, or somewhere else (a crash, whose handler made a
forbidden call). Without an audit daemon the kernel prints only a few of them a second, so this is a sample; and only
root may read it. Reference: /dev/kmsg (Documentation/ABI/testing/dev-kmsg), audit record 1326.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field

from supervisor.selftest.machine import OFFSETS, ROUTINES

_RECORD = re.compile(rb"type=1326 .*? uid=(\d+) .* sig=31 arch=[0-9a-f]+ syscall=(\d+) compat=\d ip=0x([0-9a-f]+)")
_INSTRUCTIONS = (bytes.fromhex("0f05"), bytes.fromhex("cd80"))
_VSYSCALL = 0xFFFFFFFFFF600000 >> 12
BLOCK = 1 << 16
"""Uids of one host."""


@functools.cache
def own_calls(start: int) -> frozenset[int]:
    """Page offsets behind each system call in the code, when it begins at this offset."""
    found = set()
    for name, body in ROUTINES.items():
        for instruction in _INSTRUCTIONS:
            at = body.find(instruction)
            while at >= 0:
                found.add((start + OFFSETS[name] + at + len(instruction)) & 0xFFF)
                at = body.find(instruction, at + 1)
    return frozenset(found)


@dataclass
class Witness:
    """Reads the log from now on.

    Args:
        uids: first of the uids of the host's workers.
        start: where the attack's code begins, as an offset in a page.

    Attributes:
        silent: why it can tell nothing; "" when it can.
    """

    uids: int
    start: int
    silent: str = ""
    own: list[int] = field(default_factory=list)
    """Numbers of the calls at which workers died in the attack's own code."""
    elsewhere: int = 0
    """Deaths at other places."""
    _fd: int = -1

    def __post_init__(self) -> None:
        try:
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.silent = f"the kernel log cannot be read: {error.strerror}"

    def hear(self) -> None:
        """Read what has come since."""
        while self._fd >= 0:
            try:
                self.take(os.read(self._fd, 8192))
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # the log went round: what was overwritten is lost, the rest follows

    def take(self, record: bytes) -> None:
        """Count one record of the log, if it tells of a worker's death."""
        found = _RECORD.search(record)
        if found is None or int(found[1]) // BLOCK != self.uids // BLOCK:
            return
        address = int(found[3], 16)
        if address & 0xFFF in own_calls(self.start) or address >> 12 == _VSYSCALL:
            self.own.append(int(found[2]))
        else:
            self.elsewhere += 1

    def close(self) -> None:
        """Let go of the log."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
