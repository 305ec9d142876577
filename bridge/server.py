"""The bridge's loop: one thread, one table, three kinds of channel (supervisor, auditor, workers).

A request runs through four steps: checked and executed (`bridge.dispatch`), recorded (the auditor), answered only when
the auditor said that the record is written. While the auditor is away, answers wait and records are kept; the worker's
own deadline still runs.

Fairness: each turn of the loop takes at most one request from each worker that has one; the kernel's ready list goes
round. A worker that breaks the protocol loses its channel at once, the violation is recorded, and the supervisor is
asked to end it.
"""

from __future__ import annotations

import functools
import heapq
import selectors
import socket
import time

import msgspec

from bridge.audit.client import AuditClient
from bridge.capabilities import Compiled, InvalidPattern, InvalidPolicy, Policy
from bridge.dispatch import LEVELS, Decision, LogArguments, Rights, SleepArguments, answer, decide, parse
from bridge.limiter import LogLimiter
from bridge.paths import Place
from bridge.session import Session
from bridge.storage import Storage, StorageFailure
from bridge.uplink import Uplink
from sandbox.errors import ProtocolViolation
from sandbox.types import START_MS, ComponentId
from sandbox.wire import UNDECODABLE
from sandbox.wire.bridge_ops import Op
from sandbox.wire.supervisor_frames import (
    AttachBridge,
    AuditChannel,
    BridgeDrop,
    BridgePolicy,
    Detach,
    EndWorker,
    ToBridge,
    Up,
    close_all,
)

MAX_LOG_MESSAGE = 16 << 10
"""Longest log message, bytes of UTF-8; more is cut."""
MAX_LOG_CONTEXT = 32
"""Most context pairs of a log line."""
MAX_LOG_WORD = 512
"""Longest key or value in a log line's context, bytes of UTF-8."""

_from_supervisor = msgspec.msgpack.Decoder(ToBridge)


