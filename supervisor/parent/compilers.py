"""Compilers from the supervisor's side: one caged process per compilation, its wall clock, its end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field

from sandbox.kernel import libc
from sandbox.types import Outcome
from sandbox.wire import supervisor_frames as frames
from supervisor.parent.services import Services

GRACE_SECONDS = 5
"""Wall clock beyond the CPU time a compiler may use."""


@dataclass
class Compilation:
    """One compiler at work; `generation` is the incarnation of control that asked."""

    request: frames.Compile
    generation: int
    pidfd: int
    deadline: float
    late: bool = False


@dataclass
class Compilers:
    """All compilers at work."""

    services: Services
    at_work: list[Compilation] = field(default_factory=list)
    _number: int = 0

    def begin(self, request: frames.Compile, wasm: int, output: int, generation: int) -> Compilation:
        """Start one. Raises SpawnFailed, OSError."""
        self._number += 1
        pid = self.services.compiler(self._number, wasm, output, request.memory, request.seconds)
        pidfd = libc.syscall("pidfd_open", pid, 0)
        os.set_inheritable(pidfd, False)
        compilation = Compilation(request, generation, pidfd, time.monotonic() + request.seconds + GRACE_SECONDS)
        self.at_work.append(compilation)
        return compilation

    def deadlines(self) -> list[float]:
        """When the loop must look again."""
        return [compilation.deadline for compilation in self.at_work if not compilation.late]

    def expire(self, now: float) -> None:
        """Kill those whose wall clock is used up."""
        for compilation in self.at_work:
            if now >= compilation.deadline and not compilation.late:
                compilation.late = True
                signal.pidfd_send_signal(compilation.pidfd, signal.SIGKILL)

    def ended(self, compilation: Compilation) -> frames.Done | frames.Failed:
        """Reap a dead compiler; the answer to who asked."""
        result = os.waitid(os.P_PIDFD, compilation.pidfd, os.WEXITED)
        os.close(compilation.pidfd)
        self.at_work.remove(compilation)
        n = compilation.request.n
        if result is None:
            return frames.Failed(n, "E_COMPILE", "the compiler is gone", Outcome.INTERNAL_ERROR)
        if result.si_code == os.CLD_EXITED:
            if result.si_status == 0:
                return frames.Done(n)
            return frames.Failed(n, "E_COMPILE", f"exit status {result.si_status}", Outcome.INTERNAL_ERROR)
        if compilation.late or result.si_status in (signal.SIGXCPU, signal.SIGKILL):
            return frames.Failed(n, "E_COMPILE_LIMIT", "compiling takes longer than allowed", Outcome.DEADLINE)
        if result.si_status in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGXFSZ):
            # The engine aborts when an allocation fails; the address space limit is the usual reason.
            return frames.Failed(n, "E_COMPILE_LIMIT", "compiling needs more memory than allowed", Outcome.MEMORY)
        outcome = Outcome.POLICY if result.si_status == signal.SIGSYS else Outcome.INTERNAL_ERROR
        return frames.Failed(n, "E_COMPILE", f"the compiler ended by signal {result.si_status}", outcome)

    def end_all(self) -> None:
        """Kill and reap everything (the host stops)."""
        for compilation in list(self.at_work):
            signal.pidfd_send_signal(compilation.pidfd, signal.SIGKILL)
            self.ended(compilation)
