"""A bridge and an auditor in this process, turned by hand: real sockets, LMDB and log, no threads, no sleeping."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.audit.auditor import Auditor
from bridge.audit.client import AuditClient
from bridge.audit.files import load_key
from bridge.capabilities import FileRule, Policy, StorageRule
from bridge.server import Server
from bridge.storage import Storage
from sandbox.types import ComponentId, Limits
from sandbox.wire.bridge_ops import ANSWER
from sandbox.wire.packet import PACKET, Assembler, split
from sandbox.wire.supervisor_frames import (
    AttachBridge,
    AuditChannel,
    AuditorState,
    BridgePolicy,
    EndWorker,
    Producer,
    Up,
    recv_packet,
    send_frame,
)

_from_child = msgspec.msgpack.Decoder(Up | EndWorker | AuditorState)
READER = ComponentId("acme", "reader")


class Gone(Exception):
    """The bridge closed the worker's channel."""


class Worker:
    """The other end of fd 3."""

    def __init__(self, host: Host, component: ComponentId, incarnation: int) -> None:
        self.host = host
        self.component = component
        self.incarnation = incarnation
        self.sock, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.assembler = Assembler()
        host.send(AttachBridge(component, incarnation), [end.fileno()])
        end.close()

    def post(self, kind: int, body: bytes) -> None:
        """Send one message, turning the bridge while there is no room."""
        for packet in split(kind, body):
            self.post_packet(packet)

    def post_packet(self, packet: bytes) -> None:
        """Send one packet as it is."""

        def send() -> bool:
            try:
                self.sock.send(packet)
            except BlockingIOError:
                return False
            except ConnectionError as error:
                raise Gone from error
            return True

        self.host.until(send)

    def poll(self) -> tuple[int, Any] | None:
        """A whole answer if one is there."""
        while True:
            try:
                packet = self.sock.recv(PACKET)
            except BlockingIOError:
                return None
            except ConnectionError as error:
                raise Gone from error
            if not packet:
                raise Gone
            message = self.assembler.feed(packet)
            if message is not None:
                return message[0], msgspec.msgpack.decode(message[1])

    def answer(self) -> tuple[int, Any]:
        """Wait for the answer."""
        return self.host.until(self.poll)

    def ask(self, op: int, *arguments: object) -> tuple[int, Any]:
        """One request: the case and the value or text."""
        self.post(op, msgspec.msgpack.encode(arguments))
        kind, (case, value) = self.answer()
        assert kind == op | ANSWER
        return case, value


class Host:
    """Supervisor's end of both, and their turns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "storage").mkdir()
        (root / "log").mkdir()
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        storage_dir = os.open(root / "storage", os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.storage = Storage.open(storage_dir, 64 << 20)
        finally:
            os.fchdir(here)
            os.close(here)
            os.close(storage_dir)
        self.sup, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sup.setblocking(False)
        self.server = Server(end, self.storage)
        self.auditor: Auditor | None = None
        self.auditor_sup: socket.socket | None = None
        self.reader: AuditClient | None = None
        self.workers: list[Worker] = []
        self.starts = 0
        self.start_auditor()

    def start_auditor(self) -> None:
        """A new auditor process (here: object), and its channels to the bridge and to us."""
        dirfd = os.open(self.root / "log", os.O_RDONLY | os.O_DIRECTORY)
        self.auditor_sup, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.auditor_sup.setblocking(False)
        self.auditor = Auditor(end, dirfd, load_key(dirfd), "50ms")
        self.send(AuditChannel(), [self.producer("bridge#1")])
        self.starts += 1
        self.reader = AuditClient(socket.socket(fileno=self.producer(f"control#{self.starts}")))

    def kill_auditor(self) -> None:
        """The auditor is gone between two instructions."""
        assert self.auditor is not None and self.auditor_sup is not None and self.reader is not None
        self.auditor.close()
        self.auditor_sup.close()
        self.reader.close()
        self.auditor = None

    def producer(self, name: str) -> int:
        """Make a channel to the auditor; the producer's end."""
        assert self.auditor_sup is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        send_frame(self.auditor_sup, Producer(name), [theirs.fileno()])
        theirs.close()
        return ours.detach()

    def send(self, frame: msgspec.Struct, fds: list[int] | None = None) -> None:
        """The supervisor says something to the bridge; a lone new descriptor of an audit channel is handed over."""
        send_frame(self.sup, frame, fds or [])
        if isinstance(frame, AuditChannel):
            os.close(fds[0])
        self.turn()

    def turn(self) -> None:
        """One turn of everything."""
        self.server.turn(0)
        if self.auditor is not None:
            self.auditor.turn(0)

    def until(self, done: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Turn until `done` answers something true."""
        end = time.monotonic() + seconds
        while True:
            found = done()
            if found:
                return found
            assert time.monotonic() < end, "nothing happened"
            self.turn()

    def frames(self) -> list[msgspec.Struct]:
        """What the bridge has told the supervisor."""
        found = []
        while True:
            try:
                body, _ = recv_packet(self.sup)
            except BlockingIOError:
                return found
            found.append(_from_child.decode(body))

    def ended(self) -> EndWorker:
        """Wait until the bridge asks for a worker's end."""
        seen: list[msgspec.Struct] = []

        def look() -> bool:
            seen.extend(self.frames())
            return any(isinstance(frame, EndWorker) for frame in seen)

        self.until(look)
        return next(frame for frame in seen if isinstance(frame, EndWorker))

    def policy(
        self,
        files: list[FileRule],
        places: dict[str, Path],
        storage: list[StorageRule] | None = None,
        limits: Limits | None = None,
        component: ComponentId = READER,
    ) -> None:
        """Give a component its rights."""
        fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in places.values()]
        policy = Policy(files, storage or [], list(places), limits or Limits())
        self.send(BridgePolicy(component, policy.encode(), list(places)), fds)
        for fd in fds:
            os.close(fd)

    def worker(self, incarnation: int = 1, component: ComponentId = READER) -> Worker:
        """A worker that has been checked and attached."""
        worker = Worker(self, component, incarnation)
        self.workers.append(worker)
        return worker

    def records(self, **options: Any) -> list[dict[str, Any]]:
        """Lines of the audit log (or of `stream`), through the auditor."""
        results: list[Any] = []
        assert self.reader is not None
        self.reader.read(options.pop("stream", "audit"), results.append, **({"limit": 1000} | options))

        def look() -> bool:
            assert self.reader is not None
            assert self.reader.on_readable()
            return bool(results)

        self.until(look)
        assert results[0].error == ""
        return [msgspec.json.decode(line) for line in results[0].lines]

    def close(self) -> None:
        """Close both and our ends."""
        for worker in self.workers:
            worker.sock.close()
        if self.auditor is not None:
            self.kill_auditor()
        self.server.close()
        self.sup.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A bridge and an auditor."""
    made = Host(tmp_path)
    yield made
    made.close()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory an operator would bind."""
    path = tmp_path / "srv-logs"
    path.mkdir()
    (path / "a.log").write_bytes(b"alpha\n")
    (path / "sub").mkdir()
    (path / "sub" / "b.log").write_bytes(b"beta\n")
    return path
