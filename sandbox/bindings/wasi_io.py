"""wasi:io@0.2.12 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import msgspec

from sandbox.abi.types import BOOL, BYTES, STRING, U32, U64, Function, HandleType, ListType, ResultType, VariantType


class StreamErrorLastOperationFailed(msgspec.Struct, frozen=True, gc=False):
    """`last-operation-failed`."""

    value: int


class StreamErrorClosed(msgspec.Struct, frozen=True, gc=False):
    """`closed`."""


StreamError = StreamErrorLastOperationFailed | StreamErrorClosed
"""The end, or a failure."""
STREAM_ERROR = VariantType(
    (
        ("last-operation-failed", HandleType("wasi:io/error.error", borrowed=False)),
        ("closed", None),
    ),
    "wasi:io/streams@0.2.12#stream-error",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "wasi:io/streams@0.2.12#stream-error": {
        "last-operation-failed": StreamErrorLastOperationFailed,
        "closed": StreamErrorClosed,
    },
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "wasi:io/error@0.2.12": {
        "[method]error.to-debug-string": Function(
            "[method]error.to-debug-string",
            (("self", HandleType("wasi:io/error.error", borrowed=True)),),
            STRING,
        ),
    },
    "wasi:io/poll@0.2.12": {
        "[method]pollable.ready": Function(
            "[method]pollable.ready",
            (("self", HandleType("wasi:io/poll.pollable", borrowed=True)),),
            BOOL,
        ),
        "[method]pollable.block": Function(
            "[method]pollable.block",
            (("self", HandleType("wasi:io/poll.pollable", borrowed=True)),),
        ),
        "poll": Function(
            "poll",
            (("in", ListType(HandleType("wasi:io/poll.pollable", borrowed=True))),),
            ListType(U32),
        ),
    },
    "wasi:io/streams@0.2.12": {
        "[method]input-stream.read": Function(
            "[method]input-stream.read",
            (
                ("self", HandleType("wasi:io/streams.input-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(BYTES, STREAM_ERROR),
        ),
        "[method]input-stream.blocking-read": Function(
            "[method]input-stream.blocking-read",
            (
                ("self", HandleType("wasi:io/streams.input-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(BYTES, STREAM_ERROR),
        ),
        "[method]input-stream.skip": Function(
            "[method]input-stream.skip",
            (
                ("self", HandleType("wasi:io/streams.input-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(U64, STREAM_ERROR),
        ),
        "[method]input-stream.blocking-skip": Function(
            "[method]input-stream.blocking-skip",
            (
                ("self", HandleType("wasi:io/streams.input-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(U64, STREAM_ERROR),
        ),
        "[method]input-stream.subscribe": Function(
            "[method]input-stream.subscribe",
            (("self", HandleType("wasi:io/streams.input-stream", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
        "[method]output-stream.check-write": Function(
            "[method]output-stream.check-write",
            (("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),),
            ResultType(U64, STREAM_ERROR),
        ),
        "[method]output-stream.write": Function(
            "[method]output-stream.write",
            (
                ("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),
                ("contents", BYTES),
            ),
            ResultType(None, STREAM_ERROR),
        ),
        "[method]output-stream.blocking-write-and-flush": Function(
            "[method]output-stream.blocking-write-and-flush",
            (
                ("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),
                ("contents", BYTES),
            ),
            ResultType(None, STREAM_ERROR),
        ),
        "[method]output-stream.flush": Function(
            "[method]output-stream.flush",
            (("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),),
            ResultType(None, STREAM_ERROR),
        ),
        "[method]output-stream.blocking-flush": Function(
            "[method]output-stream.blocking-flush",
            (("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),),
            ResultType(None, STREAM_ERROR),
        ),
        "[method]output-stream.subscribe": Function(
            "[method]output-stream.subscribe",
            (("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
        "[method]output-stream.write-zeroes": Function(
            "[method]output-stream.write-zeroes",
            (
                ("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(None, STREAM_ERROR),
        ),
        "[method]output-stream.blocking-write-zeroes-and-flush": Function(
            "[method]output-stream.blocking-write-zeroes-and-flush",
            (
                ("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(None, STREAM_ERROR),
        ),
        "[method]output-stream.splice": Function(
            "[method]output-stream.splice",
            (
                ("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),
                ("src", HandleType("wasi:io/streams.input-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(U64, STREAM_ERROR),
        ),
        "[method]output-stream.blocking-splice": Function(
            "[method]output-stream.blocking-splice",
            (
                ("self", HandleType("wasi:io/streams.output-stream", borrowed=True)),
                ("src", HandleType("wasi:io/streams.input-stream", borrowed=True)),
                ("len", U64),
            ),
            ResultType(U64, STREAM_ERROR),
        ),
    },
}
