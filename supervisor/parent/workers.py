"""Workers from the supervisor's side: make the channels, have one cloned, check it, hand its channels over, see it die.

A start goes through stages, each driven by an event of the main loop, so that a slow one delays nobody:

    cloning   a zygote was asked (with `spawn = "exec"` a zygote of its own is started first)
    blank     cloned; it cages itself and waits, without a component, until one claims it
    sealing   it has its specification; it finishes its cage and reports `SEALED` on its bridge channel
    live      checked from outside, attached to router and bridge

A worker may be claimed while it is still being cloned: the specification then waits for it in its channel.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.kernel import libc
from sandbox.kernel.cgroups import Tree
from sandbox.types import EXIT_CODES, Outcome
from sandbox.wire import bridge_ops, packet, zmtp
from sandbox.wire.supervisor_frames import MAX_TEXT, Fork, StartWorker, WorkerSpec, close_all
from supervisor.parent import inspect
from supervisor.parent.children import Child
from supervisor.parent.errors import FAILURES, OutsideCheckFailed, SpawnFailed, exhausted
from supervisor.parent.identities import WORKERS, Identities


@dataclass
class Worker:
    """One worker, from the moment the zygote is asked for it to its end."""

    number: int
    """The supervisor's own count: names its control group."""
    inside: int
    uid: int
    bridge: socket.socket
    """The other end of its fd 3, until the bridge has it."""
    router: socket.socket
    """The other end of its fd 4, until the router has it."""
    zygote: Child
    """Whose clone it is."""
    deadline: float
    """When its present stage must be over."""
    given: list[int] = field(default_factory=list)
    """Until it is cloned: its fd 3, its fd 4, and the descriptors through which it joins its control groups."""
    foreign: inspect.Namespaces = field(default_factory=dict)
    """Namespaces it must not be in: the host's and its zygote's."""
    inherited: int = 0
    """System-call filters it begins under: its zygote's."""
    stage: str = "cloning"
    claim: StartWorker | None = None
    code: int = -1
    asked: float = 0.0
    sealed: float = 0.0
    pid: int = 0
    pidfd: int = -1
    verdict: Outcome | None = None
    detail: str = ""
    generation: int = 0
    """Which incarnation of control asked."""
    code_sealed: bool = False
    """Whether the pages of its native code were found and sealed."""

    @property
    def request(self) -> StartWorker:
        """What it was claimed for."""
        assert self.claim is not None, "a blank has no component"
        return self.claim

    @property
    def name(self) -> str:
        """For logs: component and incarnation, or that it has none."""
        return "a blank" if self.claim is None else f"{self.claim.component}/{self.claim.incarnation}"

    @property
    def group(self) -> str:
        """Name of its control group."""
        return f"w{self.number}"

    def close(self) -> None:
        """Close every descriptor the supervisor holds for it."""
        self.bridge.close()
        self.router.close()
        close_all(self.given)
        self.given = []
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
    by_number: dict[int, Worker] = field(default_factory=dict)
    """Every worker there is, blanks among them."""
    by_incarnation: dict[int, Worker] = field(default_factory=dict)
    """Those that were claimed."""
    _number: int = 0
    _inside: int = 0
    _insides: set[int] = field(default_factory=set)
    _pids: set[int] = field(default_factory=set)
    _own: inspect.Namespaces = field(default_factory=inspect.own_namespaces)

    def blanks(self) -> Iterator[Worker]:
        """Workers nobody claimed yet, the oldest first."""
        return (worker for worker in self.by_number.values() if worker.claim is None and worker.verdict is None)

    def foreign(self, pid: int) -> inspect.Namespaces:
        """The host's namespaces and those of the zygote `pid`: a worker must leave both. Raises OSError."""
        return inspect.with_namespaces(self._own, pid)

    def _next_inside(self) -> int:
        if self.identities.base is None:
            return 0
        for _ in range(WORKERS):
            # In turn, because the kernel counts a uid's namespaces a while after they are gone.
            self._inside = self._inside % (WORKERS - 1) + 1
            if self._inside not in self._insides:
                return self._inside
        raise SpawnFailed("every worker uid is in use")

    # -- making one ---------------------------------------------------------------------------------------------------

    def make(self, zygote: Child) -> Worker:
        """First stage: channels and control group. `ask` follows as soon as its zygote is ready.

        Raises:
            SpawnFailed, OSError: nothing was made.
        """
        self._number += 1
        number = self._number
        opened: list[socket.socket] = []
        try:
            inside = self._next_inside()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened += [ours, theirs]
            to_router, router = zmtp.pair()
            opened += [to_router, router]
            groups = self.cgroups.make(f"w{number}")
        except FAILURES:
            for sock in opened:
                sock.close()
            raise
        worker = Worker(
            number,
            inside,
            self.identities.worker(inside),
            ours,
            router,
            zygote,
            time.monotonic() + self.start_seconds,
            [theirs.detach(), to_router.detach(), *groups],
        )
        self.by_number[number] = worker
        self._insides.add(inside)
        return worker

    def ask(self, worker: Worker) -> None:
        """Have its zygote clone it. Raises OSError, ProtocolViolation."""
        worker.zygote.send(Fork(worker.number, worker.inside), worker.given)
        close_all(worker.given)
        worker.given = []

    def claim(self, worker: Worker, request: StartWorker, code: int, generation: int, asked: float) -> None:
        """Give it a component: the descriptor `code` (a sealed .cwasm) is taken over.

        Args:
            generation: which incarnation of control asks.
            asked: when it asked (monotonic seconds).

        Raises:
            OSError: it cannot be told; the caller ends it.
        """
        worker.claim, worker.code, worker.generation = request, code, generation
        worker.asked = asked
        worker.deadline = asked + self.start_seconds
        self.by_incarnation[request.incarnation] = worker
        limits, crossing = request.limits, request.limits.crossing(fast=bool(request.fast))
        self.cgroups.limit(worker.group, 2 * limits.memory + crossing + (64 << 20))
        if worker.stage == "blank":
            self._specify(worker)

    def cloned(self, worker: Worker, pid: int) -> None:
        """Second stage: the child exists. Give it its specification, if it has been claimed.

        Raises:
            SpawnFailed, OSError: the caller ends the worker.
        """
        if pid < 0:
            error = OSError(-pid, f"the kernel refused another process: {os.strerror(-pid)}")
            raise exhausted(error) or SpawnFailed(str(error))
        worker.pidfd = self.adopt(pid)
        worker.pid = pid
        self._pids.add(pid)
        if worker.verdict is not None:
            raise SpawnFailed("ended while it was being started", subject=worker.verdict.value)
        worker.stage = "blank"
        if worker.claim is not None:
            self._specify(worker)

    def _specify(self, worker: Worker) -> None:
        request = worker.request
        spec = WorkerSpec(request.component, request.limits, os.fstat(worker.code).st_size, request.fast)
        (body,) = packet.split(bridge_ops.SPEC, msgspec.msgpack.encode(spec))
        # If it has ended already, it has said why, or hung up: `reported` is the next event.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(worker.bridge, [body], [worker.code])
        os.close(worker.code)
        worker.code = -1
        worker.stage = "sealing"

    def adopt(self, pid: int) -> int:
        """A pidfd of a process the zygote says it cloned for us.

        Only a child of ours can be waited for, and workers are counted: no number the zygote names can make us signal
        somebody else's process or one of another worker.

        Raises:
            OSError: there is no such process, or it is not our child.
            SpawnFailed: it is another worker.
        """
        if pid in self._pids:
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
        body = _last_words(worker.bridge)
        if not body:
            raise SpawnFailed("the worker ended before it was sealed")
        message = packet.Assembler(packet.CHUNK).feed(body)
        if message is None or message[0] not in (bridge_ops.SEALED, bridge_ops.SETUP_ERROR):
            raise ProtocolViolation("expected the worker's report")
        if message[0] == bridge_ops.SETUP_ERROR:
            raise SpawnFailed(message[1].decode(errors="replace")[:MAX_TEXT])
        if worker.claim is None:
            raise ProtocolViolation("a blank says it is sealed")
        worker.sealed = time.monotonic()
        inspect.check(worker.pid, worker.uid, self.identities.base is not None, worker.foreign, worker.inherited)
        if not self.cgroups.holds(worker.group, worker.pid):
            raise OutsideCheckFailed("not in its control group", subject=str(worker.pid))
        worker.code_sealed = message[1] != b"\0"
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
        self.forget(worker)
        return outcome, detail

    def forget(self, worker: Worker) -> None:
        """Drop it and close what the supervisor holds for it."""
        self.by_number.pop(worker.number, None)
        self._insides.discard(worker.inside)
        self._pids.discard(worker.pid)
        if worker.claim is not None and self.by_incarnation.get(worker.claim.incarnation) is worker:
            del self.by_incarnation[worker.claim.incarnation]
        worker.close()

    def hung_up(self, worker: Worker) -> bool:
        """Whether the pidfd says the process is dead."""
        return bool(select.select([worker.pidfd], [], [], 0)[0]) if worker.pidfd >= 0 else True


def _last_words(channel: socket.socket, flags: int = socket.MSG_DONTWAIT) -> bytes:
    try:
        return channel.recv(packet.PACKET, flags)
    except ConnectionResetError:
        # It ended with its specification unread, which the kernel tells before what it said (unix(7)); once.
        return channel.recv(packet.PACKET, flags)


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
