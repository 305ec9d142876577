"""Reading strangers' files and replacing our own, without surprises.

Reading: regular files only, links never followed, nothing opened that could block or act (FIFO, device), never more
than a stated number of bytes. Writing: whole files, atomically, durable before the name changes.
"""

from __future__ import annotations

import os
import secrets
import stat

from sandbox.errors import AirssysError
from supervisor.packages.errors import PackageError


class FileError(PackageError):
    """A file is a link, no regular file, too long, or was exchanged while it was being read."""

    code = "E_PACKAGE"


def open_directory(path: str) -> int:
    """A descriptor of a real directory (its last component is no symbolic link). The caller closes it.

    Raises:
        FileError: missing, a symbolic link, no directory, or not readable.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        hint = "give the directory itself, not a symbolic link" if os.path.islink(path) else ""
        raise FileError(f"not a usable directory: {error.strerror}", subject=path, hint=hint) from error


def read_regular(name: str, *, max_bytes: int, dir_fd: int | None = None) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file and its state as it was read.

    Args:
        name: the file, relative to `dir_fd` where that is given.
        max_bytes: longest file accepted, bytes; a longer one is refused before a byte of it is read.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: see the class; code E_SIZE when too long.
    """
    try:
        seen = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if not stat.S_ISREG(seen.st_mode):
            raise FileError(f"is {_kind(seen.st_mode)}, not a regular file", subject=name)
        # Looked at before opening, because opening a FIFO or a device acts; O_NONBLOCK for the one that was put
        # in its place since then, and the comparison below for any other exchange.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FileError(f"cannot be opened: {error.strerror}", subject=name) from error
    try:
        opened = os.fstat(fd)
        if not stat.S_ISREG(opened.st_mode) or (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
            raise FileError("was exchanged while it was being opened", subject=name)
        if opened.st_size > max_bytes:
            raise FileError(f"is longer than {max_bytes} bytes", subject=name, code="E_SIZE")
        chunks: list[bytes] = []
        left = max_bytes + 1
        while left and (chunk := os.read(fd, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
        if not left:
            raise FileError(f"grew past {max_bytes} bytes while it was being read", subject=name, code="E_SIZE")
        return b"".join(chunks), opened
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", subject=name) from error
    finally:
        os.close(fd)


def write_atomic(dir_fd: int, name: str, data: bytes, *, mode: int) -> None:
    """Replace `name` in the directory by `data`: after a crash the old file or the new one is there, whole.

    Raises:
        OSError: the file could not be written; the old one is untouched and nothing is left behind.
    """
    temporary = f".{name}.{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        try:
            _write_all(fd, data)
            os.fchmod(fd, mode)  # not the umask's business
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=dir_fd)
        raise
    os.fsync(dir_fd)


def create_new(path: str, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet.

    Raises:
        FileExistsError: there is something by that name, a dangling link included.
        OSError: it could not be written; nothing is left behind.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(fd, mode)
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        os.unlink(path)
        raise


def check_owner_only_writes(state: os.stat_result, subject: str) -> None:
    """Refuse a file or directory whose content people other than its owner, this user or root could choose.

    Raises:
        AirssysError: E_POLICY_PERM.
    """
    if state.st_uid not in (0, os.geteuid()):
        raise AirssysError(
            f"belongs to user {state.st_uid}, who is neither root nor the user that runs this",
            subject=subject,
            hint="chown it",
            code="E_POLICY_PERM",
        )
    if state.st_mode & 0o022:
        raise AirssysError(
            f"may be written by others than its owner (mode {stat.S_IMODE(state.st_mode):04o})",
            subject=subject,
            hint="chmod go-w it",
            code="E_POLICY_PERM",
        )


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return name
    return "something else"
