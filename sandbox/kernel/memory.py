"""Mappings of this process: a file's pages, the next hole, sealed pages.

References: mmap(2), munmap(2), mincore(2), mseal(2). Everything is a call through ctypes with plain integers; Python's
own `mmap` would ask for the file's size and keep a descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import resource
from collections.abc import Iterator

from sandbox.kernel import libc

PAGE = resource.getpagesize()
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@contextlib.contextmanager
def mapped_file(fd: int, length: int) -> Iterator[int]:
    """The address of `length` bytes of `fd`, read only and private, while the context lasts. Raises OSError."""
    address = libc.syscall("mmap", 0, length, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, 0)
    try:
        yield address
    finally:
        libc.syscall("munmap", address, length)


def next_hole(length: int) -> int:
    """Where the next mapping of `length` bytes will lie. Raises OSError."""
    address = libc.syscall("mmap", 0, length, 0, _ANONYMOUS, -1, 0)
    libc.syscall("munmap", address, length)
    return address


def is_mapped(address: int, length: int) -> bool:
    """Whether every page of the span is mapped."""
    pages = ctypes.create_string_buffer(-(-length // PAGE))
    try:
        libc.syscall("mincore", address, length, pages)
    except OSError:
        return False
    return True


def seal(address: int, length: int) -> None:
    """No call can unmap, move or reprotect these pages any more, in this process and its children (Linux 6.10).

    Raises:
        OSError: a page is not mapped, or the kernel has no mseal.
    """
    libc.syscall("mseal", address, length, 0)
