"""ZMTP 3.1 over one connected Unix stream socket: codec, handshake, and the DEALER end (RFC 37/ZMTP, NULL mechanism of
RFC 23/ZMTP). The ROUTER end is `supervisor.router.inbound` and `supervisor.router.channels`.

A worker speaks to the router without libzmq: the supervisor makes both ends with `pair`, which performs the handshake
on both, and the worker goes on with `Dealer`. `Dealer` makes no system calls but `recvfrom` and `sendto` with flags
0, so its socket must be blocking and have no timeout (a timeout would make Python poll).

On the wire: a greeting of 64 bytes from each side, one READY command from each side, then frames

    u8 flags    bit 0 more, bit 1 long, bit 2 command; the others are zero
    u8 or u64   length of the body, big endian (u64 when long)
    body

Commands are a name with its length in front and data; in traffic only PING is expected, and answered with PONG.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Sequence
from typing import Final

from sandbox.errors import ProtocolViolation

MORE, LONG, COMMAND = 0x01, 0x02, 0x04
"""Flags of a frame."""
GREETING_SIZE = 64
"""Bytes of a greeting."""
MAX_COMMAND = 1024
"""Largest command body accepted, bytes; what libzmq sends fits many times over."""
MAX_FRAME = 9 << 20
"""Largest message frame accepted unless told otherwise, bytes."""
MAX_PARTS = 8
"""Most frames in one message unless told otherwise."""
MAX_IDENTITY = 255
"""Longest routing id, bytes."""

_BUFFER: Final = 64 * 1024
_JOIN: Final = 64 * 1024  # up to here one copy is cheaper than a second system call and a second wake-up of the peer
_GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
_LONG_HEADER: Final = struct.Struct(">BQ")
_U32: Final = struct.Struct(">I")
_RESERVED: Final = 0xFF & ~(MORE | LONG | COMMAND)


# -- codec ----------------------------------------------------------------------------------------------------


def encode_frame(flags: int, body: bytes) -> bytes:
    """One frame with the given `MORE` or `COMMAND` flag; the length form is chosen here."""
    size = len(body)
    if size < 256:
        return bytes((flags, size)) + body
    return _LONG_HEADER.pack(flags | LONG, size) + body


def encode_message(parts: Sequence[bytes]) -> bytes:
    """The bytes of one message (raises ValueError when it has no parts)."""
    if not parts:
        raise ValueError("a message has at least one part")
    last = len(parts) - 1
    return b"".join([encode_frame(MORE if i < last else 0, part) for i, part in enumerate(parts)])


def encode_command(name: bytes, data: bytes = b"") -> bytes:
    """The bytes of one command frame."""
    return encode_frame(COMMAND, bytes((len(name),)) + name + data)


def encode_ready(socket_type: bytes, identity: bytes = b"") -> bytes:
    """The READY command of one end; a DEALER may claim `identity` as its routing id.

    Raises:
        ValueError: longer than `MAX_IDENTITY`, or it starts with the zero byte libzmq keeps for itself.
    """
    if len(identity) > MAX_IDENTITY or identity[:1] == b"\0":
        raise ValueError(f"not a routing id: {identity!r}")
    claim = _property(b"Identity", identity) if identity else b""
    return encode_command(b"READY", _property(b"Socket-Type", socket_type) + claim)


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + _U32.pack(len(value)) + value


def check_greeting(greeting: bytes) -> None:
    """Accept the greeting of a ZMTP 3.x peer with the NULL mechanism and nothing else.

    The eight bytes of padding in the signature are not looked at: older protocols kept a length there and libzmq
    still fills it in.

    Raises:
        ProtocolViolation: anything else.
    """
    if len(greeting) != GREETING_SIZE or greeting[0] != 0xFF or greeting[9] != 0x7F:
        raise ProtocolViolation("peer does not speak ZMTP", subject=greeting[:10].hex())
    if greeting[10] != 3:
        raise ProtocolViolation("peer speaks another major version of ZMTP", subject=str(greeting[10]))
    if greeting[12:32] != _GREETING[12:32]:
        raise ProtocolViolation("peer wants another security mechanism than NULL", subject=greeting[12:32].hex())
    if any(greeting[32:]):
        raise ProtocolViolation("greeting has set bits where NULL has none", subject=greeting[32:].hex())


def parse_command(body: bytes) -> tuple[bytes, bytes]:
    """Split a command frame's body into name and data.

    Raises:
        ProtocolViolation: no name, or a name longer than the frame.
    """
    if not body or not 1 <= body[0] < len(body):
        raise ProtocolViolation("command without a name", subject=body[:16].hex())
    end = 1 + body[0]
    return body[1:end], body[end:]


def parse_properties(data: bytes) -> dict[bytes, bytes]:
    """The metadata of a READY command; names in lower case, for they are case-insensitive.

    Raises:
        ProtocolViolation: a length leads past the end, a name is empty or stands there twice.
    """
    found: dict[bytes, bytes] = {}
    at, end = 0, len(data)
    while at < end:
        name_end = at + 1 + data[at]
        value_at = name_end + _U32.size
        if data[at] == 0 or value_at > end:
            raise ProtocolViolation("malformed metadata", subject=data[at : at + 16].hex())
        name = data[at + 1 : name_end].lower()
        at = value_at + int(_U32.unpack_from(data, name_end)[0])
        if at > end or name in found:
            raise ProtocolViolation("malformed metadata", subject=name.hex())
        found[name] = data[value_at:at]
    return found


def _frame_size(flags: int, size: int, limit: int) -> None:
    """Refuse a frame whose header no well-behaved peer sends."""
    if flags & _RESERVED:
        raise ProtocolViolation("frame with reserved flags", subject=f"{flags:#04x}")
    if flags & COMMAND:
        if flags & MORE:
            raise ProtocolViolation("command that claims to go on", subject=f"{flags:#04x}")
        limit = min(limit, MAX_COMMAND)
    if size > limit:
        raise ProtocolViolation("frame over the limit", subject=f"{size} bytes, limit {limit}")


# -- handshake ------------------------------------------------------------------------------------------------


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected stream: the DEALER's end and the ROUTER's, handshake done, blocking, close-on-exec.

    Whoever makes both ends makes both halves of the handshake: nothing here waits for anybody, and either end can be
    handed to a process that knows of messages alone. There is no routing id: who is at the other end, the descriptor
    says.

    Raises:
        OSError: no descriptors left.
    """
    dealer, router = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        for end in (dealer, router):
            greet(end)
        for end in (dealer, router):
            expect_greeting(end)
        dealer.sendall(encode_ready(b"DEALER"))
        router.sendall(encode_ready(b"ROUTER"))
        expect_ready(dealer, b"ROUTER")
        expect_ready(router, b"DEALER")
    except BaseException:
        dealer.close()
        router.close()
        raise
    return dealer, router


