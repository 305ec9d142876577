"""What a compiled component depends on beside its own bytes and the engine: this program's part in compiling it.

A compiled component is kept under a key (`sandbox.engine.fingerprint`). A version number in the source would be one
that somebody forgets to raise, and then workers would run adapters that their own side does not match any more. So
the version is a digest of the source itself, and of the WIT packages that adapters and contract are made from.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from sandbox import resources

_SANDBOX = Path(__file__).resolve().parents[1]
SOURCES = (
    "abi/*.py",
    "bindings/*.py",
    "fast/protocol.py",
    "fast/straight.py",
    "patch/*.py",
    "wire/code_file.py",
    "wire/compile_result.py",
    "compiler.py",
    "contract.py",
)
"""What decides on the bytes that are compiled and on what is said about them, below `sandbox/`."""


@functools.cache
def version() -> str:
    """Hex SHA-256; opens files the first time."""
    wit = resources.wit_directory()
    files = [(_SANDBOX, path) for pattern in SOURCES for path in _SANDBOX.glob(pattern)]
    files += [(wit, path) for path in wit.rglob("*.wit")]
    return digest({str(path.relative_to(base)): path.read_bytes() for base, path in files})


def digest(contents: dict[str, bytes]) -> str:
    """Of files' contents by name, in whatever order they come."""
    whole = hashlib.sha256()
    for name in sorted(contents):
        for part in (name.encode(), contents[name]):
            whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()
