"""`wasi:filesystem`: no directory is open, and every descriptor comes from one that is, so there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.wasi.handles import Kind, unreachable


def _filesystem_error_code(_error: int) -> None:
    return None


def _get_directories() -> list[tuple[int, str]]:
    return []


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "filesystem/types": {
        "filesystem-error-code": _filesystem_error_code,
        **unreachable(
            "descriptor",
            *("read-via-stream", "write-via-stream", "append-via-stream", "advise", "sync-data", "get-flags"),
            *("get-type", "set-size", "set-times", "read", "write", "read-directory", "sync", "create-directory-at"),
            *("stat", "stat-at", "set-times-at", "link-at", "open-at", "readlink-at", "remove-directory-at"),
            *("rename-at", "symlink-at", "unlink-file-at", "is-same-object", "metadata-hash", "metadata-hash-at"),
        ),
        **unreachable("directory-entry-stream", "read-directory-entry"),
    },
    "filesystem/preopens": {"get-directories": _get_directories},
}
RESOURCES = {
    "filesystem/types": {
        "descriptor": Kind.DESCRIPTOR,
        "directory-entry-stream": Kind.DIRECTORY_ENTRY_STREAM,
    },
}