def encode_greeting() -> bytes:
    """The greeting of an end without a security mechanism."""
    return _GREETING


def greet(sock: socket.socket) -> None:
    """Send the greeting."""
    sock.sendall(_GREETING)


def expect_greeting(sock: socket.socket) -> None:
    """Read the peer's greeting.

    Raises:
        EOFError: the peer hung up.
        ProtocolViolation: see `check_greeting`.
    """
    check_greeting(_read_exactly(sock, GREETING_SIZE))


def expect_ready(sock: socket.socket, socket_type: bytes) -> bytes:
    """Read the peer's READY and not one byte past it, so that another process can go on from here.

    Returns:
        The routing id that the peer claims, or b"".

    Raises:
        EOFError: the peer hung up.
        ProtocolViolation: it is no `socket_type`, or refused us.
    """
    name, data = parse_command(_read_command(sock))
    if name == b"ERROR":
        raise ProtocolViolation("peer refused the handshake", subject=repr(data[1:]))
    if name != b"READY":
        raise ProtocolViolation("peer did not answer READY", subject=repr(name))
    found = parse_properties(data)
    if found.get(b"socket-type") != socket_type:
        raise ProtocolViolation(f"peer is not a {socket_type.decode()}", subject=repr(found.get(b"socket-type")))
    return found.get(b"identity", b"")


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    body = bytearray()
    while len(body) < size:
        data = sock.recv(size - len(body))
        if not data:
            raise EOFError("peer hung up during the handshake")
        body += data
    return bytes(body)


