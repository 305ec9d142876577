"""Workers from the supervisor's side: make the channels, have one cloned, check it, hand its channels over, see it die.

A start goes through stages, each driven by an event of the main loop, so that a slow one delays nobody:

    cloning   the zygote was asked
    sealing   the worker has its specification; it builds its cage and reports `SEALED` on its bridge channel
    live      checked from outside, attached to router and bridge
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from sandbox.errors import AirssysError, ProtocolViolation
from sandbox.kernel import libc
from sandbox.kernel.cgroups import Tree
from sandbox.types import EXIT_CODES, Outcome
from sandbox.wire import bridge_ops, packet, zmtp
from sandbox.wire.supervisor_frames import MAX_TEXT, Fork, StartWorker, WorkerSpec, close_all
from supervisor.parent import inspect
from supervisor.parent.errors import OutsideCheckFailed, SpawnFailed
from supervisor.parent.identities import WORKERS, Identities


@dataclass
class Worker:
    """One worker, from the request to its end."""

    request: StartWorker
    inside: int
    uid: int
    bridge: socket.socket
    """The other end of its fd 3, until the bridge has it."""
    router: socket.socket
    """The other end of its fd 4, until the router has it."""
    code: int
    groups: list[int]
    """Descriptors by which it joins its control groups."""
    asked: float
    deadline: float
    stage: str = "cloning"
    pid: int = 0
    pidfd: int = -1
    verdict: Outcome | None = None
    detail: str = ""
    generation: int = 0
    """Which incarnation of control asked."""

    @property
    def group(self) -> str:
        """Name of its control group."""
        return f"w{self.request.incarnation}"

    def close(self) -> None:
        """Close every descriptor the supervisor holds for it."""
        self.bridge.close()
        self.router.close()
        close_all(self.groups)
        self.groups = []
        if self.code >= 0:
            os.close(self.code)
            self.code = -1
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass
class Workers:
    """All workers of the host and the rules of their uids."""

    identities: Identities
    cgroups: Tree
    start_seconds: float
    by_incarnation: dict[int, Worker] = field(default_factory=dict)
    _inside: int = 0
    _own: inspect.Namespaces = field(default_factory=inspect.own_namespaces)
    _foreign: inspect.Namespaces = field(default_factory=dict)

    def zygote_up(self, pid: int) -> None:
        """A (new) zygote is ready: workers must leave its namespaces too. Raises OSError when it is gone."""
        self._foreign = inspect.with_namespaces(self._own, pid)

    def _next_inside(self) -> int:
        if self.identities.base is None:
            return 0
        used = {worker.inside for worker in self.by_incarnation.values()}
        for _ in range(WORKERS):
            # In turn, because the kernel counts a uid's namespaces a while after they are gone.
            self._inside = self._inside % (WORKERS - 1) + 1
            if self._inside not in used:
                return self._inside
        raise SpawnFailed("every worker uid is in use")

    def begin(self, request: StartWorker, code: int, zygote: Callable[[Fork, list[int]], None]) -> Worker:
        """First stage: channels, then the zygote. Takes over `code` (the sealed .cwasm).

        Raises:
            SpawnFailed, OSError, ProtocolViolation: nothing was started; `code` is closed.
        """
        if request.incarnation in self.by_incarnation:
            os.close(code)
            raise SpawnFailed("this incarnation exists", subject=str(request.incarnation))
        opened: list[socket.socket] = []
        try:
            inside = self._next_inside()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened += [ours, theirs]
            to_router, router = zmtp.pair()
            opened += [to_router, router]
            zygote(Fork(request.n, inside), [theirs.fileno(), to_router.fileno()])
            # While it clones. Should this fail, the clone finds its channels closed and ends.
            limits = request.limits
            groups = self.cgroups.prepare(
                f"w{request.incarnation}", 2 * limits.memory + 80 * limits.message_size + (64 << 20)
            )
        except (OSError, AirssysError):
            for sock in opened:
                sock.close()
            os.close(code)
            raise
        theirs.close()
        to_router.close()
        now = time.monotonic()
        worker = Worker(
            request,
            inside,
            self.identities.worker(inside),
            ours,
            router,
            code,
            groups,
            now,
            now + self.start_seconds,
        )
        self.by_incarnation[request.incarnation] = worker
        return worker

    def cloned(self, worker: Worker, pid: int) -> None:
        """Second stage: the child exists. Limit it, then give it its specification.

        Raises:
            SpawnFailed, OSError: the caller ends the worker.
        """
        if pid < 0:
            raise SpawnFailed(f"the kernel refused another process: {os.strerror(-pid)}")
        worker.pidfd = self.adopt(pid)
        worker.pid = pid
        if worker.verdict is not None:
            raise SpawnFailed("ended while it was being started", subject=worker.verdict.value)
        limits = worker.request.limits
        spec = WorkerSpec(worker.request.component, limits, os.fstat(worker.code).st_size)
        (body,) = packet.split(bridge_ops.SPEC, msgspec.msgpack.encode(spec))
        socket.send_fds(worker.bridge, [body], [worker.code, *worker.groups])
        close_all([worker.code, *worker.groups])
        worker.code, worker.groups = -1, []
        worker.stage = "sealing"

    def adopt(self, pid: int) -> int:
        """A pidfd of a process the zygote says it cloned for us.

        Only a child of ours can be waited for, and workers are counted: no number the zygote names can make us signal
        somebody else's process or one of another worker.

        Raises:
            OSError: there is no such process, or it is not our child.
            SpawnFailed: it is another worker.
        """
        if any(worker.pid == pid for worker in self.by_incarnation.values()):
            raise SpawnFailed("the zygote named another worker's process", subject=str(pid))
        pidfd = libc.syscall("pidfd_open", pid, 0)
        try:
            os.set_inheritable(pidfd, False)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except OSError:
            os.close(pidfd)
            raise
        return pidfd

    def reported(self, worker: Worker) -> None:
        """Third stage: the worker says it is sealed; look at it from outside.

        Raises:
            SpawnFailed: it said that a step failed, or hung up.
            OutsideCheckFailed: it is not what it says.
            ProtocolViolation: it said something else.
        """
        body = worker.bridge.recv(packet.PACKET, socket.MSG_DONTWAIT)
        if not body:
            raise SpawnFailed("the worker ended before it was sealed")
        message = packet.Assembler(packet.CHUNK).feed(body)
        if message is None or message[0] not in (bridge_ops.SEALED, bridge_ops.SETUP_ERROR):
            raise ProtocolViolation("expected the worker's report")
        if message[0] == bridge_ops.SETUP_ERROR:
            raise SpawnFailed(message[1].decode(errors="replace")[:MAX_TEXT])
        inspect.check(worker.pid, worker.uid, self.identities.base is not None, self._foreign)
        if not self.cgroups.holds(worker.group, worker.pid):
            raise OutsideCheckFailed("not in its control group", subject=str(worker.pid))
        worker.stage = "live"

    def kill(self, worker: Worker, outcome: Outcome, detail: str) -> None:
        """SIGKILL by pidfd; the first reason given is the one that is told."""
        if worker.verdict is None:
            worker.verdict, worker.detail = outcome, detail
        if worker.pidfd >= 0:
            try:
                signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return  # already a zombie: the main loop will reap it

    def ended(self, worker: Worker) -> tuple[Outcome, str]:
        """Reap a dead worker and say how it ended. Call when its pidfd is readable."""
        result = os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED)
        outcome, detail = _outcome(result)
        if result is not None and result.si_status == signal.SIGKILL and self.cgroups.out_of_memory(worker.group):
            outcome, detail = Outcome.MEMORY, "the kernel's memory killer ended it at its control group's limit"
        elif worker.verdict is not None:
            outcome, detail = worker.verdict, worker.detail
        self.by_incarnation.pop(worker.request.incarnation, None)
        worker.close()
        return outcome, detail

    def hung_up(self, worker: Worker) -> bool:
        """Whether the pidfd says the process is dead."""
        return bool(select.select([worker.pidfd], [], [], 0)[0]) if worker.pidfd >= 0 else True


def _outcome(result: os.waitid_result | None) -> tuple[Outcome, str]:
    if result is None:
        return Outcome.INTERNAL_ERROR, "not dead"
    if result.si_code == os.CLD_EXITED:
        return EXIT_CODES.get(result.si_status, Outcome.INTERNAL_ERROR), f"exit status {result.si_status}"
    if result.si_status == signal.SIGSYS:
        return Outcome.POLICY, "a forbidden system call (its number is in the kernel log)"
    try:
        name = signal.Signals(result.si_status).name
    except ValueError:
        name = str(result.si_status)
    if result.si_status == signal.SIGKILL:
        return Outcome.KILLED, name
    return Outcome.INTERNAL_ERROR, name
