"""What carries the tree's decisions out: a task for each component that should run, operations beyond single ones.

A component's task starts its worker, waits for the end, and asks the tree what follows. What concerns the component
alone the task does itself; what concerns others becomes an operation (`operations`): siblings are claimed at once,
stopped in reverse order, and started in order after the delay. The end of a claimed worker is expected and counts as
nothing. An error of our own in a task is told and the task goes on with what there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Coroutine, Iterable

import msgspec

from sandbox.errors import AirssysError
from sandbox.types import ComponentId, Outcome
from sandbox.wire.supervisor_frames import WorkerEnded
from supervisor.config_tree import ROOT
from supervisor.control.audit_link import AuditLink
from supervisor.control.errors import SupervisorError, UnavailableError
from supervisor.control.health import Watch
from supervisor.control.instance import Instance, State
from supervisor.control.operations import Operations, fault_delay
from supervisor.control.registry import Registry
from supervisor.control.router_link import RouterLink
from supervisor.control.starter import Starter, StartFailed
from supervisor.control.strategy import Batches
from supervisor.control.supervision import Decision, Tree, flat

_log = logging.getLogger("airssys.control")

EXHAUSTED = "E_EXHAUSTED"
HOST_ABSENT = frozenset({"E_NOT_READY", "E_UNAVAILABLE", "E_NO_SPACE", EXHAUSTED})
"""Codes with which a start fails because another process of the host is away, or its disk is full."""
ABSENCE_FIRST, ABSENCE_MOST = 0.02, 1.0
"""Seconds before the next attempt then: the first, the longest."""
STOP_GRACE = 2.0
"""Seconds beyond its deadline that a worker has to shut down before it is killed."""


class Runner:
    """The tasks of all instances.

    Args:
        tree: decides what follows from an end.
    """

    def __init__(
        self,
        *,
        tree: Tree,
        router: RouterLink,
        audit: AuditLink,
        registry: Registry,
        starter: Starter,
    ) -> None:
        self.tree = tree
        self._router, self._audit, self._registry, self._starter = router, audit, registry, starter
        self.instances: dict[ComponentId, Instance] = {}
        self.draining = False
        self._order = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.operations = Operations(self.spawn, self.fault)
        self._quarantines: set[asyncio.Task[None]] = set()

    # -- tasks ------------------------------------------------------------------------------------------------

    def spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that is let go of at the end."""
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

    def fault(self, where: str, error: Exception) -> None:
        """An error of our own: no component's fault, and no reason to leave any alone."""
        _log.error("supervision of %s failed and goes on", where, exc_info=error)
        detail: dict[str, str | int] = {"error": f"{type(error).__name__}: {error}"[:1024]}
        component = where if "/" in where else ""
        self._audit.note("supervision.fault", "info", component=component, object=where, detail=detail)

    async def close(self) -> None:
        """Let go of every task; workers are left alone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- one component ----------------------------------------------------------------------------------------

    def launch(self, instance: Instance) -> None:
        """Supervise it from now on; its lock is held, or nobody else knows it yet."""
        self._order += 1
        instance.start_order = self._order
        instance.claim = None
        if instance.live is None:
            instance.enter(State.STARTING)
        self.set_resting(instance, False)
        instance.task = self.spawn(self._keep(instance))

    async def _keep(self, instance: Instance) -> None:
        faults = 0
        while True:
            try:
                return await self._supervise(instance)
            except Exception as error:
                faults += 1
                self.fault(str(instance.component), error)
            await asyncio.sleep(fault_delay(faults))

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
                    self.tree.set_absent(str(instance.component), True)
                    instance.fail(State.FAILED, Outcome.SETUP_ERROR, str(failure))
                    self.retire(instance)
                    self._audit.note("worker.refused", "denied", component=str(instance.component), result=failure.code)
                    return
                outcome = failure.outcome if isinstance(failure, StartFailed) else Outcome.KILLED
                # A plain failed start is told by its outcome; another code says more than the words.
                why = failure.message if failure.code == StartFailed.code else str(failure)
                end, uptime = WorkerEnded(instance.component, 0, outcome, why), 0.0
            except OSError as error:
                end, uptime = WorkerEnded(instance.component, 0, Outcome.SETUP_ERROR, str(error)), 0.0
            absences = 0
            instance.outcome, instance.detail, instance.health = end.outcome, end.detail, "unknown"
            if instance.claim is not None:
                instance.enter(State.STOPPING)
                return  # an operation is about to stop it, and has the word from here
            delay = self.after_end(instance, uptime)
            if delay is None:
                return
            if delay > 0:
                instance.enter(State.BACKOFF)
                instance.next_start = time.monotonic() + delay
                await asyncio.sleep(delay)
            self._count_restart(instance)

    async def _run_once(self, instance: Instance) -> tuple[WorkerEnded, float]:
        live = instance.live
        if live is None:
            instance.enter(State.STARTING)
            live = await self._starter.start(instance)
        elif not live.ready.done():
            instance.enter(State.STARTING)  # adopted while it was still initialising
            await self._starter.wait_ready(instance, live)
        live.watch = Watch(instance.spec.supervision)
        end = await asyncio.shield(live.ended)
        uptime = live.uptime(time.monotonic())
        self._starter.forget(instance, live)
        if live.kill_reason:
            end = WorkerEnded(end.component, end.incarnation, end.outcome, live.kill_reason)
        return end, uptime

    def _count_restart(self, instance: Instance) -> None:
        try:
            instance.restarts = self._registry.count_restart(instance.component)
        except UnavailableError as error:
            # Starting it matters more than the count that survives us.
            _log.error("a restart of %s was not counted: %s", instance.component, error)
            instance.restarts += 1

    async def halt(
        self, instance: Instance, *, drain: bool = False, timeout: float | None = None, then: State = State.STOPPED
    ) -> None:
        """End supervision and the worker: asked first unless its `shutdown` is immediate, killed when it does not end
        in time. Its lock is held.

        Args:
            drain: what waits in its mailbox is delivered first.
            timeout: seconds it has at most, whatever its manifest says.
            then: the state it is in afterwards.
        """
        await self._cancel(instance)
        live = instance.live
        instance.enter(State.STOPPING)
        if live is not None:
            if live.start is not None:
                with contextlib.suppress(SupervisorError, UnavailableError):
                    await asyncio.shield(live.start)
            grace, told = _grace(instance, timeout)
            if not live.ended.done() and grace > 0:
                with contextlib.suppress(UnavailableError):
                    await self._router.stop(instance.component, drain=drain, timeout_ms=told)
                    await asyncio.wait({live.ended}, timeout=grace)
            if not live.ended.done():
                await self._starter.kill(instance, live, Outcome.KILLED)
            end = live.ended.result()
            instance.outcome, instance.detail = end.outcome, end.detail
            self._starter.forget(instance, live)
        instance.health = "unknown"
        instance.enter(then)

    async def _cancel(self, instance: Instance) -> None:
        task, instance.task = instance.task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})

    async def cancel(self, instance: Instance) -> None:
        """End supervision and leave the worker alone. Its lock is held."""
        await self._cancel(instance)

    # -- decisions --------------------------------------------------------------------------------------------

    def after_end(self, instance: Instance, uptime: float) -> float | None:
        """Ask the tree what follows from the end in `instance.outcome`.

        Returns the seconds after which the caller starts it again; None when that is not the caller's to do: it stays
        ended, or others are concerned and an operation has begun.
        """
        name = str(instance.component)
        decision = self.tree.ended(name, instance.outcome, time.monotonic(), uptime)
        if decision.verdict == "rest":
            self.set_resting(instance, True)
            instance.enter(State.STOPPED)
            self.retire(instance)
            return None
        if decision.verdict == "restart" and decision.alone(name):
            return decision.delay
        cause = f"{name} ended: {instance.outcome}" + (f": {instance.detail}" if instance.detail else "")
        for gone in decision.gave_up:
            self._audit.note(
                "supervisor.gave-up",
                "info",
                component=name,
                object=gone,
                result=instance.outcome,
                detail={"why": cause},
            )
        token = self._claim((*flat(decision.stop), *flat(decision.start), *decision.quarantined))
        if decision.verdict == "quarantine":
            instance.enter(State.STOPPING)
            work = functools.partial(self._quarantine, decision, token, instance, cause)
            task = self.operations.begin(decision.at, work)
            self._quarantines.add(task)
            task.add_done_callback(self._quarantines.discard)
        else:
            instance.enter(State.BACKOFF)
            self.operations.begin(decision.at, functools.partial(self._regroup, decision, token))
        return None

    def retire(self, instance: Instance) -> None:
        """Have the router refuse its mail while it is at rest; the next start routes it again.

        What waits for a quarantined one is kept for its release.
        """
        if instance.state is State.QUARANTINED:
            self._router.retire(instance.component, "is quarantined", keep=True)
        elif instance.state is State.FAILED:
            self._router.retire(instance.component, "may not or cannot be started")
        else:
            self._router.retire(instance.component, "has ended and is not started again")

    def set_resting(self, instance: Instance, resting: bool) -> None:
        """Remember, for a control that comes back, whether it has ended for good."""
        if instance.row.resting == resting:
            return
        try:
            self._registry.set_resting(instance.component, resting)
        except UnavailableError as error:
            _log.error("%s: that it %s was not noted: %s", instance.component, "rests" if resting else "runs", error)
        instance.row = msgspec.structs.replace(instance.row, resting=resting)

    def _claim(self, names: Iterable[str]) -> object:
        token = object()
        for name in names:
            self._named(name).claim = token
        return token

    def _named(self, name: str) -> Instance:
        return self.instances[ComponentId.parse(name)]

    async def _regroup(self, decision: Decision, token: object) -> None:
        """Restart what a strategy names: stop backwards, wait, start in order."""
        again = set(flat(decision.start))
        await self._stop_claimed(decision.stop, token, again)
        if decision.delay > 0:
            for name in again:
                if (instance := self._named_still(name, token)) is not None:
                    instance.next_start = time.monotonic() + decision.delay
            await asyncio.sleep(decision.delay)
        for name in flat(decision.start):
            if (instance := self._named_still(name, token)) is not None:
                self._count_restart(instance)
        await self.start_in_order(decision.start, token)

    def _named_still(self, name: str, token: object) -> Instance | None:
        """A component, if it is still there and nobody else has taken charge of it."""
        instance = self.instances.get(ComponentId.parse(name))
        return instance if instance is not None and instance.claim is token else None

    async def _stop_claimed(self, batches: Batches, token: object, again: set[str]) -> None:
        for batch in batches:
            async with asyncio.TaskGroup() as group:
                for name in batch:
                    group.create_task(self._stop_one(name, token, State.BACKOFF if name in again else State.STOPPED))

    async def _stop_one(self, name: str, token: object, then: State) -> None:
        instance = self._named_still(name, token)
        if instance is None:
            return
        async with instance.lock:
            if instance.claim is not token:
                return  # an operator was faster
            if instance.state in (State.QUARANTINED, State.FAILED) and instance.live is None:
                instance.unclaim(instance.state)
                return
            await self.halt(instance, then=then)
            if then is State.STOPPED:
                instance.unclaim(then)
                if instance.at_rest:
                    self.retire(instance)

    def claim_order(self, supervisor: str, *, fresh: bool = True) -> tuple[Batches, object]:
        """Claim everything below a supervisor that should run and does not; the order to start it in.

        `fresh`: the supervisors begin with nothing counted, and know again what they had forgotten.
        """
        if fresh:
            self.tree.started(supervisor, time.monotonic())
        batches = self.tree.start_order(supervisor)
        missing = [name for name in flat(batches) if self._is_missing(self._named(name))]
        token = self._claim(missing)
        for name in missing:
            self._named(name).enter(State.STARTING)
        return batches, token

    @staticmethod
    def _is_missing(instance: Instance) -> bool:
        return (
            instance.row.running
            and not instance.row.quarantine
            and not instance.row.resting
            and instance.claim is None
            and (instance.task is None or instance.task.done())
        )

    async def start_in_order(self, batches: Batches, token: object) -> None:
        """Start what is claimed, a batch when the one before is ready or given up."""
        for batch in batches:
            if not any(self._named_still(name, token) for name in flat(batches)):
                return  # nothing is left to do: it is done, or others took charge
            for name in batch:
                instance = self._named_still(name, token)
                if instance is None:
                    continue
                async with instance.lock:
                    if instance.claim is not token:
                        continue
                    if instance.row.running and not self.draining:
                        self.launch(instance)
                    else:
                        instance.unclaim(State.STOPPED)
            for name in batch:
                if (waited := self.instances.get(ComponentId.parse(name))) is not None:
                    await waited.decided()

    async def _quarantine(self, decision: Decision, token: object, failed: Instance, cause: str) -> None:
        """Give up all below a child of the root, until an operator releases it."""
        why = f"{failed.outcome}: {failed.detail}" if failed.detail else failed.outcome
        alone = decision.at == str(failed.component)
        if not alone:
            why = f"supervisor {decision.at} gave up: {cause}"
        # First of all remembered: a control that comes back in the middle must not start what this one gave up.
        for name in decision.quarantined:
            if (instance := self._named_still(name, token)) is not None:
                async with instance.lock:
                    if instance.claim is token:
                        self._note_quarantine(instance, why)
        await self._stop_claimed(decision.stop, token, set(decision.quarantined))
        for name in decision.quarantined:
            if (instance := self._named_still(name, token)) is not None:
                instance.claim = None
                instance.fail(State.QUARANTINED, instance.outcome, instance.detail)
                self.retire(instance)
        self._audit.note(
            "component.quarantined" if alone else "supervisor.quarantined",
            "info",
            component=str(failed.component),
            object="" if alone else decision.at,
            result=failed.outcome,
            detail={"max-restarts": self._allowed(decision.at, failed), "why": why},
        )

    def _note_quarantine(self, instance: Instance, why: str) -> None:
        try:
            self._registry.set_quarantine(instance.component, why)
        except UnavailableError as error:
            _log.error("the quarantine of %s was not noted: %s", instance.component, error)
        instance.row = msgspec.structs.replace(instance.row, quarantine=why)
        self.tree.set_absent(str(instance.component), True)

    async def quarantined(self) -> None:
        """Wait until whatever is being given up is given up."""
        if self._quarantines:
            await asyncio.wait(list(self._quarantines))

    def lift(self, instance: Instance) -> None:
        """Forget a quarantine; whoever calls this starts it. Raises UnavailableError."""
        self._registry.set_quarantine(instance.component, "")
        instance.claim = None
        instance.row = msgspec.structs.replace(instance.row, quarantine="")
        self.tree.set_absent(str(instance.component), False)

    def _allowed(self, at: str, failed: Instance) -> int:
        spec = next((spec for spec in self.tree.supervisors() if spec.name == at), None)
        return failed.spec.supervision.max_restarts if spec is None else spec.max_restarts

    # -- all --------------------------------------------------------------------------------------------------

    async def stop_all(self, seconds: float) -> None:
        """Stop everything in reverse order of start within `seconds`."""
        self.draining = True
        await self.operations.cancel_all()
        until = time.monotonic() + seconds
        batches = self.tree.batches(ROOT)
        own = sorted(
            (name for name in flat(batches) if self.tree.parent(name) == ROOT),
            key=lambda name: self._named(name).start_order,
        )
        among = set(own)
        order = [*(batch for batch in batches if not among.intersection(batch)), *((name,) for name in own)]
        for index, batch in enumerate(reversed(order)):
            share = max(0.05, (until - time.monotonic()) / (len(order) - index))
            await asyncio.gather(*(self._stop_within(name, min(share, until - time.monotonic())) for name in batch))

    async def _stop_within(self, name: str, seconds: float) -> None:
        instance = self._named(name)
        with contextlib.suppress(AirssysError):
            async with instance.lock:
                instance.claim = None
                await self.halt(instance, timeout=max(seconds, 0.0))


def _grace(instance: Instance, timeout: float | None) -> tuple[float, int]:
    """Seconds until a worker that is told to stop is killed, and milliseconds its `shutdown` alone may take."""
    limit = instance.spec.supervision.shutdown
    if limit is None:
        # A message in hand may take its deadline, and `shutdown` another; the router holds both to it.
        grace, told = 2 * instance.spec.limits.deadline_ms / 1000 + STOP_GRACE, 0
    else:
        grace, told = limit, round(limit * 1000)
    if instance.live is not None and not instance.live.ready.done():
        grace = min(grace, STOP_GRACE)  # it may hang in `initialize`, and has taken no message yet
    return (grace if timeout is None else min(grace, timeout)), told
