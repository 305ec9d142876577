"""Programs outside that talk to components: who they are, what they may ask, and what they get.

    accept -> SO_PEERCRED -> handshake (`handshake`) -> ClientWelcome -> ( ask -> ClientAnswer | event )* -> end

They connect to a Unix socket that anybody may open, so each may be an attacker. Who it is, the kernel says
(SO_PEERCRED, unix(7)); whoever has no `[[client]]` of his own and does not operate the host is told so and cut off
before a byte of his is read. All others speak through the router's own end of ZMTP, and what one user can make the
router hold is bounded:

    connections      MAX_CONNECTIONS, each open within HANDSHAKE_SECONDS
    coming in        IN_BYTES, over all of them; a message is whole within `channels.HALF_SECONDS`
    going out        OUT_BYTES of answers and EVENT_BYTES of events, over all of them
    asks             MAX_ASKS that wait for an answer, and MAX_SUBSCRIPTIONS patterns, of each connection

and what he can make it do: TURN messages a turn, one of each connection, and `message-rate` a second, where a
publication counts as one for each subscriber. Who exceeds it is not
listened to for HOLD_SECONDS, who is denied too much for DENIED_SECONDS. A client that does not read loses events,
oldest first, and is told how many; one that does not read its answers is cut off. When a connection ends, so do its
requests and subscriptions.
"""

from __future__ import annotations

import errno
import functools
import secrets
import select
import socket
import struct
import time
from collections import OrderedDict

from bridge.capabilities import may_subscribe
from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId
from sandbox.wire.client_frames import ClientWelcome
from sandbox.wire.router_frames import Settings
from supervisor.router.channels import Channels
from supervisor.router.client_asks import MAX_ASKS, ClientAsks
from supervisor.router.connections import MAX_PAYLOAD, MAX_SUBSCRIPTIONS, Arrival, Client, User
from supervisor.router.delivery import Delivery
from supervisor.router.handshake import CROWDED, GREETING, READY, REFUSAL
from supervisor.router.inbound import MAX_HEAD
from supervisor.router.inbound import Message as Inbox
from supervisor.router.mailbox import Account
from supervisor.router.outside import Outside
from supervisor.router.topics import Topics

MAX_CONNECTIONS = 64
"""Connections of one user."""
MAX_ALL_CONNECTIONS = 512
"""Connections of all users together."""
HANDSHAKE_SECONDS = 5.0
"""Longest time between a connection and its READY."""
IN_BYTES = 2 * (MAX_PAYLOAD + MAX_HEAD + 64)
"""Bytes reserved for messages that are coming in from one user."""
OUT_BYTES = 24 << 20
"""Bytes of answers that may wait for one user's programs to read."""
MAX_QUEUED = 2 * MAX_ASKS
"""Messages that wait for one connection to read."""
TURN = 8
"""Messages of one user acted on in one turn, whichever of his connections they came by."""
ACCEPTS = 16
"""Connections taken in one turn."""
RETRY_SECONDS = 1.0
"""Pause when there is no descriptor left."""
TELL_SECONDS = 10.0
"""Least time between two records of refusals of one user."""
MAX_TOLD = 256
"""Users whose refusals are kept apart."""

_UCRED = struct.Struct("3i")
_IN = select.EPOLLIN
_GONE = select.EPOLLHUP | select.EPOLLERR