class Server:
    """The bridge.

    Args:
        supervisor: channel to the supervisor, SEQPACKET; owned.
        storage: all components' storage; owned.
    """

    def __init__(self, supervisor: socket.socket, storage: Storage) -> None:
        self._storage = storage
        self._audit = AuditClient()
        self._audit_fd = -1
        self._selector = selectors.DefaultSelector()
        self._uplink = Uplink(supervisor, self._selector, self._on_supervisor)
        self._nothing = Compiled(Policy())
        self._rights: dict[ComponentId, Rights] = {}
        self._limiters: dict[ComponentId, LogLimiter] = {}
        self._sessions: dict[int, Session] = {}  # by incarnation
        # When (nanoseconds), tie-breaker, who, which request, whether it is the deadline that comes then.
        self._timers: list[tuple[int, int, Session, int, bool]] = []
        self._sleeps = 0

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the supervisor hangs up."""
        self._uplink.tell(Up())
        try:
            while self._uplink.running:
                self.turn(self._timeout())
        finally:
            self.close()

    def turn(self, timeout: float | None) -> None:
        """One turn: wait at most `timeout` seconds, then serve everything that is ready once."""
        for key, events in self._selector.select(timeout):
            # Serving one may have closed another that was ready in the same turn (a Detach, the auditor's end).
            if self._selector.get_map().get(key.fd) is key and self._uplink.running:
                key.data(events)
        # Whole nanoseconds, as the worker counts: it takes an answer that is early by one for the order to stop.
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            _, _, session, turn, late = heapq.heappop(self._timers)
            if not session.closed and session.turn == turn:
                self._answer(session, answer(Op.SLEEP, None, int(late)))
        self._watch_audit()

    def close(self) -> None:
        """Close every channel, grant and the storage."""
        for session in list(self._sessions.values()):
            self._forget(session)
        for rights in self._rights.values():
            _close_places(rights)
        self._rights.clear()
        self._audit.close()
        self._selector.close()
        self._uplink.close()
        self._storage.close()

    def _timeout(self) -> float | None:
        return max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9) if self._timers else None

    # -- workers ----------------------------------------------------------------------------------------------

    def _on_worker(self, session: Session, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                session.flush()
                self._watch(session)
            if events & selectors.EVENT_READ:
                request = session.receive()
                if request is not None:
                    self._serve(session, *request)
        except EOFError:
            self._forget(session)
        except ProtocolViolation as violation:
            self._end(session, violation)

    def _serve(self, session: Session, kind: int, body: bytes) -> None:
        arguments = parse(kind, body)
        if isinstance(arguments, LogArguments):
            self._log(session.component, arguments)
            self._answer(session, answer(kind, None))
        elif isinstance(arguments, SleepArguments):
            self._sleep(session, arguments)
        else:
            self._record_then_answer(session, decide(self._rights_of(session.component), kind, arguments))

    def _sleep(self, session: Session, asked: SleepArguments) -> None:
        # The worker's word for its deadline is as good as any shorter one; the longest it can have is known here.
        longest = max(self._rights_of(session.component).policy.limits.deadline_ms, START_MS)
        deadline = min(asked.deadline, time.monotonic_ns() + longest * 1_000_000)
        self._sleeps += 1
        late = asked.until > deadline
        heapq.heappush(self._timers, (min(asked.until, deadline), self._sleeps, session, session.turn, late))

    def _record_then_answer(self, session: Session, decision: Decision) -> None:
        turn = session.turn

        def recorded(_seq: int) -> None:
            if not session.closed and session.turn == turn:
                self._answer(session, decision.answer)

        self._audit.record(
            decision.event,
            session.name,
            decision.decision,
            decision.object,
            decision.result,
            detail=decision.detail,
            on_recorded=recorded,
        )

    def _answer(self, session: Session, packets: list[bytes]) -> None:
        try:
            session.answer(packets)
        except EOFError:
            self._forget(session)
        else:
            self._watch(session)

    def _watch(self, session: Session) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.wants_write else 0)
        key = self._selector.get_key(session.fd)
        if key.events != events:
            self._selector.modify(session.fd, events, key.data)

    def _end(self, session: Session, violation: ProtocolViolation) -> None:
        why = violation.message + (f" [{violation.subject}]" if violation.subject else "")
        self._forget(session)
        self._audit.record("protocol.violation", session.name, "denied", "bridge", "ended", detail={"why": why})
        self._uplink.tell(EndWorker(session.incarnation, "policy", why))

    def _forget(self, session: Session) -> None:
        if not session.closed:
            self._selector.unregister(session.fd)
            session.close()
        if self._sessions.get(session.incarnation) is session:
            del self._sessions[session.incarnation]

    def _rights_of(self, component: ComponentId) -> Rights:
        rights = self._rights.get(component)
        return Rights(component, self._nothing, (), self._storage) if rights is None else rights

    # -- logs -------------------------------------------------------------------------------------------------

    def _log(self, component: ComponentId, line: LogArguments) -> None:
        now = time.monotonic()
        limits = self._rights_of(component).policy.limits
        limiter = self._limiters.get(component)
        if limiter is None:
            limiter = self._limiters[component] = LogLimiter(now, limits.log_lines, limits.log_bytes)
        pairs = [
            (_cut(key, MAX_LOG_WORD), _cut(value, MAX_LOG_WORD))
            for key, value in (line.context or ())[:MAX_LOG_CONTEXT]
        ]
        message = _cut(line.message, MAX_LOG_MESSAGE)
        if limiter.take(now, sum(len(text.encode()) for text in (message, *(word for pair in pairs for word in pair)))):
            self._tell_dropped(component, limiter)
            self._audit.log(str(component), LEVELS[line.level], message, pairs)
        elif not limiter.told:
            limiter.told = True
            rates = f"{limits.log_lines} lines or {limits.log_bytes} bytes a second"
            self._audit.log(str(component), "warn", f"log lines are dropped from here on: more than {rates}")

    def _tell_dropped(self, component: ComponentId, limiter: LogLimiter) -> None:
        dropped = limiter.forgive()
        if dropped:
            self._audit.log(str(component), "warn", f"{dropped} log lines were dropped: too many at once")

    # -- the supervisor ---------------------------------------------------------------------------------------

    def _on_supervisor(self, body: bytes, fds: list[int]) -> None:
        try:
            frame = _from_supervisor.decode(body)
        except UNDECODABLE as error:
            close_all(fds)
            raise ProtocolViolation("frame of the supervisor does not decode") from error
        if isinstance(frame, BridgePolicy):
            self._set_policy(frame, fds)
            return
        if len(fds) != (1 if isinstance(frame, (AttachBridge, AuditChannel)) else 0):
            close_all(fds)
            raise ProtocolViolation("frame of the supervisor with a wrong number of descriptors")
        if isinstance(frame, AttachBridge):
            self._attach(frame, fds[0])
        elif isinstance(frame, AuditChannel):
            self._set_audit(socket.socket(fileno=fds[0]))
        elif isinstance(frame, Detach):
            session = self._sessions.get(frame.incarnation)
            if session is not None:
                self._forget(session)
                if session.component in self._limiters:
                    self._tell_dropped(session.component, self._limiters[session.component])
        else:
            self._drop(frame)

    def _attach(self, frame: AttachBridge, fd: int) -> None:
        older = self._sessions.get(frame.incarnation)
        if older is not None:
            self._forget(older)
        session = Session(socket.socket(fileno=fd), frame.component, frame.incarnation)
        self._sessions[frame.incarnation] = session
        self._selector.register(session.fd, selectors.EVENT_READ, functools.partial(self._on_worker, session))

    def _set_policy(self, frame: BridgePolicy, fds: list[int]) -> None:
        places: list[Place] = []
        try:
            policy = Policy.decode(frame.policy)
            # The supervisor's list is what the descriptors belong to; it wins over the policy's own.
            compiled = Compiled(msgspec.structs.replace(policy, bindings=list(frame.guests)))
            if len(fds) != len(frame.guests):
                raise InvalidPolicy("descriptors and guest roots differ in number")
            while fds:
                places.append(Place(fds.pop(0)))
        except (InvalidPolicy, InvalidPattern, NotADirectoryError) as error:
            close_all(fds)
            for place in places:
                place.close()
            compiled, places = self._nothing, []
            why = getattr(error, "message", "a grant is not a directory")
            self._audit.record("policy.invalid", str(frame.component), "denied", "policy", detail={"why": why})
        old = self._rights.get(frame.component)
        self._rights[frame.component] = Rights(frame.component, compiled, places, self._storage)
        limiter = self._limiters.get(frame.component)
        if limiter is not None:
            limiter.resize(compiled.limits.log_lines, compiled.limits.log_bytes)
        if old is not None:
            _close_places(old)

    def _drop(self, frame: BridgeDrop) -> None:
        rights = self._rights.pop(frame.component, None)
        if rights is not None:
            _close_places(rights)
        limiter = self._limiters.pop(frame.component, None)
        if limiter is not None:
            self._tell_dropped(frame.component, limiter)
        if frame.purge:
            try:
                removed = self._storage.purge(frame.component)
            except StorageFailure as error:
                self._audit.record(
                    "storage.purge", str(frame.component), "info", "", "io-error", detail={"why": error.message}
                )
            else:
                self._audit.record("storage.purge", str(frame.component), "info", "", "ok", detail={"keys": removed})

    # -- the auditor ------------------------------------------------------------------------------------------

    def _set_audit(self, sock: socket.socket) -> None:
        self._unwatch_audit()
        self._audit.replace(sock)
        self._watch_audit()

    def _on_audit(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._audit.on_writable()
        if events & selectors.EVENT_READ:
            self._audit.on_readable()
        self._watch_audit()

    def _watch_audit(self) -> None:
        if self._audit_fd != self._audit.fileno():
            self._unwatch_audit()
            if not self._audit.connected:
                return
            self._audit_fd = self._audit.fileno()
            self._selector.register(self._audit_fd, selectors.EVENT_READ, self._on_audit)
        if self._audit_fd >= 0:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._audit.wants_write else 0)
            if self._selector.get_key(self._audit_fd).events != events:
                self._selector.modify(self._audit_fd, events, self._on_audit)

    def _unwatch_audit(self) -> None:
        if self._audit_fd >= 0:
            # The client may have closed it already: the selector forgets it all the same.
            self._selector.unregister(self._audit_fd)
            self._audit_fd = -1


def _close_places(rights: Rights) -> None:
    for place in rights.places:
        place.close()


def _cut(text: str, limit: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore") + "..."
