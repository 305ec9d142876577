"""Control's end of the audit channel: nothing that changes something is answered before it is written.

Asyncio over a non-blocking SEQPACKET socket (`sandbox.wire.audit_frames`). Records that were not acknowledged when
the auditor died are sent again, under their numbers, to the next one; until then their callers wait.
"""

from __future__ import annotations

import asyncio
import collections
import socket

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.wire import UNDECODABLE
from sandbox.wire.audit_frames import READ, READ_RESULT, RECORD, RECORDED, Read, ReadResult, Record, Recorded
from sandbox.wire.packet import PACKET, Assembler, split
from supervisor.control.errors import AuditError, UnavailableError

_encode = msgspec.msgpack.Encoder().encode
_recorded = msgspec.msgpack.Decoder(Recorded)
_read_result = msgspec.msgpack.Decoder(ReadResult)
_MAX_TEXT = 1024
PATIENCE = 3.0
"""Seconds a caller of the API waits for a record before the answer is that there is none; a new auditor is faster."""
READ_TIMEOUT = 10.0
"""Seconds a reader waits for lines."""


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


class AuditLink:
    """Records and reads.

    Args:
        sock: this end of the auditor's channel, owned from now on; None while there is none yet.
    """

    def __init__(self, sock: socket.socket | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._numbers = {"record": 0, "read": 0}
        self._records: dict[int, tuple[bytes, asyncio.Future[int]]] = {}
        self._reads: dict[int, tuple[bytes, asyncio.Future[ReadResult]]] = {}
        self._out: collections.deque[bytes] = collections.deque()
        self._notes: set[asyncio.Task[int]] = set()
        self._sock: socket.socket | None = None
        if sock is not None:
            self.replace(sock)

    def close(self) -> None:
        """Let go of the socket; what waits fails with `E_UNAVAILABLE`."""
        self._detach()
        gone = UnavailableError("the auditor is gone")
        for _, record in self._records.values():
            if not record.done():
                record.set_exception(gone)
        for _, read in self._reads.values():
            if not read.done():
                read.set_exception(gone)
        self._records.clear()
        self._reads.clear()

    def replace(self, sock: socket.socket) -> None:
        """Go on with a new auditor: send again what the old one did not acknowledge."""
        self._detach()
        sock.setblocking(False)
        self._sock = sock
        self._assembler = Assembler()
        self._loop.add_reader(sock.fileno(), self._readable)
        for body, _ in self._records.values():
            self._out.extend(split(RECORD, body))
        for body, _ in self._reads.values():
            self._out.extend(split(READ, body))
        self._flush()

    @property
    def connected(self) -> bool:
        """Whether an auditor is there at the moment."""
        return self._sock is not None

    async def record(
        self,
        event: str,
        decision: str,
        *,
        component: str = "",
        object: str = "",
        result: str = "ok",
        detail: dict[str, str | int] | None = None,
    ) -> int:
        """Write one record and return its sequence number; waits as long as there is no auditor."""
        self._numbers["record"] += 1
        n = self._numbers["record"]
        cut = {key: _cut(value) if isinstance(value, str) else value for key, value in (detail or {}).items()}
        body = _encode(Record(n, event, component, decision, _cut(object), _cut(result), cut))
        future: asyncio.Future[int] = self._loop.create_future()
        self._records[n] = (body, future)
        # The record stays queued if the caller goes away: a change that was begun is recorded all the same.
        self._send(RECORD, body)
        return await future

    async def record_soon(
        self,
        event: str,
        decision: str,
        *,
        component: str = "",
        object: str = "",
        result: str = "ok",
        detail: dict[str, str | int] | None = None,
    ) -> int:
        """`record` for a caller who is waited for: gives up after `PATIENCE` seconds.

        The record stays queued; what it announces must then not be done, and the refusal is recorded behind it.

        Raises:
            AuditError: it was not written in time.
        """
        record = self.record(event, decision, component=component, object=object, result=result, detail=detail)
        try:
            return await asyncio.wait_for(record, PATIENCE)
        except TimeoutError:
            raise AuditError(
                "the audit log cannot be written, and nothing is done unrecorded",
                subject=event,
                hint="see airssys status; a full disk needs room",
            ) from None

    def note(
        self,
        event: str,
        decision: str,
        *,
        component: str = "",
        object: str = "",
        result: str = "ok",
        detail: dict[str, str | int] | None = None,
    ) -> None:
        """Write one record that nobody waits for (an event that has already happened, such as a worker's end)."""
        task = self._loop.create_task(
            self.record(event, decision, component=component, object=object, result=result, detail=detail)
        )
        self._notes.add(task)
        task.add_done_callback(self._noted)

    def _noted(self, task: asyncio.Task[int]) -> None:
        self._notes.discard(task)
        if not task.cancelled():
            task.exception()  # only `close` fails a record; the host is ending then

    async def read(
        self, stream: str, *, after: int = -1, limit: int = 100, component: str = "", denied: bool = False
    ) -> ReadResult:
        """Read lines of "audit" or "logs" back. Raises UnavailableError."""
        self._numbers["read"] += 1
        n = self._numbers["read"]
        body = _encode(Read(n, stream, after, limit, component, denied))
        future: asyncio.Future[ReadResult] = self._loop.create_future()
        self._reads[n] = (body, future)
        try:
            self._send(READ, body)
            result = await asyncio.wait_for(future, READ_TIMEOUT)
        except TimeoutError:
            raise UnavailableError("the auditor does not answer", hint="see airssys status") from None
        finally:
            self._reads.pop(n, None)
        if result.error:
            raise UnavailableError(f"the auditor could not read: {result.error}")
        return result

    # -- transport --------------------------------------------------------------------------------------------

    def _send(self, kind: int, body: bytes) -> None:
        if self._sock is not None:
            self._out.extend(split(kind, body))
            self._flush()

    def _flush(self) -> None:
        sock = self._sock
        if sock is None:
            return
        while self._out:
            try:
                sock.send(self._out[0], socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(sock.fileno(), self._flush)
                return
            except OSError:
                self._detach()
                return
            self._out.popleft()
        self._loop.remove_writer(sock.fileno())

    def _readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            packet = sock.recv(PACKET)
            message = self._assembler.feed(packet) if packet else None
            if not packet:
                self._detach()
            elif message is not None:
                self._take(*message)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ProtocolViolation, *UNDECODABLE):
            self._detach()  # the supervisor restarts the auditor and sends a new channel

    def _take(self, kind: int, body: bytes) -> None:
        if kind == RECORDED:
            answer = _recorded.decode(body)
            entry = self._records.pop(answer.n, None)
            if entry is not None and not entry[1].done():
                entry[1].set_result(answer.seq)
        elif kind == READ_RESULT:
            result = _read_result.decode(body)
            waiting = self._reads.get(result.n)
            if waiting is not None and not waiting[1].done():
                waiting[1].set_result(result)
        else:
            raise ProtocolViolation("the auditor sent an unknown kind", subject=str(kind))

    def _detach(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._out.clear()
