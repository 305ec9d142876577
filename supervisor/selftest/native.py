"""Controls: a program's own machine code, run in a forked child of this process behind no wall but those it is given.

The code is mapped and everything prepared before the walls go up; what the program answers comes back through shared
memory, which needs no system call, so that a child behind a filter can still tell. The child is this process's copy
and lives for one program.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import os
import resource
import select
import signal
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.kernel import libc
from supervisor.selftest.machine import OFFSETS, assemble
from supervisor.selftest.program import CODE, MEMORY, Answer, Place, Program, Until, Word, failed

_POINTER = 56
"""Where the made-up context holds the address of the program's data; any offset would do."""
SECONDS = 10.0
"""Longest a control may take."""
CORE = "core dumped"
ANSWERED = "answered"
"""The outcome of a program that came to its end."""


@dataclass(frozen=True)
class Result:
    """What became of a program.

    Attributes:
        outcome: `ANSWERED`; of a worker else how it ended (`sandbox.types.Outcome`), of a control the signal's name,
            `wall` (a wall could not be put up; `detail` says which) or `deadline`.
        detail: what is known beside.
        answer: what it said; of a control that died also the results until then.
        pid: of the process it ran in, 0 when not known.
    """

    outcome: str
    detail: str = ""
    answer: Answer | None = None
    pid: int = 0

    @property
    def answered(self) -> bool:
        """Whether the program came to its end."""
        return self.outcome == ANSWERED

    def result(self, step: int = -1) -> int:
        """A step's result of a program that came to its end."""
        assert self.answer is not None
        return self.answer.results[step]


class Native:
    """A program made ready to run in this process.

    Args:
        program: runs as it would in a worker; `MEMORY` is its data.
        extra: machine code of one's own, see `machine.assemble`.
    """

    def __init__(self, program: Program, extra: bytes = b"") -> None:
        self._program = program
        self._data = mmap.mmap(-1, len(program.bytes_) + 8192)
        self._data[: len(program.bytes_)] = bytes(program.bytes_)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        self._block = len(self._data) - 128
        code = assemble(_POINTER, extra)
        # Two pages more: what an attack rewrites or maps over is the page behind its own, and must not be the
        # interpreter's.
        length = len(code) + 2 * mmap.PAGESIZE
        self._code = mmap.mmap(-1, length, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code[: len(code)] = code
        self._entry = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._context = ctypes.create_string_buffer(_POINTER + 8)
        struct.pack_into("<Q", self._context, _POINTER, self._base)
        self._call = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_uint64] * 4)(self._entry)
        self._call(ctypes.addressof(self._context), 0, OFFSETS["memory"], self._block)  # ctypes settles its own things

    def _value(self, word: Word, results: list[int]) -> int:
        if not isinstance(word, Place):
            return word & (1 << 64) - 1
        if word.kind == CODE.kind:
            return self._entry + word.at + word.plus
        if word.kind == MEMORY.kind:
            return self._base + word.at + word.plus
        if word.kind == 1:
            return self._base + word.at + word.plus
        return (results[word.at] + word.plus) & (1 << 64) - 1

    def run(self, results: list[int], progress: Callable[[int, int], None]) -> bytes:
        """Run all steps as the interpreter in the guest does; the wanted part of the data.

        Args:
            results: takes each step's result.
            progress: called with the number and the result of each step.
        """
        for number, step in enumerate(self._program.steps):
            result = 0
            for _ in range(step.times):
                words = [self._value(word, results) for word in step.words] + [0] * (8 - len(step.words))
                struct.pack_into("<8Q", self._data, self._block, *words)
                result = self._call(ctypes.addressof(self._context), 0, step.routine, self._block)
                if step.until == (Until.ERROR if failed(result) else Until.SUCCESS):
                    break
            results.append(result)
            progress(number, result)
            if step.until is Until.OR_GIVE_UP and failed(result):
                break
        at, length = self._program.wanted
        return self._data[at : at + length]


_HEAD = struct.Struct("<IIQ")
_FINISHED, _WALL = 1, 2
_WORDS = 512
"""Room for what a wall that could not be put up says, bytes."""


