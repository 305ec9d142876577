"""What an attack is, and what can become of it.

An attack is a row of the report: an id, what is tried, the walls that should stop it, and its cases. A case is one
program with a judgement of its result. It is run in a sealed worker, where it must be stopped in the way that is
expected, and in a control, where it must work: a case whose control does not work has shown nothing.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sandbox.types import Outcome
from supervisor.selftest.native import ANSWERED, Result
from supervisor.selftest.program import Program, failed

Judge = Callable[[Result], bool]


def gained(result: Result) -> bool:
    """The last step had no error."""
    return result.answered and not failed(result.result())


def answered(result: Result) -> bool:
    """The kernel looked at the last call: its answer is anything but "no such call"."""
    return result.answered and result.result() != -errno.ENOSYS


def another_program(result: Result) -> bool:
    """Another program took this one's place and ended well."""
    return result.outcome == Outcome.EXITED and "status 0" in result.detail


class Verdict(enum.StrEnum):
    """What the report says of a case."""

    STOPPED = "stopped"
    ANSWERED = "answered"
    """What is permitted worked: the machinery does what the other verdicts rely on."""
    SUCCEEDED = "succeeded"
    """The attack worked in the cage."""
    ODD = "odd"
    """It did not work, but was not stopped as it should have been."""


class Shown(enum.StrEnum):
    """What the report says of a control."""

    WORKS = "works"
    """Without the wall the attack works."""
    FAILED = "failed"
    """It does not work there either: the case shows nothing."""
    CANNOT = "cannot show here"


@dataclass(frozen=True)
class CaseResult:
    """One case: how it ended in the cage, and how without."""

    name: str
    verdict: Verdict
    how: str
    shown: Shown
    control: str

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.verdict in (Verdict.STOPPED, Verdict.ANSWERED) and self.shown is not Shown.FAILED


@dataclass(frozen=True)
class Row:
    """An attack with its results."""

    id: str
    title: str
    walls: tuple[str, ...]
    cases: tuple[CaseResult, ...]

    @property
    def good(self) -> bool:
        """Whether all cases are."""
        return all(case.good for case in self.cases)


KILLED = frozenset({Outcome.POLICY.value})
"""The filter's answer."""


@dataclass(frozen=True)
class Case:
    """One program.

    Attributes:
        name: what it does, in a few words.
        program: what runs.
        worked: whether a result is the attack's success.
        scene: prepares the control's process (see `scene`); in it nothing stands but what the machine has anyway.
        stopped_by: outcomes or errors ("EACCES") one of which must have stopped it in a worker.
        excuse: given the control's result, why this machine cannot show it; "" when it can.
    """

    name: str
    program: Program
    worked: Judge = gained
    scene: str = "ordinary"
    stopped_by: frozenset[str] = KILLED
    excuse: Callable[[Result], str] = lambda _: ""


@dataclass(frozen=True)
class Attack:
    """One row of the report, before it is run.

    Attributes:
        control: one control for all cases, where they have none of their own (scene "none").
    """

    id: str
    title: str
    walls: tuple[str, ...]
    cases: tuple[Case, ...] = field(repr=False)
    control: Case | None = None


def no_such_call(result: Result) -> str:
    """An excuse: the kernel was built without the call."""
    return "this kernel has no such call" if result.answered and result.result() == -errno.ENOSYS else ""


def administrator(*codes: int) -> Callable[[Result], str]:
    """An excuse: the administrator of this machine has taken the call from ordinary users."""

    def excuse(result: Result) -> str:
        if result.answered and -result.result() in (errno.ENOSYS, *codes):
            return f"this machine refuses it anyway ({errno.errorcode[-result.result()]})"
        return ""

    return excuse


def judge(case: Case, result: Result) -> tuple[Verdict, str]:
    """What a result in the cage means."""
    how = describe(result)
    if case.worked(result):
        return Verdict.SUCCEEDED, how
    if result.outcome in case.stopped_by or how in case.stopped_by:
        return Verdict.STOPPED, how
    return Verdict.ODD, how


def judge_control(case: Case, result: Result) -> tuple[Shown, str]:
    """What a result without the wall means."""
    how = describe(result)
    if case.worked(result):
        return Shown.WORKS, how
    why = case.excuse(result) or no_such_call(result)
    return (Shown.CANNOT, why) if why else (Shown.FAILED, how)


def describe(result: Result) -> str:
    """A result in a word or two: an error's name, a number, a signal, an outcome."""
    if result.outcome == ANSWERED:
        value = result.result()
        return errno.errorcode.get(-value, str(value)) if failed(value) else str(value)
    if result.outcome == Outcome.POLICY:
        return Outcome.POLICY.value
    return f"{result.outcome}: {result.detail}" if result.detail else result.outcome


def one(name: str, call: str | int, *arguments: int | bytes, routine: str = "syscall", **more: object) -> Case:
    """A case of one call; bytes are put into the program's data and passed by address."""
    program = Program()
    words = [program.data(argument) if isinstance(argument, bytes) else argument for argument in arguments]
    if isinstance(call, str):
        from supervisor.selftest.numbers import number

        call = number(call)
    program.step(routine, call, *words)
    return Case(name, program, **more)  # type: ignore[arg-type]


def attack(id_: str, title: str, walls: str, cases: Iterable[Case]) -> Attack:
    """An attack; `walls` are separated by commas."""
    return Attack(id_, title, tuple(wall.strip() for wall in walls.split(",")), tuple(cases))
