"""From a parsed guest path to the object it names, opened so that nothing can come between check and use.

A `Place` is one bound directory: a descriptor (a detached mount, or O_PATH where mounts are not to be had) and
nothing else. An object is first opened with O_PATH, which never runs a driver and never blocks, and looked at; only
a plain file or directory is opened again for use, and what was opened then must be what was looked at. The bridge's
root is empty, so there is no `/proc/self/fd` to reopen through; comparing device and inode takes its place.
"""

from __future__ import annotations

import errno
import os
import stat

from bridge.openat2 import open_beneath
from sandbox.errors import AirssysError
from sandbox.wire.bridge_ops import FsError, NodeKind

TEMPORARY = ".airssys-"
"""How names of half-written files begin. No guest can name or see them."""
_REOPEN_TRIES = 8
_USE = os.O_NONBLOCK | os.O_NOCTTY
"""Added to every open for use: were a FIFO or terminal swapped in, the open would still neither block nor attach."""


class FsFailure(AirssysError):
    """A filesystem operation ended with a case of `filesystem-error`; `message` names no path at all."""

    code = "E_FILESYSTEM"

    def __init__(self, case: FsError, message: str) -> None:
        super().__init__(message)
        self.case = case


ERRNO: dict[int, tuple[FsError, str]] = {
    errno.EACCES: (FsError.DENIED, "the host refuses access"),
    errno.EPERM: (FsError.DENIED, "the host refuses access"),
    # Through an id-mapped mount: neither owner nor group is the bound directory's.
    errno.EOVERFLOW: (FsError.DENIED, "belongs to another user of the host"),
    errno.ELOOP: (FsError.DENIED, "symbolic link"),
    errno.EXDEV: (FsError.DENIED, "leads to another mount"),
    errno.ENOENT: (FsError.NOT_FOUND, "no such file or directory"),
    errno.EEXIST: (FsError.ALREADY_EXISTS, "exists already"),
    errno.ENOTDIR: (FsError.NOT_A_DIRECTORY, "not a directory"),
    errno.EISDIR: (FsError.IS_A_DIRECTORY, "is a directory"),
    errno.ENOTEMPTY: (FsError.NOT_EMPTY, "the directory is not empty"),
    errno.EROFS: (FsError.READ_ONLY, "the place is bound read-only"),
    errno.EINVAL: (FsError.INVALID_PATH, "the host cannot do this with such a path"),
    errno.ENAMETOOLONG: (FsError.INVALID_PATH, "the name is too long for the host"),
    errno.ENXIO: (FsError.INVALID_PATH, "no plain file or directory"),
    errno.EFBIG: (FsError.TOO_LARGE, "the file would be larger than the host allows"),
    errno.ENOSPC: (FsError.NO_SPACE, "the disk is full"),
    errno.EDQUOT: (FsError.NO_SPACE, "the disk quota is used up"),
    errno.EAGAIN: (FsError.IO_ERROR, "the directories on the way keep changing"),
    errno.EMFILE: (FsError.IO_ERROR, "the host has no descriptor to spare"),
    errno.ENFILE: (FsError.IO_ERROR, "the host has no descriptor to spare"),
    errno.ENOMEM: (FsError.IO_ERROR, "the host has no memory to spare"),
    errno.EBUSY: (FsError.IO_ERROR, "the host is using it"),
    errno.ETXTBSY: (FsError.IO_ERROR, "the host is using it"),
}
"""What the guest hears for each error of the kernel; anything else is an I/O error."""


def failure(error: OSError) -> FsFailure:
    """The guest's view of a kernel error; holds neither a path nor the kernel's text."""
    return FsFailure(*ERRNO.get(error.errno or 0, (FsError.IO_ERROR, "input/output error")))


