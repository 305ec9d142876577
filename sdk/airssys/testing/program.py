"""Attack programs: system calls and small routines of machine code, with their arguments, as data.

    program = Program()
    path = program.data(b"/etc/passwd\0")
    fd = program.syscall("openat", -100, path, 0, 0)
    buffer = program.room(64)
    program.syscall("read", fd, buffer, 64)
    program.answer(buffer, 64)

A program runs in a sealed worker or in a control, the same bytes in both. A word of a step is a number, or a place that
is known only there: in the program's data, in linear memory, in the code, or the result of an earlier step.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Literal

Until = Literal["always", "error", "success", "or-give-up"]
"""When a repeated step ends before its times are over; after an error `or-give-up` ends the program."""
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Place:
    """A word that is known only where the program runs; adding a number moves it."""

    kind: Literal["data", "memory", "code", "own", "result"]
    at: int = 0
    plus: int = 0

    def __add__(self, other: int) -> Place:
        if self.kind == "result":
            return Place("result", self.at, self.plus + other)
        return Place(self.kind, self.at + other)

    def wire(self) -> dict[str, Any]:
        """As the protocol writes it."""
        if self.kind == "result":
            return {"result": self.at, "plus": self.plus}
        if self.kind == "own":
            return {"code": self.at, "own": True}
        return {self.kind: self.at}


MEMORY = Place("memory")
"""Where linear memory begins (in a control: the program's data)."""
CODE = Place("code")
"""Where the attack's machine code begins, the routines first."""
OWN = Place("own")
"""Where machine code of one's own begins."""
Word = int | Place


@dataclass
class Program:
    """Steps and data."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    bytes_: bytearray = field(default_factory=bytearray)
    wanted: tuple[int, int] = (0, 0)
    """Part of the data that is answered: offset and length."""

    def data(self, content: bytes) -> Place:
        """Put bytes into the program's data, at a multiple of 16."""
        self.bytes_ += bytes(-len(self.bytes_) % 16)
        at = len(self.bytes_)
        self.bytes_ += content
        return Place("data", at)

    def room(self, size: int) -> Place:
        """Zeros."""
        return self.data(bytes(size))

    def answer(self, place: Place, length: int) -> None:
        """Answer this part of the data, as it is at the end. Raises ValueError for another place."""
        if place.kind != "data":
            raise ValueError("only a part of the data is answered")
        self.wanted = (place.at, length)

    def syscall(self, call: str | int, *arguments: Word, times: int = 1, until: Until = "always") -> Place:
        """A system call by its name on x86-64, or its number; at most six arguments. Its result, for later steps."""
        return self._add({"do": "syscall", "words": [call, *map(_wire, arguments)]}, times, until)

    def step(self, routine: str, *words: Word | str, times: int = 1, until: Until = "always") -> Place:
        """A routine by its name, as docs/reference/selftest-serve.md lists them. Its result, for later steps.

        The first word of `syscall`, `fork` and `int80` may be a call's name.
        """
        return self._add({"do": routine, "words": [_wire(word) for word in words]}, times, until)

    def own(self, *words: Word, at: int = 0, times: int = 1, until: Until = "always") -> Place:
        """Call machine code of one's own, the worker's `code`, at an offset. It finds the words where rcx points."""
        return self._add({"do": "own", "at": at, "words": list(map(_wire, words))}, times, until)

    def _add(self, step: dict[str, Any], times: int, until: Until) -> Place:
        if times != 1:
            step["times"] = times
        if until != "always":
            step["until"] = until
        self.steps.append(step)
        return Place("result", len(self.steps) - 1)

    def wire(self) -> dict[str, Any]:
        """As the protocol writes it."""
        return {"steps": self.steps, "data": base64.b64encode(self.bytes_).decode(), "answer": self.wanted}

    def title(self, step: int) -> str:
        """A step in a word or two, for messages."""
        words = self.steps[step]["words"]
        name = self.steps[step]["do"]
        return str(words[0]) if name in ("syscall", "fork", "int80") and words else str(name)


def _wire(word: Word | str) -> int | str | dict[str, Any]:
    if isinstance(word, Place):
        return word.wire()
    return word if isinstance(word, str) else word & _MASK
