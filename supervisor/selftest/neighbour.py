"""Who must notice nothing while a worker attacks bridge and router: a well-behaved component, and the host's processes.

    with Siege(host) as siege:
        worker.run(program)
        siege.complaint()  # "" or what happened to somebody else

The neighbour is asked again and again; to answer it asks the bridge, which asks the auditor, and its answer goes
through the router: an answer in time means that all of them were at work. Too long is `TOO_LONG_SECONDS`, or several
times what this machine needs when nobody attacks, if that is more: a machine that is busy with other things is not a
bridge that was blocked.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from types import TracebackType

import msgspec

from sandbox.wire.bridge_ops import ANSWER, Op
from sandbox.wire.packet import HEADER, split
from supervisor.cli.errors import RefusedError, UnreachableError
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.native import Result
from supervisor.selftest.program import Program

TOO_LONG_SECONDS = 0.1
"""Longest that an answer may take while somebody attacks."""
_SLACK = 8
"""Times the slowest quiet answer, where that is more."""
_QUIET_SECONDS = 0.4
_PAUSE_SECONDS = 0.02
"""Between two questions, unless somebody waits for the next."""
_PATIENCE_SECONDS = 20.0
PROCESSES = ("supervisor", "control", "router", "bridge", "auditor", "zygote")
"""Those that nothing a worker sends may end."""
GROWTH = 64 << 20
"""Bytes by which bridge and router may have grown after an attack: what they may hold for one worker, and slack."""


ANSWER_BYTES = 1024
"""How much of an answer is looked at; they all come in one packet."""


def ask(op: int, *arguments: object, times: int = 1) -> Program:
    """A program that asks the bridge and answers with the last answer.

    Args:
        times: how often it asks the same.
    """
    return ask_by(*split(op, msgspec.msgpack.encode(arguments)), times=times)


def ask_by(*packets: bytes, times: int = 1) -> Program:
    """`ask` with packets of one's own."""
    program = Program()
    places = [(program.data(packet), len(packet)) for packet in packets]
    answer = program.room(ANSWER_BYTES)
    for _ in range(times):
        for place, length in places:
            program.syscall("sendto", 3, place, length, 0, 0, 0)
        program.syscall("recvfrom", 3, answer, ANSWER_BYTES, 0, 0, 0)
    program.answer(answer, ANSWER_BYTES)
    return program


def said(result: Result, op: int) -> tuple[int, object] | None:
    """Case and value of an answer to `ask` (no value, if it is longer than is looked at); None when there was none."""
    if not result.answered or result.answer is None or result.result() < HEADER.size:
        return None
    kind, _, total = HEADER.unpack_from(result.answer.data)
    body = result.answer.data[HEADER.size :][:total]
    if kind != op | ANSWER:
        return None
    if len(body) < total:
        return body[1], None
    case, value = msgspec.msgpack.decode(body)
    return case, value


class Siege:
    """Watches a host; a context manager, with one neighbour that is asked all the time.

    Raises:
        SelftestError: the neighbour is not served although nobody attacks.
    """

    def __init__(self, host: HostileHost) -> None:
        self._host = host
        self._worker: HostileWorker = host.worker("neighbour")
        self._pids = self._processes()
        self._memory = {name: memory(self._pids[name]) for name in ("bridge", "router")}
        self._changed = threading.Condition()
        self._done = 0
        self._slowest = 0.0
        self._broken = ""
        self._stop = self._hurry = False
        self._thread = threading.Thread(target=self._keep_asking, daemon=True)
        self.limit = TOO_LONG_SECONDS
        """Longest answer that counts as in time here, seconds."""

    def __enter__(self) -> Siege:
        self._thread.start()
        time.sleep(_QUIET_SECONDS)
        self._served(3)
        if self._broken:
            raise SelftestError(f"a component is not served: {self._broken}")
        with self._changed:
            self.limit = max(TOO_LONG_SECONDS, _SLACK * self._slowest)
            self._slowest = 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        self._thread.join()
        self._worker.close()

    def complaint(self) -> str:
        """What has happened to others since it was last asked; "" when they noticed nothing."""
        self._served(2)  # the one that was on the way, and one that began after the attack
        with self._changed:
            slowest, self._slowest = self._slowest, 0.0
            broken, self._broken = self._broken, ""
        if broken:
            return f"a neighbour: {broken}"
        if slowest > self.limit:
            return f"a neighbour waited {slowest * 1000:.0f} ms"
        return ""

    def damage(self) -> str:
        """What the attacks have left behind in the host's processes; "" for nothing."""
        now = self._processes()
        gone = [name for name, pid in self._pids.items() if now.get(name) != pid]
        if gone:
            return f"ended and began anew: {', '.join(gone)}"
        for name, before in self._memory.items():
            grown = memory(now[name]) - before
            if grown > GROWTH:
                return f"the {name} grew by {grown >> 20} MiB"
        return ""

    def pid(self, name: str) -> int:
        """The process of this name, when the siege began."""
        return self._pids[name]

    def _processes(self) -> dict[str, int]:
        return {name: pid for name, pid in self._host.pids().items() if name in PROCESSES}

    def _served(self, times: int) -> None:
        with self._changed:
            wanted = self._done + times
            self._hurry = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._done >= wanted or bool(self._broken), _PATIENCE_SECONDS):
                self._broken = f"no answer for {_PATIENCE_SECONDS:.0f} s"
            self._hurry = False

    def _keep_asking(self) -> None:
        program = ask(Op.STORAGE_USAGE).pack()
        while not self._stop:
            begun = time.monotonic()
            wrong = ""
            try:
                result = self._worker.send(program, seconds=_PATIENCE_SECONDS)
                if said(result, Op.STORAGE_USAGE) is None:
                    wrong = f"{result.outcome}: {result.detail}"
            except (RefusedError, UnreachableError, SelftestError) as error:
                wrong = str(error)
            with self._changed:
                self._done += 1
                self._slowest = max(self._slowest, time.monotonic() - begun)
                self._broken = self._broken or wrong
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._hurry or self._stop, _PAUSE_SECONDS)


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


def descriptors(pid: int) -> int | None:
    """How many descriptors a process has; None where this user may not know."""
    with contextlib.suppress(PermissionError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None
