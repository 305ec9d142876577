"""Attack programs: steps of machine code with their arguments, as data for the interpreter in the guest.

    program = Program()
    path = program.data(b"/etc/passwd\0")
    fd = program.syscall("openat", -100, path, 0, 0)
    buffer = program.room(4096)
    program.syscall("read", fd, buffer, 4096)
    program.answer(buffer, 4096)

The same program runs in a worker (`host.HostileWorker.run`) and in a control (`native.run`). A word of a step is a
number, or a place that is known only there: in the program's data, in linear memory, in the code, or the result of an
earlier step.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

from supervisor.selftest.machine import OFFSETS
from supervisor.selftest.numbers import number

_HEADER = struct.Struct("<6I")
_STEP = struct.Struct("<4I8B8Q")
_MAGIC = 0x41545441
_MASK = (1 << 64) - 1
MAX_ERRNO = 4095


class Until(enum.IntEnum):
    """When a step that is repeated ends before its times are over."""

    ALWAYS = 0
    """Never."""
    ERROR = 1
    """At the first error (minus errno)."""
    SUCCESS = 2
    """At the first result that is no error."""
    OR_GIVE_UP = 3
    """An error of this step ends the program."""


@dataclass(frozen=True)
class Place:
    """A word that is known only where the program runs; adding a number moves it."""

    kind: int
    at: int
    plus: int = 0

    def __add__(self, other: int) -> Place:
        return Place(self.kind, self.at, self.plus + other)

    def encoded(self) -> int:
        """The word for the interpreter."""
        if self.kind == _RESULT:
            return self.at | (self.plus & 0xFFFFFFFF) << 32
        return (self.at + self.plus) & _MASK


_LITERAL, _DATA, _RESULT, _MEMORY, _CODE = range(5)
MEMORY = Place(_MEMORY, 0)
"""Where linear memory begins (in a control: the program's data)."""
CODE = Place(_CODE, 0)
"""Where the attack's machine code begins."""
Word = int | Place


def in_data(at: int) -> Place:
    """A place in the program's data."""
    return Place(_DATA, at)


def result_of(step: int, plus: int = 0) -> Place:
    """The result of an earlier step, and a number on top of it."""
    return Place(_RESULT, step, plus)


@dataclass(frozen=True)
class Step:
    """One call of a routine."""

    routine: int
    words: tuple[Word, ...]
    times: int = 1
    until: Until = Until.ALWAYS


@dataclass
class Program:
    """Steps and data."""

    steps: list[Step] = field(default_factory=list)
    bytes_: bytearray = field(default_factory=bytearray)
    wanted: tuple[int, int] = (0, 0)
    """Part of the data that is answered: offset and length."""

    def data(self, content: bytes) -> Place:
        """Put bytes into the program's data, at a multiple of 16."""
        self.bytes_ += bytes(-len(self.bytes_) % 16)
        at = len(self.bytes_)
        self.bytes_ += content
        return Place(_DATA, at)

    def room(self, size: int) -> Place:
        """Zeros."""
        return self.data(bytes(size))

    def answer(self, place: Place, length: int) -> None:
        """Answer this part of the data, as it is at the end."""
        assert place.kind == _DATA
        self.wanted = (place.at + place.plus, length)

    def step(self, routine: str, *words: Word, times: int = 1, until: Until = Until.ALWAYS) -> Place:
        """Call a routine by its name in `machine.ROUTINES`; its result, for later steps."""
        return self.step_at(OFFSETS[routine], *words, times=times, until=until)

    def step_at(self, routine: int, *words: Word, times: int = 1, until: Until = Until.ALWAYS) -> Place:
        """Call the routine at an offset of the code (`machine.END` for code of one's own)."""
        assert len(words) <= 8
        self.steps.append(Step(routine, words, times, until))
        return Place(_RESULT, len(self.steps) - 1)

    def syscall(self, call: str | int, *arguments: Word, times: int = 1, until: Until = Until.ALWAYS) -> Place:
        """A system call by name or number."""
        return self.step(
            "syscall", number(call) if isinstance(call, str) else call, *arguments, times=times, until=until
        )

    def pack(self) -> bytes:
        """The message for the interpreter."""
        steps = b"".join(
            _STEP.pack(
                step.routine,
                step.times,
                step.until,
                0,
                *(_kind(word) for word in _eight(step.words)),
                *(_encoded(word) for word in _eight(step.words)),
            )
            for step in self.steps
        )
        offset = _HEADER.size + len(steps)
        header = _HEADER.pack(_MAGIC, len(self.steps), offset, len(self.bytes_), *self.wanted)
        return header + steps + bytes(self.bytes_)


def _eight(words: tuple[Word, ...]) -> tuple[Word, ...]:
    return words + (0,) * (8 - len(words))


def _kind(word: Word) -> int:
    return word.kind if isinstance(word, Place) else _LITERAL


def _encoded(word: Word) -> int:
    return word.encoded() if isinstance(word, Place) else word & _MASK


@dataclass(frozen=True)
class Answer:
    """What a program that came to its end says.

    Attributes:
        results: of each step that ran (of its last repetition), signed; an error is minus errno.
        data: the wanted part of the program's data.
    """

    results: tuple[int, ...]
    data: bytes

    def last(self) -> int:
        """The last step's result."""
        return self.results[-1]


def failed(result: int) -> bool:
    """Whether a result is minus an errno."""
    return -MAX_ERRNO <= result < 0


def unpack(reply: bytes) -> Answer:
    """Read a reply."""
    done, _ = struct.unpack_from("<II", reply)
    end = 8 + 8 * done
    return Answer(struct.unpack_from(f"<{done}q", reply, 8), reply[end:])
