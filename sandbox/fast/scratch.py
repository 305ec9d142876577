"""The scratch memory of the one patched guest of this process: found, watched as it grows, given back.

Python sees it as a buffer of exactly its present size: no slice reaches beyond. It is the host's, not the guest's: it
is no part of what the guest's memory limit counts, and has a bound of its own.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

from sandbox.fast.protocol import SCRATCH_MAX_PAGES, SCRATCH_PAGES
from sandbox.memories import memories

FIRST = SCRATCH_PAGES << 16
"""Bytes it begins with."""
KEPT = 256 << 10
"""Bytes of it that are kept after a call that needed more."""
STREAM = 4 << 20
"""Bytes that are kept between large values that follow each other."""
_FILE_ROOM = 9 << 20
"""The bridge reads and writes at most 8 MiB at a time."""
_DONT_NEED = mmap.MADV_DONTNEED
_libc = ctypes.CDLL(None, use_errno=True)
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]


class NoScratch(Exception):
    """The component says it is patched, and has no scratch memory that answers."""


class Scratch:
    """One scratch memory. `view` is a new buffer whenever the memory has grown."""

    def __init__(self) -> None:
        self.view = memoryview(b"")
        self._base = 0
        self._held = False
        self.used = 0
        """Bytes the present call has needed, at most."""
        self.largest = 0
        """Bytes of the largest result that is taken."""
        self.after_large = False
        """Whether the last call needed more than `KEPT`."""

    def find(self, reserve: Callable[[int, int], int], message_size: int) -> None:
        """Find it among the process's memories.

        Args:
            reserve: the component's function: writes a number to the beginning of its scratch memory.
            message_size: bytes of the largest message.

        Raises:
            NoScratch: no memory has the number, or more than one.
        """
        nonce = int.from_bytes(os.urandom(4), "little") or 1
        reserve(nonce, FIRST)
        found = []
        for number in memories.with_maximum(SCRATCH_MAX_PAGES << 16):
            memory = memories.find(number)
            if memory.size >= FIRST and ctypes.c_uint32.from_address(memory.base).value == nonce:
                found.append(number)
        if len(found) != 1:
            raise NoScratch(f"{len(found)} memories answer as the scratch memory")
        self.used, self.after_large, self._held, self.largest = 0, False, False, message_size
        memories.set_apart(found[0], _FILE_ROOM + 2 * message_size, self._placed)

    def _placed(self, base: int, size: int) -> None:
        self._base = base
        self.view = memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B")

    def settle(self) -> None:
        """A call is over that did not come this way itself."""
        if self.used > KEPT or self.after_large:
            self.call_over(self.used)

    def call_over(self, used: int) -> None:
        """Give pages back to the system that a large value has needed; they are zeros from then on.

        A second large value in a row keeps them, so that a stream of such need not have them made anew each time, up to
        `STREAM`; the first small one after it gives them back.
        """
        large, self.used = used > KEPT, 0
        if large and self.after_large:
            self._held = True
            self._keep(STREAM)
        elif large or self._held:
            self._held = False
            self._keep(KEPT)
        self.after_large = large

    def _keep(self, count: int) -> None:
        if len(self.view) > count:
            _madvise(self._base + count, len(self.view) - count, _DONT_NEED)


scratch = Scratch()
"""One worker, one guest: module state is right, and host functions reach it without arguments."""
