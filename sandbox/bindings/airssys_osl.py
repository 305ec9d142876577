"""airssys:osl@0.1.0 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import enum

import msgspec

from sandbox.abi.types import BYTES, STRING, U32, U64, EnumType, Function, ListType, RecordType, ResultType, VariantType


class FilesystemErrorDenied(msgspec.Struct, frozen=True, gc=False):
    """`denied`."""

    value: str


class FilesystemErrorNotFound(msgspec.Struct, frozen=True, gc=False):
    """`not-found`."""

    value: str


class FilesystemErrorAlreadyExists(msgspec.Struct, frozen=True, gc=False):
    """`already-exists`."""

    value: str


class FilesystemErrorNotADirectory(msgspec.Struct, frozen=True, gc=False):
    """`not-a-directory`."""

    value: str


class FilesystemErrorIsADirectory(msgspec.Struct, frozen=True, gc=False):
    """`is-a-directory`."""

    value: str


class FilesystemErrorNotEmpty(msgspec.Struct, frozen=True, gc=False):
    """`not-empty`."""

    value: str


class FilesystemErrorReadOnly(msgspec.Struct, frozen=True, gc=False):
    """`read-only`."""

    value: str


class FilesystemErrorInvalidPath(msgspec.Struct, frozen=True, gc=False):
    """`invalid-path`."""

    value: str


class FilesystemErrorTooLarge(msgspec.Struct, frozen=True, gc=False):
    """`too-large`."""

    value: str


class FilesystemErrorNoSpace(msgspec.Struct, frozen=True, gc=False):
    """`no-space`."""

    value: str


class FilesystemErrorIoError(msgspec.Struct, frozen=True, gc=False):
    """`io-error`."""

    value: str


FilesystemError = (
    FilesystemErrorDenied
    | FilesystemErrorNotFound
    | FilesystemErrorAlreadyExists
    | FilesystemErrorNotADirectory
    | FilesystemErrorIsADirectory
    | FilesystemErrorNotEmpty
    | FilesystemErrorReadOnly
    | FilesystemErrorInvalidPath
    | FilesystemErrorTooLarge
    | FilesystemErrorNoSpace
    | FilesystemErrorIoError
)
"""What went wrong. The text names the guest's own path, or says which right or bound was missing; it never
holds a path of the host.
"""
FILESYSTEM_ERROR = VariantType(
    (
        ("denied", STRING),
        ("not-found", STRING),
        ("already-exists", STRING),
        ("not-a-directory", STRING),
        ("is-a-directory", STRING),
        ("not-empty", STRING),
        ("read-only", STRING),
        ("invalid-path", STRING),
        ("too-large", STRING),
        ("no-space", STRING),
        ("io-error", STRING),
    ),
    "airssys:osl/filesystem@0.1.0#filesystem-error",
)


class NodeKind(enum.Enum):
    """What stands under a name; a symbolic link, device, pipe or socket is `other` and cannot be opened."""

    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"


NODE_KIND = EnumType(
    (
        "file",
        "directory",
        "other",
    ),
    "airssys:osl/filesystem@0.1.0#node-kind",
)


class DirEntry(msgspec.Struct, frozen=True, gc=False):
    """One name in a directory."""

    name: str
    kind: NodeKind
    size: int


DIR_ENTRY = RecordType(
    (
        ("name", STRING),
        ("kind", NODE_KIND),
        ("size", U64),
    ),
    "airssys:osl/filesystem@0.1.0#dir-entry",
)


class NodeStat(msgspec.Struct, frozen=True, gc=False):
    """About a file or directory."""

    kind: NodeKind
    size: int
    modified_seconds: int
    modified_nanoseconds: int


NODE_STAT = RecordType(
    (
        ("kind", NODE_KIND),
        ("size", U64),
        ("modified-seconds", U64),
        ("modified-nanoseconds", U32),
    ),
    "airssys:osl/filesystem@0.1.0#node-stat",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "airssys:osl/filesystem@0.1.0#filesystem-error": {
        "denied": FilesystemErrorDenied,
        "not-found": FilesystemErrorNotFound,
        "already-exists": FilesystemErrorAlreadyExists,
        "not-a-directory": FilesystemErrorNotADirectory,
        "is-a-directory": FilesystemErrorIsADirectory,
        "not-empty": FilesystemErrorNotEmpty,
        "read-only": FilesystemErrorReadOnly,
        "invalid-path": FilesystemErrorInvalidPath,
        "too-large": FilesystemErrorTooLarge,
        "no-space": FilesystemErrorNoSpace,
        "io-error": FilesystemErrorIoError,
    },
    "airssys:osl/filesystem@0.1.0#node-kind": NodeKind,
    "airssys:osl/filesystem@0.1.0#dir-entry": DirEntry,
    "airssys:osl/filesystem@0.1.0#node-stat": NodeStat,
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "airssys:osl/filesystem@0.1.0": {
        "read": Function(
            "read",
            (("path", STRING),),
            ResultType(BYTES, FILESYSTEM_ERROR),
        ),
        "read-range": Function(
            "read-range",
            (
                ("path", STRING),
                ("offset", U64),
                ("length", U64),
            ),
            ResultType(BYTES, FILESYSTEM_ERROR),
        ),
        "write": Function(
            "write",
            (
                ("path", STRING),
                ("data", BYTES),
            ),
            ResultType(None, FILESYSTEM_ERROR),
        ),
        "append": Function(
            "append",
            (
                ("path", STRING),
                ("data", BYTES),
            ),
            ResultType(None, FILESYSTEM_ERROR),
        ),
        "delete": Function(
            "delete",
            (("path", STRING),),
            ResultType(None, FILESYSTEM_ERROR),
        ),
        "make-directory": Function(
            "make-directory",
            (("path", STRING),),
            ResultType(None, FILESYSTEM_ERROR),
        ),
        "list": Function(
            "list",
            (("path", STRING),),
            ResultType(ListType(DIR_ENTRY), FILESYSTEM_ERROR),
        ),
        "stat": Function(
            "stat",
            (("path", STRING),),
            ResultType(NODE_STAT, FILESYSTEM_ERROR),
        ),
        "rename": Function(
            "rename",
            (
                ("old-path", STRING),
                ("new-path", STRING),
            ),
            ResultType(None, FILESYSTEM_ERROR),
        ),
    },
}
