"""The way from an installed package to a worker that is ready, in order.

Verify the stored bytes against the trust store as it is now, take the .cwasm of exactly those bytes, give the bridge
the policy and the router the route, record, and have the supervisor start the worker. Nothing is skipped on a
restart: a key revoked meanwhile is refused here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec

from sandbox.errors import AirssysError
from sandbox.types import CallPath, ComponentId, FastExport, Outcome
from sandbox.wire.compile_result import Crossing
from sandbox.wire.supervisor_frames import Started, WorkerEnded
from supervisor.control.audit_link import AuditLink
from supervisor.control.compile import Compiler
from supervisor.control.errors import SupervisorError, UnavailableError
from supervisor.control.instance import Incarnation, Instance, State
from supervisor.control.package_store import PackageStore
from supervisor.control.registry import Registry
from supervisor.control.router_link import RouterLink
from supervisor.control.supervisor_link import SupervisorLink
from supervisor.control.verifier import Checked, Verifier

MAX_STARTS = 16
"""Workers that are being made at a time: when very many end at once, those at work keep their share of the machine. How
long a guest takes to initialise holds nobody else up."""
WORDS_SECONDS = 0.5
"""How long a worker's reason for an end before it was ready is waited for, once that end is known."""
_FAST_EXPORTS: tuple[FastExport, ...] = get_args(FastExport)


class StartFailed(AirssysError):
    """The worker did not come up; the tree decides what follows. `outcome` is how."""

    code = "E_SETUP"

    def __init__(self, message: str, outcome: str, *, code: str | None = None, subject: str = "") -> None:
        super().__init__(message, code=code, subject=subject)
        self.outcome = outcome


