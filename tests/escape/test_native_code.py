"""The self-test's machinery: native code in a real worker, and the same bytes in a control."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest
from own_code import OWN_CODE

from sandbox.kernel import libc
from sandbox.types import Outcome
from supervisor.selftest import machine, native
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.program import MEMORY, Program, Until

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code"),
]


@pytest.fixture(scope="module")
def worker(hostile_host: HostileHost) -> Iterator[HostileWorker]:
    """A hostile worker."""
    worker = hostile_host.worker("native")
    yield worker
    worker.close()


def permitted() -> Program:
    """Everything a program can be made of, with calls a sealed worker may make."""
    program = Program()
    clock = program.room(16)
    program.syscall("clock_gettime", 1, clock)
    seconds = program.step("peek", clock)
    place = program.room(16)
    program.step("poke", place, seconds)
    program.step("copy", place + 8, place, 8)
    program.step_at(machine.END, 0x0102030405060708)
    program.answer(place, 16)
    return program


def test_own_code_in_a_worker(worker: HostileWorker) -> None:
    """A program of permitted calls answers what it answers in an ordinary process."""
    program = permitted()
    for result in (worker.run(program), native.attempt(program, extra=OWN_CODE)):
        assert result.answered, result
        assert result.answer is not None
        clock, seconds, poked, copied, swapped = result.answer.results
        assert (0, 0, 0, 0x0807060504030201) == (clock, poked, copied, swapped)
        assert struct.pack("<q", seconds) * 2 == result.answer.data
        assert seconds > 0


def test_a_forbidden_call(worker: HostileWorker) -> None:
    """getpid ends the worker by policy, and the host starts another; in an ordinary process it answers."""
    program = Program()
    program.syscall("getpid")
    before = worker.living()
    assert Outcome.POLICY == worker.run(program).outcome
    assert before != worker.living(after=before)
    control = native.attempt(program)
    assert (native.ANSWERED, control.pid) == (control.outcome, control.result())


def test_repetition(worker: HostileWorker) -> None:
    """A step that is repeated ends when it should, a program that gives up runs nothing more."""
    program = Program()
    program.syscall("munmap", 0, 4096, times=3)
    program.syscall("munmap", 1, 4096, times=1000, until=Until.ERROR)
    program.syscall("munmap", 1, 4096, until=Until.OR_GIVE_UP)
    program.syscall("getpid")
    for result in (worker.run(program), native.attempt(program)):
        assert result.answer is not None
        assert (0, -errno.EINVAL, -errno.EINVAL) == result.answer.results


def test_linear_memory_is_found(worker: HostileWorker) -> None:
    """What the guest holds at its beginning is what the code reads there: the address is the right one."""
    program = Program()
    mark = program.data(b"selftest")
    program.step("peek", mark)
    program.step("peek", MEMORY)
    result = worker.run(program)
    assert result.answer is not None
    assert (int.from_bytes(b"selftest", "little"), 0) == result.answer.results


def test_a_worker_that_leaves(worker: HostileWorker) -> None:
    """An exit status of the attacker's choice is told as what it is."""
    program = Program()
    program.syscall("exit_group", 11)
    assert Outcome.FUEL == worker.run(program).outcome
    program = Program()
    program.step("peek", 8)
    assert worker.run(program).outcome in (Outcome.INTERNAL_ERROR, Outcome.POLICY), "a fault, or the engine's handler"


def test_nothing_knows_of_the_test(hostile_host: HostileHost, worker: HostileWorker) -> None:
    """The host is an ordinary one: its own processes, and the guest once in its cache, whatever else was installed."""
    wanted = {"supervisor", "control", "router", "bridge", "auditor", "zygote"}
    assert wanted <= set(hostile_host.pids())
    directory, name = os.path.split(hostile_host.cache_entry())
    assert [name] == [entry for entry in os.listdir(directory) if entry.startswith(name[:64])]
