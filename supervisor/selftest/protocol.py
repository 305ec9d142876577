"""The words of `airssys selftest serve`: requests, answers, and attack programs as JSON.

Implements `docs/reference/selftest-serve.md`. One JSON object a line each way; bytes are base64. A request names itself
by `op` and carries an `id`, which its answer repeats: answers come as they are ready, not in order. The server speaks
first, with a `Hello`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from supervisor.selftest.errors import SelftestError
from supervisor.selftest.machine import END, OFFSETS, ROUTINES
from supervisor.selftest.numbers import number
from supervisor.selftest.program import CODE, MEMORY, Program, Step, Until, Word, in_data, result_of

PROTOCOL = 1
"""Raised by a change that an older plugin would misunderstand."""
MAX_ROOM = 1 << 20
"""Longest data of a program, bytes; a message carries less unless the manifest allows it."""


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """Anything on the wire."""


# -- programs ---------------------------------------------------------------------------------------------------------


class PlaceBody(Body, frozen=True):
    """A word that is known only where the program runs; exactly one of the first four is given."""

    data: int | None = None
    """Address of the program's data and this offset."""
    memory: int | None = None
    """Address of linear memory (in a control: of the data) and this offset."""
    code: int | None = None
    """Address of the machine code and this offset; with `own` of the code that was brought along."""
    result: int | None = None
    """The result of this step."""
    plus: int = 0
    """Added to a result."""
    own: bool = False


class StepBody(Body, frozen=True):
    """One call of a routine of `supervisor.selftest.machine`, or of one's own machine code (`own`)."""

    do: str
    words: list[int | str | PlaceBody] = []
    """At most eight; the first one of `syscall`, `fork` and `int80` may be a call's name (of x86-64)."""
    at: int = 0
    """Of `own`: where in the code."""
    times: int = 1
    until: str = "always"
    """`always`, `error`, `success`, or `or-give-up`: when a repeated step, or the program, ends early."""


class ProgramBody(Body, frozen=True):
    """An attack program."""

    steps: list[StepBody]
    data: bytes = b""
    answer: tuple[int, int] = (0, 0)
    """Part of the data that is answered: offset and length."""

    def program(self) -> Program:
        """As the interpreter takes it. Raises SelftestError."""
        at, length = self.answer
        if not (at >= 0 and length >= 0 and at + length <= len(self.data) <= MAX_ROOM):
            raise SelftestError("the wanted part lies outside of the data", subject=f"{at}, {length}")
        program = Program(wanted=self.answer, bytes_=bytearray(self.data))
        for index, step in enumerate(self.steps):
            program.steps.append(_step(step, index))
        return program


_NAMED = ("syscall", "fork", "int80")


def _step(body: StepBody, index: int) -> Step:
    if body.do == "own":
        routine = END + body.at
    elif body.do in ROUTINES:
        routine = OFFSETS[body.do]
    else:
        raise SelftestError("no such routine", subject=body.do, hint=f"there are {', '.join(ROUTINES)}, own")
    try:
        until = Until[body.until.upper().replace("-", "_")]
    except KeyError as error:
        raise SelftestError("a step ends always, error, success or or-give-up", subject=body.until) from error
    if len(body.words) > 8 or not 0 <= body.times < 1 << 32 or not 0 <= body.at < 1 << 20:
        raise SelftestError("a step has at most eight words, and 32 bits of times", subject=f"step {index}")
    words: list[Word] = []
    for position, word in enumerate(body.words):
        if isinstance(word, str):
            if position or body.do not in _NAMED:
                raise SelftestError("a name stands only for the number of a call", subject=f"step {index}: {word}")
            words.append(number(word))
        else:
            words.append(_word(word, index))
    return Step(routine, tuple(words), body.times, until)


def _word(word: int | PlaceBody, index: int) -> Word:
    if isinstance(word, int):
        return word
    if word.data is not None:
        return in_data(word.data)
    if word.memory is not None:
        return MEMORY + word.memory
    if word.code is not None:
        return CODE + word.code + (END if word.own else 0)
    if word.result is not None and 0 <= word.result < index:
        return result_of(word.result, word.plus)
    raise SelftestError("a word names no place, or a result that is not there yet", subject=f"step {index}")