class Clients:
    """All of them.

    Args:
        listener: bound and listening stream socket; owned. Nobody is let in before the first `Settings`.
        epoll: the loop's.
        delivery: for timers, counters, the audit log and abandoned requests.
        way_in: the way of a message from outside.
        topics: what they subscribe to.
    """

    def __init__(
        self, listener: socket.socket, epoll: select.epoll, delivery: Delivery, way_in: Outside, topics: Topics
    ) -> None:
        listener.setblocking(False)
        self._listener, self._epoll = listener, epoll
        self._delivery, self._topics = delivery, topics
        self._asks = ClientAsks(delivery, way_in, topics, self._violation)
        self._timers, self._counters = delivery.timers, delivery.table.counters
        self._users: dict[int, User] = {}
        self._by_fd: dict[int, Arrival | Client] = {}
        self._refused: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self._listening = False
        self._name = secrets.token_hex(8)
        delivery.table.on_settings.append(self._configure)
        way_in.on_denied = self._denied

    def __len__(self) -> int:
        return len(self._by_fd)

    def close(self) -> None:
        """Hang up on everybody."""
        for each in list(self._by_fd.values()):
            self._end(each)
        self._listener.close()

    def _configure(self, settings: Settings) -> None:
        """Who may connect has changed: whoever may not any more is cut off, the others go on with their new rights."""
        rights = {client.uid: client for client in settings.clients}
        for uid, user in list(self._users.items()):
            if uid not in rights:
                del self._users[uid]
                for each in list(user.connections):
                    self._end(each)
                continue
            user.update(rights[uid])
            for each in list(user.connections):
                if isinstance(each, Client) and not all(
                    may_subscribe(user.rights.messaging, pattern) for pattern in each.patterns
                ):
                    self._end(each)
        for uid, client in rights.items():
            if uid not in self._users:
                channels: Channels[Client] = Channels(
                    self._epoll,
                    self._timers,
                    Account(OUT_BYTES),
                    self._violation,
                    input_bytes=IN_BYTES,
                    most_queued=MAX_QUEUED,
                    allowance=OUT_BYTES,
                )
                self._users[uid] = User(client, channels)
        self._listen()

    def _denied(self, sender: ComponentId) -> None:
        for user in self._users.values():
            if user.id == sender:
                user.denials.spend(1)

    # -- the loop's ---------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether more was received than was acted on."""
        return bool(self._by_fd) and any(user.channels.backlog for user in self._users.values())

    def serve_backlog(self) -> None:
        """Act on one more message of connections that have sent several: of each user as many as a turn allows."""
        for user in list(self._users.values()):
            user.served = 0
            backlog = user.channels.backlog
            for _ in range(min(len(backlog), TURN)):
                channel = backlog.popleft()
                if channel.held:
                    continue  # comes back when it is let go
                if channel.owner is not None:
                    self._next(channel.owner, again=True)

    def serve(self, fd: int, events: int) -> None:
        """Act on what happened to one of our descriptors, if it is one."""
        if fd == self._listener.fileno():
            self._accept()
            return
        peer = self._by_fd.get(fd)
        if isinstance(peer, Arrival):
            self._shake(peer)
        elif peer is not None:
            self._serve(peer, events)

    # -- arrivals -----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._epoll.register(self._listener.fileno(), _IN)

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    raise
                # They stay in the kernel's queue, and the loop must not be told of them again and again.
                self._listening = False
                self._epoll.unregister(self._listener.fileno())
                self._timers.schedule(time.monotonic() + RETRY_SECONDS, self._listen)
                self._counters["clients-without-descriptor"] += 1
                return
            sock.setblocking(False)
            self._arrived(sock)

    def _arrived(self, sock: socket.socket) -> None:
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        user = self._users.get(uid)
        if user is None:
            _last_words(sock, REFUSAL)
            self._unknown(uid)
            return
        if len(user.connections) >= MAX_CONNECTIONS or len(self._by_fd) >= MAX_ALL_CONNECTIONS:
            _last_words(sock, CROWDED)
            self._counters["clients-too-many"] += 1
            return
        try:
            sock.send(GREETING, socket.MSG_NOSIGNAL)
        except OSError:
            sock.close()
            return
        arrival = Arrival(user, sock)
        user.connections.add(arrival)
        self._by_fd[sock.fileno()] = arrival
        self._epoll.register(sock.fileno(), _IN)
        late = functools.partial(self._end, arrival)
        arrival.timer = self._timers.schedule(time.monotonic() + HANDSHAKE_SECONDS, late)

    def _unknown(self, uid: int) -> None:
        """Somebody without rights: in the audit log, once in a while for each."""
        self._counters["clients-refused"] += 1
        now = time.monotonic()
        until, count = self._refused.pop(uid, (0.0, 0))
        if now >= until:
            self._delivery.audit.record(
                "client.refused", "", "denied", f"uid {uid}", "no rights", detail={"uid": uid, "attempts": count + 1}
            )
            until, count = now + TELL_SECONDS, 0
        else:
            count += 1
        self._refused[uid] = until, count
        if len(self._refused) > MAX_TOLD:
            self._refused.popitem(last=False)

    def _shake(self, arrival: Arrival) -> None:
        handshake = arrival.handshake
        try:
            data = arrival.sock.recv(handshake.wanted)
            if not data:
                raise EOFError
            if not handshake.feed(data):
                return
            arrival.sock.send(READY, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except (OSError, EOFError):
            self._end(arrival)
            return
        except ProtocolViolation as error:
            self._report(arrival.user, str(error))
            self._end(arrival)
            return
        self._open(arrival)

    def _open(self, arrival: Arrival) -> None:
        """The handshake is done: the same connection, as a client."""
        user, fd = arrival.user, arrival.sock.fileno()
        self._forget(arrival)
        client = Client(user, user.channels.add(arrival.sock), fd)
        user.connections.add(client)
        self._by_fd[fd] = client
        self._counters["clients"] += 1
        client.send(ClientWelcome(str(user.id), self._name, MAX_ASKS, MAX_SUBSCRIPTIONS, MAX_PAYLOAD))
        rest = arrival.handshake.rest
        if rest:
            client.channel.inbound.feed(memoryview(rest))
            self._next(client, again=True)

    def _forget(self, arrival: Arrival) -> None:
        if arrival.timer is not None:
            self._timers.cancel(arrival.timer)
        fd = arrival.sock.fileno()
        self._epoll.unregister(fd)
        del self._by_fd[fd]
        arrival.user.connections.discard(arrival)

    # -- traffic ------------------------------------------------------------------------------------------------

    def _serve(self, client: Client, events: int) -> None:
        channel = client.channel
        if events & select.EPOLLOUT:
            channel.flush()
            client.pump()
        if channel.paused:
            if events & _GONE:
                self._end(client)
            return
        if channel.held:
            if events & _GONE:
                channel.release()  # what it had sent is read to its end
            return
        if events & ~select.EPOLLOUT and not channel.inbound.behind and client.user.served < TURN:
            self._next(client)  # else epoll tells of it again

    def _next(self, client: Client, *, again: bool = False) -> None:
        try:
            message: Inbox | None = client.channel.next() if again else client.channel.receive()
        except BlockingIOError:
            return
        except EOFError:
            self._end(client)
            return
        except ProtocolViolation as error:
            self._violation(client, str(error))
            return
        if message is not None:
            client.user.served += 1
            self._asks.handle(client, *message)

    # -- ends ---------------------------------------------------------------------------------------------------

    def _violation(self, client: Client, why: str) -> None:
        self._report(client.user, why)
        self._end(client)

    def _report(self, user: User, why: str) -> None:
        """Record what a program did that no program should; damped, for it can do so again at once."""
        self._counters["client-violations"] += 1
        if user.reports.take(time.monotonic()):
            self._delivery.audit.record("protocol.violation", str(user.id), "denied", why, "ended")

    def _end(self, peer: Arrival | Client) -> None:
        if isinstance(peer, Arrival):
            self._forget(peer)
            peer.sock.close()
            return
        if peer.closed:
            return
        peer.closed = True
        del self._by_fd[peer.fd]
        peer.user.connections.discard(peer)
        for pattern in peer.patterns:
            self._topics.unlisten(pattern, peer)
        for pending in [pending for pending in peer.asks.values() if pending is not None]:
            self._delivery.settle(pending)
            self._counters["abandoned-requests"] += 1
        peer.asks.clear()
        peer.forget_events()
        peer.channel.owner = None
        peer.channel.close()


def _last_words(sock: socket.socket, words: bytes) -> None:
    """Say why, if the kernel takes it at once, and hang up."""
    with sock:
        try:
            sock.send(words, socket.MSG_NOSIGNAL)
        except OSError:
            return  # it is gone already
