"""The system calls themselves: whatever a compromised worker calls, the filter ends it."""

from __future__ import annotations

import pytest
from airssys.testing import Program, Result

FORBIDDEN = {
    "getpid": (),
    "socket": (1, 1, 0),
    "openat": (-100, 0, 0, 0),
    "ptrace": (0, 0, 0, 0),
    "io_uring_setup": (8, 0),
    "bpf": (0, 0, 0),
    "userfaultfd": (0,),
    "memfd_create": (0, 0),
}


def answered(result: Result) -> bool:
    """The kernel looked at the call, whatever it then said."""
    return result.answered and result.error() != "ENOSYS"


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_call(hostile_worker, name):
    """The filter ends the worker at the call; without the cage the kernel answers it."""
    program = Program()
    program.syscall(name, *FORBIDDEN[name])
    worker = hostile_worker()
    worker.run(program).assert_stopped_by("policy")
    unless = {"ENOSYS": f"this kernel has no {name}"}
    worker.assert_works_without(program, "seccomp", worked=answered, unless=unless)


def test_the_32_bit_way_in(hostile_worker):
    """`int 0x80` is no way round: getpid by its 32-bit number."""
    program = Program()
    program.step("int80", 20, 0, 0, 0, 0, 0, 0)
    worker = hostile_worker()
    worker.run(program).assert_stopped_by("policy")
    worker.assert_works_without(program, unless={"SIGSEGV": "this kernel has no 32-bit calls"})


def test_a_process(hostile_worker):
    """A worker makes no process. Without the filter there is still the limit of processes."""
    program = Program()
    program.step("fork", "clone", 17, 0, 0, 0, 0)
    worker = hostile_worker()
    worker.run(program).assert_stopped_by("policy")
    worker.assert_works_without(program, "seccomp", "NPROC")
    if worker.control(program, without=["seccomp"]).outcome != "wall":
        worker.control(program, without=["seccomp"]).assert_stopped_by("EAGAIN")


def test_machine_code_of_our_own(hostile_worker):
    """Code that we assembled ourselves runs in the worker, and is stopped at its own system call."""
    code = bytes.fromhex(
        "48 8b 01"  # mov rax, [rcx]: the first word
        "48 03 41 08"  # add rax, [rcx + 8]: the second
        "c3"
        "b8 27000000"  # at 8: mov eax, 39: getpid
        "0f 05"  # syscall
        "c3"
    )
    worker = hostile_worker(code=code)
    program = Program()
    program.own(40, 2)
    assert worker.run(program).assert_answered().value() == 42
    program.own(at=8)
    worker.run(program).assert_stopped_by("policy")
    assert worker.assert_works_without(program).value(0) == 42
