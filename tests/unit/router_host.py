"""A real router in a thread, between sockets that the tests hold: supervisor, auditor, control and workers."""

from __future__ import annotations

import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import msgspec
import zmq

from sandbox.types import ComponentId, Limits
from sandbox.wire import audit_frames, packet, router_frames, supervisor_frames, zmtp
from sandbox.wire.audit_frames import Record, Recorded
from sandbox.wire.router_frames import (
    Ack,
    Callback,
    Deliver,
    Event,
    Initialize,
    Mailing,
    MessagingRule,
    Metadata,
    Publication,
    Query,
    Ready,
    Reply,
    Route,
    State,
    Submit,
    Submitted,
)
from sandbox.wire.supervisor_frames import AttachRouter, AuditChannel, Detach, EndWorker, Up
from supervisor.router.main import run
from supervisor.router.ports import listening

SECONDS = 20.0
"""How long a test waits for what must come; never reached when all is well."""
LIMITS = Limits(deadline_ms=int(SECONDS * 1000))
METADATA = Metadata("test", "1.0", "", "", "", [], False)
TALK = [MessagingRule("acme/*", ["send", "request", "broadcast"]), MessagingRule(source="acme/*")]
"""Rules of components that may talk to each other."""

T = TypeVar("T")
encode = msgspec.msgpack.encode
_to_worker = msgspec.msgpack.Decoder(router_frames.ToWorker)
_from_router = msgspec.msgpack.Decoder(router_frames.FromRouter)
_from_child = msgspec.msgpack.Decoder(supervisor_frames.FromChild)


def cid(text: str) -> ComponentId:
    return ComponentId.parse(text)


class FakeWorker:
    """The worker's end, without a guest."""

    def __init__(self, component: ComponentId, incarnation: int) -> None:
        self.component, self.incarnation = component, incarnation
        self.sock, self.far = zmtp.pair()
        self.sock.settimeout(SECONDS)
        self.dealer = zmtp.Dealer(self.sock)

    def recv(self) -> tuple[router_frames.ToWorker, bytes]:
        head, payload = self.dealer.recv()
        return _to_worker.decode(head), payload

    def take(self, kind: type[T]) -> tuple[T, bytes]:
        frame, payload = self.recv()
        assert isinstance(frame, kind), frame
        return frame, payload

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> None:
        self.dealer.send([encode(frame), payload])

    def ask(self, frame: msgspec.Struct, payload: bytes = b"") -> Ack:
        self.send(frame, payload)
        return self.take(Ack)[0]

    def ready(self) -> Initialize:
        """Go through initialisation."""
        frame = self.take(Initialize)[0]
        self.send(Ready(METADATA, "healthy"))
        return frame

    def message(self) -> tuple[Deliver, bytes]:
        return self.take(Deliver)

    def publication(self) -> tuple[Publication, bytes]:
        return self.take(Publication)

    def callback(self) -> tuple[Callback, bytes]:
        return self.take(Callback)

    def reply(
        self,
        frame: Deliver | Publication | Callback,
        payload: bytes | None = None,
        error: str = "",
        *,
        too_large: bool = False,
    ) -> None:
        self.send(Reply(frame.id, payload is not None, error, too_large=too_large), payload or b"")

    def close(self) -> None:
        self.sock.close()
        self.far.close()


class Control:
    """Control's end of the bus; events and answers are kept apart."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: str) -> None:
        self.sock = context.socket(zmq.DEALER)
        self.sock.linger = 0
        self.sock.sndhwm = self.sock.rcvhwm = 0
        self.sock.rcvtimeo = self.sock.sndtimeo = int(SECONDS * 1000)
        self.sock.connect(f"ipc://{path}")
        self.events: list[Event] = []
        self.answers: list[tuple[Submitted, bytes]] = []
        self.states: list[State] = []
        self.number = 0

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> None:
        self.sock.send_multipart([encode(frame), payload])

    def _next(self) -> None:
        head, payload = self.sock.recv_multipart()
        frame = _from_router.decode(head)
        if isinstance(frame, Event):
            self.events.append(frame)
        elif isinstance(frame, State):
            self.states.append(frame)
        else:
            self.answers.append((frame, payload))

    def event(self, kind: str) -> Event:
        while True:
            for index, event in enumerate(self.events):
                if event.kind == kind:
                    return self.events.pop(index)
            self._next()

    def submitted(self) -> tuple[Submitted, bytes]:
        while not self.answers:
            self._next()
        return self.answers.pop(0)

    def state(self) -> State:
        self.number += 1
        self.send(Query(self.number))
        while not self.states:
            self._next()
        state = self.states.pop(0)
        assert self.number == state.id
        return state

    def submit(
        self, target: str, payload: bytes = b"", *, request: bool = True, timeout_ms: int = 20_000, user: str = "ann"
    ) -> int:
        self.number += 1
        self.send(Submit(self.number, user, cid(target), request, timeout_ms), payload)
        return self.number

    def close(self) -> None:
        self.sock.close(0)


class Auditor:
    """The auditor's end of one channel; acknowledges what it is told to."""

    def __init__(self) -> None:
        self.sock, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(SECONDS)
        self._assembler = packet.Assembler()

    def next(self) -> Record:
        """The next record, not yet acknowledged."""
        kind, body = packet.recv_message(self.sock, self._assembler)
        assert kind == audit_frames.RECORD
        return msgspec.msgpack.decode(body, type=Record)

    def written(self, record: Record) -> None:
        packet.send_message(self.sock, audit_frames.RECORDED, encode(Recorded(record.n, record.n)))

    def record(self) -> Record:
        """The next record, acknowledged."""
        record = self.next()
        self.written(record)
        return record

    def close(self) -> None:
        self.sock.close()
        self.theirs.close()


