"""The router's one thread: wait for any channel or timer, take a bounded batch from each, and hand each frame on.

Workers are untrusted: whatever one of them sends is decoded strictly here, and what is not a frame of its phase costs
that worker its life and nobody else anything. A turn takes one message from each of at most `EVENTS` workers; epoll(7)
puts a descriptor it has told of at the end of its list, so with more of them at once all come round.
"""

from __future__ import annotations

import resource
import select
import socket
from collections.abc import Callable

import msgspec

from bridge.audit.client import AuditClient
from sandbox.errors import ProtocolViolation
from sandbox.types import Outcome
from sandbox.wire import UNDECODABLE
from sandbox.wire.router_frames import Ended, FromWorker, HealthReply, Ready, Reply
from sandbox.wire.supervisor_frames import AttachRouter, AuditChannel, Detach, EndWorker, Up, close_all
from supervisor.router.asks import Asks
from supervisor.router.bus import Bus
from supervisor.router.channels import Channel, Channels
from supervisor.router.clients import Clients
from supervisor.router.delivery import Delivery
from supervisor.router.groups import Groups
from supervisor.router.inbound import Message
from supervisor.router.outside import Outside
from supervisor.router.permissions import Permissions
from supervisor.router.ports import Port, SupervisorLink
from supervisor.router.routes import Phase, Worker
from supervisor.router.topics import Topics
from supervisor.router.turns import Turns

BATCH = 64
"""Messages taken from the bus before the others have their turn."""
EVENTS = 64
"""Descriptors served in one turn."""
LAST_MESSAGES = 64
"""Most messages taken in that a worker had sent when it died; an honest one has three on the way."""
SPARE_FDS = 32
"""Descriptors kept free for other things than workers."""
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_IN_OUT = _IN | _OUT
_LIFE = (Ready, HealthReply, Ended)


