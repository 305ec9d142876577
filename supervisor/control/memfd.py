"""Sealed memfds: bytes that nobody, their maker included, can change any more (memfd_create(2), fcntl(2))."""

from __future__ import annotations

import fcntl
import mmap
import os

from sandbox.errors import ProtocolViolation

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""All four: the size, the bytes, and the set of seals itself."""


def create(name: str) -> int:
    """An empty memfd that can be sealed."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything (raises OSError)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def seal(fd: int) -> None:
    """Add all seals.

    Raises:
        OSError: EBUSY while somebody maps it writable, EPERM when it was made without sealing.
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:
        raise ProtocolViolation("a memfd did not take its seals")


def sealed(name: str, data: bytes | memoryview) -> int:
    """A sealed memfd that holds `data`."""
    fd = create(name)
    try:
        write_all(fd, data)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def view(fd: int) -> mmap.mmap:
    """A read-only mapping of a sealed, non-empty memfd; the caller closes it."""
    return mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_PRIVATE, mmap.PROT_READ)
