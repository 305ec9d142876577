"""Descriptors: two channels, and never another."""

from __future__ import annotations

import os

import pytest
from airssys.testing import Program


@pytest.mark.airssys_needs("root")
def test_exactly_two(hostile_worker):
    """Seen from outside: descriptors 3 and 4, both sockets. A process of ours has others."""
    directory = f"/proc/{hostile_worker().pid}/fd"
    held = {int(name): os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}
    assert set(held) == {3, 4}
    assert all(target.startswith("socket:") for target in held.values())
    assert not set(map(int, os.listdir("/proc/self/fd"))) <= {3, 4}


@pytest.mark.parametrize("descriptor", [0, 1, 2, 5, 63, 1023])
def test_another_descriptor(hostile_worker, descriptor):
    """Writing to any other descriptor is a forbidden call; on its own channel it is none."""
    worker = hostile_worker()

    def writing(number: int) -> Program:
        program = Program()
        packet = worker.bridge("storage-get", "x")[0]
        program.syscall("sendto", number, program.data(packet), len(packet), 0, 0, 0)
        return program

    worker.run(writing(descriptor)).assert_stopped_by("policy")
    worker.frames(3, *worker.bridge("storage-get", "x"), answers=1).assert_answered()


def test_a_new_descriptor(hostile_worker):
    """None is made: not by dup, not by a message that brings one."""
    worker = hostile_worker()
    program = Program()
    program.syscall("dup", 3)
    worker.run(program).assert_stopped_by("policy")
    worker.assert_works_without(program, "seccomp", "NOFILE")
    receiving = Program()
    receiving.syscall("recvmsg", 3, receiving.room(56), 0x40)
    worker.run(receiving).assert_stopped_by("policy")
