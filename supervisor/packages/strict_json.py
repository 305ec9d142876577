"""One strict JSON loader (RFC 8259, and less): for envelopes, statements and trust files.

What parsers disagree about is refused instead of interpreted: duplicate names, numbers that are not plain integers,
NaN and infinities, byte-order marks, invalid UTF-8, lone surrogates, depth and size without bound.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from supervisor.packages.errors import PackageError

MAX_DEPTH = 32
"""Deepest nesting of arrays and objects."""
_MAX_DIGITS = 16
# A string without an end is taken to the end of the text, so that no text is looked at twice from each of its quotes.
_STRUCTURE_RE = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|[\[{]|[\]}]', re.DOTALL)


def loads_object(data: bytes, *, max_bytes: int, what: str) -> dict[str, Any]:
    """Parse one JSON object.

    Args:
        data: the document, UTF-8.
        max_bytes: longest document accepted, bytes.
        what: how an error names the document.

    Raises:
        PackageError: E_SIZE when longer than `max_bytes`, else E_JSON.
    """
    if len(data) > max_bytes:
        raise PackageError(f"{what} is longer than {max_bytes} bytes", code="E_SIZE")

    def refuse(why: str) -> NoReturn:
        raise PackageError(f"{what} is not acceptable JSON: {why}", code="E_JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for name, value in pairs:
            if name in table:
                refuse(f"the name {name[:60]!a} appears twice")
            table[name] = value
        return table

    def integer(text: str) -> int:
        if len(text.lstrip("-")) > _MAX_DIGITS:
            refuse(f"a number with more than {_MAX_DIGITS} digits")
        if text == "-0":
            refuse("minus zero")
        return int(text)

    def not_an_integer(text: str) -> NoReturn:
        refuse(f"{text[:20]} is not an integer")

    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        refuse(f"byte {error.start} is not UTF-8")
    if text.startswith("\ufeff"):
        refuse("it begins with a byte-order mark")
    # Depth is looked at before parsing: the parser's own guard is the interpreter's recursion limit.
    depth = 0
    for token in _STRUCTURE_RE.finditer(text):
        mark = token[0]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                refuse(f"it is nested deeper than {MAX_DEPTH} levels")
        elif mark in "]}":
            depth -= 1
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=not_an_integer,
            parse_constant=not_an_integer,
        )
    except json.JSONDecodeError as error:
        refuse(f"{error.msg} (line {error.lineno}, column {error.colno})")
    except RecursionError:
        refuse("it is nested too deeply")
    if not isinstance(value, dict):
        refuse("it is not an object")
    # "\ud800" is six honest ASCII characters that become text no UTF-8 can carry. Only escapes can make one.
    if "\\u" in text and _holds_surrogate(value):
        refuse("it holds a lone surrogate")
    return value


def _holds_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, dict):
        return any(_holds_surrogate(name) or _holds_surrogate(item) for name, item in value.items())
    if isinstance(value, list):
        return any(_holds_surrogate(item) for item in value)
    return False
