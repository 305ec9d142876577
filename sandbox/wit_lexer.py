"""Tokens of WIT text, with line numbers and documentation comments.

Implements the lexical part of the Component Model's WIT.md, as far as our packages use it: `//` and `/* */` comments,
`///` documentation, kebab-case identifiers (`%` in front keeps one from being a keyword), versions, punctuation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandbox.errors import AirssysError

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r]+)
    | (?P<newline>\n)
    | (?P<docs>///[^\n]*)
    | (?P<comment>//[^\n]*)
    | (?P<block>/\*)
    | (?P<version>@[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]*[0-9A-Za-z-])?)
    | (?P<arrow>->)
    | (?P<punctuation>[{}()<>,;:=./_*])
    | (?P<word>%?[a-zA-Z][a-zA-Z0-9]*(?:-[a-zA-Z0-9]+)*)
    """,
    re.VERBOSE,
)
_WORD_PART = re.compile(r"(?:[a-z][a-z0-9]*|[A-Z][A-Z0-9]*)\Z")
KEYWORDS = frozenset({
    "as", "async", "bool", "borrow", "char", "constructor", "enum", "export", "f32", "f64", "flags", "from", "func",
    "future", "import", "include", "interface", "list", "option", "own", "package", "record", "resource", "result",
    "s16", "s32", "s64", "s8", "static", "stream", "string", "tuple", "type", "u16", "u32", "u64", "u8", "use",
    "variant", "with", "world",
})  # fmt: skip
"""Words that name an item only with `%` in front."""


class WitError(AirssysError):
    """WIT text that is malformed, or says something outside the subset used here. `subject` is `file:line`."""

    code = "E_WIT"


@dataclass(frozen=True)
class Token:
    """One token.

    Attributes:
        kind: "word", "version", "end", or the punctuation itself.
        text: as written, without the `%` of an escaped word and the `@` of a version.
        line: from 1.
        docs: documentation lines directly before it, joined with newlines.
        escaped: a word written with `%`.
    """

    kind: str
    text: str
    line: int
    docs: str = ""
    escaped: bool = False


def tokens(text: str, file: str) -> list[Token]:
    """All tokens of `text`, the last of kind "end".

    Raises:
        WitError: a character that starts no token, an unclosed comment, or a malformed word.
    """
    found: list[Token] = []
    docs: list[str] = []
    line, at = 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise WitError(f"unexpected character {text[at]!r}", subject=f"{file}:{line}")
        kind, piece = str(match.lastgroup), match.group()
        at = match.end()
        if kind == "newline":
            line += 1
        elif kind == "docs":
            docs.append(piece[3:].removeprefix(" ").rstrip())
        elif kind == "block":
            end = text.find("*/", at)
            if end < 0:
                raise WitError("a comment that is never closed", subject=f"{file}:{line}")
            line += text.count("\n", at, end)
            at = end + 2
        elif kind not in ("space", "comment"):
            found.append(_token(kind, piece, line, "\n".join(docs), file))
            docs = []
    found.append(Token("end", "", line, "\n".join(docs)))
    return found


def _token(kind: str, piece: str, line: int, docs: str, file: str) -> Token:
    if kind == "version":
        return Token("version", piece[1:], line, docs)
    if kind != "word":
        return Token(piece, piece, line, docs)
    word = piece.removeprefix("%")
    if not all(_WORD_PART.match(part) for part in word.split("-")):
        raise WitError(f"not a WIT name: {word!r}", subject=f"{file}:{line}", hint="use kebab-case, as in `message-id`")
    return Token("word", word, line, docs, escaped=word != piece)
