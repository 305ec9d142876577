"""What became of a program, and the assertions on it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from airssys.testing.program import Program

ANSWERED = "answered"
"""The outcome of a program that came to its end."""
MAX_ERRNO = 4095
CANNOT = "airssys: "
"""What the reason of a skipped test begins with when an attack, or its control, cannot be shown on a machine."""


def cannot_show(reason: str) -> NoReturn:
    """Skip the running test: this machine cannot show the attack. Counted in pytest's summary."""
    __tracebackhide__ = True
    import pytest

    pytest.skip(CANNOT + reason)


@dataclass(frozen=True)
class Result:
    """What became of a program.

    Attributes:
        outcome: `answered`; of a worker else how it ended (`policy`, `fuel`, `deadline`, `trap`, `memory`, `killed`,
            `exited`, `internal-error`), of a control the signal's name, `exited`, `wall` (a wall could not be put up)
            or `deadline`.
        detail: what is known beside.
        results: of each step that ran (of its last repetition); an error is minus errno. Of a worker that ended: none.
        data: the wanted part of the program's data.
        pid: of the process it ran in.
        program: what ran.
        place: `worker`, or the walls a control stood behind.
        frames: what `HostileWorker.frames` received.
        after: number of the newest audit record before the program began; -1 of a control.
    """

    outcome: str
    detail: str
    results: tuple[int, ...]
    data: bytes
    pid: int
    program: Program = field(repr=False)
    place: str
    frames: tuple[bytes, ...] = ()
    after: int = -1
    _audit: Callable[[], list[dict[str, Any]]] = field(default=list, repr=False)

    @property
    def answered(self) -> bool:
        """Whether the program came to its end."""
        return self.outcome == ANSWERED

    @property
    def signal(self) -> str:
        """The signal that ended the process, where that is known: `SIGSYS` for a worker's forbidden call."""
        if self.outcome.startswith("SIG"):
            return self.outcome
        return "SIGSYS" if self.outcome == "policy" and "system call" in self.detail else ""

    def value(self, step: int = -1) -> int:
        """A step's result. Raises AssertionError when it did not run."""
        assert -len(self.results) <= step < len(self.results), f"step {step} did not run: {self.describe()}"
        return self.results[step]

    def error(self, step: int = -1) -> str:
        """The name of a step's error (`EACCES`), or "" when it had none or did not run."""
        if not -len(self.results) <= step < len(self.results):
            return ""
        value = self.results[step]
        return errno.errorcode.get(-value, str(-value)) if -MAX_ERRNO <= value < 0 else ""

    @property
    def gained(self) -> bool:
        """Whether the program came to its end and its last step had no error: what an attack usually wants."""
        return self.answered and bool(self.results) and not self.error()

    def audit(self) -> list[dict[str, Any]]:
        """The audit records of the worker's component since the program began; none of a control."""
        return self._audit()

    def denied(self) -> list[str]:
        """The events among them that were denied: `fs.read`, `messaging.send`, `protocol.violation`, ..."""
        return [record["event"] for record in self.audit() if record["decision"] == "denied"]

    def describe(self) -> str:
        """All of it, in a line."""
        said = self.outcome + (f" ({self.detail})" if self.detail else "")
        steps = [
            f"{self.program.title(index)} = {self.error(index) or value}" for index, value in enumerate(self.results)
        ]
        return f"in {self.place}: {said}" + (f"; {', '.join(steps)}" if steps else "")

    def assert_stopped_by(self, *names: str) -> Result:
        """The attack was stopped, and in one of these ways: outcomes (`policy`) or the last step's error (`EACCES`).

        Raises:
            AssertionError: it was not.
            ValueError: no name was given.
        """
        __tracebackhide__ = True
        if not names:
            raise ValueError("say what should have stopped it")
        if (self.outcome if not self.answered else self.error()) not in names:
            raise AssertionError(f"not stopped by {' or '.join(names)}, {self.describe()}")
        return self

    def assert_answered(self) -> Result:
        """The program came to its end. Raises AssertionError."""
        __tracebackhide__ = True
        if not self.answered:
            raise AssertionError(f"no answer, {self.describe()}")
        return self
