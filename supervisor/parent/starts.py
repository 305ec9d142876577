"""A worker's way through the supervisor's loop: asked for, cloned, sealed, checked, live, dead.

Each method is one event; what it leads to is told to control, router, bridge and the audit log. The work itself is in
`workers`; which zygote clones a worker, and the blanks kept ready, are in `pool`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import selectors
import time

import msgspec

from bridge.audit.client import AuditClient
from sandbox.errors import ProtocolViolation
from sandbox.types import Outcome
from sandbox.wire import supervisor_frames as frames
from supervisor.config import HostConfig
from supervisor.parent.children import Child
from supervisor.parent.errors import FAILURES, SpawnFailed, refusal
from supervisor.parent.pool import Pool
from supervisor.parent.services import Services
from supervisor.parent.workers import Worker, Workers

log = logging.getLogger("airssys.supervisor")
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""What a component's code must have: workers map its pages, none of which may change or go away (memfd_create(2))."""
REASONS = (Outcome.DEADLINE, Outcome.POLICY, Outcome.KILLED)
"""Outcomes that control, router and bridge may give a worker they want ended."""


class Starts:
    """Events of workers.

    Args:
        selector: the loop's; descriptors are registered with ("worker" | "worker-dead" | "stray-dead", whose).
        children: the host's processes by name.
    """

    def __init__(
        self,
        config: HostConfig,
        selector: selectors.BaseSelector,
        workers: Workers,
        services: Services,
        children: dict[str, Child],
        audit: AuditClient,
    ) -> None:
        self.config = config
        self.selector = selector
        self.workers = workers
        self.children = children
        self.audit = audit
        self.pool = Pool(config.pool, selector, workers, services, children["zygote"])
        self.leftover_groups: set[str] = set()
        """Control groups the kernel would not let go of yet."""

    def _answer(self, frame: msgspec.Struct) -> None:
        self.children["control"].send(frame)

    def begin(self, frame: frames.StartWorker, code: int, stopping: bool) -> None:
        """Control asked for a worker; `code` is its .cwasm, taken over."""
        asked = time.monotonic()
        missing = [name for name in ("zygote", "router", "bridge") if not self.children[name].ready]
        if missing or stopping:
            os.close(code)
            why = "the host is stopping" if not missing else f"not ready: {', '.join(missing)}"
            self._answer(frames.Failed(frame.n, "E_NOT_READY", why, Outcome.SETUP_ERROR))
            return
        try:
            if frame.incarnation in self.workers.by_incarnation:
                raise SpawnFailed("this incarnation exists", subject=str(frame.incarnation))
            if not _sealed(code):
                raise SpawnFailed("the component's code is in no sealed memfd")
            worker = self.pool.take(self.config.spawn_for(frame.component))
        except FAILURES as error:
            os.close(code)
            log.error("no worker for %s: %s", frame.component, error)
            self._answer(refusal(frame.n, error, Outcome.SETUP_ERROR))
            return
        try:
            self.workers.claim(worker, frame, code, self.children["control"].restarts, asked)
        except FAILURES as error:
            self.fail(worker, error)

    def cloned(self, zygote: Child, answer: frames.Forked) -> None:
        """A zygote answered. Raises ProtocolViolation when it names a process of the host."""
        if answer.pid in {child.pid for child in self.children.values() if child.pidfd >= 0}:
            raise ProtocolViolation("the zygote named a process of the host", subject=str(answer.pid))
        self.pool.dismiss(zygote)
        worker = self.workers.by_number.get(answer.n)
        if worker is None or worker.stage != "cloning" or worker.zygote is not zygote:
            self._stray(answer.pid)
            return
        try:
            self.workers.cloned(worker, answer.pid)
        except FAILURES as error:
            self._watch(worker)
            self.fail(worker, error)
            return
        self._watch(worker)
        self.selector.register(worker.bridge, selectors.EVENT_READ, ("worker", worker))

    def _stray(self, pid: int) -> None:
        """A worker that was given up before the zygote answered: its channels are closed, so it ends; wait for it."""
        if pid <= 0:
            return
        try:
            pidfd = self.workers.adopt(pid)
        except FAILURES as error:
            log.error("the zygote named %d, which is no new worker: %s", pid, error)
            return
        self.selector.register(pidfd, selectors.EVENT_READ, ("stray-dead", pidfd))

    def stray_dead(self, pidfd: int) -> None:
        """A worker that nobody waits for is dead: reap it."""
        self.selector.unregister(pidfd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)

    def _watch(self, worker: Worker) -> None:
        if worker.pidfd >= 0:
            self.selector.register(worker.pidfd, selectors.EVENT_READ, ("worker-dead", worker))

    def reported(self, worker: Worker) -> None:
        """A worker says that it is sealed, or that a step failed."""
        self.selector.unregister(worker.bridge)
        try:
            self.workers.reported(worker)
        except FAILURES as error:
            self.fail(worker, error)
            return
        request = worker.request
        micros = int((time.monotonic() - worker.asked) * 1e6)
        self.children["bridge"].send(
            frames.AttachBridge(request.component, request.incarnation), [worker.bridge.fileno()]
        )
        self.children["router"].send(
            frames.AttachRouter(request.component, request.incarnation, worker.pid), [worker.router.fileno()]
        )
        worker.bridge.close()
        worker.router.close()
        self.pool.succeeded()
        if not worker.code_sealed:
            log.warning("worker %s: the pages of its code were not found, so they are not sealed", worker.name)
        detail: dict[str, str | int] = {
            "pid": worker.pid,
            "uid": worker.uid,
            "micros": micros,
            "sealed": int((worker.sealed - worker.asked) * 1e6),
        }
        self.audit.record("worker.started", str(request.component), "info", str(request.incarnation), detail=detail)
        if worker.generation == self.children["control"].restarts:
            self._answer(frames.Started(request.n, request.incarnation, worker.pid, worker.uid, micros))

    def fail(self, worker: Worker, error: Exception) -> None:
        """A start that failed: tell control once, end what exists of it."""
        if worker.stage == "failed":
            return
        log.error("worker %s did not start: %s", worker.name, error)
        if worker.pidfd >= 0 and worker.stage != "live" and worker.bridge.fileno() >= 0:
            try:
                self.selector.unregister(worker.bridge)
            except KeyError:
                pass
        worker.stage = "failed"
        self.pool.dismiss(worker.zygote)
        if worker.claim is None:
            self.pool.failed()
        else:
            self.audit.record("worker.refused", str(worker.request.component), "denied", str(error))
            if worker.generation == self.children["control"].restarts:
                self._answer(refusal(worker.request.n, error, Outcome.SETUP_ERROR))
        if worker.pidfd >= 0:
            self.workers.kill(worker, Outcome.SETUP_ERROR, str(error))
        else:
            self.workers.forget(worker)
            self.leftover_groups.add(worker.group)

    def zygote_ended(self, zygote: Child) -> None:
        """A zygote is gone: so are the workers it was asked for, and its blanks, which nobody may claim any more."""
        for worker in list(self.workers.by_number.values()):
            if worker.zygote is zygote and worker.stage == "cloning":
                self.fail(worker, SpawnFailed("the zygote ended"))
            elif worker.zygote is zygote and worker.claim is None:
                self.workers.kill(worker, Outcome.KILLED, "the zygote ended")

    def end(self, child: Child, frame: frames.EndWorker) -> None:
        """Router, bridge or control wants a worker ended. Raises ProtocolViolation for a reason it may not give."""
        worker = self.workers.by_incarnation.get(frame.incarnation)
        if worker is None:
            return  # already dead
        if frame.outcome not in REASONS:
            raise ProtocolViolation("a reason this process may not give", subject=frame.outcome)
        detail = frame.detail[: frames.MAX_TEXT]
        log.info("%s ends %s: %s %s", child.name, worker.request.component, frame.outcome, detail)
        self.workers.kill(worker, Outcome(frame.outcome), detail)

    def dead(self, worker: Worker) -> None:
        """A worker is dead: reap it and tell everybody."""
        self.selector.unregister(worker.pidfd)
        started = worker.stage == "live"
        if worker.stage in ("blank", "sealing"):
            # It may have said why before it died.
            self.reported(worker)
            started = worker.stage == "live"
        outcome, detail = self.workers.ended(worker)
        if not self.workers.cgroups.remove(worker.group):
            self.leftover_groups.add(worker.group)
        if worker.claim is None:
            return
        request = worker.request
        if started:
            self.audit.record(
                "worker.ended",
                str(request.component),
                "info",
                str(request.incarnation),
                outcome.value,
                detail={"detail": detail},
            )
            for name in ("router", "bridge"):
                self.children[name].send(frames.Detach(request.incarnation, outcome.value, detail))
            self._answer(frames.WorkerEnded(request.component, request.incarnation, outcome.value, detail))


def _sealed(fd: int) -> bool:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:
        return False  # EINVAL: no memfd
