"""Sizes and durations as people write them: `64MiB`, `100ms`. One spelling each, no fractions, no guessing."""

from __future__ import annotations

import re

_SIZE_RE = re.compile(r"(0|[1-9][0-9]{0,15})(B|KiB|MiB|GiB|TiB)\Z")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATION_RE = re.compile(r"(0|[1-9][0-9]{0,12})(ms|s|m|h)\Z")
_DURATIONS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def parse_size(value: object) -> int:
    """Bytes: a whole number of bytes, or a text such as `512KiB`, `64MiB`, `1GiB`.

    Raises:
        ValueError: neither.
    """
    # bool is an int in Python and is no size.
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (match := _SIZE_RE.match(value)):
        return int(match[1]) * _SIZES[match[2]]
    raise ValueError('not a size; write it as "512KiB", "64MiB", "1GiB" or as a whole number of bytes')


def parse_duration(value: object) -> int:
    """Milliseconds: a text such as `100ms`, `5s`, `2m`, `1h`.

    Raises:
        ValueError: anything else; a bare number has no unit and is refused.
    """
    if isinstance(value, str) and (match := _DURATION_RE.match(value)):
        return int(match[1]) * _DURATIONS[match[2]]
    raise ValueError('not a duration; write it as "100ms", "5s", "2m" or "1h"')


def format_size(size: int) -> str:
    """The shortest exact spelling that `parse_size` reads back to the same number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def format_duration(milliseconds: int) -> str:
    """The shortest exact spelling that `parse_duration` reads back to the same number."""
    for unit in ("h", "m", "s"):
        if milliseconds and milliseconds % _DURATIONS[unit] == 0:
            return f"{milliseconds // _DURATIONS[unit]}{unit}"
    return f"{milliseconds}ms"
