"""What one worker sends, cut into messages: the receiving half of a ZMTP 3.1 ROUTER (RFC 37/ZMTP), after the handshake.

A worker may be an attacker with native code, so this is the strictest reading of the protocol that an honest worker
fits in: a message is exactly two frames, the structure and the payload; both lengths are judged as soon as they are
announced, before anything is allocated for them; a command, a third frame or a reserved bit ends the worker.

No system calls and no clock here: `channels` brings the bytes and decides how much memory all workers share.
"""

from __future__ import annotations

import struct
from typing import Final

from sandbox.errors import ProtocolViolation
from sandbox.wire.zmtp import COMMAND, LONG, MORE

MAX_HEAD = 256 * 1024
"""Largest structure in front of a payload, bytes: a broadcast to `MAX_TARGETS` longest names, in UTF-8, has 200 KiB."""
SMALL = 16 * 1024
"""Messages up to this many bytes with headers are gathered as they come; longer ones in a buffer of their size."""

Message = tuple[bytes, bytes]
"""Structure and payload."""

_U64: Final = struct.Struct(">Q")
_SHORT_HEADER: Final = 2
_LONG_HEADER: Final = 9
_SHORTEST: Final = 3
"""Two headers of short frames have more bytes than this."""


class Inbound:
    """The stream of one worker.

    Bytes are brought by `feed`, or straight into `tail` and told by `filled`; `next` takes messages out. When `next`
    has nothing, the message that has begun (if any) needs `need` bytes before it is worth asking again, and will not
    come to more than `most`; when `crowded`, the caller calls `enlarge` before it brings more. So at most `2 * SMALL`
    bytes are held without the caller's consent, and never more than `most` with it.

    Args:
        payload_limit: largest payload accepted, bytes.
    """

    __slots__ = ("_buffer", "_end", "_large", "_start", "most", "need", "payload_limit")

    def __init__(self, payload_limit: int) -> None:
        self.payload_limit = payload_limit
        self.clear()

    def clear(self) -> None:
        """Forget what has come."""
        self._buffer: bytes | bytearray = b""
        self._start = self._end = 0
        self._large = False
        self.need = self.most = 1

    @property
    def behind(self) -> bool:
        """Whether `next` is worth calling before more bytes are brought."""
        return self._end - self._start >= self.need

    @property
    def crowded(self) -> bool:
        """Whether the message that has begun needs a larger buffer."""
        return self.need > SMALL and not (self._large and self._end < len(self._buffer))

    # -- bytes in ---------------------------------------------------------------------------------------------

    def feed(self, data: memoryview) -> None:
        """Append what was received; call it only when `next` has returned None, with at most `SMALL` bytes."""
        start, end = self._start, self._end
        if start == end:
            self._buffer = bytes(data)
        else:
            if start or not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(memoryview(self._buffer)[start:end])
            self._buffer += data
        self._start, self._end = 0, end - start + len(data)

    def enlarge(self) -> None:
        """Make room for more of the message that has begun: by what has come, not by what is announced."""
        have = self._end - self._start
        buffer = bytearray(min(self.need, max(4 * have, SMALL)))
        buffer[:have] = memoryview(self._buffer)[self._start : self._end]
        self._buffer = buffer
        self._start, self._end = 0, have
        self._large = True

    @property
    def tail(self) -> memoryview | None:
        """Where a large message's next bytes belong; None for a small one."""
        return memoryview(self._buffer)[self._end :] if self._large else None

    def filled(self, size: int) -> None:
        """`size` bytes were received into `tail`."""
        self._end += size

    # -- messages out -----------------------------------------------------------------------------------------

    def next(self) -> Message | None:
        """The next whole message, or None.

        Raises:
            ProtocolViolation: what has come so far can be no message of a worker. The stream is of no more use.
        """
        buffer, start, have_end = self._buffer, self._start, self._end
        have = have_end - start
        if have < self.need:
            return None
        if have > _SHORTEST and buffer[start] == MORE:
            # Two short frames, all there: nearly every message. What this does not take is judged below.
            head_end = start + _SHORT_HEADER + buffer[start + 1]
            if head_end + 1 < have_end and buffer[head_end] == 0:
                size = buffer[head_end + 1]
                end = head_end + _SHORT_HEADER + size
                if end <= have_end and size <= self.payload_limit:
                    if isinstance(buffer, bytes):
                        message = buffer[start + 2 : head_end], buffer[head_end + 2 : end]
                    else:
                        message = bytes(buffer[start + 2 : head_end]), bytes(buffer[head_end + 2 : end])
                    self._taken(end)
                    return message
        head = self._body(start, have, MORE, MAX_HEAD)
        if head is None:
            return None
        head_end = head[1]
        self.most = head_end - start + _LONG_HEADER + self.payload_limit
        if have <= head_end - start:
            self.need = head_end - start + 1
            return None
        payload = self._body(head_end, have - (head_end - start), 0, self.payload_limit)
        if payload is None:
            self.need += head_end - start
            return None
        end = payload[1]
        if have < end - start:
            self.need = self.most = end - start
            return None
        view = memoryview(buffer)
        message = bytes(view[head[0] : head_end]), bytes(view[payload[0] : end])
        self._taken(end)
        return message

    def _taken(self, end: int) -> None:
        if end == self._end:
            self._buffer = b""
            self._start = self._end = 0
            self._large = False
        else:
            self._start = end
        self.need = self.most = 1

    def _body(self, at: int, have: int, wanted: int, limit: int) -> tuple[int, int] | None:
        """Where the body of the frame at `at` begins and ends; None, and `need` from `at`, without its header."""
        flags = self._buffer[at]
        if flags == wanted:
            if have < _SHORT_HEADER:
                self.need = _SHORT_HEADER
                return None
            begin = at + _SHORT_HEADER
            size = self._buffer[at + 1]
        elif flags == wanted | LONG:
            if have < _LONG_HEADER:
                self.need = _LONG_HEADER
                return None
            begin = at + _LONG_HEADER
            size = int(_U64.unpack_from(self._buffer, at + 1)[0])
        else:
            raise ProtocolViolation(_why(flags), subject=f"flags {flags:#04x}")
        if size > limit:
            what = "structure" if wanted else "payload"
            raise ProtocolViolation(f"{what} over the limit", subject=f"{size} bytes, limit {limit}")
        return begin, begin + size


def _why(flags: int) -> str:
    if flags & ~(MORE | LONG | COMMAND):
        return "frame with reserved flags"
    if flags & COMMAND:
        return "command after the handshake"
    return "a message has two frames"
