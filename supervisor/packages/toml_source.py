"""TOML from people and publishers (TOML 1.0.0): parsed by `tomllib`, with the line of every key for error messages.

`tomllib` tells values but not where they stand. The locator below walks a text that `tomllib` has already accepted and
notes the line of each key; it runs only when there is an error to report.

    source = TomlSource(text, file="component.toml", error=ManifestError)
    table = source.root.table("limits")
    memory = table.take("memory", parse_size, default=64 << 20)
    source.root.done()             # refuses keys nobody took
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from supervisor.packages.errors import SourceError

T = TypeVar("T")
Path = tuple[str | int, ...]
"""Where a value stands: table names, and indices into arrays."""

MAX_BYTES = 256 * 1024
"""Longest document, bytes."""
_MAX_DOTS = 100
"""Most dots in one line: `tomllib` needs time quadratic in the length of a dotted key."""


class TomlSource:
    """One parsed document.

    Args:
        text: the document; bytes are decoded as UTF-8.
        file: the name errors use.
        error: the class of errors, which fixes their code.

    Raises:
        SourceError: of class `error`: too long, not UTF-8, not TOML (duplicate keys included).
    """

    def __init__(self, text: str | bytes, *, file: str, error: type[SourceError]) -> None:
        self.file = file
        self._error = error
        self._lines: dict[Path, int] | None = None
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if len(data) > MAX_BYTES:
            raise self._refuse_at(1, f"the file is longer than {MAX_BYTES // 1024} KiB")
        try:
            self.text = data.decode("utf-8", "strict").replace("\r\n", "\n")
        except UnicodeDecodeError as bad:
            raise self._refuse_at(data[: bad.start].count(b"\n") + 1, "the file is not UTF-8") from bad
        for number, line in enumerate(self.text.split("\n"), 1):
            if line.count(".") > _MAX_DOTS:
                raise self._refuse_at(number, f"more than {_MAX_DOTS} dots in one line")
        try:
            self.data: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as bad:
            raise self._refuse_at(self._line_of(bad), f"not valid TOML: {_without_place(str(bad))}") from bad
        except (ValueError, RecursionError) as bad:
            # An integer of thousands of digits; arrays within arrays within arrays.
            raise self._refuse_at(1, "a number too long or values nested too deeply") from bad
        self.root = Table(self, self.data, ())

    def line(self, path: Path) -> int:
        """The line of a key, else of the nearest table or array above it, else 1."""
        if self._lines is None:
            try:
                self._lines = _Locator(self.text).locate()
            except (IndexError, RecursionError):
                self._lines = {}
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return 1

    def refuse(self, path: Path, message: str, hint: str = "") -> SourceError:
        """The error to raise for the value at `path`."""
        return self._error(message, file=self.file, key=dotted(path), line=self.line(path), hint=hint)

    def _refuse_at(self, line: int, message: str) -> SourceError:
        return self._error(message, file=self.file, key="", line=line)

    def _line_of(self, bad: tomllib.TOMLDecodeError) -> int:
        match = re.search(r"\(at line ([0-9]+), column [0-9]+\)\Z", str(bad))
        return int(match[1]) if match else self.text.rstrip("\n").count("\n") + 1


class Table:
    """One table being read: each key is taken once, and `done` refuses what nobody took."""

    def __init__(self, source: TomlSource, data: dict[str, Any], path: Path) -> None:
        self.source = source
        self.path = path
        self._data = data
        self._known: set[str] = set()
        self._children: list[Table] = []

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def keys(self) -> Iterable[str]:
        """The keys as written."""
        return self._data.keys()

    def refuse(self, key: str | int | None, message: str, hint: str = "") -> SourceError:
        """The error to raise for one of this table's keys (or for the table, with None)."""
        return self.source.refuse(self.path if key is None else (*self.path, key), message, hint)

    def take(self, key: str, parse: Callable[[Any], T], *, default: T | None = None) -> T:
        """The parsed value of a key; without a default it must be there.

        Raises:
            SourceError: missing, or `parse` raised ValueError.
        """
        self._known.add(key)
        if key not in self._data:
            if default is None:
                raise self.refuse(None, f"{key} is missing")
            return default
        try:
            return parse(self._data[key])
        except ValueError as bad:
            raise self.refuse(key, str(bad)) from bad

    def table(self, key: str, *, required: bool = False) -> Table:
        """A table below this one; an absent one is empty."""
        self._known.add(key)
        if required and key not in self._data:
            raise self.refuse(None, f"[{dotted((*self.path, key))}] is missing")
        value = self._data.get(key, {})
        if not isinstance(value, dict):
            raise self.refuse(key, f"{key} must be a table")
        child = Table(self.source, value, (*self.path, key))
        self._children.append(child)
        return child

    def tables(self, key: str, *, most: int) -> list[Table]:
        """An array of tables; an absent one is empty."""
        self._known.add(key)
        value = self._data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.refuse(key, f"{key} must be an array of tables, as {key} = [ {{ ... }} ]")
        if len(value) > most:
            raise self.refuse(key, f"more than {most} entries")
        children = [Table(self.source, item, (*self.path, key, index)) for index, item in enumerate(value)]
        self._children.extend(children)
        return children

    def done(self) -> None:
        """Refuse keys that were not taken, here and in every table below."""
        for key in self._data:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(self._known))}"
                raise self.refuse(key, f"unknown key {key[:60]!a}", hint)
        for child in self._children:
            child.done()