# -- requests ---------------------------------------------------------------------------------------------------------


class Request(Body, frozen=True, tag_field="op"):
    """What is asked; `id` comes back with the answer."""

    id: int

    in_order: ClassVar[bool] = False
    """Whether nothing else is begun before it is done."""


class Up(Request, frozen=True, tag="up"):
    """Start the throw-away host; once."""

    configuration: str = ""
    """Text of `airssys.toml`."""
    in_order: ClassVar[bool] = True


class Down(Request, frozen=True, tag="down"):
    """Stop it, and remove everything of it unless told to keep its files. The server ends."""

    keep: bool = False
    in_order: ClassVar[bool] = True


class Control(Request, frozen=True, tag="control"):
    """Run a program in a forked child. Not where a host is up: another process does it."""

    program: ProgramBody
    walls: list[str] = []
    """Walls that stand in the child; names of `Hello.walls`."""
    scene: str = "ordinary"
    code: bytes = b""
    seconds: float = 10.0
    in_order: ClassVar[bool] = True


class Hostile(Request, frozen=True, tag="hostile"):
    """Install a hostile component, selftest/NAME/INSTANCE, and start it."""

    name: str
    instance: str = "0"
    values: dict[str, str] = {}
    """Other values of the manifest, as TOML writes them."""
    binds: dict[str, str] = {}
    code: bytes = b""


class Run(Request, frozen=True, tag="run"):
    """Run a program in a hostile component's worker."""

    component: str
    program: ProgramBody
    seconds: float = 20.0


class Message(Request, frozen=True, tag="message"):
    """A message to a component, as a client of the host sends it."""

    target: str
    payload: bytes = b""
    kind: str = "request"
    content_type: str = ""
    seconds: float = 10.0


class Api(Request, frozen=True, tag="api"):
    """One call of the host's API."""

    method: str
    path: str
    query: dict[str, str | int | bool] = {}
    body: Any = None
    seconds: float = 60.0


class Lines(Request, frozen=True, tag="lines"):
    """What the API answers line by line: /v1/audit, /v1/logs."""

    path: str
    query: dict[str, str | int | bool] = {}


class BridgePackets(Request, frozen=True, tag="bridge-packets"):
    """The packets that carry a request on descriptor 3."""

    name: str
    """Of `sandbox.wire.bridge_ops.Op`."""
    arguments: list[Any] = []


class BridgeAnswer(Request, frozen=True, tag="bridge-answer"):
    """Read an answer of the bridge that fits one packet."""

    packet: bytes


class RouterMessage(Request, frozen=True, tag="router-message"):
    """The bytes of a message on descriptor 4."""

    name: str
    """Of a structure in `sandbox.wire.router_frames`."""
    fields: dict[str, Any] = {}
    payload: bytes = b""


AnyRequest = Up | Down | Control | Hostile | Run | Message | Api | Lines | BridgePackets | BridgeAnswer | RouterMessage


# -- answers ----------------------------------------------------------------------------------------------------------


class WallBody(Body, frozen=True):
    """A wall of this machine, as `airssys doctor` tells it."""

    name: str
    state: str
    detail: str
    may_be_lost: bool


class Hello(Body, frozen=True):
    """The server's first line."""

    protocol: int
    version: str
    machine: str
    root: bool
    kernel: list[WallBody]
    """Walls that depend on the machine."""
    walls: list[str]
    """Names of walls that can stand alone in a control, in the cage's order."""
    scenes: list[str]
    native: str
    """Why no native code of one's own can run in workers here; "" where it can."""


class ResultBody(Body, frozen=True):
    """What became of a program."""

    outcome: str
    detail: str
    results: list[int]
    data: bytes
    pid: int
    after: int = -1
    """Number of the newest audit record before it began."""


class ErrorBody(Body, frozen=True):
    """What went wrong: stable code, sentence, object, what to do."""

    code: str
    message: str
    subject: str = ""
    hint: str = ""
