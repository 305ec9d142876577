"""SEQPACKET framing: whole messages over a datagram-like channel, larger ones in numbered chunks.

A packet is an 8-byte header and at most `CHUNK` bytes of body. Header, little endian:

    u16 kind     what the message is; 0 is never used
    u16 chunk    0, 1, 2, ... within one message
    u32 total    length of the whole body, the same in each chunk

Chunks are full but for the last, so the number of chunks follows from `total` and a receiver can refuse
every other shape. Kernels cap one SEQPACKET packet near 208 KiB by default (unix(7), `wmem_max`): 64 KiB fits.
"""

from __future__ import annotations

import socket
import struct

from sandbox.errors import ProtocolViolation

HEADER = struct.Struct("<HHI")
PACKET = 64 * 1024
"""Largest packet, header included, bytes."""
CHUNK = PACKET - HEADER.size
"""Largest body part in one packet, bytes."""
MAX_MESSAGE = 16 << 20
"""Largest message any channel may ask for, bytes."""


def split(kind: int, body: bytes | memoryview) -> list[bytes]:
    """The packets that carry `body`, in order."""
    total = len(body)
    if total <= CHUNK:
        return [HEADER.pack(kind, 0, total) + bytes(body)]
    view = memoryview(body)
    return [
        HEADER.pack(kind, number, total) + bytes(view[start : start + CHUNK])
        for number, start in enumerate(range(0, total, CHUNK))
    ]


class Assembler:
    """Puts the chunks of one peer's messages together and refuses every other shape.

    Args:
        limit: largest body accepted, bytes.
    """

    __slots__ = ("_body", "_kind", "_next", "_total", "limit")

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self.limit = limit
        self._body: bytearray | None = None
        self._kind = self._next = self._total = 0

    def feed(self, packet: bytes) -> tuple[int, bytes] | None:
        """Take one packet; return `(kind, body)` when it completes a message.

        Raises:
            ProtocolViolation: short packet, wrong chunk number, wrong length, kind 0, or over the limit.
        """
        if len(packet) < HEADER.size or len(packet) > PACKET:
            raise ProtocolViolation("packet of impossible length", subject=str(len(packet)))
        kind, number, total = HEADER.unpack_from(packet)
        size = len(packet) - HEADER.size
        if kind == 0 or total > self.limit:
            raise ProtocolViolation("message of kind 0 or over the limit", subject=f"kind {kind}, {total} bytes")
        if self._body is None:
            if number != 0 or size != min(total, CHUNK):
                raise ProtocolViolation("message does not start with a whole first chunk", subject=f"chunk {number}")
            if size == total:
                return kind, packet[HEADER.size :]
            self._body = bytearray(packet[HEADER.size :])
            self._kind, self._next, self._total = kind, 1, total
            return None
        have = len(self._body)
        if kind != self._kind or number != self._next or total != self._total or size != min(total - have, CHUNK):
            raise ProtocolViolation("chunk out of order or of wrong length", subject=f"chunk {number}")
        self._body += packet[HEADER.size :]
        self._next += 1
        if have + size < total:
            return None
        body, self._body = bytes(self._body), None
        return kind, body


def send_message(sock: socket.socket, kind: int, body: bytes | memoryview) -> None:
    """Send one message on a blocking socket (raises OSError when the peer is gone)."""
    for packet in split(kind, body):
        sock.send(packet)


def recv_message(sock: socket.socket, assembler: Assembler) -> tuple[int, bytes]:
    """Receive one message on a blocking socket.

    Raises:
        EOFError: the peer hung up.
        ProtocolViolation: see `Assembler.feed`.
    """
    while True:
        packet = sock.recv(PACKET)
        if not packet:
            raise EOFError("peer hung up")
        message = assembler.feed(packet)
        if message is not None:
            return message
