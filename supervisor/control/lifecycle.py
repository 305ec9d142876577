"""The life of all instances: control's return, what operators ask, and what supervisor and router tell.

Which instances run and what follows from an end is decided by the tree (`supervision`) and done by the `runner`.
Operators' commands take the instance's lock, so that they come one after another. What lives is known from the
supervisor; what is ready, from the router; both are asked again when control itself comes back.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable

from sandbox.errors import AirssysError
from sandbox.types import ComponentId, Outcome
from sandbox.wire.router_frames import Event, RouteState
from sandbox.wire.supervisor_frames import Drain, Living, ProcessRestarted, WorkerEnded
from supervisor.config_tree import ROOT, SupervisorSpec
from supervisor.control import replicas
from supervisor.control.audit_link import AuditLink
from supervisor.control.errors import ConflictError, NotFoundError, SupervisorError, UnavailableError
from supervisor.control.instance import Incarnation, Instance, State
from supervisor.control.registry import EndRow, InstanceRow, Registry
from supervisor.control.router_link import RouterLink
from supervisor.control.runner import Runner
from supervisor.control.spec import from_predicate
from supervisor.control.starter import Starter, StartFailed
from supervisor.control.supervision import Tree, flat
from supervisor.control.supervisor_link import SupervisorLink, Unasked

_log = logging.getLogger("airssys.control")

HOST_FAULT = 5.0
"""Seconds before a router's or bridge's restart within which a worker's end is put down to the host."""


