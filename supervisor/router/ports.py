"""The router's channels to control (the bus, a ZeroMQ ROUTER socket) and to the supervisor; neither may block it.

On the bus the amount on the way is bounded by what control asked, so there is no high-water mark on it; when control
is gone, libzmq says so and the frame is counted.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque

import msgspec
import zmq

from sandbox.errors import ProtocolViolation
from sandbox.wire import supervisor_frames
from sandbox.wire.supervisor_frames import close_all, recv_packet

MAX_FRAME = 9 << 20
"""Largest ZeroMQ frame accepted, bytes; libzmq ends the connection beyond it."""
MAX_HEAD = 1 << 20
"""Largest structure in front of a payload, bytes."""
RCVHWM = 64
"""Messages of one peer that wait here."""

Received = tuple[bytes, bytes, bytes] | tuple[bytes, str]
"""Routing id, structure, payload; or routing id and what is wrong with the message."""

_encode = msgspec.msgpack.Encoder().encode
# Plain numbers: the enumerations of pyzmq cost as much as the calls they are for.
_NOW = int(zmq.NOBLOCK)
_NOW_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_HAS_MORE = int(zmq.RCVMORE)
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)


class Port:
    """One ROUTER socket on a listening Unix socket made by the supervisor.

    A peer is one connection: what it can make libzmq hold is one frame of `MAX_FRAME` bytes and then as many more
    frames as it likes to put into one message, up to this process's own limit. So who may connect is decided twice, by
    the directory the socket lies in and here by the peer's uid (SO_PEERCRED, unix(7)).

    Args:
        context: of this process.
        listen_fd: bound and listening stream socket; owned by libzmq from now on.
        path: where it is bound.
        uid: whose connections are taken.
    """

    __slots__ = ("_touched", "socket")

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], listen_fd: int, path: str, uid: int):
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, RCVHWM)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        self.socket.setsockopt(zmq.IPC_FILTER_UID, uid)
        self.socket.setsockopt(zmq.USE_FD, listen_fd)
        self.socket.bind(f"ipc://{path}")
        self._touched = True  # since `pending` was last False

    def fileno(self) -> int:
        """Readable when `pending` may have changed; it says nothing of what is pending already."""
        return int(self.socket.getsockopt(zmq.FD))

    @property
    def pending(self) -> bool:
        """Whether a message can be received now.

        Once that was not so, only the descriptor or a call on the socket can bring one to light (zmq_getsockopt(3),
        ZMQ_FD): libzmq is not asked again before.
        """
        if self._touched:
            self._touched = bool(int(self.socket.getsockopt(_EVENTS)) & _READABLE)
        return self._touched

    def receive(self) -> Received | None:
        """The next message, or None when there is none now. What has not two frames is read to its end and named."""
        sock = self.socket
        self._touched = True
        try:
            peer = sock.recv(_NOW)
        except zmq.Again:
            return None
        # The frames of a message arrive together: none of these can block.
        head = sock.recv() if sock.getsockopt(_HAS_MORE) else None
        payload = sock.recv() if head is not None and sock.getsockopt(_HAS_MORE) else None
        extra = False
        while sock.getsockopt(_HAS_MORE):
            extra = True
            sock.recv()
        if head is None or payload is None or extra:
            return peer, "a message has two frames"
        if len(head) > MAX_HEAD:
            return peer, "structure too long"
        return peer, head, payload

    def send(self, peer: bytes, frame: msgspec.Struct, payload: bytes = b"") -> int:
        """Send one message; 0, or `EHOSTUNREACH` (no such peer) or `EAGAIN` (it does not read)."""
        sock = self.socket
        self._touched = True
        try:
            sock.send(peer, _NOW_MORE)
        except zmq.Again:
            return errno.EAGAIN
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            # libzmq takes notice of new connections only now and then; reading the events makes it look.
            sock.getsockopt(zmq.EVENTS)
            try:
                sock.send(peer, _NOW_MORE)
            except zmq.Again:
                return errno.EAGAIN
            except zmq.ZMQError as again:
                if again.errno != errno.EHOSTUNREACH:
                    raise
                return errno.EHOSTUNREACH
        sock.send(_encode(frame), _NOW_MORE)
        sock.send(payload, _NOW)
        return 0

    def close(self) -> None:
        """Hang up on everybody."""
        self.socket.close(0)


class SupervisorLink:
    """The socketpair to the supervisor, without blocking: what it does not take now waits in order.

    What waits is bounded by the number of workers: each is complained about once.
    """

    __slots__ = ("_decoder", "_outbox", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._outbox: deque[supervisor_frames.FromChild] = deque()
        self._decoder: msgspec.msgpack.Decoder[supervisor_frames.ToRouterProcess] = msgspec.msgpack.Decoder(
            supervisor_frames.ToRouterProcess
        )

    def fileno(self) -> int:
        """For polling."""
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something waits."""
        return bool(self._outbox)

    def send(self, frame: supervisor_frames.FromChild) -> None:
        """Send, or queue when the supervisor is slow. A supervisor that is gone is noticed by `receive`."""
        self._outbox.append(frame)
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        while self._outbox:
            try:
                supervisor_frames.send_frame(self._sock, self._outbox[0])
            except (BlockingIOError, BrokenPipeError, ConnectionError):
                return
            self._outbox.popleft()

    def receive(self) -> tuple[supervisor_frames.ToRouterProcess, list[int]] | None:
        """The next frame and its descriptors, or None when there is none now.

        Raises:
            EOFError: the supervisor is gone.
            ProtocolViolation: not a frame of this channel.
        """
        try:
            body, fds = recv_packet(self._sock)
        except BlockingIOError:
            return None
        except ConnectionError as error:
            raise EOFError("supervisor hung up") from error
        try:
            return self._decoder.decode(body), fds
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            close_all(fds)
            raise ProtocolViolation("undecodable frame from the supervisor", subject=str(error)) from error


def listening(path: str, backlog: int = 4096) -> int:
    """A bound, listening Unix stream socket as the supervisor hands it to `Port` (for tests and tools)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(backlog)
        return sock.detach()
