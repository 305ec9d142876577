"""wasi:random@0.2.12 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

from sandbox.abi.types import BYTES, U64, Function, TupleType

CLASSES: dict[str, type | dict[str, type]] = {}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "wasi:random/random@0.2.12": {
        "get-random-bytes": Function(
            "get-random-bytes",
            (("len", U64),),
            BYTES,
        ),
        "get-random-u64": Function(
            "get-random-u64",
            (),
            U64,
        ),
    },
    "wasi:random/insecure@0.2.12": {
        "get-insecure-random-bytes": Function(
            "get-insecure-random-bytes",
            (("len", U64),),
            BYTES,
        ),
        "get-insecure-random-u64": Function(
            "get-insecure-random-u64",
            (),
            U64,
        ),
    },
    "wasi:random/insecure-seed@0.2.12": {
        "insecure-seed": Function(
            "insecure-seed",
            (),
            TupleType((U64, U64)),
        ),
    },
}