def attempt(
    program: Program, walls: Callable[[], None] = lambda: None, *, extra: bytes = b"", seconds: float = SECONDS
) -> Result:
    """Run a program in a forked child.

    Args:
        walls: called in the child before the program; what it raises is the outcome `wall`.
        extra: machine code of one's own.
        seconds: how long it may take.
    """
    with mmap.mmap(-1, _HEAD.size + 8 * len(program.steps) + program.wanted[1] + _WORDS) as shared:
        pid = fork()
        if pid == 0:
            try:
                _child(shared, program, walls, extra)
            finally:
                os._exit(0)
        status = _wait(pid, seconds)
        result = _read(shared, pid, status)
    _reap(program, result)
    return result


def _child(shared: mmap.mmap, program: Program, walls: Callable[[], None], extra: bytes) -> None:
    # In a session of its own: an attack that signals its group or types into its terminal must not reach the self-test.
    os.setsid()
    faulthandler.disable()  # a test runner's; dying of a signal is what some programs are for
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):  # a program that is executed may have much to say
        os.dup2(null, descriptor)
    libc.keep_heap_in_brk()
    native = Native(program, extra)
    results: list[int] = []

    def progress(number: int, result: int) -> None:
        struct.pack_into("<q", shared, _HEAD.size + 8 * number, result)
        _HEAD.pack_into(shared, 0, 0, number + 1, 0)

    try:
        walls()
    except Exception as error:
        # Whatever it was: this process is about to end, and who waits for it is told.
        said = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        text = said.encode()[:500]
        shared[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(shared, 0, _WALL, 0, len(text))
        return
    data = native.run(results, progress)
    end = _HEAD.size + 8 * len(results)
    shared[end : end + len(data)] = data
    _HEAD.pack_into(shared, 0, _FINISHED, len(results), len(data))


NO_EFFECT = 77
"""Exit status of a control whose program worked, to no effect on whom it was aimed at."""


def descend(effect: Callable[[], bool] = lambda: True) -> None:
    """Go on in a child; the caller's process waits for it and ends as it does, or with NO_EFFECT. Raises OSError.

    Args:
        effect: asked in the waiting process when the child has ended well.
    """
    pid = fork()
    if pid == 0:
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status >= 0:
        os._exit(status if status or effect() else NO_EFFECT)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
    if -status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    os._exit(1)


def fork() -> int:
    """os.fork, with threads about or not."""
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; the child runs none of their code and takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _wait(pid: int, seconds: float) -> int | None:
    """The status waitpid(2) gives; None when it had to be killed."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        late = not poll.poll(seconds * 1000)
        if late:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return None if late else status
    finally:
        os.close(pidfd)


def _reap(program: Program, result: Result) -> None:
    """A clone with CLONE_PARENT left this process a child."""
    for step, value in zip(program.steps, result.answer.results if result.answer else (), strict=False):
        if step.routine == OFFSETS["fork"] and value > 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(value, 0)


def _read(shared: mmap.mmap, pid: int, status: int | None) -> Result:
    state, count, length = _HEAD.unpack_from(shared)
    if state == _WALL:
        return Result("wall", shared[_HEAD.size : _HEAD.size + length].decode(errors="replace"), pid=pid)
    results = struct.unpack_from(f"<{count}q", shared, _HEAD.size)
    end = _HEAD.size + 8 * count
    answer = Answer(results, shared[end : end + length])
    if state == _FINISHED and status == 0:
        return Result(ANSWERED, answer=answer, pid=pid)
    if status is None:
        return Result("deadline", "did not end by itself", answer, pid)
    if os.WIFSIGNALED(status):
        return Result(signal_name(os.WTERMSIG(status)), CORE if os.WCOREDUMP(status) else "", answer, pid)
    if state == _FINISHED and os.WEXITSTATUS(status) == NO_EFFECT:
        return Result("no effect", answer=answer, pid=pid)
    return Result("exited", f"exit status {os.WEXITSTATUS(status)}", answer, pid)


def signal_name(number: int) -> str:
    """SIGSYS and the like; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