def dotted(path: Path) -> str:
    """A path as TOML spells it, with indices in brackets: `capabilities.filesystem[0].path`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_RE.match(part) else ascii(part[:60]))
    return text


# Parsers of single values, for Table.take. Each raises ValueError with a sentence.


def integer(value: Any) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def string(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")
    return value


def strings(value: Any) -> tuple[str, ...]:
    """An array of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be an array of texts")
    return tuple(value)


_BARE_RE = re.compile(r"[A-Za-z0-9_-]{1,60}\Z")
_BARE_KEY_RE = re.compile(r"[A-Za-z0-9_-]+")


def _without_place(message: str) -> str:
    return re.sub(r" \(at (?:line [0-9]+, column [0-9]+|end of document)\)\Z", "", message)


class _Locator:
    """A walk over text that is known to be valid TOML 1.0; it looks at structure only."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}  # arrays of tables: index of the last element
        self._here: Path = ()

    def locate(self) -> dict[Path, int]:
        while True:
            self._blank(newlines=True)
            if self._at >= len(self._text):
                return self._lines
            if self._text[self._at] == "[":
                self._header()
            else:
                self._pair(self._here)

    def _header(self) -> None:
        array = self._text.startswith("[[", self._at)
        self._step(2 if array else 1)
        self._blank()
        keys = self._keys()
        path: Path = ()
        for key in keys[:-1]:
            path = (*path, key)
            self._note(path)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        path = (*path, keys[-1])
        self._note(path)
        if array:
            self._arrays[path] = self._arrays.get(path, -1) + 1
            path = (*path, self._arrays[path])
            self._note(path)
        self._here = path
        self._step(2 if array else 1)

    def _pair(self, base: Path) -> None:
        path = base
        for key in self._keys():
            path = (*path, key)
            self._note(path)
        self._step(1)  # =
        self._blank()
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            char = self._text[self._at]
            if char in "\"'":
                start = self._at
                self._string()
                keys.append(self._unquoted(start))
            else:
                match = _BARE_KEY_RE.match(self._text, self._at)
                if match is None:
                    raise IndexError("no key where valid TOML has one")
                keys.append(match[0])
                self._at = match.end()
            self._blank()
            if self._text[self._at] != ".":
                return keys
            self._step(1)
            self._blank()

    def _unquoted(self, start: int) -> str:
        return next(iter(tomllib.loads(self._text[start : self._at] + " = 0")))

    def _value(self, path: Path) -> None:
        char = self._text[self._at]
        if char in "\"'":
            self._string()
        elif char == "[":
            self._step(1)
            index = 0
            while True:
                self._blank(newlines=True)
                if self._text[self._at] == "]":
                    break
                if self._text[self._at] == ",":
                    self._step(1)
                    continue
                self._note((*path, index))
                self._value((*path, index))
                index += 1
            self._step(1)
        elif char == "{":
            self._step(1)
            while True:
                self._blank(newlines=True)
                if self._text[self._at] == "}":
                    break
                if self._text[self._at] == ",":
                    self._step(1)
                    continue
                self._pair(path)
            self._step(1)
        else:  # a number, a date or a boolean ends where structure begins again
            while self._at < len(self._text) and self._text[self._at] not in ",]}#\n":
                self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            self._step(3)
            while not self._text.startswith(quote * 3, self._at):
                self._step(2 if quote == '"' and self._text[self._at] == "\\" else 1)
            self._step(3)
            # Up to two quotes may stand directly before the closing three; they are text.
            while self._text.startswith(quote, self._at):
                self._step(1)
        else:
            self._step(1)
            while self._text[self._at] != quote:
                self._step(2 if quote == '"' and self._text[self._at] == "\\" else 1)
            self._step(1)

    def _blank(self, *, newlines: bool = False) -> None:
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in " \t" or (newlines and char == "\n"):
                self._step(1)
            elif char == "#" and newlines:
                while self._at < len(self._text) and self._text[self._at] != "\n":
                    self._at += 1
            else:
                return

    def _step(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _note(self, path: Path) -> None:
        self._lines.setdefault(path, self._line)
