"""The filesystem executor: the nine operations of `airssys:osl/filesystem` on one bound directory.

Every function takes a `Place` and the parsed path below it, does one thing and returns the value the guest gets, or
raises `FsFailure`. Whether the component may is decided before (`bridge.dispatch`); here only the object decides.

A `write` goes to a file beside the old one and is renamed over it: readers see the old content or the new, and a full
disk leaves the old. It is not synced: a power failure may undo it, never mix it (the bridge is one thread, and one
component's fsync would be every component's wait).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import os
import re
import secrets
import stat
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from bridge.paths import (
    TEMPORARY,
    FsFailure,
    Place,
    failure,
    kind_of,
    look_at,
    open_directory,
    open_file,
    refuse_special,
    refuse_to_write,
)
from sandbox.wire.bridge_ops import FsError

MAX_DATA = 8 << 20
"""Most bytes one call reads or writes."""
MAX_ENTRIES = 10_000
"""Most entries `list_directory` answers."""
MAX_SCAN = 200_000
"""Most entries of a directory that are looked through for the first `MAX_ENTRIES` by name."""
FILE_MODE, DIRECTORY_MODE = 0o600, 0o700
_TEMPORARY_RE = re.compile(re.escape(TEMPORARY) + r"[0-9a-f]{16}\Z")
_FAR = 1 << 63
"""First offset no file can reach (off_t is signed)."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Parts = tuple[str, ...]


def _executor(function: Callable[_P, _R]) -> Callable[_P, _R]:
    # The one place where a kernel error becomes the guest's.
    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except OSError as error:
            raise failure(error) from error

    return run


@_executor
def read(place: Place, parts: _Parts) -> bytes:
    """The whole file, at most `MAX_DATA` bytes."""
    fd, status = open_file(place.fd, parts, os.O_RDONLY)
    try:
        if status.st_size > MAX_DATA:
            raise FsFailure(FsError.TOO_LARGE, f"larger than {MAX_DATA} bytes; use read-range")
        # One byte more than allowed is asked for: a file that grew meanwhile is noticed.
        data = _read_at(fd, 0, min(MAX_DATA, max(status.st_size, 0)) + 1)
        while len(data) > status.st_size and len(data) <= MAX_DATA:
            more = _read_at(fd, len(data), MAX_DATA + 1 - len(data))
            if not more:
                break
            data += more
        if len(data) > MAX_DATA:
            raise FsFailure(FsError.TOO_LARGE, f"larger than {MAX_DATA} bytes; use read-range")
        return data
    finally:
        os.close(fd)


