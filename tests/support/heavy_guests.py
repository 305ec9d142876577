"""Guests of large toolchains, if they were built on this machine (`tests/guests/heavy.py`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NAMES = ("wasi-go", "wasi-python", "wasi-qjs", "wasi-rust", "wasi-starlingmonkey")


def cached(name: str) -> bytes:
    """The newest that was built of this name; the test is skipped when none was."""
    where = Path(os.environ.get("AIRSSYS_GUEST_CACHE") or Path.home() / ".cache/airssys/guests")
    try:
        found = sorted(where.glob(f"{name}-*.wasm"), key=lambda path: path.stat().st_mtime)
    except OSError:
        found = []
    if not found:
        pytest.skip(f"{name} has not been built on this machine (tests/guests/heavy.py)")
    return found[-1].read_bytes()
