"""The auditor's loop: take records from every producer, write them, acknowledge what is written.

One thread. Each turn reads what came, appends it in one write, and acknowledges; nothing is ever acknowledged that is
not in the file (and, with `sync` "always", on disk). A disk that refuses stops acknowledgements, not the process: the
supervisor is told, records wait (bounded; then producers wait), and the write is tried again.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.audit.chain import AUDITOR
from bridge.audit.guestlog import GuestLog
from bridge.audit.ledger import ROTATE_SIZE, Ledger, Pending
from bridge.audit.reading import Search, search
from bridge.uplink import Uplink
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
from sandbox.wire.packet import PACKET, Assembler, split
from sandbox.wire.supervisor_frames import AuditorState, Producer, Up, close_all

RETRY = 0.2
"""Seconds between attempts while the log cannot be written."""
READERS = frozenset({"control"})
"""Producers (the name before any `#`) that may read the log back."""
MAX_PENDING = 4_096
"""Records waiting to be written before producers have to wait."""
MAX_OUTBOX = 4_096
"""Packets waiting for one producer before it is no longer read from."""
MAX_SEARCHES = 16
"""Searches of one producer at a time."""
_PACKETS_PER_TURN = 256
_SYNC_RE = re.compile(r"([1-9][0-9]{0,5})(ms|s)\Z")

_encoder = msgspec.msgpack.Encoder()
_decode_producer = msgspec.msgpack.Decoder(Producer).decode
_decode_record = msgspec.msgpack.Decoder(Record).decode
_decode_log = msgspec.msgpack.Decoder(LogLine).decode
_decode_read = msgspec.msgpack.Decoder(Read).decode


class BadSync(AirssysError, ValueError):
    """The `sync` setting means nothing."""

    code = "E_AUDIT_SYNC"


def parse_sync(text: str) -> float:
    """Seconds a line may wait for the disk; 0 for `always`.

    Raises:
        BadSync: neither `always` nor a number with `ms` or `s`.
    """
    match = _SYNC_RE.match(text)
    if text != "always" and match is None:
        raise BadSync("audit sync is neither always nor a duration", subject=text, hint='write "50ms" or "always"')
    return 0.0 if match is None else int(match[1]) / (1000 if match[2] == "ms" else 1)


class _Channel:
    """One producer's channel."""

    __slots__ = ("assembler", "fd", "name", "outbox", "searches", "sock")

    def __init__(self, sock: socket.socket, name: str) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.name = name
        self.assembler = Assembler()
        self.outbox: deque[bytes] = deque()
        self.searches = 0