class Host:
    """Everything around one router."""

    def __init__(self, clients_path: str = "") -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.bus_path = os.path.join(self._directory.name, "b")
        self.sup, sup = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sup.settimeout(SECONDS)
        self.result: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        self.clients_path = clients_path or os.path.join(self._directory.name, "c")
        bus = listening(self.bus_path)
        clients = socket.socket(fileno=listening(self.clients_path))

        def serve() -> None:
            try:
                self.result.put(run(sup, bus, self.bus_path, os.geteuid(), clients))
            except BaseException as error:
                self.result.put(error)

        self._thread = threading.Thread(target=serve)
        self._thread.start()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._closers: list[FakeWorker | Control | Auditor] = []
        self._incarnation = 0
        assert Up() == self.child_says()
        self.auditor = self.new_auditor()
        self.control = self.new_control()

    def child_says(self) -> supervisor_frames.FromChild:
        """The router's next word to the supervisor."""
        body, fds = supervisor_frames.recv_packet(self.sup)
        assert [] == fds
        frame: supervisor_frames.FromChild = _from_child.decode(body)
        return frame

    def end_asked(self) -> EndWorker:
        frame = self.child_says()
        assert isinstance(frame, EndWorker), frame
        return frame

    def nothing_asked(self) -> None:
        """The router has said nothing to the supervisor, though it has handled what control sent before."""
        self.settle()
        self.sup.setblocking(False)
        try:
            body = self.sup.recv(65536)
        except BlockingIOError:
            return
        finally:
            self.sup.settimeout(SECONDS)
        raise AssertionError(_from_child.decode(body))

    def settle(self) -> State:
        """Return once the router has handled what control sent before (other channels have an order of their own)."""
        return self.control.state()

    def until(self, holds: Callable[[State], bool]) -> State:
        """Return once the router's state is so: for what comes to it on another channel than control's."""
        end = time.monotonic() + SECONDS
        while not holds(state := self.control.state()):
            assert time.monotonic() < end, state
        return state

    def tell(self, frame: msgspec.Struct, fds: tuple[int, ...] = ()) -> None:
        supervisor_frames.send_frame(self.sup, frame, fds)

    def new_auditor(self) -> Auditor:
        auditor = Auditor()
        self._closers.append(auditor)
        self.tell(AuditChannel(), (auditor.theirs.fileno(),))
        auditor.theirs.close()
        return auditor

    def new_control(self) -> Control:
        control = Control(self.context, self.bus_path)
        self._closers.append(control)
        return control

    def route(
        self,
        name: str,
        rules: list[MessagingRule] | None = None,
        *,
        limits: Limits = LIMITS,
        mailing: Mailing | None = None,
    ) -> None:
        route = Route(cid(name), limits, rules or [], name, "1.0", [("A", "1")], mailing=mailing or Mailing())
        self.control.send(route)
        self.settle()

    def connect(self, name: str) -> FakeWorker:
        """A worker whose channel the router has not been given."""
        self._incarnation += 1
        worker = FakeWorker(cid(name), self._incarnation)
        self._closers.append(worker)
        return worker

    def attach(self, worker: FakeWorker, pid: int = 0) -> None:
        """Give the worker to the router; its CPU clock is that of process `pid`, by default the test's own."""
        self.tell(AttachRouter(worker.component, worker.incarnation, pid or os.getpid()), (worker.far.fileno(),))
        worker.far.close()

    def start(
        self,
        name: str,
        rules: list[MessagingRule] | None = None,
        *,
        route: bool = True,
        deadline_ms: int = 20_000,
        message_size: int = 1 << 20,
        limits: Limits | None = None,
        mailing: Mailing | None = None,
        pid: int = 0,
    ) -> FakeWorker:
        """A component with a worker that is ready."""
        if route:
            bounds = limits or Limits(deadline_ms=deadline_ms, message_size=message_size)
            self.route(name, rules, limits=bounds, mailing=mailing)
        worker = self.connect(name)
        self.attach(worker, pid)
        worker.ready()
        event = self.control.event("ready")
        assert (worker.component, worker.incarnation) == (event.component, event.incarnation)
        return worker

    def died(self, worker: FakeWorker, outcome: str = "killed", detail: str = "") -> None:
        """The supervisor says that the worker is dead; returns when the router has taken it in."""
        worker.close()
        self.tell(Detach(worker.incarnation, outcome, detail))
        self.until(lambda state: all(worker.incarnation != route.attached for route in state.routes))

    def violated(self, worker: FakeWorker) -> EndWorker:
        """The worker is reported for breaking the protocol: in the audit log and to the supervisor."""
        end = self.end_asked()
        record = self.auditor.record()
        assert (worker.incarnation, "policy") == (end.incarnation, end.outcome)
        assert ("protocol.violation", str(worker.component), "denied") == (
            record.event,
            record.component,
            record.decision,
        )
        return end

    def hang_up(self) -> int | BaseException:
        """The supervisor goes; what the router returned."""
        self.sup.close()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        return self.result.get_nowait()

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._thread.is_alive() or not self.result.empty():
                result = self.hang_up()
                if isinstance(result, BaseException):
                    raise result
                assert 0 == result
        finally:
            for closer in self._closers:
                closer.close()
            self.context.destroy(0)
            self._directory.cleanup()
