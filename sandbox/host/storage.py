"""`airssys:core/storage@1.0.0`: every call is a request to the bridge, which knows whose namespace it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.links import links
from sandbox.values import GuestRecord, Variant
from sandbox.wire.bridge_ops import Op, StorageError

_ERRORS = {case.value: case.name.lower().replace("_", "-") for case in StorageError}


def _ask(op: Op, *arguments: Any) -> Any:
    case, value = links.bridge.ask(op, *arguments)
    if not case:
        return value
    return Variant(_ERRORS[case], None if case == StorageError.QUOTA_EXCEEDED else value)


def _get(_store: Any, key: str) -> Any:
    return _ask(Op.STORAGE_GET, key)


def _set(_store: Any, key: str, value: bytes) -> Any:
    return _ask(Op.STORAGE_SET, key, value)


def _delete(_store: Any, key: str) -> Any:
    return _ask(Op.STORAGE_DELETE, key)


def _exists(_store: Any, key: str) -> Any:
    return _ask(Op.STORAGE_EXISTS, key)


def _list_keys(_store: Any, prefix: str | None) -> Any:
    return _ask(Op.STORAGE_LIST_KEYS, prefix)


def _usage(_store: Any) -> Any:
    answer = _ask(Op.STORAGE_USAGE)
    if isinstance(answer, Variant):
        return answer
    used, quota, keys = answer
    return GuestRecord(used_bytes=used, quota_bytes=quota, key_count=keys)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "get": _get,
    "set": _set,
    "delete": _delete,
    "exists": _exists,
    "list-keys": _list_keys,
    "usage": _usage,
}
