"""The C library's heap before a fork: full, so that a child's blocks lie together on pages of its own.

A child that allocates from a heap full of holes writes into as many of its parent's pages as there are holes, and each
becomes a private copy. Once every hole is taken, for ever, blocks come from the top of the heap, side by side. This is
about memory alone; where the C library cannot tell of its heap (mallinfo2(3), glibc 2.33) nothing is done.
"""

from __future__ import annotations

import ctypes

from sandbox.kernel.libc import handle

LARGEST = 512 << 10
"""Holes of more bytes than this are left."""
_GRAIN = 16
"""malloc's granularity, bytes; up to `_EXACT` every size is tried."""
_EXACT = 1024
_MOST = 100_000


_NUMBERS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _NUMBERS]


def fill_holes() -> int:
    """Take every hole of the heap below its top; how many there were."""
    try:
        info = handle.mallinfo2
    except AttributeError:
        return 0
    malloc, free, sbrk = (ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)((name, handle)) for name in _NAMES)
    info.restype = _Info
    count = 0
    for size in _sizes():
        while count < _MOST:
            top = sbrk(0) - info().keepcost
            block = malloc(size)
            if block is None or block >= top - _GRAIN:
                free(block or 0)  # from the top: no hole of this size is left
                break
            count += 1
    return count


_NAMES = ("malloc", "free", "sbrk")


def _sizes() -> list[int]:
    """Falling, the large ones in steps of some percent."""
    sizes, size = [], LARGEST
    while size > _EXACT:
        sizes.append(size)
        size = size * 15 // 16
    return [*sizes, *range(_EXACT, _GRAIN // 2, -_GRAIN)]
