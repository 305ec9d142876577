"""Compilers from the supervisor's side: one caged process per compilation, its check, its bounds, its end.

A compilation goes through stages, each driven by an event of the main loop:

    sealing     the process imports what it needs and puts up its walls; then it reports `SEALED`
    compiling   checked from outside and told to begin; only now does it read the component
    dead        it exited, or one of its bounds ended it

A few run at once. Whoever asks for more is refused; control lets no more than that come this far.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from dataclasses import dataclass, field

from sandbox.errors import AirssysError
from sandbox.kernel.cgroups import Tree
from sandbox.types import Outcome
from sandbox.wire import supervisor_frames as frames
from sandbox.wire.compile_result import GO, SEALED
from supervisor.parent import inspect
from supervisor.parent.errors import FAILURES, CompilersBusy, OutsideCheckFailed, SpawnFailed
from supervisor.parent.services import Services
from supervisor.parent.spawn import pidfd_of

log = logging.getLogger("airssys.supervisor")
AT_ONCE = 4
"""Compilers at work at most: twice what one control asks for, so that those of a dead control hinder nobody."""
SEAL_SECONDS = 20.0
"""How long a compiler may take to import what it needs and to seal itself."""
GRACE_SECONDS = 5
"""Wall clock beyond the CPU time a compiler may use."""
OWN_SECONDS = 1
"""CPU time of the interpreter's start and of sealing, beside what a compilation may use."""
OWN_MEMORY = 96 << 20
"""Memory of the interpreter and the engine, beside what a compilation may use, in the control group."""
_LAST_WORDS = 4096
_NO_MEMORY = (b"memory allocation of", b"out of memory")
"""What stands in the engine's last words when it gets no memory."""


@dataclass
class Compilation:
    """One compiler at work; `generation` is the incarnation of control that asked."""

    request: frames.Compile
    generation: int
    number: int
    pid: int
    pidfd: int
    channel: socket.socket
    deadline: float
    stage: str = "sealing"
    watched: bool = True
    """Whether the loop waits for its report."""
    verdict: frames.Failed | None = None
    """Why it was ended from here, the first reason."""

    @property
    def group(self) -> str:
        """Name of its control group."""
        return f"c{self.number}"


