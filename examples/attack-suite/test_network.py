"""The network: a worker has none."""

from __future__ import annotations

import struct

from airssys.testing import Program


def connecting(port: int) -> Program:
    """Connect to 127.0.0.1."""
    program = Program()
    address = struct.pack("<H", 2) + struct.pack(">H", port) + bytes([127, 0, 0, 1]) + bytes(8)
    sock = program.syscall("socket", 2, 1, 0, until="or-give-up")
    program.syscall("connect", sock, program.data(address), len(address))
    return program


def test_connect_to_a_server(hostile_worker, listener):
    """A server on the machine is not reached, and is reached without four walls."""
    worker = hostile_worker()
    program = connecting(listener.port)
    worker.run(program).assert_stopped_by("policy")
    assert listener.connected == 0
    worker.assert_works_without(program, "seccomp", "Landlock", "net ns", "NOFILE")


def test_without_the_filter_there_is_no_network(hostile_worker, listener):
    """The namespace alone: a socket is made, and nobody is there."""
    worker = hostile_worker()
    result = worker.control(connecting(listener.port), only=["net ns"])
    result.assert_stopped_by("ENETUNREACH", "ECONNREFUSED")
    worker.control(connecting(listener.port), only=["uts ns"]).assert_answered()
    assert listener.connected <= 1
