"""`wasi:random`: getrandom(2) behind all three interfaces; the "insecure" ones promise less than they get."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sandbox.host.wasi.handles import Kind, trap

MAX_BYTES = 64 * 1024
"""Bytes of one answer. An answer must have exactly the length that was asked for, so a longer one is a trap."""


def _bytes(length: int) -> bytes:
    if length > MAX_BYTES:
        raise trap(f"{length} random bytes at once; {MAX_BYTES} are the most")
    return os.urandom(length)


def _u64() -> int:
    return int.from_bytes(os.urandom(8), "little")


def _seed() -> tuple[int, int]:
    return _u64(), _u64()


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "random/random": {"get-random-bytes": _bytes, "get-random-u64": _u64},
    "random/insecure": {"get-insecure-random-bytes": _bytes, "get-insecure-random-u64": _u64},
    "random/insecure-seed": {"insecure-seed": _seed},
}
RESOURCES: dict[str, dict[str, Kind]] = {}