class Place:
    """One bound directory.

    Args:
        fd: the directory's descriptor; owned, closed by `close`.

    Raises:
        NotADirectoryError: `fd` is something else (it is closed).
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotADirectoryError(errno.ENOTDIR, "a grant is not a directory")
        self.fd = fd

    def close(self) -> None:
        """Close the descriptor: whatever was granted through it is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def look(self, parts: tuple[str, ...]) -> os.stat_result:
        """Status of the object itself, a final symbolic link not followed (raises OSError)."""
        fd = open_beneath(self.fd, _join(parts), os.O_PATH)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def open_parent(self, parts: tuple[str, ...]) -> int:
        """An O_PATH descriptor of the directory that holds the object; the caller closes it.

        Raises:
            FsFailure: the path is the bound place itself, which has no parent here.
            OSError: from openat2.
        """
        if not parts:
            raise FsFailure(FsError.DENIED, "the bound place itself cannot be changed")
        return open_directory(self.fd, parts[:-1], os.O_PATH)


def _join(parts: tuple[str, ...]) -> str:
    return "/".join(parts) or "."


def look_at(dirfd: int, name: str) -> os.stat_result | None:
    """Status of one entry, a symbolic link not followed; None where there is none (raises OSError)."""
    try:
        fd = open_beneath(dirfd, name, os.O_PATH)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def refuse_special(status: os.stat_result) -> None:
    """Raise FsFailure unless this is a plain file or a directory."""
    if stat.S_ISLNK(status.st_mode):
        raise FsFailure(FsError.DENIED, "symbolic link")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise FsFailure(FsError.INVALID_PATH, "no plain file or directory")


def refuse_to_write(status: os.stat_result) -> None:
    """Raise FsFailure unless this is a plain file with one name.

    A second name may lie outside every grant, put there by whoever owns the directory: writing here would write there.
    """
    refuse_special(status)
    if stat.S_ISDIR(status.st_mode):
        raise FsFailure(FsError.IS_A_DIRECTORY, "is a directory")
    if status.st_nlink > 1:
        raise FsFailure(FsError.DENIED, "the file has more than one hard link")


def open_file(dirfd: int, parts: tuple[str, ...], flags: int) -> tuple[int, os.stat_result]:
    """Open a plain file for use; writing refuses a file with several links. The caller closes the descriptor.

    Raises:
        FsFailure: not a plain file, or it was swapped for another each time it was opened.
        OSError: from openat2.
    """
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    path = _join(parts)
    for _ in range(_REOPEN_TRIES):
        seen_fd = open_beneath(dirfd, path, os.O_PATH)
        try:
            seen = os.fstat(seen_fd)
            if writes:
                refuse_to_write(seen)
            else:
                refuse_special(seen)
                if stat.S_ISDIR(seen.st_mode):
                    raise FsFailure(FsError.IS_A_DIRECTORY, "is a directory")
            # The O_PATH descriptor stays open until the comparison: the inode's number cannot be given out anew.
            fd = open_beneath(dirfd, path, flags | _USE)
            try:
                status = os.fstat(fd)
                if _same(seen, status) and not (writes and status.st_nlink > 1):
                    return fd, status
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        finally:
            os.close(seen_fd)
    raise FsFailure(FsError.IO_ERROR, "the file keeps changing while it is opened")


def open_directory(dirfd: int, parts: tuple[str, ...], flags: int = os.O_RDONLY) -> int:
    """Open a directory, for reading its entries or (with `O_PATH`) as a parent; the caller closes it.

    Raises:
        FsFailure: a symbolic link or something special.
        OSError: from openat2 (ENOTDIR for a file).
    """
    # O_DIRECTORY makes the kernel refuse everything else before any driver is asked: no second look is needed.
    try:
        return open_beneath(dirfd, _join(parts), flags | os.O_DIRECTORY | (0 if flags & os.O_PATH else _USE))
    except NotADirectoryError:
        # The kernel says the same of a file and of a link as the last component; the guest is told which.
        fd = open_beneath(dirfd, _join(parts), os.O_PATH)
        try:
            refuse_special(os.fstat(fd))
        finally:
            os.close(fd)
        raise


def kind_of(status: os.stat_result) -> tuple[NodeKind, int]:
    """The node kind and the size a guest may see."""
    if stat.S_ISREG(status.st_mode):
        return NodeKind.FILE, status.st_size
    if stat.S_ISDIR(status.st_mode):
        return NodeKind.DIRECTORY, 0
    return NodeKind.OTHER, 0


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (
        one.st_dev == other.st_dev
        and one.st_ino == other.st_ino
        and stat.S_IFMT(one.st_mode) == stat.S_IFMT(other.st_mode)
    )