class Loop:
    """Polls and dispatches.

    Args:
        bus: control's ROUTER socket.
        supervisor: the socketpair to the supervisor.
        clients: the listening socket of programs outside; None where there are none.
    """

    def __init__(self, bus: Port, supervisor: SupervisorLink, clients: socket.socket | None = None) -> None:
        self._bus, self._supervisor = bus, supervisor
        self._audit = AuditClient()
        self.delivery = Delivery(bus, supervisor, self._audit)
        permissions = Permissions(self.delivery.table)
        self._turns = Turns()
        topics, groups = Topics(self.delivery, self._turns), Groups(self.delivery.table)
        self._asks = Asks(self.delivery, permissions, topics, groups, self._turns)
        way_in = Outside(self.delivery, permissions, topics, groups)
        self._control = Bus(self.delivery, way_in)
        self._table = self.delivery.table
        self._decoder: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
        self._epoll = select.epoll()
        self._epoll.register(bus.fileno(), _IN)
        self._watched: dict[int, int] = {}
        self._watched_for: tuple[bool, int, bool] | None = None
        """What `_watched` was derived from; None: it has changed since."""
        self._channels: Channels[Worker] = Channels(
            self._epoll, self.delivery.timers, self._table.account, violated=self.delivery.lives.violation
        )
        self._clients = None if clients is None else Clients(clients, self._epoll, self.delivery, way_in, topics)
        self._most_fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    def run(self) -> None:
        """Serve until the supervisor hangs up.

        Raises:
            ProtocolViolation: the supervisor sent what is no frame.
        """
        self._supervisor.send(Up())
        timers, turns, backlog, clients = self.delivery.timers, self._turns, self._channels.backlog, self._clients
        supervisor_fd, bus_fd = self._supervisor.fileno(), self._bus.fileno()
        try:
            while True:
                self._watch()
                # The bus's descriptor tells of news for libzmq, not of messages that libzmq has already.
                pending = self._bus.pending
                news = clients is not None and clients.busy
                busy = pending or news or backlog or turns.going
                events = self._epoll.poll(0 if busy else timers.wait(), EVENTS)
                if backlog:
                    self._serve_backlog()
                if clients is not None and len(clients):
                    clients.serve_backlog()
                # Nearly every turn is of workers alone.
                others: dict[int, int] = {}
                for fd, event in events:
                    channel = self._channels.get(fd)
                    if channel is not None:
                        self._serve(channel, event)
                    else:
                        others[fd] = event
                if others and clients is not None:
                    for fd, event in others.items():
                        clients.serve(fd, event)
                if turns.going:
                    turns.go_on()
                if others:
                    if supervisor_fd in others:
                        self._supervisor.flush()
                        self._read_supervisor()
                    if self._audit.fileno() in others:
                        self._read_audit()
                if pending or bus_fd in others:
                    self._read_bus(BATCH)
                timers.run()
        except EOFError:
            return
        finally:
            self._audit.close()
            for worker in self._table.by_incarnation.values():
                worker.channel.close()
            if self._clients is not None:
                self._clients.close()
            self._epoll.close()

    def _watch(self) -> None:
        """Poll the plain descriptors for what is wanted of them now."""
        state = self._supervisor.wants_write, self._audit.fileno(), self._audit.wants_write
        if state == self._watched_for:
            return
        self._watched_for = state
        wanted: dict[int, int] = {self._supervisor.fileno(): _flags(self._supervisor.wants_write)}
        if self._audit.connected:
            wanted[self._audit.fileno()] = _flags(self._audit.wants_write)
        for fd in self._watched.keys() - wanted.keys():
            self._epoll.unregister(fd)
        for fd, flags in wanted.items():
            if fd in self._watched:
                self._epoll.modify(fd, flags)
            else:
                self._epoll.register(fd, flags)
        self._watched = wanted

    # -- workers ----------------------------------------------------------------------------------------------

    def _serve_backlog(self) -> None:
        backlog = self._channels.backlog
        for _ in range(min(len(backlog), EVENTS)):
            channel = backlog.popleft()
            if channel.owner is not None:
                self._next(channel.owner, channel.next)

    def _serve(self, channel: Channel[Worker], events: int) -> None:
        worker = channel.owner
        if worker is None:
            return
        if events & _OUT:
            channel.flush()
        if channel.paused:
            if events & ~_OUT:
                self.delivery.lives.hung_up(worker)
        elif events & ~_OUT and not channel.inbound.behind:
            self._next(worker, channel.receive)

    def _next(self, worker: Worker, source: Callable[[], Message | None]) -> bool:
        """Act on the next message of a worker, if there is one; False when there is nothing to be had any more."""
        try:
            message = source()
        except BlockingIOError:
            return False
        except EOFError:
            self.delivery.lives.hung_up(worker)
            return False
        except ProtocolViolation as error:
            self.delivery.lives.violation(worker, str(error))
            return False
        if message is not None:
            self._take(worker, *message)
        return True

    def _last_messages(self, worker: Worker) -> None:
        """Take in what a worker had sent before it died: it may have said why."""
        channel = worker.channel
        for _ in range(LAST_MESSAGES):
            if worker.end_asked or not self._next(worker, channel.next if channel.inbound.behind else channel.receive):
                return

    def _take(self, worker: Worker, head: bytes, payload: bytes) -> None:
        delivery, lives = self.delivery, self.delivery.lives
        try:
            frame = self._decoder.decode(head)
        except UNDECODABLE as error:
            lives.violation(worker, f"undecodable frame: {error}"[:200])
            return
        kind = type(frame)
        if worker.withheld is not None:
            lives.violation(worker, f"{kind.__name__} before its last question was answered")
        elif worker.phase is Phase.CLOSED and kind is not Ended:
            lives.violation(worker, f"{kind.__name__} after its end")
        elif isinstance(frame, Reply):
            if len(payload) > worker.limits.message_size:
                lives.violation(worker, "payload over the message size")
            else:
                delivery.reply(worker, frame, payload)
        elif isinstance(frame, _LIFE):
            if payload:
                lives.violation(worker, f"{kind.__name__} with a payload")
            elif isinstance(frame, Ready):
                lives.ready(worker, frame)
            elif isinstance(frame, HealthReply):
                lives.health_reply(worker, frame)
            else:
                lives.ended(worker, frame)
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
            elif isinstance(frame, AttachRouter) and len(fds) == 1:
                self._attach(frame, socket.socket(fileno=fds[0]))
            elif isinstance(frame, Detach) and not fds:
                worker = self._table.by_incarnation.get(frame.incarnation)
                if worker is not None:
                    self._last_messages(worker)
                self.delivery.lives.detach(frame)
            else:
                close_all(fds)
                raise ProtocolViolation(f"{type(frame).__name__} with the wrong descriptors", subject=str(len(fds)))

    def _attach(self, frame: AttachRouter, sock: socket.socket) -> None:
        if sock.fileno() >= self._most_fds - SPARE_FDS:
            # Told now: with no descriptor left the kernel would cut the supervisor's next one out of its packet.
            sock.close()
            self._supervisor.send(
                EndWorker(frame.incarnation, Outcome.KILLED.value, "no descriptor left in the router")
            )
            return
        self.delivery.lives.attach(frame, self._channels.add(sock))

    def _read_audit(self) -> None:
        fd = self._audit.fileno()
        self._audit.flush()
        if not self._audit.on_readable():
            # Closed, and so forgotten by epoll; its number may be another's by the next turn.
            self._watched.pop(fd, None)
            self._watched_for = None

    def _unwatch_audit(self) -> None:
        # The old descriptor's number may come back for the new one: forget it before it is closed.
        fd = self._audit.fileno()
        self._watched_for = None
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

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
    return _IN_OUT if writing else _IN
