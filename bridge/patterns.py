"""Guest paths and the patterns that cover them.

A guest path is absolute in the component's own view. It is parsed exactly once, here, into a tuple of components;
everything behind (capability checks, executors, audit) works on that tuple and never on text again.

A path pattern is matched component by component, so `/data/*` covers neither `/database` nor `/data/a/b`:

    ?    one character within a component
    *    any characters within one component, none included
    **   as a whole component: any number of components, none included; `/logs/**` covers `/logs` itself

There is no other syntax: no classes, no alternatives, no escapes, no normalisation of letters.
"""

from __future__ import annotations

import unicodedata

from sandbox.errors import AirssysError

MAX_PATTERN = 1024
"""Longest pattern, bytes of UTF-8."""
MAX_PATH = 4096
"""Longest guest path, bytes of UTF-8 (`airssys:osl/filesystem`)."""
MAX_COMPONENT = 255
"""Longest path component, bytes of UTF-8 (Linux `NAME_MAX`)."""
_FOREIGN_SYNTAX = frozenset("[]{}\\")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories no pattern may hold: controls, formats (bidi), surrogates, line and paragraph separators."""


class InvalidPattern(AirssysError, ValueError):
    """A pattern in a capability is malformed."""

    code = "E_PATTERN"


class InvalidPath(AirssysError, ValueError):
    """A guest path is malformed; `message` says why without repeating the path."""

    code = "E_INVALID_PATH"


def parse_guest_path(text: str) -> tuple[str, ...]:
    """The components of a guest path; `/` is the empty tuple.

    Raises:
        InvalidPath: not absolute, over `MAX_PATH` bytes, not UTF-8, a control character, or a component that is
            empty, `.`, `..` or over `MAX_COMPONENT` bytes. A trailing slash is an empty component.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidPath("the path is not valid UTF-8") from error
    if size > MAX_PATH:
        raise InvalidPath(f"the path is longer than {MAX_PATH} bytes")
    if not text.startswith("/"):
        raise InvalidPath("the path is not absolute")
    # isprintable() is one C loop; only an unusual path pays for the exact question.
    if not text.isprintable() and any(unicodedata.category(char) == "Cc" for char in text):
        raise InvalidPath("the path holds a control character")
    if text == "/":
        return ()
    parts = tuple(text[1:].split("/"))
    for part in parts:
        if part in ("", ".", ".."):
            raise InvalidPath(f"the path has {'an empty' if not part else repr(part)} component")
        if len(part.encode()) > MAX_COMPONENT:
            raise InvalidPath(f"a component of the path is longer than {MAX_COMPONENT} bytes")
    return parts


def validate_path_pattern(text: str) -> str:
    """Return `text` if it is a path pattern.

    Raises:
        InvalidPattern: not absolute, no component, over `MAX_PATTERN` bytes, an empty, `.` or `..` component, `**`
            that is not a whole component or stands beside another `**`, a control or invisible character, or
            syntax this language does not have.
    """

    def refuse(why: str) -> InvalidPattern:
        return InvalidPattern(
            f"path pattern {why}", subject=ascii(text), hint="write it as /dir/file, /dir/* or /dir/**"
        )

    if any(unicodedata.category(char) in _INVISIBLE for char in text):
        raise refuse("holds a control or invisible character")
    if len(text.encode()) > MAX_PATTERN:
        raise InvalidPattern(f"path pattern is longer than {MAX_PATTERN} bytes", subject=ascii(text[:60]) + "...")
    if not text.startswith("/"):
        raise refuse("is not absolute")
    if not _FOREIGN_SYNTAX.isdisjoint(text):
        raise refuse("holds one of [ ] { } \\, which mean nothing here")
    parts = text[1:].split("/")
    for before, part in zip(["", *parts], parts, strict=False):
        if part in ("", ".", ".."):
            raise refuse(f"has {'an empty' if not part else repr(part)} component")
        if "**" in part and part != "**":
            raise refuse("has ** that is not a whole component")
        if part == before == "**":
            raise refuse("has ** twice in a row")
        if len(part.encode()) > MAX_COMPONENT:
            raise refuse(f"has a component longer than {MAX_COMPONENT} bytes")
    return text


def match_component(pattern: str, name: str) -> bool:
    """Whether `*` and `?` in `pattern` cover the whole of `name`; at most len(pattern) * len(name) steps."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    at = seen = 0
    star, resume = -1, 0
    while seen < len(name):
        # The star is looked at first: a name may itself hold the character `*`.
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, seen
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[seen]):
            at += 1
            seen += 1
        elif star >= 0:
            resume += 1
            at, seen = star + 1, resume
        else:
            return False
    return all(char == "*" for char in pattern[at:])


class PathPattern:
    """A validated pattern, ready to be asked often.

    Raises:
        InvalidPattern: see `validate_path_pattern`.
    """

    __slots__ = ("_prefix", "_rest", "text")

    def __init__(self, text: str) -> None:
        self.text = validate_path_pattern(text)
        parts = tuple(text[1:].split("/"))
        literal = 0
        while literal < len(parts) and "*" not in parts[literal] and "?" not in parts[literal]:
            literal += 1
        self._prefix, self._rest = parts[:literal], parts[literal:]

    def covers(self, path: tuple[str, ...]) -> bool:
        """Whether the pattern covers this path."""
        count = len(self._prefix)
        if path[:count] != self._prefix:
            return False
        if self._rest == ("**",):
            return True
        return len(self._rest) in _positions(self._rest, path[count:])

    def covers_all_below(self, path: tuple[str, ...]) -> bool:
        """Whether the pattern covers the path and everything that can lie below it."""
        return self.text.endswith("/**") and self.covers(path)

    def reaches_below(self, path: tuple[str, ...]) -> bool:
        """Whether the pattern covers the path or anything that could lie below it."""
        count = len(self._prefix)
        if len(path) < count:
            return self._prefix[: len(path)] == path
        return path[:count] == self._prefix and bool(_positions(self._rest, path[count:]))


def _positions(pattern: tuple[str, ...], path: tuple[str, ...]) -> set[int]:
    # The pattern positions reachable after all components: no backtracking, whatever the pattern.
    states = _skip_depths(pattern, {0})
    for name in path:
        after = set()
        for state in states:
            if state == len(pattern):
                continue
            if pattern[state] == "**":
                after.add(state)
            elif match_component(pattern[state], name):
                after.add(state + 1)
        if not after:
            return after
        states = _skip_depths(pattern, after)
    return states


def _skip_depths(pattern: tuple[str, ...], states: set[int]) -> set[int]:
    reached = set(states)
    for state in states:
        at = state
        while at < len(pattern) and pattern[at] == "**":
            at += 1
            reached.add(at)
    return reached


def is_below(path: tuple[str, ...], root: tuple[str, ...]) -> bool:
    """Whether `path` is `root` or lies below it."""
    return path[: len(root)] == root
