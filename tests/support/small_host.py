"""A small supervisor for tests, in a forked child of the test, without router, bridge and control.

It takes a block of uids (as root), becomes the service's uid, starts a zygote, has workers cloned and looks at them.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sandbox.kernel import process
from sandbox.types import ComponentId, FastExport, Limits
from sandbox.wire import bridge_ops, packet, zmtp
from sandbox.wire.supervisor_frames import Fork, Forked, Up, WorkerSpec, recv_packet, send_frame
from supervisor.parent import inspect, privileges, spawn, workers
from supervisor.parent.errors import OutsideCheckFailed
from supervisor.parent.identities import Identities, claim

SECONDS = 60.0
"""Longest wait for an answer that must come."""
SCRIPT = Path(__file__).resolve().parent / "odd_zygote.py"


class Host:
    """A supervisor with a zygote (in a forked child of the test)."""

    def __init__(self, left_out: str) -> None:
        self.identities: Identities = claim(f"outside check {os.getpid()}")
        self.own_uids = self.identities.base is not None
        self.workers = 0
        self.kept: tuple[socket.socket, ...] = ()
        log = tempfile.TemporaryFile()  # noqa: SIM115 - the child ends with it
        if self.own_uids:
            privileges.become_service(self.identities.supervisor)
        process.no_dump()
        self.namespaces = inspect.own_namespaces()
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        execve = os.execve

        def odd(path: str, arguments: list[str], environment: dict[str, str]) -> None:
            assert "sandbox.zygote" in arguments
            execve(path, [path, "-I", "-B", str(SCRIPT), left_out], environment)

        os.execve = odd
        kind = spawn.Kind(self.identities.supervisor, True, extra=self.identities.worker_range, reads=(str(SCRIPT),))
        self.zygote = spawn.spawn(
            "sandbox.zygote", ["paranoid", ""], [theirs.fileno()], kind, log.fileno(), self.own_uids
        )
        theirs.close()
        self.channel.settimeout(SECONDS)
        try:
            body, _ = recv_packet(self.channel)
        except EOFError:
            log.seek(0)
            raise AssertionError(log.read().decode(errors="replace")) from None
        assert Up() == msgspec.msgpack.decode(body, type=Up)
        self.namespaces = inspect.with_namespaces(self.namespaces, self.zygote)
        self.inherited = inspect.filters_of(self.zygote)

    def worker(self, code: bytes, fast: Sequence[FastExport] = ()) -> tuple[int, int, tuple[int, bytes] | None]:
        """A worker's pid, its outside uid and what it reported. `fast`: what is, if the component is patched."""
        bridge, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        other, router = zmtp.pair()
        self.workers += 1
        inside = self.workers if self.own_uids else 0
        send_frame(self.channel, Fork(self.workers, inside), [theirs.fileno(), other.fileno()])
        theirs.close()
        other.close()
        forked = msgspec.msgpack.decode(recv_packet(self.channel)[0], type=Forked)
        assert forked.pid > 0, forked
        fd = os.memfd_create("code")
        os.write(fd, code)
        spec = WorkerSpec(ComponentId("a", "b"), Limits(), len(code), list(fast))
        try:
            socket.send_fds(bridge, packet.split(bridge_ops.SPEC, msgspec.msgpack.encode(spec)), [fd])
        except BrokenPipeError:
            pass  # it failed before it waited for its component; its report is on the way
        os.close(fd)
        bridge.settimeout(SECONDS)
        report = workers._last_words(bridge, 0)
        for sock in self.kept:
            sock.close()
        self.kept = (bridge, router)
        return forked.pid, self.identities.worker(inside), packet.Assembler().feed(report) if report else None

    def check(self, pid: int, uid: int) -> str:
        """The check's verdict: "" or what it says."""
        try:
            inspect.check(pid, uid, self.own_uids, self.namespaces, self.inherited)
        except OutsideCheckFailed as error:
            return str(error)
        return ""
