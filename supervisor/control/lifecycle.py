"""The tree: which instances run, what happens when one ends, and how they all stop.

One task per instance that should run (`_supervise`): start, watch, and by the manifest's `[supervision]` start again,
wait, or give up. Operators' commands take the instance's lock, so that they come one after another. What lives is
known from the supervisor; what is ready, from the router; both are asked again when control itself comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine

from sandbox.errors import AirssysError
from sandbox.types import ComponentId, Outcome
from sandbox.wire.router_frames import Event, RouteState
from sandbox.wire.supervisor_frames import Drain, ProcessRestarted, WorkerEnded
from supervisor.control.audit_link import AuditLink
from supervisor.control.errors import ConflictError, ControlError, NotFoundError, SupervisorError, UnavailableError
from supervisor.control.instance import Incarnation, Instance, State
from supervisor.control.registry import EndRow, InstanceRow, Registry
from supervisor.control.router_link import RouterLink
from supervisor.control.spec import from_predicate
from supervisor.control.starter import Starter, StartFailed
from supervisor.control.supervisor_link import SupervisorLink, Unasked
from supervisor.control.tree import Intensity, wants_restart

_log = logging.getLogger("airssys.control")

HOST_FAULT = 5.0
"""Seconds before a router's or bridge's restart within which a worker's end is put down to the host."""
EXHAUSTED = "E_EXHAUSTED"
HOST_ABSENT = frozenset({"E_NOT_READY", "E_UNAVAILABLE", "E_NO_SPACE", EXHAUSTED})
"""Codes with which a start fails because another process of the host is away, or its disk is full."""
ABSENCE_FIRST, ABSENCE_MOST = 0.02, 1.0
"""Seconds before the next attempt then: the first, the longest."""
STOP_GRACE = 2.0
"""Seconds beyond its deadline that a worker has to shut down before it is killed."""


