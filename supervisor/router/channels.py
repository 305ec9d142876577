"""The router's end of one stream socket for each worker or client, without blocking and with every amount bounded.

The supervisor makes a worker's stream with the handshake done and passes this end with `AttachRouter`: there is no
endpoint that anybody could connect to, and the descriptor a message comes in by says who sent it. What one worker can
make the router hold:

    coming in    one message, whole within HALF_SECONDS; beyond `SMALL` bytes its announced length is reserved first,
                 and all reservations together are bounded: who finds no room is not read until there is some
    going out    MAX_QUEUED messages, and OUT_ALLOWANCE bytes beside one message of the worker's size; those bytes count
                 in the same account as the mailboxes' (`mailbox.TOTAL_BYTES`)

and what it can make the router do: one message a turn, however many it has sent (`backlog`).

Clients outside have channels, too (`clients`), with bounds and accounts of their own, one set for each user; what is
said of a worker here holds for them.
"""

from __future__ import annotations

import enum
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from sandbox.types import Limits
from sandbox.wire.zmtp import LONG, MORE
from supervisor.router.inbound import SMALL, Inbound, Message
from supervisor.router.mailbox import Account
from supervisor.router.timers import Timer, Timers

Owner = TypeVar("Owner")
"""Whose the other end is: a worker's or a client's."""

HALF_SECONDS = 10.0
"""Longest time between a message's first byte and its last, seconds."""
INPUT_BYTES = 256 << 20
"""Bytes reserved for messages that are coming in, over all workers."""
READ = 256 * 1024
"""Most bytes of a large message received in one turn."""
MAX_QUEUED = 64
"""Messages that wait for a worker to read."""
OUT_ALLOWANCE = 1 << 20
"""Bytes that may wait for a worker to read beside one message: structures and answers."""
JOIN = 64 * 1024
"""Payloads up to here are copied behind their header: cheaper than a second buffer to the kernel."""

_IN, _IN_OUT, _OUT = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT, select.EPOLLOUT
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_SHORT_MORE = [bytes((MORE, size)) for size in range(256)]
_SHORT = [bytes((0, size)) for size in range(256)]
"""Headers of frames with one byte of length."""
_encode = msgspec.msgpack.Encoder().encode


class Sent(enum.Enum):
    """What became of a message to a worker."""

    OK = "on its way"
    FULL = "the worker does not read"
    GONE = "the worker's end is closed"


