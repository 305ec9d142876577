"""The vocabulary of fd 3: what a worker may ask of the bridge, and how it is answered.

The worker asks, the bridge answers, one request at a time. A request is a packet message whose kind is the
operation and whose body is a MessagePack array of its arguments. An answer has kind `op | ANSWER` and the body
`[0, value]` or `[case, text]`, where `case` is 1 + the index of the case in the WIT variant of the interface
(`filesystem-error`, `storage-error`). Of the services only `SLEEP` has a case: 1, the deadline came first. Identity is
the socket: no message carries one.
"""

from __future__ import annotations

import enum

ANSWER = 0x8000
"""Set in the kind of every answer."""

SEALED = 0x7001
"""Worker to supervisor, once, before the supervisor hands the channel to the bridge: body b""."""
SETUP_ERROR = 0x7002
"""Worker to supervisor instead of `SEALED`: body is UTF-8 text naming the failed step."""
SPEC = 0x7003
"""Supervisor to worker, first of all: body is a `WorkerSpec`. Descriptors: the component's code as a sealed memfd, then
the files by which the worker joins its control groups; all are closed before the seal."""


class Op(enum.IntEnum):
    """Operations; arguments in order, then the value of a good answer."""

    FS_READ = 1  # path -> bytes
    FS_READ_RANGE = 2  # path, offset, length -> bytes
    FS_WRITE = 3  # path, bytes -> nil
    FS_APPEND = 4  # path, bytes -> nil
    FS_DELETE = 5  # path -> nil
    FS_MAKE_DIRECTORY = 6  # path -> nil
    FS_LIST = 7  # path -> [[name, kind, size], ...]
    FS_STAT = 8  # path -> [kind, size, seconds, nanoseconds]
    FS_RENAME = 9  # from, to -> nil
    STORAGE_GET = 16  # key -> bytes | nil
    STORAGE_SET = 17  # key, bytes -> nil
    STORAGE_DELETE = 18  # key -> nil
    STORAGE_EXISTS = 19  # key -> bool
    STORAGE_LIST_KEYS = 20  # prefix | nil -> [key, ...]
    STORAGE_USAGE = 21  # -> [used, quota, keys]
    LOG = 32  # level 0..4, message, [[key, value], ...] | nil -> nil
    SLEEP = 33  # until, deadline: nanoseconds of CLOCK_MONOTONIC, which all processes share -> nil


class FsError(enum.IntEnum):
    """Cases of `airssys:osl/filesystem.filesystem-error`, 1 + index; each carries a text."""

    DENIED = 1
    NOT_FOUND = 2
    ALREADY_EXISTS = 3
    NOT_A_DIRECTORY = 4
    IS_A_DIRECTORY = 5
    NOT_EMPTY = 6
    READ_ONLY = 7
    INVALID_PATH = 8
    TOO_LARGE = 9
    NO_SPACE = 10
    IO_ERROR = 11


class StorageError(enum.IntEnum):
    """Cases of `airssys:core/errors.storage-error`, 1 + index; `QUOTA_EXCEEDED` carries no text in WIT."""

    NOT_FOUND = 1
    ALREADY_EXISTS = 2
    QUOTA_EXCEEDED = 3
    INVALID_KEY = 4
    IO_ERROR = 5


class NodeKind(enum.IntEnum):
    """Cases of `airssys:osl/filesystem.node-kind`, by index."""

    FILE = 0
    DIRECTORY = 1
    OTHER = 2
