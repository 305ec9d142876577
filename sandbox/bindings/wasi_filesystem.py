"""wasi:filesystem@0.2.12 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import enum

import msgspec

from sandbox.abi.types import (
    BOOL,
    BYTES,
    STRING,
    U64,
    EnumType,
    FlagsType,
    Function,
    HandleType,
    ListType,
    OptionType,
    RecordType,
    ResultType,
    TupleType,
    VariantType,
)
from sandbox.bindings import wasi_clocks


class DescriptorType(enum.Enum):
    """`descriptor-type`."""

    UNKNOWN = "unknown"
    BLOCK_DEVICE = "block-device"
    CHARACTER_DEVICE = "character-device"
    DIRECTORY = "directory"
    FIFO = "fifo"
    SYMBOLIC_LINK = "symbolic-link"
    REGULAR_FILE = "regular-file"
    SOCKET = "socket"


DESCRIPTOR_TYPE = EnumType(
    (
        "unknown",
        "block-device",
        "character-device",
        "directory",
        "fifo",
        "symbolic-link",
        "regular-file",
        "socket",
    ),
    "wasi:filesystem/types@0.2.12#descriptor-type",
)


class DescriptorFlags(enum.Flag):
    """`descriptor-flags`."""

    READ = 1
    WRITE = 2
    FILE_INTEGRITY_SYNC = 4
    DATA_INTEGRITY_SYNC = 8
    REQUESTED_WRITE_SYNC = 16
    MUTATE_DIRECTORY = 32


DESCRIPTOR_FLAGS = FlagsType(
    (
        "read",
        "write",
        "file-integrity-sync",
        "data-integrity-sync",
        "requested-write-sync",
        "mutate-directory",
    ),
    "wasi:filesystem/types@0.2.12#descriptor-flags",
)


class PathFlags(enum.Flag):
    """`path-flags`."""

    SYMLINK_FOLLOW = 1


PATH_FLAGS = FlagsType(
    ("symlink-follow",),
    "wasi:filesystem/types@0.2.12#path-flags",
)


class OpenFlags(enum.Flag):
    """`open-flags`."""

    CREATE = 1
    DIRECTORY = 2
    EXCLUSIVE = 4
    TRUNCATE = 8


OPEN_FLAGS = FlagsType(
    (
        "create",
        "directory",
        "exclusive",
        "truncate",
    ),
    "wasi:filesystem/types@0.2.12#open-flags",
)


class DescriptorStat(msgspec.Struct, frozen=True, gc=False):
    """`descriptor-stat`."""

    type: DescriptorType
    link_count: int
    size: int
    data_access_timestamp: wasi_clocks.Datetime | None
    data_modification_timestamp: wasi_clocks.Datetime | None
    status_change_timestamp: wasi_clocks.Datetime | None


DESCRIPTOR_STAT = RecordType(
    (
        ("type", DESCRIPTOR_TYPE),
        ("link-count", U64),
        ("size", U64),
        ("data-access-timestamp", OptionType(wasi_clocks.DATETIME)),
        ("data-modification-timestamp", OptionType(wasi_clocks.DATETIME)),
        ("status-change-timestamp", OptionType(wasi_clocks.DATETIME)),
    ),
    "wasi:filesystem/types@0.2.12#descriptor-stat",
)


class NewTimestampNoChange(msgspec.Struct, frozen=True, gc=False):
    """`no-change`."""


class NewTimestampNow(msgspec.Struct, frozen=True, gc=False):
    """`now`."""


class NewTimestampTimestamp(msgspec.Struct, frozen=True, gc=False):
    """`timestamp`."""

    value: wasi_clocks.Datetime


NewTimestamp = NewTimestampNoChange | NewTimestampNow | NewTimestampTimestamp
"""`new-timestamp`."""
NEW_TIMESTAMP = VariantType(
    (
        ("no-change", None),
        ("now", None),
        ("timestamp", wasi_clocks.DATETIME),
    ),
    "wasi:filesystem/types@0.2.12#new-timestamp",
)


class DirectoryEntry(msgspec.Struct, frozen=True, gc=False):
    """`directory-entry`."""

    type: DescriptorType
    name: str


DIRECTORY_ENTRY = RecordType(
    (
        ("type", DESCRIPTOR_TYPE),
        ("name", STRING),
    ),
    "wasi:filesystem/types@0.2.12#directory-entry",
)


class ErrorCode(enum.Enum):
    """`error-code`."""

    ACCESS = "access"
    WOULD_BLOCK = "would-block"
    ALREADY = "already"
    BAD_DESCRIPTOR = "bad-descriptor"
    BUSY = "busy"
    DEADLOCK = "deadlock"
    QUOTA = "quota"
    EXIST = "exist"
    FILE_TOO_LARGE = "file-too-large"
    ILLEGAL_BYTE_SEQUENCE = "illegal-byte-sequence"
    IN_PROGRESS = "in-progress"
    INTERRUPTED = "interrupted"
    INVALID = "invalid"
    IO = "io"
    IS_DIRECTORY = "is-directory"
    LOOP = "loop"
    TOO_MANY_LINKS = "too-many-links"
    MESSAGE_SIZE = "message-size"
    NAME_TOO_LONG = "name-too-long"
    NO_DEVICE = "no-device"
    NO_ENTRY = "no-entry"
    NO_LOCK = "no-lock"
    INSUFFICIENT_MEMORY = "insufficient-memory"
    INSUFFICIENT_SPACE = "insufficient-space"
    NOT_DIRECTORY = "not-directory"
    NOT_EMPTY = "not-empty"
    NOT_RECOVERABLE = "not-recoverable"
    UNSUPPORTED = "unsupported"
    NO_TTY = "no-tty"
    NO_SUCH_DEVICE = "no-such-device"
    OVERFLOW = "overflow"
    NOT_PERMITTED = "not-permitted"
    PIPE = "pipe"
    READ_ONLY = "read-only"
    INVALID_SEEK = "invalid-seek"
    TEXT_FILE_BUSY = "text-file-busy"
    CROSS_DEVICE = "cross-device"


ERROR_CODE = EnumType(
    (
        "access",
        "would-block",
        "already",
        "bad-descriptor",
        "busy",
        "deadlock",
        "quota",
        "exist",
        "file-too-large",
        "illegal-byte-sequence",
        "in-progress",
        "interrupted",
        "invalid",
        "io",
        "is-directory",
        "loop",
        "too-many-links",
        "message-size",
        "name-too-long",
        "no-device",
        "no-entry",
        "no-lock",
        "insufficient-memory",
        "insufficient-space",
        "not-directory",
        "not-empty",
        "not-recoverable",
        "unsupported",
        "no-tty",
        "no-such-device",
        "overflow",
        "not-permitted",
        "pipe",
        "read-only",
        "invalid-seek",
        "text-file-busy",
        "cross-device",
    ),
    "wasi:filesystem/types@0.2.12#error-code",
)


class Advice(enum.Enum):
    """`advice`."""

    NORMAL = "normal"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    WILL_NEED = "will-need"
    DONT_NEED = "dont-need"
    NO_REUSE = "no-reuse"


ADVICE = EnumType(
    (
        "normal",
        "sequential",
        "random",
        "will-need",
        "dont-need",
        "no-reuse",
    ),
    "wasi:filesystem/types@0.2.12#advice",
)


class MetadataHashValue(msgspec.Struct, frozen=True, gc=False):
    """`metadata-hash-value`."""

    lower: int
    upper: int


METADATA_HASH_VALUE = RecordType(
    (
        ("lower", U64),
        ("upper", U64),
    ),
    "wasi:filesystem/types@0.2.12#metadata-hash-value",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "wasi:filesystem/types@0.2.12#descriptor-type": DescriptorType,
    "wasi:filesystem/types@0.2.12#descriptor-flags": DescriptorFlags,
    "wasi:filesystem/types@0.2.12#path-flags": PathFlags,
    "wasi:filesystem/types@0.2.12#open-flags": OpenFlags,
    "wasi:filesystem/types@0.2.12#descriptor-stat": DescriptorStat,
    "wasi:filesystem/types@0.2.12#new-timestamp": {
        "no-change": NewTimestampNoChange,
        "now": NewTimestampNow,
        "timestamp": NewTimestampTimestamp,
    },
    "wasi:filesystem/types@0.2.12#directory-entry": DirectoryEntry,
    "wasi:filesystem/types@0.2.12#error-code": ErrorCode,
    "wasi:filesystem/types@0.2.12#advice": Advice,
    "wasi:filesystem/types@0.2.12#metadata-hash-value": MetadataHashValue,
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "wasi:filesystem/types@0.2.12": {
        "[method]descriptor.read-via-stream": Function(
            "[method]descriptor.read-via-stream",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("offset", U64),
            ),
            ResultType(HandleType("wasi:io/streams.input-stream", borrowed=False), ERROR_CODE),
        ),
        "[method]descriptor.write-via-stream": Function(
            "[method]descriptor.write-via-stream",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("offset", U64),
            ),
            ResultType(HandleType("wasi:io/streams.output-stream", borrowed=False), ERROR_CODE),
        ),
        "[method]descriptor.append-via-stream": Function(
            "[method]descriptor.append-via-stream",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(HandleType("wasi:io/streams.output-stream", borrowed=False), ERROR_CODE),
        ),
        "[method]descriptor.advise": Function(
            "[method]descriptor.advise",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("offset", U64),
                ("length", U64),
                ("advice", ADVICE),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.sync-data": Function(
            "[method]descriptor.sync-data",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.get-flags": Function(
            "[method]descriptor.get-flags",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(DESCRIPTOR_FLAGS, ERROR_CODE),
        ),
        "[method]descriptor.get-type": Function(
            "[method]descriptor.get-type",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(DESCRIPTOR_TYPE, ERROR_CODE),
        ),
        "[method]descriptor.set-size": Function(
            "[method]descriptor.set-size",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("size", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.set-times": Function(
            "[method]descriptor.set-times",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("data-access-timestamp", NEW_TIMESTAMP),
                ("data-modification-timestamp", NEW_TIMESTAMP),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.read": Function(
            "[method]descriptor.read",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("length", U64),
                ("offset", U64),
            ),
            ResultType(TupleType((BYTES, BOOL)), ERROR_CODE),
        ),
        "[method]descriptor.write": Function(
            "[method]descriptor.write",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("buffer", BYTES),
                ("offset", U64),
            ),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]descriptor.read-directory": Function(
            "[method]descriptor.read-directory",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(HandleType("wasi:filesystem/types.directory-entry-stream", borrowed=False), ERROR_CODE),
        ),
        "[method]descriptor.sync": Function(
            "[method]descriptor.sync",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.create-directory-at": Function(
            "[method]descriptor.create-directory-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path", STRING),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.stat": Function(
            "[method]descriptor.stat",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(DESCRIPTOR_STAT, ERROR_CODE),
        ),
        "[method]descriptor.stat-at": Function(
            "[method]descriptor.stat-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path-flags", PATH_FLAGS),
                ("path", STRING),
            ),
            ResultType(DESCRIPTOR_STAT, ERROR_CODE),
        ),
        "[method]descriptor.set-times-at": Function(
            "[method]descriptor.set-times-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path-flags", PATH_FLAGS),
                ("path", STRING),
                ("data-access-timestamp", NEW_TIMESTAMP),
                ("data-modification-timestamp", NEW_TIMESTAMP),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.link-at": Function(
            "[method]descriptor.link-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("old-path-flags", PATH_FLAGS),
                ("old-path", STRING),
                ("new-descriptor", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("new-path", STRING),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.open-at": Function(
            "[method]descriptor.open-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path-flags", PATH_FLAGS),
                ("path", STRING),
                ("open-flags", OPEN_FLAGS),
                ("flags", DESCRIPTOR_FLAGS),
            ),
            ResultType(HandleType("wasi:filesystem/types.descriptor", borrowed=False), ERROR_CODE),
        ),
        "[method]descriptor.readlink-at": Function(
            "[method]descriptor.readlink-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path", STRING),
            ),
            ResultType(STRING, ERROR_CODE),
        ),
        "[method]descriptor.remove-directory-at": Function(
            "[method]descriptor.remove-directory-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path", STRING),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.rename-at": Function(
            "[method]descriptor.rename-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("old-path", STRING),
                ("new-descriptor", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("new-path", STRING),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.symlink-at": Function(
            "[method]descriptor.symlink-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("old-path", STRING),
                ("new-path", STRING),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.unlink-file-at": Function(
            "[method]descriptor.unlink-file-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path", STRING),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]descriptor.is-same-object": Function(
            "[method]descriptor.is-same-object",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("other", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
            ),
            BOOL,
        ),
        "[method]descriptor.metadata-hash": Function(
            "[method]descriptor.metadata-hash",
            (("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),),
            ResultType(METADATA_HASH_VALUE, ERROR_CODE),
        ),
        "[method]descriptor.metadata-hash-at": Function(
            "[method]descriptor.metadata-hash-at",
            (
                ("self", HandleType("wasi:filesystem/types.descriptor", borrowed=True)),
                ("path-flags", PATH_FLAGS),
                ("path", STRING),
            ),
            ResultType(METADATA_HASH_VALUE, ERROR_CODE),
        ),
        "[method]directory-entry-stream.read-directory-entry": Function(
            "[method]directory-entry-stream.read-directory-entry",
            (("self", HandleType("wasi:filesystem/types.directory-entry-stream", borrowed=True)),),
            ResultType(OptionType(DIRECTORY_ENTRY), ERROR_CODE),
        ),
        "filesystem-error-code": Function(
            "filesystem-error-code",
            (("err", HandleType("wasi:io/error.error", borrowed=True)),),
            OptionType(ERROR_CODE),
        ),
    },
    "wasi:filesystem/preopens@0.2.12": {
        "get-directories": Function(
            "get-directories",
            (),
            ListType(TupleType((HandleType("wasi:filesystem/types.descriptor", borrowed=False), STRING))),
        ),
    },
}