class Auditor:
    """The auditor.

    Args:
        supervisor: channel to the supervisor, SEQPACKET; owned.
        dirfd: the log directory; owned.
        key: signs the checkpoints.
        sync: "always", or how long a line may wait for the disk, as "50ms".
        rotate_size, lost: see `Ledger`.

    Raises:
        BadSync: see `parse_sync`.
        ChainBroken: see `Ledger`.
        OSError: the files cannot be opened.
    """

    def __init__(
        self,
        supervisor: socket.socket,
        dirfd: int,
        key: Ed25519PrivateKey,
        sync: str,
        rotate_size: int = ROTATE_SIZE,
        lost: Sequence[str] = (),
    ) -> None:
        self._sync_after = parse_sync(sync)
        self._dirfd = dirfd
        self._ledger = Ledger(dirfd, key, rotate_size, lost)
        self._log = GuestLog(dirfd)
        self._selector = selectors.DefaultSelector()
        self._uplink = Uplink(supervisor, self._selector, self._on_supervisor)
        self._channels: dict[str, _Channel] = {}
        self._pending: list[Pending] = []
        self._waiting: set[tuple[str, int]] = set()  # what of it producers sent, so that nothing waits twice
        self._lines: list[LogLine] = []
        self._searches: deque[tuple[_Channel, Search]] = deque()
        self._retry_at: float | None = None
        self._sync_at: float | None = None
        if self._ledger.torn:
            self._note("audit.recovered", "audit.jsonl", {"bytes": self._ledger.torn})

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the supervisor hangs up; then sign the log and close it.

        Raises:
            OSError: the disk lost what it had taken (fdatasync failed): nobody may go on as if it had not.
        """
        self._uplink.tell(Up())
        try:
            while self._uplink.running:
                self.turn(self._timeout())
            self._write()
            if not self._pending:
                self._ledger.checkpoint()
            self._ledger.sync()
        finally:
            self.close()

    def turn(self, timeout: float | None) -> None:
        """One turn: wait at most `timeout` seconds, take what came, write it, acknowledge it."""
        for key, events in self._selector.select(timeout):
            if self._selector.get_map().get(key.fd) is key and self._uplink.running:
                key.data(events)
        self._write()
        if self._lines:
            lines, self._lines = self._lines, []
            self._log.write(lines)
        if self._sync_at is not None and time.monotonic() >= self._sync_at:
            self._ledger.sync()
            self._sync_at = None
        if self._searches:
            self._search(*self._searches.popleft())

    def close(self) -> None:
        """Close everything."""
        for channel in list(self._channels.values()):
            self._drop(channel)
        for _, steps in self._searches:
            steps.close()
        self._ledger.close()
        self._log.close()
        self._selector.close()
        self._uplink.close()
        os.close(self._dirfd)

    def _timeout(self) -> float | None:
        if self._searches:
            return 0.0
        due = [when for when in (self._retry_at, self._sync_at) if when is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    # -- writing ----------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if not self._pending or (self._retry_at is not None and time.monotonic() < self._retry_at):
            return
        batch = self._pending
        try:
            numbers = self._ledger.write(batch)
        except OSError as error:
            if self._retry_at is None:
                self._uplink.tell(AuditorState(False, errno.errorcode.get(error.errno or 0, "EIO")))
            self._retry_at = time.monotonic() + RETRY
            return
        if self._retry_at is not None:
            self._retry_at = None
            self._uplink.tell(AuditorState(True))
        full = len(batch) >= MAX_PENDING
        self._pending, self._waiting = [], set()
        if self._sync_after == 0:
            self._ledger.sync()
        elif self._sync_at is None:
            self._sync_at = time.monotonic() + self._sync_after
        for pending, seq in zip(batch, numbers, strict=True):
            channel = self._channels.get(pending.producer)
            if channel is not None:
                self._send(channel, RECORDED, Recorded(pending.record.n, seq))
        if full:
            for channel in self._channels.values():
                self._watch(channel)

    def _note(self, event: str, object: str, detail: dict[str, str | int], decision: str = "info") -> None:
        self._pending.append(Pending(AUDITOR, Record(0, event, "", decision, object, "ok", detail)))

    # -- producers --------------------------------------------------------------------------------------------

    def _on_supervisor(self, body: bytes, fds: list[int]) -> None:
        try:
            frame = _decode_producer(body)
            if len(fds) != 1 or not frame.name or frame.name == AUDITOR:
                raise ProtocolViolation("a producer needs a name of its own and one descriptor", subject=frame.name)
        except (*UNDECODABLE, ProtocolViolation) as error:
            close_all(fds)
            if isinstance(error, ProtocolViolation):
                raise
            raise ProtocolViolation("frame of the supervisor does not decode") from error
        if frame.name in self._channels:
            self._drop(self._channels[frame.name])
        channel = _Channel(socket.socket(fileno=fds[0]), frame.name)
        self._channels[frame.name] = channel
        self._selector.register(channel.fd, selectors.EVENT_READ, functools.partial(self._on_producer, channel))
        self._watch(channel)

    def _on_producer(self, channel: _Channel, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(channel)
            if events & selectors.EVENT_READ:
                self._receive(channel)
        except EOFError:
            self._drop(channel)
        except (ProtocolViolation, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._note("protocol.violation", channel.name, {"why": str(error)}, "denied")
            self._drop(channel)
        else:
            self._watch(channel)

    def _receive(self, channel: _Channel) -> None:
        for _ in range(_PACKETS_PER_TURN):
            if not self._has_room(channel):
                return
            try:
                packet, _, flags, _ = channel.sock.recvmsg(PACKET, 0)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # told once, when the peer left something unread; what it sent before can still be read
            except OSError as error:
                raise EOFError("the producer hung up") from error
            if not packet:
                raise EOFError("the producer hung up")
            if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                raise ProtocolViolation("a descriptor or a packet of impossible length")
            message = channel.assembler.feed(packet)
            if message is not None:
                self._take(channel, *message)

    def _take(self, channel: _Channel, kind: int, body: bytes) -> None:
        if kind == RECORD:
            record = _decode_record(body)
            if record.n < 1:
                raise ProtocolViolation("record numbers begin at 1", subject=str(record.n))
            seq = self._ledger.already(channel.name, record.n)
            if seq is not None:
                self._send(channel, RECORDED, Recorded(record.n, seq))
            elif (channel.name, record.n) not in self._waiting:
                self._waiting.add((channel.name, record.n))
                self._pending.append(Pending(channel.name, record))
        elif kind == LOG_LINE:
            self._lines.append(_decode_log(body))
        elif kind == READ:
            request = _decode_read(body)
            if channel.name.partition("#")[0] not in READERS:
                raise ProtocolViolation("this producer may not read the log")
            if channel.searches >= MAX_SEARCHES:
                self._send(channel, READ_RESULT, ReadResult(request.n, [], request.after, "too many searches at once"))
                return
            last = self._ledger.seq if request.stream == "audit" else self._log.seq
            channel.searches += 1
            self._searches.append((channel, search(self._dirfd, request, last)))
        else:
            raise ProtocolViolation("unknown kind from a producer", subject=str(kind))

    def _search(self, channel: _Channel, steps: Search) -> None:
        if channel.fd < 0:
            steps.close()
            return
        try:
            next(steps)
        except StopIteration as stop:
            channel.searches -= 1
            try:
                self._send(channel, READ_RESULT, stop.value)
            except EOFError:
                self._drop(channel)
        else:
            self._searches.append((channel, steps))

    def _send(self, channel: _Channel, kind: int, frame: msgspec.Struct) -> None:
        channel.outbox.extend(split(kind, _encoder.encode(frame)))
        try:
            self._flush(channel)
        except EOFError:
            self._drop(channel)
        else:
            self._watch(channel)

    def _flush(self, channel: _Channel) -> None:
        while channel.outbox:
            try:
                channel.sock.send(channel.outbox[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError as error:
                raise EOFError("the producer hung up") from error
            channel.outbox.popleft()

    def _has_room(self, channel: _Channel) -> bool:
        return len(self._pending) < MAX_PENDING and len(channel.outbox) < MAX_OUTBOX

    def _watch(self, channel: _Channel) -> None:
        if channel.fd < 0:
            return
        events = selectors.EVENT_READ if self._has_room(channel) else 0
        events |= selectors.EVENT_WRITE if channel.outbox else 0
        watched = channel.fd in self._selector.get_map()
        if not events:
            if watched:
                self._selector.unregister(channel.fd)
        elif not watched:
            self._selector.register(channel.fd, events, functools.partial(self._on_producer, channel))
        elif self._selector.get_key(channel.fd).events != events:
            self._selector.modify(channel.fd, events, self._selector.get_key(channel.fd).data)

    def _drop(self, channel: _Channel) -> None:
        if channel.fd < 0:
            return
        if channel.fd in self._selector.get_map():
            self._selector.unregister(channel.fd)
        channel.sock.close()
        channel.fd = -1
        channel.outbox.clear()
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
