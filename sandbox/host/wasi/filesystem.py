"""`wasi:filesystem`: no directory is open, and every descriptor comes from one that is, so there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.wasi.handles import Kind, on_handles, plain, unreachable

INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "filesystem/types": {
        "filesystem-error-code": on_handles(lambda _error: None),
        **unreachable(
            "descriptor",
            *("read-via-stream", "write-via-stream", "append-via-stream", "advise", "sync-data", "get-flags"),
            *("get-type", "set-size", "set-times", "read", "write", "read-directory", "sync", "create-directory-at"),
            *("stat", "stat-at", "set-times-at", "link-at", "open-at", "readlink-at", "remove-directory-at"),
            *("rename-at", "symlink-at", "unlink-file-at", "is-same-object", "metadata-hash", "metadata-hash-at"),
        ),
        **unreachable("directory-entry-stream", "read-directory-entry"),
    },
    "filesystem/preopens": {"get-directories": plain(lambda: [])},
}
RESOURCES = {
    "filesystem/types": {
        "descriptor": Kind.DESCRIPTOR,
        "directory-entry-stream": Kind.DIRECTORY_ENTRY_STREAM,
    },
}
