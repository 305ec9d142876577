"""Control's end of the supervisor's socketpair: numbered requests, answers, and what the supervisor says unasked.

Asyncio over a non-blocking SEQPACKET socket with descriptors (`sandbox.wire.supervisor_frames`). The supervisor's
hang-up ends control: without it there is nothing to control.
"""

from __future__ import annotations

import asyncio
import collections
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.types import CallPath, ComponentId, FastExport, Limits, Outcome
from sandbox.wire import UNDECODABLE
from sandbox.wire.supervisor_frames import (
    AuditChannel,
    Compile,
    Done,
    Drain,
    Drained,
    DropPolicy,
    Failed,
    FromControl,
    KillWorker,
    Living,
    Measure,
    Measured,
    MountSpec,
    ProcessRestarted,
    SetPolicy,
    Snapshot,
    Started,
    StartWorker,
    StopHost,
    ToControl,
    Up,
    WorkerEnded,
    close_all,
    recv_packet,
    send_frame,
)
from supervisor.control.errors import SupervisorError, UnavailableError

Unasked = WorkerEnded | ProcessRestarted | Drain | Started
_Answer = Done | Started | Living | Measured
_A = TypeVar("_A", Done, Started, Living, Measured)
_decoder: msgspec.msgpack.Decoder[ToControl] = msgspec.msgpack.Decoder(ToControl)


