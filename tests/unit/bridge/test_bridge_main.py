"""The bridge's entry in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import msgspec
import pytest

from bridge.capabilities import Policy, StorageRule
from sandbox.types import ComponentId
from sandbox.wire.audit_frames import RECORD, Record, Recorded
from sandbox.wire.bridge_ops import ANSWER, Op
from sandbox.wire.packet import Assembler, recv_message, send_message
from sandbox.wire.supervisor_frames import AttachBridge, AuditChannel, BridgePolicy, Up, recv_packet, send_frame

pytestmark = pytest.mark.block8_bridge

CHILD = """
import os, socket, sys
from bridge import main
if os.geteuid() == 0:
    os.mkdir(sys.argv[3]); os.chroot(sys.argv[3])
os.chdir("/")
main.run(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), map_size=16 << 20)
assert "/" == os.getcwd()
print("asyncio" in sys.modules, "zmq" in sys.modules)
"""


def pair(seconds: float = 20) -> tuple[socket.socket, socket.socket]:
    """A SEQPACKET pair; our end has a timeout."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(seconds)
    return ours, theirs


def test_it_serves_in_an_empty_root_and_ends_with_its_supervisor(tmp_path):
    """Up is sent, a request answered once it is recorded, and a hang-up ends the process with status 0."""
    (tmp_path / "storage").mkdir()
    sup, sup_end = pair()
    dirfd = os.open(tmp_path / "storage", os.O_RDONLY)
    arguments = [sys.executable, "-c", CHILD, str(sup_end.fileno()), str(dirfd), str(tmp_path / "root")]
    with subprocess.Popen(arguments, pass_fds=(sup_end.fileno(), dirfd), stdout=subprocess.PIPE) as child:
        sup_end.close()
        os.close(dirfd)
        assert Up() == msgspec.msgpack.decode(recv_packet(sup)[0], type=Up)
        (audit, audit_end), (worker, worker_end) = pair(), pair()
        component = ComponentId("acme", "reader")
        send_frame(sup, AuditChannel(), [audit_end.fileno()])
        send_frame(sup, BridgePolicy(component, Policy(storage=[StorageRule("self", ["write"])]).encode(), []))
        send_frame(sup, AttachBridge(component, 1), [worker_end.fileno()])
        audit_end.close()
        worker_end.close()
        send_message(worker, Op.STORAGE_SET, msgspec.msgpack.encode(("k", b"v")))
        kind, body = recv_message(audit, Assembler())
        record = msgspec.msgpack.decode(body, type=Record)
        assert (RECORD, "storage.set", "allowed") == (kind, record.event, record.decision)
        worker.setblocking(False)
        with pytest.raises(BlockingIOError):
            worker.recv(100)
        worker.settimeout(20)
        send_message(audit, 2, msgspec.msgpack.encode(Recorded(record.n, 1)))
        assert (Op.STORAGE_SET | ANSWER, b"\x92\x00\xc0") == recv_message(worker, Assembler())
        sup.close()
        assert b"False False\n" == child.stdout.read()
        assert 0 == child.wait(20)
        audit.close()
        worker.close()
    assert ["data.mdb", "lock.mdb"] == sorted(os.listdir(tmp_path / "storage"))
