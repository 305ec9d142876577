"""The producer's side of the auditor's channel: bridge, router and control record through it.

`AuditClient` never blocks: it queues, and its owner watches `fileno()` for reading always and for writing while
`wants_write`. A record stays here until the auditor says it is written; when the auditor dies, its owner calls
`replace` with a new channel and everything unacknowledged is sent again under the same numbers (the auditor drops
what it has already written). `BlockingAuditClient` is for scripts and tests.

    client = AuditClient(sock)
    client.record("fs.read", str(component), "allowed", "/logs/a", "ok", on_recorded=lambda seq: answer())
    ...                                       # owner's loop, when readable:
    if not client.on_readable(): ...          # the auditor is gone: wait for a new channel, then client.replace(new)

Vocabulary: `sandbox.wire.audit_frames`. Neither end trusts the other's lengths: a malformed answer is a hang-up.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

import msgspec

from sandbox.errors import AirssysError, ProtocolViolation
from sandbox.wire import UNDECODABLE
from sandbox.wire.audit_frames import (
    LOG_LINE,
    READ,
    READ_RESULT,
    RECORD,
    RECORDED,
    LogLine,
    Read,
    ReadResult,
    Record,
    Recorded,
)
from sandbox.wire.packet import PACKET, Assembler, recv_message, send_message, split

MAX_LOG_QUEUE = 2048
"""Log lines waiting for the auditor; more are dropped and counted in `dropped_logs`."""
MAX_TEXT = 8192
"""Longest object or detail text of a record, characters; longer ones are cut (a guest path has at most 4096 bytes)."""

_encoder = msgspec.msgpack.Encoder()
_recorded_decoder = msgspec.msgpack.Decoder(Recorded)
_result_decoder = msgspec.msgpack.Decoder(ReadResult)


class AuditUnavailable(AirssysError):
    """The auditor hung up."""

    code = "E_AUDIT_UNAVAILABLE"


class AuditClient:
    """Records without blocking.

    Args:
        sock: channel to the auditor (SEQPACKET), or None to queue until `replace`. Made non-blocking and owned.
    """

    def __init__(self, sock: socket.socket | None = None) -> None:
        self._sock: socket.socket | None = None
        self._assembler = Assembler()
        self._next = 1
        self._unacked: dict[int, tuple[list[bytes], Callable[[int], None] | None]] = {}
        self._reads: dict[int, tuple[list[bytes], Callable[[ReadResult], None]]] = {}
        self._logs: deque[bytes] = deque()
        self._outbox: deque[bytes] = deque()
        self.dropped_logs = 0
        if sock is not None:
            self.replace(sock)

    # -- what the owner says ----------------------------------------------------------------------------------

    def record(
        self,
        event: str,
        component: str,
        decision: str,
        object: str,  # the log's own word
        result: str = "",
        *,
        detail: dict[str, str | int] | None = None,
        on_recorded: Callable[[int], None] | None = None,
    ) -> int:
        """Queue one record; `on_recorded(seq)` is called from `on_readable` once its line is written.

        Returns:
            The record's number among this producer's.
        """
        n = self._next
        self._next += 1
        cut = {key: value if isinstance(value, int) else value[:MAX_TEXT] for key, value in (detail or {}).items()}
        frame = Record(n, event, component, decision, object[:MAX_TEXT], result, cut)
        packets = split(RECORD, _encoder.encode(frame))
        self._unacked[n] = (packets, on_recorded)
        self._send(packets)
        return n

    def log(self, component: str, level: str, message: str, context: list[tuple[str, str]] | None = None) -> None:
        """Queue one line a guest logged. Never acknowledged; dropped and counted when too many wait."""
        if len(self._logs) >= MAX_LOG_QUEUE:
            self.dropped_logs += 1
            return
        packets = split(LOG_LINE, _encoder.encode(LogLine(component, level, message, context or [])))
        if len(packets) > 1:
            # A line that needs several packets could be torn by a hang-up; the bridge cuts lines far shorter.
            self.dropped_logs += 1
            return
        self._logs.append(packets[0])
        self.flush()

    def read(
        self,
        stream: str,
        on_result: Callable[[ReadResult], None],
        *,
        after: int = -1,
        limit: int = 100,
        component: str = "",
        denied: bool = False,
    ) -> None:
        """Ask for lines of the "audit" or "logs" stream; see `sandbox.wire.audit_frames.Read`."""
        n = self._next
        self._next += 1
        packets = split(READ, _encoder.encode(Read(n, stream, after, limit, component, denied)))
        self._reads[n] = (packets, on_result)
        self._send(packets)

    # -- what the owner's loop calls --------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a channel."""
        return self._sock is not None

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the channel to take it: watch `fileno()` for writing too."""
        return self._sock is not None and bool(self._outbox or self._logs)

    @property
    def pending(self) -> int:
        """Records not yet acknowledged."""
        return len(self._unacked)

    def fileno(self) -> int:
        """The channel's descriptor, or -1 without one."""
        return -1 if self._sock is None else self._sock.fileno()

    def on_readable(self) -> bool:
        """Take the auditor's answers and call their callbacks.

        Returns:
            False when the auditor is gone (the channel is then closed; unregister its descriptor before this call
            or by the number remembered). Nothing unacknowledged is lost.
        """
        while self._sock is not None:
            try:
                packet = self._sock.recv(PACKET)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                continue  # told once, when the peer left something unread; what it sent before can still be read
            except OSError:
                packet = b""
            if not packet:
                self.close()
                return False
            try:
                message = self._assembler.feed(packet)
                if message is not None:
                    self._take(*message)
            except (ProtocolViolation, *UNDECODABLE):
                self.close()
                return False
        return False

    def on_writable(self) -> bool:
        """Send what waits; False when the auditor is gone."""
        return self.flush()

    def flush(self) -> bool:
        """Send as much as the channel takes; False when there is no channel."""
        while self._sock is not None:
            queue = self._outbox or self._logs
            if not queue:
                return True
            try:
                self._sock.send(queue[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return True
            except OSError:
                # Left to on_readable to tell: it sees the hang-up too, after whatever answers still lie there.
                return True
            queue.popleft()
        return False

    def replace(self, sock: socket.socket) -> None:
        """Go on with a new auditor: everything unacknowledged is sent again, in order, then the waiting log lines."""
        if self._sock is not None:
            self.on_readable()  # acknowledgements that still lie there are not worth sending again
        self.close()
        sock.setblocking(False)
        self._sock = sock
        self._assembler = Assembler()
        again: list[bytes] = []
        for n in sorted([*self._unacked, *self._reads]):
            again += (self._unacked[n] if n in self._unacked else self._reads[n])[0]
        self._outbox = deque(again)
        self.flush()

    def close(self) -> None:
        """Close the channel; what waits stays queued."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self._outbox.clear()

    # -- inside -----------------------------------------------------------------------------------------------

    def _send(self, packets: list[bytes]) -> None:
        if self._sock is not None:
            self._outbox.extend(packets)
            self.flush()

    def _take(self, kind: int, body: bytes) -> None:
        if kind == RECORDED:
            recorded = _recorded_decoder.decode(body)
            _, on_recorded = self._unacked.pop(recorded.n, (None, None))
            if on_recorded is not None:
                on_recorded(recorded.seq)
        elif kind == READ_RESULT:
            result = _result_decoder.decode(body)
            if result.n in self._reads:
                self._reads.pop(result.n)[1](result)
        else:
            raise ProtocolViolation("unknown kind from the auditor", subject=str(kind))


class BlockingAuditClient:
    """One record or read at a time, waiting for each.

    Args:
        sock: channel to the auditor, blocking; owned.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._assembler = Assembler()
        self._next = 1

    def record(
        self,
        event: str,
        component: str,
        decision: str,
        object: str,
        result: str = "",
        *,
        detail: dict[str, str | int] | None = None,
        n: int | None = None,
    ) -> int:
        """Record and wait; the sequence number of the line. `n` overrides the running number (tests).

        Raises:
            AuditUnavailable: the auditor hung up before it acknowledged.
        """
        if n is None:
            n, self._next = self._next, self._next + 1
        frame = Record(n, event, component, decision, object, result, detail or {})
        return _recorded_decoder.decode(self._call(RECORD, frame, RECORDED)).seq

    def log(self, component: str, level: str, message: str, context: list[tuple[str, str]] | None = None) -> None:
        """Send one log line; not acknowledged."""
        send_message(self._sock, LOG_LINE, _encoder.encode(LogLine(component, level, message, context or [])))

    def read(
        self, stream: str, *, after: int = -1, limit: int = 100, component: str = "", denied: bool = False
    ) -> ReadResult:
        """Read lines back and wait for them.

        Raises:
            AuditUnavailable: the auditor hung up.
        """
        n, self._next = self._next, self._next + 1
        return _result_decoder.decode(self._call(READ, Read(n, stream, after, limit, component, denied), READ_RESULT))

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def _call(self, kind: int, frame: msgspec.Struct, expected: int) -> bytes:
        try:
            send_message(self._sock, kind, _encoder.encode(frame))
            answer, body = recv_message(self._sock, self._assembler)
        except (OSError, EOFError) as error:
            raise AuditUnavailable("the auditor hung up") from error
        if answer != expected:
            raise ProtocolViolation("unexpected kind from the auditor", subject=str(answer))
        return body