def _read_command(sock: socket.socket) -> bytes:
    flags = _read_exactly(sock, 1)[0]
    size = int.from_bytes(_read_exactly(sock, 8 if flags & LONG else 1), "big")
    _frame_size(flags, size, MAX_COMMAND)
    if not flags & COMMAND:
        raise ProtocolViolation("message before READY", subject=f"{size} bytes")
    return _read_exactly(sock, size)


# -- traffic --------------------------------------------------------------------------------------------------


class Dealer:
    """Messages over a blocking socket on which the handshake has been done.

    Small frames come out of one preallocated buffer; the rest of a large one is received straight into a body of its
    size, so no byte is copied more than twice.

    Args:
        sock: connected stream socket, blocking, without timeout; stays the caller's.
        max_frame: largest frame accepted, bytes.
        max_parts: most frames of one message.
    """

    __slots__ = ("_buffer", "_end", "_sock", "_start", "max_frame", "max_parts")

    def __init__(self, sock: socket.socket, max_frame: int = MAX_FRAME, max_parts: int = MAX_PARTS) -> None:
        self._sock = sock
        # Mapped, not allocated: pages nothing is ever received into are never made.
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._start = self._end = 0
        self.max_frame = max_frame
        self.max_parts = max_parts

    def send(self, parts: Sequence[bytes]) -> None:
        """Send one message.

        Raises:
            ValueError: no parts.
            OSError: the peer is gone.
        """
        if sum(map(len, parts)) <= _JOIN:
            self._sock.sendall(encode_message(parts))
            return
        last = len(parts) - 1
        small: list[bytes] = []
        for i, part in enumerate(parts):
            more = MORE if i < last else 0
            if len(part) <= _JOIN:
                small.append(encode_frame(more, part))
                continue
            small.append(_LONG_HEADER.pack(more | LONG, len(part)))
            self._sock.sendall(b"".join(small))
            self._sock.sendall(part)
            small.clear()
        if small:
            self._sock.sendall(b"".join(small))

    def recv(self) -> list[bytes]:
        """Receive one message; a PING on the way is answered.

        Raises:
            EOFError: the peer hung up.
            ProtocolViolation: reserved flags, a frame or message over the limits, an unexpected command. The stream
                cannot be read any further.
            OSError: the connection broke.
        """
        parts: list[bytes] = []
        while True:
            flags, size = self._header()
            body = self._body(size)
            if flags & COMMAND:
                # libzmq may put a PING between two frames of a message, so this is no matter of order.
                self._command(body)
                continue
            parts.append(body)
            if not flags & MORE:
                return parts
            if len(parts) >= self.max_parts:
                raise ProtocolViolation("message of too many frames", subject=f"more than {self.max_parts}")

    def _header(self) -> tuple[int, int]:
        self._fill(2)
        flags = self._buffer[self._start]
        if flags & LONG:
            self._fill(_LONG_HEADER.size)
            size = int(_LONG_HEADER.unpack_from(self._buffer, self._start)[1])
            self._start += _LONG_HEADER.size
        else:
            size = self._buffer[self._start + 1]
            self._start += 2
        _frame_size(flags, size, self.max_frame)
        return flags, size

    def _body(self, size: int) -> bytes:
        if size <= _BUFFER:
            self._fill(size)
            start = self._start
            self._start = start + size
            return bytes(self._buffer[start : self._start])
        body = bytearray(size)
        view = memoryview(body)
        have = self._end - self._start
        view[:have] = self._buffer[self._start : self._end]
        self._start = self._end = 0
        while have < size:
            got = self._sock.recv_into(view[have:])
            if not got:
                raise EOFError("peer hung up")
            have += got
        return bytes(body)

    def _fill(self, size: int) -> None:
        """Have at least `size` (at most the buffer's) bytes at `_start`."""
        have = self._end - self._start
        if have >= size:
            return
        if self._start:
            self._buffer[:have] = self._buffer[self._start : self._end]
            self._start, self._end = 0, have
        while self._end < size:
            got = self._sock.recv_into(self._buffer[self._end :])
            if not got:
                raise EOFError("peer hung up")
            self._end += got

    def _command(self, body: bytes) -> None:
        name, data = parse_command(body)
        if name == b"PING" and 2 <= len(data) <= 18:
            self._sock.sendall(encode_command(b"PONG", data[2:]))
            return
        raise ProtocolViolation("unexpected command", subject=repr(name))
