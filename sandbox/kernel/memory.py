"""Mappings of this process: a file's pages, the next hole, pages put over others, sealed pages.

References: mmap(2), mprotect(2), munmap(2), mincore(2), mseal(2). Everything is a call through ctypes with plain
integers; Python's own `mmap` would ask for the file's size and keep a descriptor.
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
_OVER = mmap.MAP_PRIVATE | 0x10  # MAP_FIXED

_memcmp = libc.handle.memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


@contextlib.contextmanager
def mapped_file(fd: int, length: int) -> Iterator[int]:
    """The address of `length` bytes of `fd`, read only and private, while the context lasts. Raises OSError."""
    address = map_file(fd, 0, length)
    try:
        yield address
    finally:
        libc.syscall("munmap", address, length)


def map_file(fd: int, offset: int, length: int) -> int:
    """The address of `length` bytes of `fd` from `offset`, read only and private. Raises OSError."""
    return libc.syscall("mmap", 0, length, mmap.PROT_READ, mmap.MAP_PRIVATE, fd, offset)


def map_file_over(address: int, fd: int, offset: int, length: int) -> None:
    """Put the same in the place of whatever is mapped at `address`, which must be this process's own to replace.

    Raises:
        OSError: refused; nothing may be mapped there any more.
    """
    libc.syscall("mmap", address, length, mmap.PROT_READ, _OVER, fd, offset)


def protect(address: int, length: int, protection: int) -> None:
    """mprotect(2). Raises OSError."""
    libc.syscall("mprotect", address, length, protection)


def may_execute(fd: int) -> bool:
    """Whether this machine lets pages of the file be made executable (mounted noexec, SELinux, IMA: mprotect(2)).

    Raises:
        OSError: the file cannot be mapped at all.
    """
    with mapped_file(fd, PAGE) as address:
        try:
            protect(address, PAGE, mmap.PROT_READ | mmap.PROT_EXEC)
        except OSError:
            return False
    return True


def same(one: int, other: int, length: int) -> bool:
    """Whether two mapped spans hold the same bytes."""
    return int(_memcmp(one, other, length)) == 0


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
