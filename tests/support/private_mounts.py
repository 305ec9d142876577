"""Small file systems for a test, in a mount namespace of this thread: nothing of it can outlive its processes.

Whatever is started while the namespace is entered sees the mounts; nobody else on the machine ever does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sandbox.kernel import libc, mounts, process

_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 1, 32, 4096


@contextlib.contextmanager
def namespace() -> Iterator[None]:
    """Be in a mount namespace of our own (root only); back in the old one, and the own one gone, at the end."""
    here = os.getcwd()
    old = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.unshare(process.CLONE_NEWNS)
        mounts.make_private()
        try:
            yield
        finally:
            _enter(old)
            os.chdir(here)  # setns made it the root
    finally:
        os.close(old)


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, process.CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


@contextlib.contextmanager
def small_disk(size: str, *, prefix: str = "as-") -> Iterator[Path]:
    """A tmpfs of `size` (as "1m") on a new directory; to be used within `namespace`."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        libc.mount("tmpfs", str(directory), "tmpfs", 0, f"size={size},mode=755")
        try:
            yield directory
        finally:
            libc.umount2(str(directory), mounts.MNT_DETACH)
    finally:
        directory.rmdir()


def fill(directory: Path) -> Path:
    """Leave no byte free on the disk a directory is on; the file to remove for room."""
    filler = directory / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        os.close(fd)
    return filler


def read_only(directory: Path) -> None:
    """Make the mount at a directory read-only."""
    libc.mount(None, str(directory), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
