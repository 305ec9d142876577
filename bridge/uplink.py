"""The bridge's and the auditor's end of the supervisor's channel, in a selectors loop."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable

import msgspec

from sandbox.wire.supervisor_frames import recv_packet, send_frame


class Uplink:
    """Queued sending, whole packets in.

    Args:
        sock: SEQPACKET socket; owned and made non-blocking.
        selector: where it registers itself; the loop calls `key.data(events)`.
        take: called with each packet and its descriptors.
    """

    def __init__(
        self, sock: socket.socket, selector: selectors.BaseSelector, take: Callable[[bytes, list[int]], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._selector = selector
        self._take = take
        self._queue: deque[msgspec.Struct] = deque()
        self.running = True
        """False once the supervisor has hung up."""
        selector.register(sock, selectors.EVENT_READ, self._on_ready)

    def tell(self, frame: msgspec.Struct) -> None:
        """Send a frame, as soon as there is room for it."""
        self._queue.append(frame)
        self._flush()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def _on_ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if not events & selectors.EVENT_READ:
            return
        try:
            body, fds = recv_packet(self._sock)
        except BlockingIOError:
            return
        except (EOFError, ConnectionError):
            self.running = False
            return
        self._take(body, fds)

    def _flush(self) -> None:
        while self._queue:
            try:
                send_frame(self._sock, self._queue[0])
            except BlockingIOError:
                break
            except ConnectionError:
                self.running = False
                return
            self._queue.popleft()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._queue else 0)
        if self._selector.get_key(self._sock).events != events:
            self._selector.modify(self._sock, events, self._on_ready)