@dataclass
class Compilers:
    """All compilers at work."""

    services: Services
    cgroups: Tree
    foreign: inspect.Namespaces = field(default_factory=inspect.own_namespaces)
    """The namespaces none of them may be in."""
    leftover_groups: set[str] = field(default_factory=set)
    """Control groups the kernel would not let go of yet; the supervisor's loop tries again."""
    at_work: list[Compilation] = field(default_factory=list)
    _number: int = 0

    def begin(self, request: frames.Compile, wasm: int, output: int, generation: int) -> Compilation:
        """Start one; it has the descriptors, and begins when `reported` lets it.

        Raises:
            CompilersBusy: as many as may be are at work.
            SpawnFailed, OSError: it cannot be started; nothing of it is left.
        """
        if len(self.at_work) >= AT_ONCE:
            raise CompilersBusy("too many compilations at once", hint="try again later")
        self._number += 1
        number = self._number
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        groups: list[int] = []
        try:
            groups = self.cgroups.prepare(f"c{number}", request.memory + OWN_MEMORY, shared=False)
            descriptors = [wasm, output, theirs.fileno()]
            seconds = request.seconds + OWN_SECONDS
            pid = self.services.compiler(number, descriptors, request.memory, seconds, request.path, groups)
            pidfd = pidfd_of(pid)
        except FAILURES:
            ours.close()
            if not self.cgroups.remove(f"c{number}"):
                self.leftover_groups.add(f"c{number}")  # it had joined, and the kernel counts it a while longer
            raise
        finally:
            theirs.close()
            frames.close_all(groups)
        ours.setblocking(False)
        deadline = time.monotonic() + SEAL_SECONDS
        compilation = Compilation(request, generation, number, pid, pidfd, ours, deadline)
        self.at_work.append(compilation)
        return compilation

    def reported(self, compilation: Compilation) -> None:
        """The compiler says something: that it is sealed. Look at it from outside and let it begin, or end it."""
        if compilation.verdict is not None:
            return
        try:
            said = compilation.channel.recv(_LAST_WORDS)
        except (BlockingIOError, ConnectionError):
            said = b""
        try:
            if said != SEALED:
                raise SpawnFailed(said.decode(errors="replace")[: frames.MAX_TEXT] or "it ended before it was sealed")
            self._check(compilation)
            compilation.channel.send(GO)
        except FAILURES as error:
            code = error.code if isinstance(error, AirssysError) else SpawnFailed.code
            self._end(compilation, code, f"the compiler was not started: {error}", Outcome.SETUP_ERROR)
            return
        compilation.stage = "compiling"
        compilation.deadline = time.monotonic() + compilation.request.seconds + GRACE_SECONDS

    def _check(self, compilation: Compilation) -> None:
        identities = self.services.identities
        wanted = inspect.Wanted(
            uid=identities.compiler(compilation.number),
            own_uid=identities.base is not None,
            foreign=self.foreign,
            filters=inspect.filters_of(os.getpid()) + 1,
            descriptors={"2": "socket:", "3": "/memfd:", "4": "/memfd:"},
            limits={"Max cpu time": compilation.request.seconds + OWN_SECONDS},
        )
        inspect.check_process(compilation.pid, wanted)
        if not self.cgroups.holds(compilation.group, compilation.pid):
            raise OutsideCheckFailed("not in its control group", subject=str(compilation.pid))

    def deadlines(self) -> list[float]:
        """When the loop must look again."""
        return [compilation.deadline for compilation in self.at_work if compilation.verdict is None]

    def expire(self, now: float) -> None:
        """End those whose wall clock is used up."""
        for compilation in self.at_work:
            if now >= compilation.deadline and compilation.verdict is None:
                if compilation.stage == "sealing":
                    self._end(compilation, SpawnFailed.code, "the compiler was not sealed in time", Outcome.SETUP_ERROR)
                else:
                    self._end(compilation, *_TOO_LONG)

    def abandon(self) -> None:
        """End all: whoever asked for them is dead."""
        for compilation in self.at_work:
            self._end(compilation, "E_COMPILE", "nobody waits for it any more", Outcome.KILLED)

    @staticmethod
    def _end(compilation: Compilation, code: str, message: str, outcome: Outcome) -> None:
        if compilation.verdict is None:
            compilation.verdict = frames.Failed(compilation.request.n, code, message[: frames.MAX_TEXT], outcome)
        try:
            signal.pidfd_send_signal(compilation.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return  # dead already

    def ended(self, compilation: Compilation) -> frames.Done | frames.Failed:
        """Reap a dead compiler; the answer to who asked. The caller removes its control group."""
        result = os.waitid(os.P_PIDFD, compilation.pidfd, os.WEXITED)
        words = _last_words(compilation.channel)
        struck = self.cgroups.out_of_memory(compilation.group)
        compilation.channel.close()
        os.close(compilation.pidfd)
        self.at_work.remove(compilation)
        if words:
            log.error("compiler %d: %s", compilation.number, words.decode(errors="replace"))
        n = compilation.request.n
        if result is not None and (result.si_code, result.si_status) == (os.CLD_EXITED, 0):
            return frames.Done(n)
        if compilation.verdict is not None:
            return compilation.verdict
        return frames.Failed(n, *_how(result, words, struck))

    def end_all(self) -> None:
        """Kill and reap everything (the host stops)."""
        self.abandon()
        for compilation in list(self.at_work):
            self.ended(compilation)
            self.cgroups.remove(compilation.group)


_TOO_LONG = ("E_COMPILE_LIMIT", "compiling takes longer than allowed", Outcome.DEADLINE)
_TOO_MUCH = ("E_COMPILE_LIMIT", "compiling needs more memory than allowed", Outcome.MEMORY)


def _last_words(channel: socket.socket) -> bytes:
    words = b""
    while len(words) < _LAST_WORDS:
        try:
            part = channel.recv(_LAST_WORDS)
        except (BlockingIOError, ConnectionError):
            break
        if not part:
            break
        words += part
    return words[:_LAST_WORDS]


def _how(result: os.waitid_result | None, words: bytes, struck: bool) -> tuple[str, str, Outcome]:
    """Code, sentence and outcome of an end that nobody here ordered."""
    if result is None:
        return "E_COMPILE", "the compiler is gone", Outcome.INTERNAL_ERROR
    if result.si_code == os.CLD_EXITED:
        return "E_COMPILE", f"exit status {result.si_status}", Outcome.INTERNAL_ERROR
    if result.si_status == signal.SIGKILL:
        # The hard limit of CPU time, or the memory killer; the wall clock has a verdict.
        return _TOO_MUCH if struck else _TOO_LONG
    if any(sign in words for sign in _NO_MEMORY) or result.si_status in (signal.SIGSEGV, signal.SIGBUS):
        return _TOO_MUCH  # a fault: the stack's end
    if words:
        # The engine gave up and said so; the call by which it aborts is a forbidden one.
        return (
            "E_COMPILE",
            "the engine gave up on this component (the host's log has its words)",
            Outcome.INTERNAL_ERROR,
        )
    outcome = Outcome.POLICY if result.si_status == signal.SIGSYS else Outcome.INTERNAL_ERROR
    return "E_COMPILE", f"the compiler ended by signal {result.si_status}", outcome