class SupervisorLink:
    """Requests to the supervisor and its events.

    Args:
        sock: this end of the socketpair; owned from now on.
        on_event: called in the loop with each `WorkerEnded`, `ProcessRestarted` and `Drain`, in order, and with
            a `Started` that nobody here asked for.
        on_audit: called with a new channel to the auditor.
        on_gone: called once when the supervisor hung up or broke the protocol; the argument says which.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_event: Callable[[Unasked], None],
        on_audit: Callable[[socket.socket], None],
        on_gone: Callable[[str], None],
    ) -> None:
        self._sock = sock
        self._on_event, self._on_audit, self._on_gone = on_event, on_audit, on_gone
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._queue: collections.deque[tuple[FromControl, tuple[int, ...]]] = collections.deque()
        # A control before us may have left questions whose answers come to us: numbers must not meet.
        self._number = secrets.randbits(48)
        self._loop = asyncio.get_running_loop()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Let go of the socket; what waits fails with `E_UNAVAILABLE`."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._queue:
            close_all(list(fds))
        self._queue.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(UnavailableError("the supervisor is gone"))

    # -- what control asks ------------------------------------------------------------------------------------

    async def start_worker(
        self, component: ComponentId, incarnation: int, limits: Limits, cwasm: int, fast: Sequence[FastExport] = ()
    ) -> Started:
        """Start a worker from the sealed memfd `cwasm` (not closed here). Raises SupervisorError.

        Args:
            fast: functions of the lifecycle that an adapter in the component stands for.
        """
        n = self._next()
        return await self._call(Started, n, StartWorker(n, component, incarnation, limits, list(fast)), (cwasm,))

    async def kill_worker(self, incarnation: int, outcome: str) -> None:
        """SIGKILL the worker of this incarnation. Raises SupervisorError."""
        n = self._next()
        why: Literal["killed", "deadline"] = "deadline" if outcome == Outcome.DEADLINE else "killed"
        await self._call(Done, n, KillWorker(n, incarnation, why))

    async def compile(self, wasm: int, result: int, memory: int, seconds: int, path: CallPath) -> None:
        """Run a caged compiler on two memfds (not closed here). Raises SupervisorError."""
        n = self._next()
        await self._call(Done, n, Compile(n, memory, seconds, path), (wasm, result))

    async def set_policy(self, component: ComponentId, policy: bytes, mounts: Sequence[MountSpec]) -> str:
        """Give the bridge a policy; return the name of a lost wall or "". Raises SupervisorError."""
        n = self._next()
        return (await self._call(Done, n, SetPolicy(n, component, policy, list(mounts)))).text

    async def drop_policy(self, component: ComponentId, *, purge: bool = False) -> None:
        """Make the bridge forget a component. Raises SupervisorError."""
        n = self._next()
        await self._call(Done, n, DropPolicy(n, component, purge))

    async def snapshot(self) -> Living:
        """What lives. Raises SupervisorError."""
        n = self._next()
        living = await self._call(Living, n, Snapshot(n))
        workers = list(living.workers)
        while living.more and living.workers:
            n = self._next()
            living = await self._call(Living, n, Snapshot(n, living.workers[-1].incarnation))
            workers += living.workers
        return msgspec.structs.replace(living, workers=workers, more=False)

    async def measure(self) -> Measured:
        """What confines each process of the host. Raises SupervisorError."""
        n = self._next()
        return await self._call(Measured, n, Measure(n))

    async def stop_host(self) -> None:
        """Ask for the end of everything; the supervisor says `Drain` next. Raises SupervisorError."""
        n = self._next()
        await self._call(Done, n, StopHost(n))

    def up(self) -> None:
        """Tell that the API serves."""
        self._send(Up(), ())

    def drained(self) -> None:
        """Tell that every component has been stopped."""
        self._send(Drained(), ())

    # -- transport --------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _call(self, expected: type[_A], n: int, frame: FromControl, fds: tuple[int, ...] = ()) -> _A:
        if not self._open:
            raise UnavailableError("the supervisor is gone")
        future: asyncio.Future[_Answer] = self._loop.create_future()
        self._waiting[n] = future
        try:
            self._send(frame, fds)
            answer = await future
        finally:
            self._waiting.pop(n, None)
            if future.done() and not future.cancelled():
                future.exception()  # a failed send is what the caller hears of; the future's own error is the same
        if not isinstance(answer, expected):
            raise ProtocolViolation("the supervisor answered with another kind of frame", subject=type(answer).__name__)
        return answer

    def _send(self, frame: FromControl, fds: tuple[int, ...]) -> None:
        if not self._queue:
            try:
                send_frame(self._sock, frame, fds)
                return
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._writable)
            except OSError as error:
                self._gone(f"sending failed: {error.strerror}")
                raise UnavailableError("the supervisor is gone") from error
        # The caller may close its descriptors before the socket takes them: keep our own.
        self._queue.append((frame, tuple(os.dup(fd) for fd in fds)))

    def _writable(self) -> None:
        while self._queue:
            frame, fds = self._queue[0]
            try:
                send_frame(self._sock, frame, fds)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._gone(f"sending failed: {error.strerror}")
                return
            close_all(list(fds))
            self._queue.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(64):  # a bounded turn: a flood of events must not starve the API
            if not self._open:
                return
            try:
                body, fds = recv_packet(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except EOFError:
                self._gone("the supervisor hung up")
                return
            except (OSError, ProtocolViolation) as error:
                self._gone(f"the supervisor's channel broke: {error}")
                return
            self._take(body, fds)

    def _take(self, body: bytes, fds: list[int]) -> None:
        try:
            frame = _decoder.decode(body)
        except UNDECODABLE as error:
            close_all(fds)
            self._gone(f"the supervisor sent a malformed frame: {error}")
            return
        if isinstance(frame, AuditChannel):
            if len(fds) != 1:
                close_all(fds)
                self._gone("the supervisor sent an audit channel without its descriptor")
                return
            self._on_audit(socket.socket(fileno=fds[0]))
            return
        close_all(fds)
        if isinstance(frame, Done | Started | Living | Measured | Failed):
            future = self._waiting.get(frame.n)
            if future is None or future.done():  # the asker was cancelled, or was a control before us
                if isinstance(frame, Started):
                    self._on_event(frame)
                return
            if isinstance(frame, Failed):
                future.set_exception(SupervisorError(frame.code, frame.message, frame.outcome))
            else:
                future.set_result(frame)
        else:
            self._on_event(frame)

    def _gone(self, why: str) -> None:
        if self._open:
            self.close()
            self._on_gone(why)