class Lifecycle:
    """All instances of this host.

    Args:
        on_drained: called after a `Drain` has stopped every component.
    """

    def __init__(
        self,
        *,
        supervisor: SupervisorLink,
        router: RouterLink,
        audit: AuditLink,
        registry: Registry,
        starter: Starter,
        on_drained: Callable[[], None],
    ) -> None:
        self._supervisor, self._router, self._audit = supervisor, router, audit
        self._registry, self._starter = registry, starter
        self._on_drained = on_drained
        self.instances: dict[ComponentId, Instance] = {}
        self.draining = False
        self._order = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._early: list[WorkerEnded | Event] | None = []
        self._words: dict[int, str] = {}
        """What was told of workers not known yet, while `adopt` runs."""

    # -- coming back ------------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Load the registry, take over the workers that live, end those that should not, start the missing ones."""
        for row in self._registry.instances():
            self._load(row)
        living = await self._supervisor.snapshot()
        self.draining = living.stopping
        try:
            routes = {route.component: route for route in await self._router.query()}
        except UnavailableError:
            routes = {}  # it is just being started; its first event tells the rest
        for worker in living.workers:
            instance = self.instances.get(worker.component)
            live = Incarnation.new(worker.incarnation)
            live.pid, live.uid = worker.pid, worker.uid
            if instance is None or not instance.row.running or instance.live is not None:
                self._spawn(self._end_stray(worker.component, worker.incarnation))
                continue
            instance.live = live
            self._starter.incarnations[live.number] = instance
            route = routes.get(worker.component)
            if route is not None and route.attached == live.number and route.ready:
                live.mark_ready()
                instance.health = route.health
                instance.enter(State.RUNNING)
        early, self._early = self._early or [], None
        for event in early:
            if isinstance(event, Event):
                self.on_router(event)
            else:
                self._resolve_end(event)
        for component in routes.keys() - {i.component for i in self.instances.values() if i.row.running}:
            await self._router.unroute(component)
        for instance in list(self.instances.values()):
            if instance.row.running and not self.draining:
                await self._router.route(instance.route())
                if instance.row.quarantine and instance.live is None:
                    instance.state = State.QUARANTINED
                else:
                    self._launch(instance)

    async def _end_stray(self, component: ComponentId | None, incarnation: int) -> None:
        with contextlib.suppress(SupervisorError, UnavailableError):
            await self._supervisor.kill_worker(incarnation, Outcome.KILLED)
        self._audit.note("worker.stray", "info", component=str(component or ""), object=str(incarnation))

    def _load(self, row: InstanceRow) -> Instance:
        package = self._registry.package(row.package)
        spec = from_predicate(package.manifest, package.digest)
        instance = Instance(row, spec, Intensity(spec.supervision))
        instance.restarts = self._registry.restarts(row.component)
        ends = self._registry.ends(row.component, 1)
        if ends:
            instance.outcome, instance.detail = ends[0].outcome, ends[0].detail
        self.instances[row.component] = instance
        return instance

    def _renew(self, instance: Instance) -> None:
        instance.row = self._registry.instance(instance.component)
        package = self._registry.package(instance.row.package)
        instance.spec = from_predicate(package.manifest, package.digest)
        instance.intensity = Intensity(instance.spec.supervision)

    # -- what operators ask -----------------------------------------------------------------------------------

    def get(self, component: ComponentId) -> Instance:
        """One instance. Raises NotFoundError."""
        instance = self.instances.get(component)
        if instance is None:
            raise NotFoundError("no such component", subject=str(component), hint="see airssys list")
        return instance

    async def installed(self, component: ComponentId, *, start: bool) -> Instance:
        """Take up a new or changed registry row; a running worker of the old package is stopped first."""
        self._refuse_while_draining()
        instance = self.instances.get(component)
        if instance is None:
            instance = self._load(self._registry.instance(component))
        else:
            # The same object: whoever waits for its lock must find the new package, not a stale copy of the old.
            async with instance.lock:
                await self._halt(instance, drain=False)
                self._renew(instance)
        if start:
            await self.start(component)
        return instance

    async def start(self, component: ComponentId) -> Instance:
        """Make it run and wait until that has worked or failed once. Raises NotFoundError, ConflictError."""
        self._refuse_while_draining()
        instance = self.get(component)
        async with instance.lock:
            self._registry.set_running(component, True)
            self._registry.set_quarantine(component, "")
            instance.row = self._registry.instance(component)
            if instance.task is None or instance.task.done() or instance.state is State.BACKOFF:
                await self._cancel(instance)
                instance.intensity.reset()
                instance.enter(State.STARTING)
                self._launch(instance)
        await instance.settled()
        return instance

    async def stop(self, component: ComponentId, *, drain: bool = False) -> Instance:
        """End it and keep it ended. `drain` delivers what waits in its mailbox first. Raises NotFoundError."""
        instance = self.get(component)
        async with instance.lock:
            self._registry.set_running(component, False)
            instance.row = self._registry.instance(component)
            await self._halt(instance, drain=drain)
            await self._router.unroute(component)
            with contextlib.suppress(SupervisorError):
                await self._supervisor.drop_policy(component)
        return instance

    async def restart(self, component: ComponentId) -> Instance:
        """End its worker and start another; the mailbox stays. Raises NotFoundError, ConflictError."""
        self._refuse_while_draining()
        instance = self.get(component)
        async with instance.lock:
            await self._halt(instance, drain=False)
        return await self.start(component)

    async def remove(self, component: ComponentId, *, purge: bool) -> None:
        """Stop it and forget it; `purge` drops its stored values too. Raises NotFoundError."""
        instance = self.get(component)
        async with instance.lock:
            await self._halt(instance, drain=False)
            await self._router.unroute(component)
            await self._supervisor.drop_policy(component, purge=purge)
            self._registry.uninstall(component)
            del self.instances[component]

    async def enforce_trust(self) -> list[str]:
        """Verify every running instance against the trust store as it is now; stop those it refuses."""
        stopped = []
        for instance in list(self.instances.values()):
            if instance.task is None or instance.task.done():
                continue
            try:
                await self._starter.verify(instance)
            except AirssysError as error:
                async with instance.lock:
                    await self._halt(instance, drain=False)
                    instance.fail(State.FAILED, Outcome.SETUP_ERROR, str(error))
                    await self._router.unroute(instance.component)
                self._audit.note("worker.refused", "denied", component=str(instance.component), result=error.code)
                stopped.append(str(instance.component))
        return stopped

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise ConflictError("the host is stopping", hint="wait for airssys down to finish")

    # -- the tree ---------------------------------------------------------------------------------------------

    def _launch(self, instance: Instance) -> None:
        self._order += 1
        instance.start_order = self._order
        instance.task = self._spawn(self._supervise(instance))

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a lifecycle task failed", "exception": error, "task": task}
            )

    async def _supervise(self, instance: Instance) -> None:
        absences = 0
        while True:
            try:
                end, uptime = await self._run_once(instance)
            except AirssysError as failure:
                if failure.code in HOST_ABSENT:
                    # A process of the host is being replaced: no fault of the component's, and no end of it either.
                    absences += 1
                    if failure.code == EXHAUSTED:
                        # That may last: whoever waits for the start is told, and it goes on by itself later.
                        instance.outcome, instance.detail = Outcome.SETUP_ERROR, str(failure)
                        instance.enter(State.BACKOFF)
                    await asyncio.sleep(min(ABSENCE_FIRST * 2.0 ** min(absences - 1, 10), ABSENCE_MOST))
                    continue
                if not isinstance(failure, StartFailed | UnavailableError):
                    instance.fail(State.FAILED, Outcome.SETUP_ERROR, str(failure))
                    self._audit.note("worker.refused", "denied", component=str(instance.component), result=failure.code)
                    return
                outcome = failure.outcome if isinstance(failure, StartFailed) else Outcome.KILLED
                end, uptime = WorkerEnded(instance.component, 0, outcome, str(failure)), 0.0
            except OSError as error:
                end, uptime = WorkerEnded(instance.component, 0, Outcome.SETUP_ERROR, str(error)), 0.0
            absences = 0
            instance.outcome, instance.detail, instance.health = end.outcome, end.detail, "unknown"
            if not wants_restart(instance.spec.supervision, end.outcome):
                instance.enter(State.STOPPED)
                return
            delay = instance.intensity.after_end(time.monotonic(), uptime)
            if delay is None:
                instance.fail(State.QUARANTINED, end.outcome, end.detail)
                self._registry.set_quarantine(instance.component, end.detail or end.outcome)
                self._audit.note(
                    "component.quarantined",
                    "info",
                    component=str(instance.component),
                    result=end.outcome,
                    detail={"max-restarts": instance.spec.supervision.max_restarts, "why": end.detail},
                )
                return
            if delay > 0:
                instance.enter(State.BACKOFF)
                instance.next_start = time.monotonic() + delay
                await asyncio.sleep(delay)
            try:
                instance.restarts = self._registry.count_restart(instance.component)
            except UnavailableError as error:
                # Starting it matters more than the count that survives us.
                _log.error("a restart of %s was not counted: %s", instance.component, error)
                instance.restarts += 1

    async def _run_once(self, instance: Instance) -> tuple[WorkerEnded, float]:
        live = instance.live
        if live is None:
            instance.enter(State.STARTING)
            live = await self._starter.start(instance)
        elif not live.ready.done():
            instance.enter(State.STARTING)  # adopted while it was still initialising
            await self._starter.wait_ready(instance, live)
        health = self._spawn(self._ask_health(instance, live))
        try:
            end = await asyncio.shield(live.ended)
        finally:
            health.cancel()
        uptime = live.uptime(time.monotonic())
        self._starter.forget(instance, live)
        if live.kill_reason:
            end = WorkerEnded(end.component, end.incarnation, end.outcome, live.kill_reason)
        return end, uptime

    async def _ask_health(self, instance: Instance, live: Incarnation) -> None:
        while not live.ended.done():
            await asyncio.sleep(instance.spec.supervision.health_interval)
            with contextlib.suppress(UnavailableError):
                await self._router.check_health(instance.component)

    async def _halt(self, instance: Instance, *, drain: bool, timeout: float | None = None) -> None:
        """End supervision and the worker: asked first, killed when it does not end in time."""
        await self._cancel(instance)
        live = instance.live
        instance.enter(State.STOPPING)
        if live is not None:
            if live.start is not None:
                with contextlib.suppress(SupervisorError, UnavailableError):
                    await asyncio.shield(live.start)
            if not live.ended.done():
                grace = instance.spec.limits.deadline_ms / 1000 + STOP_GRACE if timeout is None else timeout
                with contextlib.suppress(UnavailableError):
                    await self._router.stop(instance.component, drain=drain)
                    await asyncio.wait({live.ended}, timeout=grace)
            if not live.ended.done():
                await self._starter.kill(instance, live, Outcome.KILLED)
            end = live.ended.result()
            instance.outcome, instance.detail = end.outcome, end.detail
            self._starter.forget(instance, live)
        instance.health = "unknown"
        instance.enter(State.STOPPED)

    async def _cancel(self, instance: Instance) -> None:
        task, instance.task = instance.task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})

    # -- what happens -----------------------------------------------------------------------------------------

    def on_supervisor(self, frame: Unasked) -> None:
        """Take an event of the supervisor."""
        if isinstance(frame, WorkerEnded):
            self._worker_ended(frame)
        elif isinstance(frame, ProcessRestarted):
            self._spawn(self._process_restarted(frame.name))
        elif isinstance(frame, Drain):
            self._spawn(self._drain(frame.seconds))
        else:
            # A control before us asked for this worker and died; we have started another in its place.
            self._spawn(self._end_stray(None, frame.incarnation))

    def _worker_ended(self, frame: WorkerEnded) -> None:
        words = self._words.pop(frame.incarnation, "")
        if words:
            frame = WorkerEnded(frame.component, frame.incarnation, frame.outcome, words)
        end = EndRow(str(frame.component), frame.incarnation, time.time(), frame.outcome, frame.detail)
        try:
            self._registry.add_end(end)
        except UnavailableError as error:
            # Its death is a fact whether it can be noted or not; the supervisor's record of it waits for the auditor.
            _log.error("an end of %s (%s) was not noted: %s", frame.component, frame.outcome, error)
        self._resolve_end(frame)

    def _last_words(self, event: Event) -> None:
        """Why a worker ends, in its own words (a trap's backtrace). They come by way of the router, and so before or
        after the supervisor's word that it is dead."""
        if not event.text:
            return
        self._audit.note(
            "worker.explained",
            "info",
            component=str(event.component),
            result=event.outcome,
            detail={"detail": event.text},
        )
        if self._registry.explain_end(event.component, event.incarnation, event.text):
            instance = self.instances.get(event.component)
            if instance is not None and instance.live is None and instance.outcome == event.outcome:
                instance.detail = event.text
        else:
            self._words[event.incarnation] = event.text

    def _resolve_end(self, frame: WorkerEnded) -> None:
        instance = self._starter.incarnations.get(frame.incarnation)
        if instance is None or instance.live is None or instance.live.number != frame.incarnation:
            if self._early is not None:
                self._early.append(frame)
        elif not instance.live.ended.done():
            instance.live.ended.set_result(frame)

    def on_router(self, event: Event) -> None:
        """Take an event of the router; one of a worker that is over already says nothing."""
        if event.kind == "ended":
            self._last_words(event)
            return
        instance = self._starter.incarnations.get(event.incarnation)
        if instance is None or instance.live is None or instance.live.number != event.incarnation:
            if self._early is not None:
                self._early.append(event)
            return
        live = instance.live
        if event.kind == "ready":
            live.metadata = event.metadata
            instance.health = event.text or "unknown"
            live.mark_ready()
        elif event.kind == "init-failed":
            live.init_error = event.text or "initialize failed"
        elif event.kind == "health":
            instance.health = event.text
            if event.text == "unhealthy" and instance.state is State.RUNNING and not live.kill_reason:
                live.kill_reason = "it called itself unhealthy"
                self._audit.note("component.unhealthy", "info", component=str(instance.component))
                self._spawn(self._starter.kill(instance, live, Outcome.KILLED))

    async def _process_restarted(self, name: str) -> None:
        """The workers of the old process are being ended; that is the host's fault and not counted as theirs."""
        since = time.monotonic() - HOST_FAULT
        if name == "router":
            await self._router.reconnect()
        for instance in self.instances.values():
            instance.intensity.forgive(since)
            wanted = instance.row.running and not self.draining
            if wanted and instance.state is State.QUARANTINED and instance.failed_at >= since:
                self._registry.set_quarantine(instance.component, "")
                self._launch(instance)
            if not wanted:
                continue
            with contextlib.suppress(UnavailableError):
                if name == "router":
                    await self._router.route(instance.route())
            if name == "bridge" and instance.state in (State.STARTING, State.RUNNING):
                # A start under way may have given its policy to the bridge that is gone.
                with contextlib.suppress(StartFailed, UnavailableError):
                    await self._starter.send_policy(instance)

    async def _drain(self, seconds: int) -> None:
        """Stop everything in reverse order of start; the registry keeps what should run after the next `up`."""
        self.draining = True
        until = time.monotonic() + max(0.5, seconds - 1)
        running = sorted(self.instances.values(), key=lambda instance: instance.start_order, reverse=True)
        for index, instance in enumerate(running):
            share = max(0.05, (until - time.monotonic()) / (len(running) - index))
            with contextlib.suppress(ControlError):
                async with instance.lock:
                    await self._halt(instance, drain=False, timeout=min(share, until - time.monotonic()))
        self._on_drained()

    async def close(self) -> None:
        """Let go of every task; workers are left alone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def router_states(self) -> dict[ComponentId, RouteState]:
        """Mailboxes and counters as the router has them; empty while it is away."""
        try:
            return {route.component: route for route in await self._router.query(timeout=2.0)}
        except UnavailableError:
            return {}