@_executor
def read_range(place: Place, parts: _Parts, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; none past the end."""
    if length > MAX_DATA:
        raise FsFailure(FsError.TOO_LARGE, f"more than {MAX_DATA} bytes asked for")
    fd, status = open_file(place.fd, parts, os.O_RDONLY)
    try:
        if offset >= min(status.st_size, _FAR) or length == 0:
            return b""
        # Never a larger buffer than there is file: the length is the guest's word.
        return _read_at(fd, offset, min(length, status.st_size - offset))
    finally:
        os.close(fd)


@_executor
def write(place: Place, parts: _Parts, data: bytes) -> None:
    """Replace the file or make it, all or nothing."""
    if len(data) > MAX_DATA:
        raise FsFailure(FsError.TOO_LARGE, f"more than {MAX_DATA} bytes; use append")
    parent = place.open_parent(parts)
    try:
        old = look_at(parent, parts[-1])
        if old is not None:
            refuse_to_write(old)
        temporary = TEMPORARY + secrets.token_hex(8)
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE, dir_fd=parent
        )
        try:
            try:
                _write_all(fd, data)
            finally:
                os.close(fd)
            os.rename(temporary, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise
    finally:
        os.close(parent)


@_executor
def append(place: Place, parts: _Parts, data: bytes) -> None:
    """Add to the end of the file, made if there is none; a full disk leaves it as it was."""
    if len(data) > MAX_DATA:
        raise FsFailure(FsError.TOO_LARGE, f"more than {MAX_DATA} bytes")
    parent = place.open_parent(parts)
    try:
        fd, size = _open_to_append(parent, parts[-1])
        try:
            _append_all(fd, size, data)
        finally:
            os.close(fd)
    finally:
        os.close(parent)


@_executor
def delete(place: Place, parts: _Parts) -> None:
    """Remove a file or an empty directory."""
    parent = place.open_parent(parts)
    try:
        status = look_at(parent, parts[-1])
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "nothing there")
        refuse_special(status)
        # Neither call follows a link, so a swap after the look can at worst remove the link swapped in.
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(parts[-1], dir_fd=parent)
            return
        try:
            os.rmdir(parts[-1], dir_fd=parent)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not _sweep(parent, parts[-1]):
                raise
            os.rmdir(parts[-1], dir_fd=parent)
    finally:
        os.close(parent)


@_executor
def make_directory(place: Place, parts: _Parts) -> None:
    """Make one directory."""
    if not parts:
        raise FsFailure(FsError.ALREADY_EXISTS, "exists already")
    parent = place.open_parent(parts)
    try:
        os.mkdir(parts[-1], DIRECTORY_MODE, dir_fd=parent)
    finally:
        os.close(parent)


@_executor
def list_directory(place: Place, parts: _Parts) -> list[tuple[str, int, int]]:
    """Name, kind and size of the first `MAX_ENTRIES` entries by name.

    Links and special files are of kind other. Names that no guest path can hold (not UTF-8) and half-written files of
    the bridge itself are left out.
    """
    fd = open_directory(place.fd, parts)
    try:
        with os.scandir(fd) as entries:
            names = heapq.nsmallest(MAX_ENTRIES, _visible(entries))
        listed = []
        for name in names:
            try:
                kind, size = kind_of(os.stat(name, dir_fd=fd, follow_symlinks=False))
            except FileNotFoundError:
                continue  # removed since it was read
            listed.append((name, int(kind), size))
        return listed
    finally:
        os.close(fd)


@_executor
def status(place: Place, parts: _Parts) -> tuple[int, int, int, int]:
    """Kind, size and last modification (seconds, nanoseconds)."""
    found = place.look(parts)
    kind, size = kind_of(found)
    seconds, nanoseconds = divmod(max(found.st_mtime_ns, 0), 1_000_000_000)
    return int(kind), size, seconds, nanoseconds


@_executor
def rename(place: Place, old: _Parts, new: _Parts, directories: bool) -> None:
    """Move within one place, replacing a file.

    Args:
        directories: whether the object may be a directory (its rights reach everything below it).
    """
    old_parent = place.open_parent(old)
    try:
        new_parent = place.open_parent(new)
        try:
            source = look_at(old_parent, old[-1])
            if source is None:
                raise FileNotFoundError(errno.ENOENT, "nothing there")
            refuse_special(source)
            if stat.S_ISDIR(source.st_mode) and not directories:
                raise FsFailure(FsError.DENIED, "moving this directory would change what may be done below it")
            target = look_at(new_parent, new[-1])
            if target is not None:
                refuse_special(target)
            os.rename(old[-1], new[-1], src_dir_fd=old_parent, dst_dir_fd=new_parent)
        finally:
            os.close(new_parent)
    finally:
        os.close(old_parent)


# -- steps ----------------------------------------------------------------------------------------------------


def _read_at(fd: int, offset: int, length: int) -> bytes:
    chunks = []
    while length > 0:
        chunk = os.pread(fd, length, offset)
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _open_to_append(parent: int, name: str) -> tuple[int, int]:
    flags = os.O_WRONLY | os.O_APPEND
    for _ in range(8):
        try:
            fd, found = open_file(parent, (name,), flags)
            return fd, found.st_size
        except FileNotFoundError:
            pass
        try:
            # O_EXCL: a dangling link or anything else put there since is an error, never followed.
            create = flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, create, FILE_MODE, dir_fd=parent), 0
        except FileExistsError:
            continue
    raise FsFailure(FsError.IO_ERROR, "the file keeps changing while it is opened")


def _append_all(fd: int, size: int, data: bytes) -> None:
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
    except OSError:
        # Take back our own part only, and only if nobody wrote behind it.
        if written and os.fstat(fd).st_size == size + written:
            os.ftruncate(fd, size)
        raise


def _visible(entries: os._ScandirIterator[str]) -> list[str]:
    names = []
    for seen, entry in enumerate(entries):
        if seen >= MAX_SCAN:
            raise FsFailure(FsError.TOO_LARGE, f"the directory has more than {MAX_SCAN} entries")
        name = entry.name
        if _expressible(name):
            names.append(name)
    return names


def _expressible(name: str) -> bool:
    # Bytes that are not UTF-8 come as lone surrogates, which no answer can carry.
    return not name.startswith(TEMPORARY) and not any("\ud800" <= char <= "\udfff" for char in name)


def _sweep(parent: int, name: str) -> bool:
    """Remove what killed bridges left half written in a directory; whether there was any."""
    fd = open_directory(parent, (name,))
    try:
        with os.scandir(fd) as entries:
            leftovers = [entry.name for entry in entries if _TEMPORARY_RE.match(entry.name)]
        for leftover in leftovers:
            os.unlink(leftover, dir_fd=fd)
        return bool(leftovers)
    finally:
        os.close(fd)
