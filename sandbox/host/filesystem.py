"""`airssys:osl/filesystem@0.1.0`: every call is a request to the bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.links import links
from sandbox.values import GuestRecord, Variant
from sandbox.wire.bridge_ops import FsError, NodeKind, Op

_ERRORS = {case.value: case.name.lower().replace("_", "-") for case in FsError}
_KINDS = {kind.value: kind.name.lower() for kind in NodeKind}


def _ask(op: Op, *arguments: Any) -> Any:
    case, value = links.bridge.ask(op, *arguments)
    return Variant(_ERRORS[case], value) if case else value


def _read(_store: Any, path: str) -> Any:
    return _ask(Op.FS_READ, path)


def _read_range(_store: Any, path: str, offset: int, length: int) -> Any:
    return _ask(Op.FS_READ_RANGE, path, offset, length)


def _write(_store: Any, path: str, data: bytes) -> Any:
    return _ask(Op.FS_WRITE, path, data)


def _append(_store: Any, path: str, data: bytes) -> Any:
    return _ask(Op.FS_APPEND, path, data)


def _delete(_store: Any, path: str) -> Any:
    return _ask(Op.FS_DELETE, path)


def _make_directory(_store: Any, path: str) -> Any:
    return _ask(Op.FS_MAKE_DIRECTORY, path)


def _list(_store: Any, path: str) -> Any:
    answer = _ask(Op.FS_LIST, path)
    if isinstance(answer, Variant):
        return answer
    return [GuestRecord(name=name, kind=_KINDS[kind], size=size) for name, kind, size in answer]


def _stat(_store: Any, path: str) -> Any:
    answer = _ask(Op.FS_STAT, path)
    if isinstance(answer, Variant):
        return answer
    kind, size, seconds, nanoseconds = answer
    return GuestRecord(kind=_KINDS[kind], size=size, modified_seconds=seconds, modified_nanoseconds=nanoseconds)


def _rename(_store: Any, old_path: str, new_path: str) -> Any:
    return _ask(Op.FS_RENAME, old_path, new_path)


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