class Lifecycle:
    """All instances of this host.

    Args:
        on_drained: called after a `Drain` has stopped every component.
        supervisors: the declared supervisors.
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
        supervisors: tuple[SupervisorSpec, ...] = (),
    ) -> None:
        self._supervisor, self._router, self._audit = supervisor, router, audit
        self._registry, self._starter = registry, starter
        self._on_drained = on_drained
        self.tree = Tree(supervisors)
        self._runner = Runner(tree=self.tree, router=router, audit=audit, registry=registry, starter=starter)
        self.instances = self._runner.instances
        self._early: list[WorkerEnded | Event] | None = []
        """What was told of workers not known yet, while `adopt` runs."""
        self._words: dict[int, str] = {}

    @property
    def draining(self) -> bool:
        """Whether the host is stopping."""
        return self._runner.draining

    # -- coming back ------------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Load the registry, take over the workers that live, end those that should not, start the missing ones."""
        replicas.settle(self._registry, self.tree.supervisors())
        living = await self._supervisor.snapshot()
        back = _came_back(living)
        for row in self._registry.instances():
            self._load(row)
            if not back:
                self._runner.set_resting(self.instances[row.component], False)
        self._runner.draining = living.stopping
        try:
            routes = {route.component: route for route in await self._router.query()}
        except UnavailableError:
            routes = {}  # it is just being started; its first event tells the rest
        for worker in living.workers:
            instance = self.instances.get(worker.component)
            live = Incarnation.new(worker.incarnation)
            live.pid, live.uid = worker.pid, worker.uid
            if instance is None or not instance.row.running or instance.row.quarantine or instance.live is not None:
                self._runner.spawn(self._end_stray(worker.component, worker.incarnation))
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
                self._router_event(event)
            else:
                self._resolve_end(event)
        for component in routes.keys() - {i.component for i in self.instances.values() if i.row.running}:
            await self._router.unroute(component, "is not to run")
        wanted = [instance for instance in self.instances.values() if instance.row.running]
        if not self.draining:
            for instance in wanted:
                if not (back and _ended_for_good(instance)):
                    await self._router.route(instance.route())
                elif instance.component in routes:
                    self._runner.retire(instance)
            self._take_up(wanted, back)

    def _take_up(self, wanted: list[Instance], back: bool) -> None:
        """Supervise what lives and start the rest in order."""
        for instance in wanted:
            if instance.live is not None:
                self._runner.launch(instance)
            elif instance.row.quarantine:
                instance.state = State.QUARANTINED
                self._runner.retire(instance)
        missing = [i for i in wanted if i.live is None and not i.row.quarantine] if back else []
        for instance in missing:
            if _ended_for_good(instance):
                self.tree.rests(str(instance.component))
                self._runner.set_resting(instance, True)
        batches, token = self._runner.claim_order(ROOT, fresh=not back)
        self._runner.operations.begin(ROOT, functools.partial(self._runner.start_in_order, batches, token))
        for instance in missing:
            if instance.claim is token and any(map(self._lives, self.tree.concerned(str(instance.component)))):
                # It ended while no control was there to see it: that concerns those who are left of its group.
                instance.outcome, instance.detail = Outcome.KILLED, "it ended while control was away"
                self._runner.after_end(instance, 0.0)

    def _lives(self, name: str) -> bool:
        return self.instances[ComponentId.parse(name)].live is not None

    async def _end_stray(self, component: ComponentId | None, incarnation: int) -> None:
        with contextlib.suppress(SupervisorError, UnavailableError):
            await self._supervisor.kill_worker(incarnation, Outcome.KILLED)
        self._audit.note("worker.stray", "info", component=str(component or ""), object=str(incarnation))

    def _load(self, row: InstanceRow) -> Instance:
        package = self._registry.package(row.package)
        spec = from_predicate(package.manifest, package.digest)
        instance = Instance(row, spec)
        instance.restarts = self._registry.restarts(row.component)
        ends = self._registry.ends(row.component, 1)
        if ends:
            instance.outcome, instance.detail = ends[0].outcome, ends[0].detail
        self.instances[row.component] = instance
        self.tree.add(str(row.component), spec.supervision)
        self.tree.set_absent(str(row.component), not row.running or bool(row.quarantine))
        return instance

    def _renew(self, instance: Instance) -> None:
        instance.row = self._registry.instance(instance.component)
        package = self._registry.package(instance.row.package)
        instance.spec = from_predicate(package.manifest, package.digest)
        self.tree.add(str(instance.component), instance.spec.supervision)
        self.tree.set_absent(str(instance.component), not instance.row.running)

    # -- what operators ask -----------------------------------------------------------------------------------

    def get(self, component: ComponentId) -> Instance:
        """One instance. Raises NotFoundError."""
        instance = self.instances.get(component)
        if instance is None:
            raise NotFoundError("no such component", subject=str(component), hint="see airssys list")
        return instance

    async def installed(self, component: ComponentId, *, start: bool) -> Instance:
        """Take up a new or changed registry row; a running worker of the old package is stopped first.

        Replicas follow their instance 0: they are made, changed and started in the background.
        """
        self._refuse_while_draining()
        instance = await self._take_row(component)
        spec = replicas.template_of(component, self.tree.supervisors())
        if spec is not None and component.instance == "0":
            changed, _ = replicas.settle(self._registry, [spec])
            for replica in changed:
                await self._take_row(replica)
        if start:
            await self.start(component)
            if spec is not None:
                self._start_below(spec.name)
        return instance

    async def _take_row(self, component: ComponentId) -> Instance:
        instance = self.instances.get(component)
        if instance is None:
            return self._load(self._registry.instance(component))
        # The same object: whoever waits for its lock must find the new package, not a stale copy of the old.
        async with instance.lock:
            instance.claim = None
            await self._runner.halt(instance)
            self._renew(instance)
        return instance

    async def start(self, component: ComponentId) -> Instance:
        """Make it run and wait until that has worked or failed once. Raises NotFoundError, ConflictError."""
        self._refuse_while_draining()
        instance = self.get(component)
        async with instance.lock:
            name = str(component)
            self._registry.set_running(component, True)
            self._registry.set_quarantine(component, "")
            if instance.row.quarantine:
                self.tree.pardon(name)
            instance.row = self._registry.instance(component)
            if instance.task is None or instance.task.done() or instance.state is State.BACKOFF:
                await self._runner.cancel(instance)
                self.tree.set_absent(name, False)
                self.tree.reset(name)
                self._runner.launch(instance)
        await instance.settled()
        return instance

    async def stop(self, component: ComponentId, *, drain: bool = False) -> Instance:
        """End it and keep it ended. `drain` delivers what waits in its mailbox first. Raises NotFoundError."""
        instance = self.get(component)
        async with instance.lock:
            self._registry.set_running(component, False)
            instance.row = self._registry.instance(component)
            instance.claim = None
            self.tree.set_absent(str(component), True)
            await self._runner.halt(instance, drain=drain)
            await self._router.unroute(component, "was stopped")
            with contextlib.suppress(SupervisorError):
                await self._supervisor.drop_policy(component)
        return instance

    async def restart(self, component: ComponentId) -> Instance:
        """End its worker and start another; the mailbox stays. Raises NotFoundError, ConflictError."""
        self._refuse_while_draining()
        instance = self.get(component)
        async with instance.lock:
            instance.claim = None
            await self._runner.halt(instance)
        return await self.start(component)

    async def remove(self, component: ComponentId, *, purge: bool) -> None:
        """Stop it and forget it; `purge` drops its stored values too. With instance 0 of a template its replicas go.

        Raises:
            NotFoundError: no such component.
            ConflictError: a replica that its supervisor would make again.
        """
        self.get(component)
        spec = replicas.template_of(component, self.tree.supervisors())
        going = [component]
        if spec is not None:
            if component.instance != "0":
                raise ConflictError(
                    f"it is a replica that supervisor {spec.name} keeps",
                    subject=str(component),
                    hint=f"lower replicas in airssys.toml, or uninstall {spec.template}/0 and all with it",
                )
            found = (ComponentId.parse(name) for name in self.tree.children(spec.name))
            going = [*(replica for replica in found if replica != component), component]
        for each in going:
            await self._remove(each, purge=purge)

    async def _remove(self, component: ComponentId, *, purge: bool) -> None:
        instance = self.get(component)
        async with instance.lock:
            instance.claim = None
            await self._runner.halt(instance)
            await self._router.unroute(component)
            await self._supervisor.drop_policy(component, purge=purge)
            self._registry.uninstall(component)
            del self.instances[component]
            self.tree.remove(str(component))

    async def release(self, component: ComponentId) -> Instance:
        """Start a quarantined component, with its intensity afresh.

        Raises:
            NotFoundError: no such component.
            ConflictError: it is not quarantined, or the host is stopping.
        """
        self.quarantined(component)
        return await self.start(component)

    def quarantined(self, component: ComponentId) -> Instance:
        """A component that is quarantined. Raises NotFoundError, ConflictError."""
        instance = self.get(component)
        if instance.state is not State.QUARANTINED:
            raise ConflictError(
                f"the component is {instance.state.value} and not quarantined",
                subject=str(component),
                hint="airssys start starts what is stopped or failed",
            )
        return instance

    async def release_below(self, supervisor: str) -> list[Instance]:
        """Start what is quarantined below a supervisor, in order, and wait until each is ready or given up.

        Raises:
            NotFoundError: no such supervisor.
            ConflictError: nothing below it is quarantined, or the host is stopping.
        """
        self._refuse_while_draining()
        quarantined = self.quarantined_below(supervisor)
        for instance in quarantined:
            self._runner.lift(instance)
        self.tree.reset(supervisor)
        self.tree.pardon(supervisor)
        self._start_below(supervisor)
        for instance in quarantined:
            await instance.decided()
        return quarantined

    def quarantined_below(self, supervisor: str) -> list[Instance]:
        """What is quarantined below a supervisor. Raises NotFoundError, and ConflictError where nothing is."""
        if supervisor == ROOT or not self.tree.has(supervisor):
            raise NotFoundError("no such supervisor", subject=supervisor[:80], hint="see airssys status")
        below = [self.instances[ComponentId.parse(name)] for name in flat(self.tree.batches(supervisor))]
        found = [instance for instance in below if instance.state is State.QUARANTINED]
        if not found:
            raise ConflictError("nothing below it is quarantined", subject=supervisor, hint="see airssys status")
        return found

    def _start_below(self, supervisor: str) -> None:
        batches, token = self._runner.claim_order(supervisor)
        self._runner.operations.begin(supervisor, functools.partial(self._runner.start_in_order, batches, token))

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
                    instance.claim = None
                    self.tree.set_absent(str(instance.component), True)
                    await self._runner.halt(instance)
                    instance.fail(State.FAILED, Outcome.SETUP_ERROR, str(error))
                    self._runner.retire(instance)
                self._audit.note("worker.refused", "denied", component=str(instance.component), result=error.code)
                stopped.append(str(instance.component))
        return stopped

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise ConflictError("the host is stopping", hint="wait for airssys down to finish")

    # -- what happens -----------------------------------------------------------------------------------------

    def on_supervisor(self, frame: Unasked) -> None:
        """Take an event of the supervisor. An error of ours in one must not keep the next from us."""
        try:
            self._supervisor_event(frame)
        except Exception as error:
            self._runner.fault(type(frame).__name__, error)

    def _supervisor_event(self, frame: Unasked) -> None:
        if isinstance(frame, WorkerEnded):
            self._worker_ended(frame)
        elif isinstance(frame, ProcessRestarted):
            self._runner.spawn(self._process_restarted(frame.name))
        elif isinstance(frame, Drain):
            self._runner.spawn(self._drain(frame.seconds))
        else:
            # A control before us asked for this worker and died; we have started another in its place.
            self._runner.spawn(self._end_stray(None, frame.incarnation))

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
        """Take an event of the router. An error of ours in one must not keep the next from us."""
        try:
            self._router_event(event)
        except Exception as error:
            self._runner.fault(str(event.component), error)

    def _router_event(self, event: Event) -> None:
        """One of a worker that is over already says nothing."""
        instance = self._starter.incarnations.get(event.incarnation)
        if event.kind == "ended":
            self._last_words(event)
            if instance is not None and instance.live is not None and instance.live.number == event.incarnation:
                instance.live.told.set()
            return
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
            live.told.set()
        elif event.kind == "health":
            instance.health = event.text
            if live.watch is not None and live.watch.heard(event.text):
                self._unhealthy(instance, live, live.watch.row)

    def _unhealthy(self, instance: Instance, live: Incarnation, times: int) -> None:
        """Its liveness is lost: its end is an abnormal one, and the tree decides what follows."""
        if instance.state is not State.RUNNING or live.kill_reason:
            return
        live.kill_reason = "it called itself unhealthy" + (f" {times} times in a row" if times > 1 else "")
        self._audit.note("component.unhealthy", "info", component=str(instance.component), detail={"answers": times})
        self._runner.spawn(self._starter.kill(instance, live, Outcome.KILLED))

    async def _process_restarted(self, name: str) -> None:
        """The workers of the old process are being ended; that is the host's fault and not counted as theirs."""
        since = time.monotonic() - HOST_FAULT
        if name == "router":
            await self._router.reconnect()
        self.tree.forgive(since)
        # All of them first: nobody waits for a group that is still being given up.
        for instance in list(self.instances.values()):
            try:
                await self._tell_new(name, instance)
            except Exception as error:
                self._runner.fault(str(instance.component), error)
        await self._runner.quarantined()
        self._lift(since)

    async def _tell_new(self, name: str, instance: Instance) -> None:
        """Tell a new router or bridge what it must know of one component."""
        if self.instances.get(instance.component) is not instance or not instance.row.running or self.draining:
            return
        with contextlib.suppress(StartFailed, UnavailableError):
            if name == "router" and (not instance.at_rest or instance.state is State.QUARANTINED):
                await self._router.route(instance.route())
                if instance.state is State.QUARANTINED:
                    self._runner.retire(instance)
            if name == "bridge" and instance.state in (State.STARTING, State.RUNNING):
                # A start under way may have given its policy to the bridge that is gone.
                await self._starter.send_policy(instance)

    def _lift(self, since: float) -> None:
        """Start what was quarantined at or after `since`: the host was the cause."""
        lifted: dict[str, None] = {}
        for instance in self.instances.values():
            wanted = instance.row.running and not self.draining
            if wanted and instance.state is State.QUARANTINED and instance.failed_at >= since:
                try:
                    self._runner.lift(instance)
                except UnavailableError as error:
                    self._runner.fault(str(instance.component), error)
                    continue
                lifted[self.tree.top(str(instance.component))] = None
        for top in lifted:
            if self.tree.has(top):
                self._start_below(top)
            else:
                self._runner.launch(self.instances[ComponentId.parse(top)])

    async def _drain(self, seconds: int) -> None:
        """Stop everything in reverse order of start; the registry keeps what should run after the next `up`."""
        try:
            await self._runner.stop_all(max(0.5, seconds - 1))
        except Exception as error:  # the host ends all the same, and its workers with it
            self._runner.fault(ROOT, error)
        self._on_drained()

    async def close(self) -> None:
        """Let go of every task; workers are left alone."""
        await self._runner.close()

    async def router_states(self) -> dict[ComponentId, RouteState]:
        """Mailboxes and counters as the router has them; empty while it is away."""
        try:
            return {route.component: route for route in await self._router.query(timeout=2.0)}
        except UnavailableError:
            return {}


def _ended_for_good(instance: Instance) -> bool:
    """Whether it ended under an earlier control, and its restart kind has it stay so."""
    resting = instance.row.resting or instance.spec.supervision.restart == "temporary"
    return resting and instance.live is None and not instance.row.quarantine


def _came_back(living: Living) -> bool:
    """Whether a control before this one ran on the same host; on a host that has just started everything begins."""
    return bool(living.workers) or any(p.name == "control" and p.restarts > 0 for p in living.processes)
