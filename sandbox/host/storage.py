"""`airssys:core/storage@1.0.0`: every call is a request to the bridge, which knows whose namespace it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit
from sandbox.host.links import links
from sandbox.wire.bridge_ops import Op, StorageError

_ERRORS: dict[int, Callable[[str], wit.StorageError]] = {
    StorageError.NOT_FOUND: wit.StorageErrorNotFound,
    StorageError.ALREADY_EXISTS: wit.StorageErrorAlreadyExists,
    StorageError.QUOTA_EXCEEDED: lambda _text: wit.StorageErrorQuotaExceeded(),
    StorageError.INVALID_KEY: wit.StorageErrorInvalidKey,
    StorageError.IO_ERROR: wit.StorageErrorIoError,
}


def _ask(op: Op, *arguments: Any) -> Any:
    """The bridge's answer, or the error that it stands for."""
    case, value = links.bridge.ask(op, *arguments)
    return Err(_ERRORS[case](value)) if case else value


def _get(key: str) -> bytes | Err | None:
    found: bytes | Err | None = _ask(Op.STORAGE_GET, key)
    return found


def _set(key: str, value: bytes) -> Err | None:
    failed: Err | None = _ask(Op.STORAGE_SET, key, value)
    return failed


def _delete(key: str) -> Err | None:
    failed: Err | None = _ask(Op.STORAGE_DELETE, key)
    return failed


def _exists(key: str) -> bool | Err:
    found: bool | Err = _ask(Op.STORAGE_EXISTS, key)
    return found


def _list_keys(prefix: str | None) -> list[str] | Err:
    keys: list[str] | Err = _ask(Op.STORAGE_LIST_KEYS, prefix)
    return keys


def _usage() -> wit.StorageUsage | Err:
    answer = _ask(Op.STORAGE_USAGE)
    return answer if isinstance(answer, Err) else wit.StorageUsage(*answer)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "get": _get,
    "set": _set,
    "delete": _delete,
    "exists": _exists,
    "list-keys": _list_keys,
    "usage": _usage,
}
