"""`airssys:osl/filesystem@0.1.0`: every call is a request to the bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Err
from sandbox.bindings import airssys_osl as wit
from sandbox.host.links import links
from sandbox.wire.bridge_ops import FsError, NodeKind, Op

_ERRORS: dict[int, Callable[[str], wit.FilesystemError]] = {
    FsError.DENIED: wit.FilesystemErrorDenied,
    FsError.NOT_FOUND: wit.FilesystemErrorNotFound,
    FsError.ALREADY_EXISTS: wit.FilesystemErrorAlreadyExists,
    FsError.NOT_A_DIRECTORY: wit.FilesystemErrorNotADirectory,
    FsError.IS_A_DIRECTORY: wit.FilesystemErrorIsADirectory,
    FsError.NOT_EMPTY: wit.FilesystemErrorNotEmpty,
    FsError.READ_ONLY: wit.FilesystemErrorReadOnly,
    FsError.INVALID_PATH: wit.FilesystemErrorInvalidPath,
    FsError.TOO_LARGE: wit.FilesystemErrorTooLarge,
    FsError.NO_SPACE: wit.FilesystemErrorNoSpace,
    FsError.IO_ERROR: wit.FilesystemErrorIoError,
}
_KINDS = {
    NodeKind.FILE.value: wit.NodeKind.FILE,
    NodeKind.DIRECTORY.value: wit.NodeKind.DIRECTORY,
    NodeKind.OTHER.value: wit.NodeKind.OTHER,
}


def _ask(op: Op, *arguments: Any) -> Any:
    """The bridge's answer, or the error that it stands for."""
    case, value = links.bridge.ask(op, *arguments)
    return Err(_ERRORS[case](value)) if case else value


def _read(path: str) -> bytes | Err:
    found: bytes | Err = _ask(Op.FS_READ, path)
    return found


def _read_range(path: str, offset: int, length: int) -> bytes | Err:
    found: bytes | Err = _ask(Op.FS_READ_RANGE, path, offset, length)
    return found


def _write(path: str, data: bytes) -> Err | None:
    failed: Err | None = _ask(Op.FS_WRITE, path, data)
    return failed


def _append(path: str, data: bytes) -> Err | None:
    failed: Err | None = _ask(Op.FS_APPEND, path, data)
    return failed


def _delete(path: str) -> Err | None:
    failed: Err | None = _ask(Op.FS_DELETE, path)
    return failed


def _make_directory(path: str) -> Err | None:
    failed: Err | None = _ask(Op.FS_MAKE_DIRECTORY, path)
    return failed


def _list(path: str) -> list[wit.DirEntry] | Err:
    answer = _ask(Op.FS_LIST, path)
    if isinstance(answer, Err):
        return answer
    return [wit.DirEntry(name, _KINDS[kind], size) for name, kind, size in answer]


def _stat(path: str) -> wit.NodeStat | Err:
    answer = _ask(Op.FS_STAT, path)
    if isinstance(answer, Err):
        return answer
    kind, size, seconds, nanoseconds = answer
    return wit.NodeStat(_KINDS[kind], size, seconds, nanoseconds)


def _rename(old_path: str, new_path: str) -> Err | None:
    failed: Err | None = _ask(Op.FS_RENAME, old_path, new_path)
    return failed


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "read": _read,
    "read-range": _read_range,
    "write": _write,
    "append": _append,
    "delete": _delete,
    "make-directory": _make_directory,
    "list": _list,
    "stat": _stat,
    "rename": _rename,
}
