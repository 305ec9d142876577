"""One program outside as the router keeps it: its user, the handshake under way, the open connection and its events.

What one user's programs may hold is kept in one place for all of them (`User`), so that opening more connections gives
no more. Events wait here and not in the channel: they may be shed, answers may not.
"""

from __future__ import annotations

import socket
import time
from collections import deque

import msgspec

from bridge.capabilities import covers
from bridge.limiter import Bucket
from sandbox.types import ComponentId
from sandbox.wire.client_frames import ClientEvent, ClientLost
from sandbox.wire.router_frames import ClientRights
from supervisor.router.channels import Channel, Channels, Sent
from supervisor.router.correlation import Pending
from supervisor.router.delivery import outside
from supervisor.router.handshake import Handshake
from supervisor.router.mailbox import OVERHEAD, Account, Message
from supervisor.router.timers import Timer

MAX_SUBSCRIPTIONS = 100
"""Patterns of one connection."""
MAX_PAYLOAD = 8 << 20
"""Largest payload, bytes; the target's own `message-size` may be less."""
EVENT_BYTES = 8 << 20
"""Bytes of events among them."""
MAX_EVENTS = 1_000
"""Events that wait for one connection."""
PUBLISHING_BYTES = 2 * MAX_PAYLOAD
"""Bytes of one user's publications that are on their way to many subscribers."""
DENIAL_RATE, DENIAL_BURST = 10, 100
"""Denials of one user a second, and at once, beyond which his connections are read slowly."""
REPORT_RATE, REPORT_BURST = 0.2, 5
"""Violations of one user that are recorded: a second, and at once."""


class User:
    """One user of this machine that may connect, and all that his programs share."""

    __slots__ = (
        "account",
        "bucket",
        "channels",
        "connections",
        "denials",
        "event_bytes",
        "id",
        "publishing",
        "reports",
        "rights",
        "served",
        "sources",
    )

    def __init__(self, rights: ClientRights, channels: Channels[Client]) -> None:
        self.channels = channels
        self.account: Account = channels.account
        self.connections: set[Arrival | Client] = set()
        self.event_bytes = 0
        self.served = 0
        """Messages taken from his connections in this turn of the loop."""
        self.publishing = Account(PUBLISHING_BYTES)
        """Publications to many that are under way."""
        self.bucket = Bucket(time.monotonic(), rights.rate, rights.rate)
        self.denials = Bucket(time.monotonic(), DENIAL_RATE, DENIAL_BURST)
        """How many more denials of his go into the audit log at full speed."""
        self.reports = Bucket(time.monotonic(), REPORT_RATE, REPORT_BURST)
        self.update(rights)

    @property
    def asked(self) -> int:
        """What all his connections wait for."""
        return sum(len(each.asks) for each in self.connections if isinstance(each, Client))

    def update(self, rights: ClientRights) -> None:
        """Take new rights."""
        self.rights = rights
        self.id: ComponentId = outside(rights.user)
        self.sources = [rule.source for rule in rights.messaging if rule.source]
        self.bucket.resize(rights.rate, rights.rate)


class Arrival:
    """A connection whose handshake is under way."""

    __slots__ = ("handshake", "sock", "timer", "user")

    def __init__(self, user: User, sock: socket.socket) -> None:
        self.user, self.sock = user, sock
        self.handshake = Handshake()
        self.timer: Timer | None = None


class Client:
    """One open connection; a listener to `topics`."""

    __slots__ = ("_event_bytes", "_events", "_lost", "asks", "channel", "closed", "fd", "patterns", "user")

    def __init__(self, user: User, channel: Channel[Client], fd: int) -> None:
        self.user, self.channel, self.fd = user, channel, fd
        channel.owner = self
        channel.inbound.payload_limit = MAX_PAYLOAD
        self.asks: dict[int, Pending | None] = {}
        """What it waits for; the open request, if it is one."""
        self.patterns: dict[str, None] = {}
        self.closed = False
        self._events: deque[Message] = deque()
        self._event_bytes = 0
        self._lost = 0

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> bool:
        """Send or queue; False when too much waits for this connection or its user."""
        account = self.user.account
        if self.channel.queued and account.used + len(payload) > account.limit:
            return False
        return self.channel.send(frame, payload) is not Sent.FULL  # if it is gone, the end of its stream says so

    # -- events -----------------------------------------------------------------------------------------------

    def hears(self, publisher: ComponentId) -> bool:
        """Whether it takes publications of this one: of everybody, or of those its `from` lines name."""
        sources = self.user.sources
        return not sources or any(covers(source, publisher) for source in sources)

    def tell(self, publication: Message) -> bool:
        """Queue an event; older ones make room. False when it has none for this one at all, or the client is gone."""
        if self.closed:
            return False  # a publication to many is carried out in several turns
        size = len(publication.payload) + OVERHEAD
        while self._events and (len(self._events) >= MAX_EVENTS or self.user.event_bytes + size > EVENT_BYTES):
            self._release(self._events.popleft())
            self._lost += 1
        if self.user.event_bytes + size > EVENT_BYTES:
            self._lost += 1
            return False
        self._events.append(publication)
        self._event_bytes += size
        self.user.event_bytes += size
        self.pump()
        return True

    def pump(self) -> None:
        """Send events as long as the kernel takes them at once."""
        while not self.channel.queued and (self._events or self._lost) and not self.closed:
            if self._lost:
                lost, self._lost = self._lost, 0
                self.send(ClientLost(lost))
                continue
            event = self._events.popleft()
            self._release(event)
            if event.expires <= time.monotonic():
                self._lost += 1
                continue
            frame = ClientEvent(
                event.topic,
                str(event.sender),
                event.id,
                event.seconds,
                event.nanoseconds,
                event.content_type,
                event.priority,
            )
            self.send(frame, event.payload)

    def forget_events(self) -> None:
        """Nobody reads them any more."""
        while self._events:
            self._release(self._events.popleft())

    def _release(self, event: Message) -> None:
        size = len(event.payload) + OVERHEAD
        self._event_bytes -= size
        self.user.event_bytes -= size
