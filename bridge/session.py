"""One worker's channel: taking whole requests off it, one in hand at a time, and putting answers on it.

A session is idle or has a request in hand. In hand lasts from the request's last packet until the answer's last
packet is on the socket; any packet that comes meanwhile is a violation. So is everything that is no request: a wrong
chunk, a packet too long, a descriptor. Nothing here blocks, and memory is bounded by one request and one answer.
"""

from __future__ import annotations

import select
import socket
from collections import deque

from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId
from sandbox.wire.packet import PACKET, Assembler

MAX_REQUEST = (8 << 20) + (64 << 10)
"""Largest request, bytes: the data of one call and room for its path."""
PACKETS_PER_TURN = 16
"""Most packets taken from one worker before the others have their turn."""


class Session:
    """One worker.

    Args:
        sock: the worker's channel, SEQPACKET; owned and made non-blocking.
        component: who speaks on it, as the supervisor says.
        incarnation: which run of the component this is.
    """

    __slots__ = ("_assembler", "_outbox", "component", "fd", "in_hand", "incarnation", "name", "sock", "turn")

    def __init__(self, sock: socket.socket, component: ComponentId, incarnation: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.component = component
        self.name = str(component)
        self.incarnation = incarnation
        self.in_hand = False
        self.turn = 0
        """Counts requests: a late event of an earlier request can be told from the one in hand."""
        self._assembler = Assembler(MAX_REQUEST)
        self._outbox: deque[bytes] = deque()

    @property
    def closed(self) -> bool:
        """Whether the channel is closed."""
        return self.fd < 0

    @property
    def wants_write(self) -> bool:
        """Whether part of an answer waits for the worker to read."""
        return bool(self._outbox)

    def receive(self) -> tuple[int, bytes] | None:
        """The next whole request, or None if there is none yet; afterwards a request is in hand.

        Raises:
            EOFError: the worker hung up.
            ProtocolViolation: anything that is not the next packet of one request.
        """
        for _ in range(PACKETS_PER_TURN):
            try:
                # No room for ancillary data: the kernel drops descriptors before they are installed here, and says so.
                packet, _, flags, _ = self.sock.recvmsg(PACKET, 0)
            except BlockingIOError:
                return None
            except OSError as error:
                raise EOFError("the worker hung up") from error
            if flags & socket.MSG_CTRUNC:
                raise ProtocolViolation("the worker sent a descriptor")
            if flags & socket.MSG_TRUNC:
                raise ProtocolViolation("packet of impossible length")
            if not packet:
                if self._hung_up():
                    raise EOFError("the worker hung up")
                raise ProtocolViolation("empty packet")
            if self.in_hand:
                raise ProtocolViolation("a second request while one is in hand")
            message = self._assembler.feed(packet)
            if message is not None:
                self.in_hand = True
                self.turn += 1
                return message
        return None

    def answer(self, packets: list[bytes]) -> None:
        """Put the answer of the request in hand on the channel, as far as the worker reads it.

        Raises:
            EOFError: the worker hung up.
        """
        self._outbox.extend(packets)
        self.flush()

    def flush(self) -> None:
        """Go on with an answer the worker had no room for.

        Raises:
            EOFError: the worker hung up.
        """
        while self._outbox:
            try:
                self.sock.send(self._outbox[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError("the worker hung up") from error
            self._outbox.popleft()
        self.in_hand = False

    def close(self) -> None:
        """Hang up."""
        if self.fd >= 0:
            self.sock.close()
            self.fd = -1
            self._outbox.clear()

    def _hung_up(self) -> bool:
        # A packet of no bytes and the end of the channel look alike to recvmsg; only the end is readable for ever.
        poller = select.poll()
        poller.register(self.fd, select.POLLIN | select.POLLRDHUP)
        return any(mask & (select.POLLHUP | select.POLLRDHUP | select.POLLERR) for _, mask in poller.poll(0))
