"""The router's one thread: wait for any channel or timer, take a bounded batch from each, and hand each frame on.

Workers are untrusted: whatever one of them sends is decoded strictly here, and what is not a frame of its phase costs
that worker its life and nobody else anything. Fairness among workers is libzmq's (a ROUTER reads its peers in turn).
"""

from __future__ import annotations

import socket

import msgspec
import zmq

from bridge.audit.client import AuditClient
from sandbox.errors import ProtocolViolation
from sandbox.wire.router_frames import Ended, FromWorker, HealthReply, Ready, Reply
from sandbox.wire.supervisor_frames import AttachRouter, AuditChannel, Detach, Up, close_all
from supervisor.router.asks import Asks
from supervisor.router.bus import Bus
from supervisor.router.delivery import Delivery
from supervisor.router.permissions import Permissions
from supervisor.router.ports import Port, SupervisorLink
from supervisor.router.routes import Phase, Worker

BATCH = 64
"""Messages taken from one socket before the others have their turn."""
DRY = 4096
"""Most messages taken from the workers' socket before the news of a death is acted on."""
_READ, _READ_WRITE = int(zmq.POLLIN), int(zmq.POLLIN) | int(zmq.POLLOUT)


class Loop:
    """Polls and dispatches.

    Args:
        workers: the workers' ROUTER socket.
        bus: control's ROUTER socket.
        supervisor: the socketpair to the supervisor.
    """

    def __init__(self, workers: Port, bus: Port, supervisor: SupervisorLink) -> None:
        self._workers, self._bus, self._supervisor = workers, bus, supervisor
        self._audit = AuditClient()
        self.delivery = Delivery(workers, bus, supervisor, self._audit)
        permissions = Permissions(self.delivery.table)
        self._asks = Asks(self.delivery, permissions)
        self._control = Bus(self.delivery, permissions)
        self._table = self.delivery.table
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
        self._poller = zmq.Poller()
        self._poller.register(workers.socket, zmq.POLLIN)
        self._poller.register(bus.socket, zmq.POLLIN)
        self._watched: dict[int, int] = {}

    def run(self) -> None:
        """Serve until the supervisor hangs up.

        Raises:
            ProtocolViolation: the supervisor sent what is no frame.
        """
        self._supervisor.send(Up())
        timers = self.delivery.timers
        supervisor_fd = self._supervisor.fileno()
        try:
            while True:
                self._watch()
                ready = dict(self._poller.poll(timers.wait_ms()))
                if self._workers.socket in ready:
                    self._read_workers(BATCH)
                if supervisor_fd in ready:
                    self._supervisor.flush()
                    self._read_supervisor()
                if self._audit.fileno() in ready:
                    self._audit.flush()
                    self._audit.on_readable()
                if self._bus.socket in ready:
                    self._read_bus(BATCH)
                timers.run()
        except EOFError:
            return
        finally:
            self._audit.close()

    def _watch(self) -> None:
        """Poll the plain descriptors for what is wanted of them now."""
        wanted: dict[int, int] = {self._supervisor.fileno(): _flags(self._supervisor.wants_write)}
        if self._audit.connected:
            wanted[self._audit.fileno()] = _flags(self._audit.wants_write)
        if wanted == self._watched:
            return
        for fd in self._watched.keys() - wanted.keys():
            self._poller.unregister(fd)
        for fd, flags in wanted.items():
            self._poller.register(fd, flags)
        self._watched = wanted

    # -- workers ----------------------------------------------------------------------------------------------

    def _read_workers(self, most: int) -> None:
        for _ in range(most):
            received = self._workers.receive()
            if received is None:
                return
            worker = self._table.by_routing_id.get(received[0])
            if worker is None or worker.end_asked:
                self._table.counters["unknown-peers" if worker is None else "dropped-frames"] += 1
            elif len(received) == 2:
                self.delivery.violation(worker, received[1])
            else:
                self._take(worker, received[1], received[2])

    def _take(self, worker: Worker, head: bytes, payload: bytes) -> None:
        delivery = self.delivery
        try:
            frame = self._decoder.decode(head)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            delivery.violation(worker, f"undecodable frame: {error}"[:200])
            return
        kind = type(frame)
        if worker.withheld is not None:
            delivery.violation(worker, f"{kind.__name__} before its last question was answered")
        elif worker.phase is Phase.CLOSED and kind is not Ended:
            delivery.violation(worker, f"{kind.__name__} after its end")
        elif isinstance(frame, Reply):
            if len(payload) > worker.limits.message_size:
                delivery.violation(worker, "payload over the message size")
            else:
                delivery.reply(worker, frame, payload)
        elif isinstance(frame, Ready | HealthReply | Ended):
            if payload:
                delivery.violation(worker, f"{kind.__name__} with a payload")
            elif isinstance(frame, Ready):
                delivery.ready(worker, frame)
            elif isinstance(frame, HealthReply):
                delivery.health_reply(worker, frame)
            else:
                delivery.ended(worker, frame)
        else:
            self._asks.handle(worker, frame, payload)

    # -- supervisor and control -------------------------------------------------------------------------------

    def _read_supervisor(self) -> None:
        while (received := self._supervisor.receive()) is not None:
            frame, fds = received
            if isinstance(frame, AuditChannel) and len(fds) == 1:
                # A new auditor: what the old one did not acknowledge is sent again.
                self._unwatch_audit()
                self._audit.replace(socket.socket(fileno=fds[0]))
                continue
            close_all(fds)
            if isinstance(frame, AttachRouter):
                self.delivery.attach(frame)
            elif isinstance(frame, Detach):
                self._read_workers(DRY)
                self.delivery.detach(frame)
            else:
                raise ProtocolViolation("an auditor's channel comes with one descriptor", subject=str(len(fds)))

    def _unwatch_audit(self) -> None:
        # The old descriptor's number may come back for the new one: forget it before it is closed.
        fd = self._audit.fileno()
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def _read_bus(self, most: int) -> None:
        for _ in range(most):
            received = self._bus.receive()
            if received is None:
                return
            if len(received) == 2:
                self._table.counters["malformed-on-bus"] += 1
            else:
                self._control.handle(*received)


def _flags(writing: bool) -> int:
    return _READ_WRITE if writing else _READ
