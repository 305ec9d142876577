"""Writing a function's Python source while its plan is made.

Nothing that comes from a type is spliced into the text: names and classes are objects of the namespace the source is
executed in, and stand in the text as `o1`, `o2`, ...; the one exception are field names of classes, which are
identifiers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_DEPTH = 8
"""Blocks within blocks in one function; what lies deeper gets a function of its own (CPython allows 20)."""


class Source:
    """Functions in the making. Each is written from top to bottom; several may be open at a time."""

    def __init__(self, runtime: dict[str, Any]) -> None:
        self._namespace = dict(runtime)
        self._finished: list[str] = []
        self._known: dict[int, str] = {}
        self._numbered = 0
        self.function = _Function("", ())

    def object(self, thing: Any) -> str:
        """The name of `thing` in the source."""
        name = self._known.get(id(thing))
        if name is None:
            # The namespace keeps the thing, so its id stays its own.
            name = self._known[id(thing)] = self.new("o")
            self._namespace[name] = thing
        return name

    def new(self, prefix: str = "v") -> str:
        """A name not used yet."""
        self._numbered += 1
        return f"{prefix}{self._numbered}"

    def line(self, text: str) -> None:
        """A statement at the current depth."""
        self.function.line(text)

    @property
    def depth(self) -> int:
        """Blocks open in the current function."""
        return self.function.depth

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """What is written within stands under `head:`."""
        self.line(f"{head}:")
        self.function.depth += 1
        before = len(self.function.lines)
        yield
        if len(self.function.lines) == before:
            self.line("pass")
        self.function.depth -= 1

    @contextmanager
    def define(self, name: str, parameters: tuple[str, ...]) -> Iterator[None]:
        """What is written within is the body of function `name`."""
        outer, self.function = self.function, _Function(name, parameters)
        yield
        self._finished.append(self.function.text())
        self.function = outer

    def made(self, title: str) -> dict[str, Any]:
        """Compile all of it; the functions by name. `title` is what tracebacks say."""
        code = compile("\n".join(self._finished), f"<{title}>", "exec", dont_inherit=True)
        # The text is written by this package alone, from types; what a type is made of is in the namespace.
        exec(code, self._namespace)  # noqa: S102
        return self._namespace


class _Function:
    def __init__(self, name: str, parameters: tuple[str, ...]) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self._head = f"def {name}({', '.join(parameters)}):"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def text(self) -> str:
        return "\n".join([self._head, *(self.lines or ["    pass"])])