class Channel(Generic[Owner]):
    """One stream. Made by `Channels.add`; `owner` is set by whoever attaches it."""

    __slots__ = (
        "_all",
        "_fd",
        "_half",
        "_paused",
        "_queue",
        "_reserved",
        "_sock",
        "held",
        "inbound",
        "owner",
        "queued",
    )

    def __init__(self, channels: Channels[Owner], sock: socket.socket) -> None:
        self.inbound = Inbound(Limits().message_size)
        self.owner: Owner | None = None
        self._all = channels
        self._sock = sock
        self._fd = sock.fileno()
        self._queue: deque[memoryview] = deque()
        self.queued = 0
        """Bytes that wait to be read by the other end."""
        self._reserved = 0
        self._half: Timer | None = None
        self._paused = False
        self.held = False
        """Whether it is not read because its owner sends too much."""

    # -- coming in --------------------------------------------------------------------------------------------

    def receive(self) -> Message | None:
        """Receive once; the message that this completes, if any. Further ones are left to `Channels.backlog`.

        Raises:
            BlockingIOError: nothing there.
            EOFError: the worker's end is closed.
            ProtocolViolation: what came can be no message of a worker.
        """
        inbound = self.inbound
        tail = inbound.tail
        try:
            if tail is None:
                scratch = self._all.scratch
                size = self._sock.recv_into(scratch)
                inbound.feed(scratch[:size])
            else:
                size = self._sock.recv_into(tail[:READ])
                inbound.filled(size)
        except ConnectionError:
            size = 0
        if not size:
            raise EOFError
        return self.next()

    def next(self) -> Message | None:
        """The next whole message of what was received. Raises ProtocolViolation as `receive` does."""
        inbound = self.inbound
        message = inbound.next()
        if message is not None:
            if self._half is not None or self._reserved:
                self._whole()
            if inbound.behind:
                self._all.backlog.append(self)
            return message
        if inbound.crowded:
            self._make_room()
        if self._half is None and not self._paused:
            self._half = self._all.timers.schedule(time.monotonic() + HALF_SECONDS, self._too_slow)
        return None

    def _whole(self) -> None:
        if self._half is not None:
            self._all.timers.cancel(self._half)
            self._half = None
        if self._reserved:
            self._all.give_room(self._reserved)
            self._reserved = 0

    def _make_room(self) -> None:
        # For all that the message can come to, once: two that hold room and wait for more could wait for each other.
        if not self._reserved and self._all.take_room(self, self.inbound.most):
            self._reserved = self.inbound.most
        if self._reserved:
            self.inbound.enlarge()
            return
        # Its time stands still meanwhile: it is not the worker's fault.
        if self._half is not None:
            self._all.timers.cancel(self._half)
            self._half = None
        self._paused = True
        self._watch()

    def resume(self) -> None:
        """There is room again: go on reading."""
        self._paused = False
        self._make_room()
        if not self._paused:
            self._half = self._all.timers.schedule(time.monotonic() + HALF_SECONDS, self._too_slow)
            self._watch()

    def hold(self) -> bool:
        """Do not read it until `release`; False when it is held already."""
        if self.held or self._fd < 0:
            return False
        self.held = True
        self._watch()
        return True

    def release(self) -> None:
        """Read it again."""
        if not self.held:
            return
        self.held = False
        if self._fd >= 0:
            self._watch()
            if self.inbound.behind and self not in self._all.backlog:
                self._all.backlog.append(self)

    @property
    def paused(self) -> bool:
        """Whether it is not read because there is no room."""
        return self._paused

    def _too_slow(self) -> None:
        self._half = None
        if self.owner is not None:
            self._all.violated(self.owner, f"half a message for {HALF_SECONDS:g} s")

    # -- going out --------------------------------------------------------------------------------------------

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> Sent:
        """Send one message, or queue what the kernel does not take now."""
        if self._fd < 0:
            return Sent.GONE
        head = _encode(frame)
        size, length = len(head), len(payload)
        if size < 256 and length < 256:
            buffers = [b"".join((_SHORT_MORE[size], head, _SHORT[length], payload))]
        else:
            parts = [_SHORT_MORE[size] if size < 256 else bytes((MORE | LONG,)) + size.to_bytes(8, "big"), head]
            parts.append(_SHORT[length] if length < 256 else bytes((LONG,)) + length.to_bytes(8, "big"))
            if length <= JOIN:
                parts.append(payload)
                buffers = [b"".join(parts)]
            else:
                buffers = [b"".join(parts), payload]
        if self._queue:
            total = sum(map(len, buffers))
            room = self.inbound.payload_limit + self._all.allowance
            if len(self._queue) >= self._all.most_queued or self.queued + total > room:
                return Sent.FULL
            self._enqueue(buffers, 0)
            return Sent.OK
        try:
            if len(buffers) == 1:
                sent = self._sock.send(buffers[0], _NO_SIGNAL)
                if sent == len(buffers[0]):
                    return Sent.OK
            else:
                sent = self._sock.sendmsg(buffers, (), _NO_SIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return Sent.GONE
        if sent < sum(map(len, buffers)):
            self._enqueue(buffers, sent)
            self._watch()
        return Sent.OK

    def _enqueue(self, buffers: list[bytes], sent: int) -> None:
        for buffer in buffers:
            view = memoryview(buffer)[sent:]
            sent = max(0, sent - len(buffer))
            if len(view):
                self._queue.append(view)
                self.queued += len(view)
                self._all.account.used += len(view)

    def flush(self) -> None:
        """Send what waits, as far as the worker reads. That it is gone, `receive` tells."""
        queue = self._queue
        try:
            while queue:
                view = queue[0]
                sent = self._sock.send(view, _NO_SIGNAL)
                self.queued -= sent
                self._all.account.used -= sent
                if sent < len(view):
                    queue[0] = view[sent:]
                else:
                    queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._drop_queue()
        self._watch()

    def _drop_queue(self) -> None:
        self._all.account.used -= self.queued
        self.queued = 0
        self._queue.clear()

    # -- the descriptor ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._fd >= 0:
            wanted = (0 if self._paused or self.held else _IN) | (_OUT if self._queue else 0)
            self._all.epoll.modify(self._fd, wanted)

    def shut(self) -> None:
        """Hear and say nothing more, and let go of all its memory.

        The descriptor stays open until `close`: a worker whose channel hangs up ends by itself, and how it ended
        would then be a race between its own word and the supervisor's.
        """
        if self._fd < 0:
            return
        self._all.forget(self._fd)
        self._fd = -1
        self._paused = False
        self.inbound.clear()
        self._whole()
        self._drop_queue()

    def close(self) -> None:
        """Let go of everything: the worker is dead."""
        self.shut()
        self._sock.close()


class Channels(Generic[Owner]):
    """All workers' channels, or those of one user's clients.

    Args:
        epoll: the loop's; each channel is registered there under its descriptor.
        timers: for half messages.
        account: the mailboxes'; what waits to be read by a worker counts in it.
        violated: called for a worker that broke the protocol outside of `receive` and `next`.
        input_bytes: reserved for messages that are coming in, over all of them.
        most_queued: messages that wait for one of them to read.
        allowance: bytes that may wait for one of them to read beside one message.
    """

    def __init__(
        self,
        epoll: select.epoll,
        timers: Timers,
        account: Account,
        violated: Callable[[Owner, str], None],
        *,
        input_bytes: int = INPUT_BYTES,
        most_queued: int = MAX_QUEUED,
        allowance: int = OUT_ALLOWANCE,
    ) -> None:
        self.epoll, self.timers, self.account, self.violated = epoll, timers, account, violated
        self.most_queued, self.allowance = most_queued, allowance
        self.scratch = memoryview(bytearray(SMALL))
        self.backlog: deque[Channel[Owner]] = deque()
        """Channels of which more was received than one message, for the next turn."""
        self.input = Account(input_bytes)
        self._by_fd: dict[int, Channel[Owner]] = {}
        self._waiting: deque[Channel[Owner]] = deque()

    def __len__(self) -> int:
        return len(self._by_fd)

    def add(self, sock: socket.socket) -> Channel[Owner]:
        """Take over the router's end of a stream on which the handshake has been done."""
        sock.setblocking(False)
        channel: Channel[Owner] = Channel(self, sock)
        self._by_fd[sock.fileno()] = channel
        self.epoll.register(sock.fileno(), _IN)
        return channel

    def get(self, fd: int) -> Channel[Owner] | None:
        """The channel of this descriptor, if it is one."""
        return self._by_fd.get(fd)

    def forget(self, fd: int) -> None:
        """Its owner has done with it."""
        del self._by_fd[fd]
        self.epoll.unregister(fd)

    # -- room for large messages ------------------------------------------------------------------------------

    def take_room(self, channel: Channel[Owner], size: int) -> bool:
        """Reserve `size` bytes for a message that is coming in; otherwise the channel is resumed when there is room."""
        if self._waiting or self.input.used + size > self.input.limit:
            self._waiting.append(channel)
            return False
        self.input.used += size
        return True

    def give_room(self, size: int) -> None:
        """A large message is whole or given up: whoever waits for room may go on."""
        self.input.used -= size
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, deque()
        for channel in waiting:
            if channel.paused:
                channel.resume()
