"""Making text from packages, logs and errors harmless for a terminal.

Control characters (ISO/IEC 6429 sequences begin with one) and Unicode's format characters, which reorder or hide what
is read, are shown as escapes. Everything the command line prints for people goes through here.
"""

from __future__ import annotations

import unicodedata

_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def clean(text: str, *, lines: bool = False) -> str:
    """The text with every harmful character escaped; `lines` lets line feeds stand."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if (lines and character == "\n") or not _is_harmful(character) else _escape(character)
        for character in text
    )


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in _HARMFUL


def _escape(character: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if named is not None:
        return named
    point = ord(character)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
