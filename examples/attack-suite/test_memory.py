"""Memory: no new code, and no other worker's."""

from __future__ import annotations

from airssys.testing import Program


def writing_code() -> Program:
    """Write `mov eax, 42; ret` into fresh memory, make it executable, call it."""
    program = Program()
    page = program.syscall("mmap", 0, 4096, 3, 0x22, -1, 0, until="or-give-up")
    program.step("poke", page, int.from_bytes(bytes.fromhex("b8 2a000000 c3 9090"), "little"))
    program.syscall("mprotect", page, 4096, 5, until="or-give-up")
    program.step("call", page)
    return program


def test_code_of_run_time(hostile_worker):
    """What was written is never executed: neither by mprotect nor by a mapping that is both."""
    worker = hostile_worker()
    program = writing_code()
    worker.run(program).assert_stopped_by("policy")
    assert worker.assert_works_without(program, "seccomp", "MDWE").value() == 42
    both = Program()
    both.syscall("mmap", 0, 4096, 7, 0x22, -1, 0)
    worker.run(both).assert_stopped_by("policy")
    worker.assert_works_without(both)


def test_the_memory_of_others(hostile_worker):
    """Two workers on one machine: neither reads the other's memory."""
    first, second = hostile_worker(), hostile_worker()
    program = Program()
    into, remote = program.room(16), program.room(16)
    local = program.room(16)
    program.step("poke", local, into)
    program.step("poke", local + 8, 8)
    program.step("poke", remote, into)
    program.step("poke", remote + 8, 8)
    program.syscall("process_vm_readv", second.pid, local, 1, remote, 1, 0)
    first.run(program).assert_stopped_by("policy")
    mine = Program()
    mine.steps, mine.bytes_ = program.steps[:-1], program.bytes_
    me = mine.syscall("getpid")
    mine.syscall("process_vm_readv", me, local, 1, remote, 1, 0)
    unless = {"EPERM": "this machine lets nobody read memory", "ENOSYS": "this kernel cannot read memory of others"}
    first.assert_works_without(mine, unless=unless)


def test_a_crash_ends_one_worker(hostile_worker):
    """A bad address ends the worker that used it; its neighbour is the same process as before, and answers."""
    first, second = hostile_worker(), hostile_worker()
    harmless = Program()
    harmless.step("thread")
    second.run(harmless).assert_answered()
    neighbour = second.pid
    program = Program()
    program.step("peek", 8)
    assert not first.run(program).answered
    assert second.run(harmless).assert_answered().pid == neighbour
    first.control(program).assert_stopped_by("SIGSEGV")


def test_a_gigabyte(hostile_worker):
    """Memory beyond the manifest's is refused by the kernel; the worker goes on."""
    program = Program()
    program.syscall("mmap", 0, 1 << 30, 3, 0x22, -1, 0)
    worker = hostile_worker()
    worker.run(program).assert_stopped_by("ENOMEM")
    worker.assert_works_without(program, "AS", "DATA")
