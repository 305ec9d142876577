"""The ROUTER's half of a ZMTP 3.1 handshake (RFC 37/ZMTP, NULL mechanism of RFC 23/ZMTP), for peers nobody can trust.

    peer                                router
    greeting, 64 bytes          <->     greeting, 64 bytes
    READY Socket-Type DEALER    <->     READY Socket-Type ROUTER

No system calls and no clock here: `clients` brings the bytes and gives up after a time. At most `MAX_BYTES` are held;
what cannot be the beginning of such a handshake is refused as soon as it is seen.
"""

from __future__ import annotations

from typing import Final

from sandbox.errors import ProtocolViolation
from sandbox.wire.zmtp import (
    COMMAND,
    GREETING_SIZE,
    LONG,
    MAX_COMMAND,
    check_greeting,
    encode_command,
    encode_greeting,
    encode_ready,
    parse_command,
    parse_properties,
)

MAX_BYTES = GREETING_SIZE + 9 + MAX_COMMAND
"""Bytes of a whole handshake, at most."""
_SIGNATURE: Final = 10
GREETING: Final = encode_greeting()
READY: Final = encode_ready(b"ROUTER")


def refusal(status: bytes) -> bytes:
    """What somebody is told before the connection is closed: three digits of RFC 27/ZAP, as libzmq understands them."""
    return GREETING + encode_command(b"ERROR", bytes((len(status),)) + status)


REFUSAL: Final = refusal(b"400")
"""Not allowed in."""
CROWDED: Final = refusal(b"300")
"""Not now: there are too many connections."""


class Handshake:
    """One connection until it is open.

    `greeting` is sent at once; `READY` when `feed` returns True for the first time, and then the stream belongs to
    `inbound`, beginning with `rest`.
    """

    __slots__ = ("_buffer", "_greeted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False

    @property
    def wanted(self) -> int:
        """How many bytes to receive at most, so that no more than `MAX_BYTES` are ever held."""
        return MAX_BYTES - len(self._buffer)

    @property
    def rest(self) -> bytes:
        """What came behind the handshake."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> bool:
        """Take what was received; True when the handshake is complete.

        Raises:
            ProtocolViolation: this is no DEALER that speaks ZMTP 3 without a security mechanism.
        """
        self._buffer += data
        buffer = self._buffer
        if not self._greeted:
            _check_signature(buffer)
            if len(buffer) < GREETING_SIZE:
                return False
            check_greeting(bytes(buffer[:GREETING_SIZE]))
            del buffer[:GREETING_SIZE]
            self._greeted = True
        body = self._command()
        if body is None:
            return False
        name, properties = parse_command(body)
        if name != b"READY":
            raise ProtocolViolation("peer did not answer READY", subject=repr(name[:32]))
        found = parse_properties(properties).get(b"socket-type")
        if found != b"DEALER":
            raise ProtocolViolation("peer is not a DEALER", subject=repr((found or b"")[:32]))
        return True

    def _command(self) -> bytes | None:
        """The body of the command frame that the buffer begins with, taken out of it; None while it is not whole."""
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[0] & ~LONG != COMMAND:
            raise ProtocolViolation("message before READY", subject=f"flags {buffer[0]:#04x}")
        begin = 9 if buffer[0] & LONG else 2
        if len(buffer) < begin:
            return None
        size = int.from_bytes(buffer[1:begin], "big")
        if size > MAX_COMMAND:
            raise ProtocolViolation("frame over the limit", subject=f"{size} bytes, limit {MAX_COMMAND}")
        if len(buffer) < begin + size:
            return None
        body = bytes(buffer[begin : begin + size])
        del buffer[: begin + size]
        return body


def _check_signature(buffer: bytearray) -> None:
    """Refuse what cannot become a greeting, without waiting for the rest of it (RFC 37: FF, eight bytes, 7F)."""
    if buffer[0] != 0xFF or (len(buffer) >= _SIGNATURE and buffer[_SIGNATURE - 1] != 0x7F):
        raise ProtocolViolation("peer does not speak ZMTP", subject=bytes(buffer[:_SIGNATURE]).hex())