class Starter:
    """Starts workers.

    Args:
        start_timeout: seconds a worker has to become ready, at least; its own deadline may make it more.
        limit_maxima: the most a manifest may ask for, by key of its [limits].
        path_for: which path the operator wants for a component.
    """

    def __init__(
        self,
        *,
        supervisor: SupervisorLink,
        router: RouterLink,
        audit: AuditLink,
        registry: Registry,
        store: PackageStore,
        verifier: Verifier,
        compiler: Compiler,
        start_timeout: float,
        limit_maxima: Mapping[str, int],
        path_for: Callable[[ComponentId], CallPath],
    ) -> None:
        self._supervisor, self._router, self._audit = supervisor, router, audit
        self._registry, self._store, self._verifier, self._compiler = registry, store, verifier, compiler
        self._start_timeout = start_timeout
        self._limit_maxima = limit_maxima
        self._path_for = path_for
        self._slots = asyncio.Semaphore(MAX_STARTS)
        self.incarnations: dict[int, Instance] = {}
        """Whose worker an incarnation is, from before it is asked for until its end."""

    async def verify(self, instance: Instance) -> tuple[Checked, bytes]:
        """The package as the trust store judges it now, and its .wasm. Raises AirssysError."""
        return await asyncio.to_thread(self._verify, instance.row.package)

    def _verify(self, package: str) -> tuple[Checked, bytes]:
        files = self._store.get(package)
        checked = self._verifier.check(files)
        if checked.spec.package != package:
            raise AirssysError("the stored files are another package's", subject=package, code="E_DIGEST")
        return checked, files.wasm

    async def start(self, instance: Instance) -> Incarnation:
        """Bring up a worker and return it once it is ready.

        Raises:
            StartFailed: it ended or failed on the way; trying again makes sense.
            AirssysError: the package may not or cannot be run; trying again does not.
        """
        async with self._slots:
            live = await self._make(instance)
        await self.wait_ready(instance, live)
        if live.ready_at is not None:
            # From the request to the component's own word that it is initialised, as control sees it.
            detail: dict[str, str | int] = {
                "incarnation": live.number,
                "micros": int((live.ready_at - live.asked_at) * 1e6),
            }
            await self._audit.record("worker.ready", "info", component=str(instance.component), detail=detail)
        return live

    async def _make(self, instance: Instance) -> Incarnation:
        component = instance.component
        instance.spec.check_limits(self._limit_maxima)  # the operator may have lowered them since
        _, wasm = await self.verify(instance)
        compiled = await self._compiler.get(wasm, instance.spec.name, self._path_for(component))
        try:
            self._note_crossing(instance, compiled.info.crossing)
            live = Incarnation.new(self._registry.next_incarnation())
            await self.send_policy(instance)
            await self._router.route(instance.route())
            await self._audit.record(
                "worker.start",
                "allowed",
                component=str(component),
                object=instance.spec.package,
                detail={"incarnation": live.number, "digest": instance.spec.digest, "version": instance.spec.version},
            )
            instance.live = live
            self.incarnations[live.number] = instance
            # A task of its own: if the caller is cancelled the supervisor still starts the worker, and whoever
            # stops the instance waits for this answer before asking for its end.
            live.asked_at = time.monotonic()
            # What the compiler says is a stranger's word: only names that mean something are handed on.
            fast = [name for name in _FAST_EXPORTS if name in compiled.info.crossing.exports]
            live.start = asyncio.create_task(self._start_worker(instance, live.number, os.dup(compiled.fd), fast))
        finally:
            os.close(compiled.fd)
        await self._until_made(instance, live)
        return live

    def _note_crossing(self, instance: Instance, crossing: Crossing) -> None:
        """Remember how values cross its boundary from this start on: the operator may have changed it since."""
        if instance.row.crossing != crossing:
            self._registry.set_crossing(instance.component, crossing)
            instance.row = msgspec.structs.replace(instance.row, crossing=crossing)

    async def _start_worker(self, instance: Instance, incarnation: int, cwasm: int, fast: list[FastExport]) -> Started:
        limits = instance.spec.limits
        try:
            return await self._supervisor.start_worker(instance.component, incarnation, limits, cwasm, fast)
        finally:
            os.close(cwasm)

    async def _until_made(self, instance: Instance, live: Incarnation) -> None:
        assert live.start is not None
        try:
            started = await asyncio.shield(live.start)
        except SupervisorError as error:
            self.forget(instance, live)
            raise StartFailed(error.message, error.outcome or Outcome.SETUP_ERROR, code=error.code) from error
        except UnavailableError as error:
            self.forget(instance, live)
            raise StartFailed(error.message, Outcome.KILLED, code=error.code) from error
        live.pid, live.uid = started.pid, started.uid

    async def wait_ready(self, instance: Instance, live: Incarnation) -> None:
        """Wait until the router calls it ready. Raises StartFailed when it ends first, or takes too long."""
        # The router ends a slow initialisation itself; this guards against an event that got lost with a router.
        limit = max(self._start_timeout, instance.spec.limits.deadline_ms / 1000) + 2
        first: list[asyncio.Future[Any]] = [live.ready, live.ended]
        await asyncio.wait(first, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if live.ended.done():
            end = live.ended.result()
            if end.outcome == Outcome.EXITED and not live.init_error:
                # It has said why, most likely; that comes by way of the router.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(live.told.wait(), WORDS_SECONDS)
            self.forget(instance, live)
            raise StartFailed(live.init_error or end.detail or f"ended: {end.outcome}", end.outcome)
        if not live.ready.done():
            live.kill_reason = "did not become ready in time"
            await self.kill(instance, live, Outcome.DEADLINE)
            raise StartFailed(live.kill_reason, Outcome.DEADLINE)
        instance.enter(State.RUNNING)

    async def send_policy(self, instance: Instance) -> None:
        """Give the bridge the instance's policy and mounts. Raises StartFailed with what the supervisor said."""
        policy, mounts = instance.spec.policy(instance.row.bindings)
        try:
            instance.lost_wall = await self._supervisor.set_policy(instance.component, policy, mounts)
        except SupervisorError as error:
            raise StartFailed(error.message, error.outcome or Outcome.SETUP_ERROR, code=error.code) from error

    async def kill(self, instance: Instance, live: Incarnation, outcome: str, timeout: float = 5.0) -> None:
        """Have a worker killed and wait for its end."""
        if live.start is not None:
            with contextlib.suppress(SupervisorError, UnavailableError):
                await asyncio.shield(live.start)
        if not live.ended.done():
            # Refused when it is dead already; then its end is on the way, or was told to a control before us.
            with contextlib.suppress(SupervisorError, UnavailableError):
                await self._supervisor.kill_worker(live.number, outcome)
            await asyncio.wait({live.ended}, timeout=timeout)
        if not live.ended.done():
            live.ended.set_result(WorkerEnded(instance.component, live.number, outcome, "its end was never told"))
        self.forget(instance, live)

    def forget(self, instance: Instance, live: Incarnation) -> None:
        """A worker is over."""
        self.incarnations.pop(live.number, None)
        if instance.live is live:
            instance.live = None
