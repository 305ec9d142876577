"""wasi:clocks@0.2.12 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import msgspec

from sandbox.abi.types import U32, U64, Function, HandleType, RecordType


class Datetime(msgspec.Struct, frozen=True, gc=False):
    """Since 1970-01-01T00:00:00Z."""

    seconds: int
    nanoseconds: int


DATETIME = RecordType(
    (
        ("seconds", U64),
        ("nanoseconds", U32),
    ),
    "wasi:clocks/wall-clock@0.2.12#datetime",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "wasi:clocks/wall-clock@0.2.12#datetime": Datetime,
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "wasi:clocks/monotonic-clock@0.2.12": {
        "now": Function(
            "now",
            (),
            U64,
        ),
        "resolution": Function(
            "resolution",
            (),
            U64,
        ),
        "subscribe-instant": Function(
            "subscribe-instant",
            (("when", U64),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
        "subscribe-duration": Function(
            "subscribe-duration",
            (("when", U64),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
    },
    "wasi:clocks/wall-clock@0.2.12": {
        "now": Function(
            "now",
            (),
            DATETIME,
        ),
        "resolution": Function(
            "resolution",
            (),
            DATETIME,
        ),
    },
}
