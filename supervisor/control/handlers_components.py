"""Endpoints about components: what they are, starting and stopping them."""

from __future__ import annotations

import time

import msgspec
import psutil
from aiohttp import web

from sandbox.types import ComponentId, Limits
from sandbox.wire.router_frames import RouteState
from supervisor.control.bodies import (
    Accepted,
    CapabilityAnswer,
    ComponentInfo,
    ComponentQuery,
    ComponentsAnswer,
    ComponentStatus,
    CrossingAnswer,
    EndAnswer,
    LimitAnswer,
    RemoveQuery,
    StopQuery,
)
from supervisor.control.context import Control
from supervisor.control.health import UNHEALTHY
from supervisor.control.instance import Instance, State
from supervisor.control.parsing import component_of, read_query
from supervisor.control.peer import Peer
from supervisor.packages.limit_table import TABLE, held_by, spelled


def memory_of(pid: int) -> int | None:
    """Resident bytes of a process; None when it is gone or hidden."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return None


def status_of(control: Control, instance: Instance, route: RouteState | None) -> ComponentStatus:
    """One instance as `status` shows it."""
    now = time.monotonic()
    live = instance.live
    pid = live.pid if live is not None and live.pid else None
    return ComponentStatus(
        id=str(instance.component),
        state=instance.state.value,
        health=instance.health,
        pid=pid,
        uid=live.uid if live is not None and pid is not None else None,
        restarts=instance.restarts,
        uptime=None if live is None or live.ready_at is None else round(now - live.ready_at, 3),
        memory=None if pid is None else memory_of(pid),
        mailbox=None if route is None else route.depth,
        delivered=None if route is None else route.delivered,
        failed=None if route is None else route.failed,
        denied=None if route is None else route.denied,
        outcome=instance.outcome,
        detail=instance.detail,
        version=instance.spec.version,
        release=instance.spec.release,
        digest=instance.spec.digest,
        next_start=None if instance.next_start is None else round(max(0.0, instance.next_start - now), 3),
        lost_wall=instance.lost_wall,
        supervisor=control.lifecycle.tree.parent(str(instance.component)),
        quarantine=instance.row.quarantine,
        ready=instance.state is State.RUNNING and instance.health != UNHEALTHY,
        busy=None if route is None else route.busy,
        waiting_bytes=None if route is None else route.waiting_bytes,
        sent=None if route is None else route.sent,
        dropped=None if route is None else route.dropped,
        expired=None if route is None else route.expired,
        redelivered=None if route is None else route.redelivered,
        dead=None if route is None else route.dead,
        rate=None if route is None else round(route.rate, 3),
        timers=None if route is None else route.timers,
        subscriptions=None if route is None else route.subscriptions,
        breaker="" if route is None else route.breaker,
    )


def limits_of(limits: Limits, controllers: dict[str, str]) -> list[LimitAnswer]:
    """Every limit, its value, and who holds it on this machine."""
    values = [(row, getattr(limits, row.field)) for row in TABLE]
    return [LimitAnswer(row.key, value, spelled(row, value), held_by(row, controllers)) for row, value in values]


async def statuses(control: Control, package: str = "") -> list[ComponentStatus]:
    """All instances, or those of one package, by id."""
    routes = await control.lifecycle.router_states()
    return [
        status_of(control, instance, routes.get(component))
        for component, instance in sorted(control.lifecycle.instances.items())
        if package in ("", component.package)
    ]


async def components(control: Control, request: web.Request, _peer: Peer) -> ComponentsAnswer:
    """List components with their state."""
    return ComponentsAnswer(await statuses(control, read_query(request, ComponentQuery).package))


async def info(control: Control, request: web.Request, _peer: Peer) -> ComponentInfo:
    """Everything about one component: package, publisher, bindings, capabilities, last ends."""
    component = component_of(request)
    instance = control.lifecycle.get(component)
    package = control.registry.package(instance.row.package)
    routes = await control.lifecycle.router_states()
    row = instance.row
    metadata = instance.live.metadata if instance.live is not None else None
    return ComponentInfo(
        status=status_of(control, instance, routes.get(component)),
        package=package.id,
        keyid=package.keyid,
        publisher=package.publisher,
        installed_at=package.installed_at,
        installed_by=package.installed_by,
        bindings=row.bindings,
        env=row.env,
        args=row.args,
        consent_by=row.consent.user,
        consent_at=row.consent.at,
        capabilities=[CapabilityAnswer(line.text, line.risk, line.why) for line in instance.spec.capabilities()],
        imports=package.imports,
        crossing=CrossingAnswer(
            path=row.crossing.path,
            exports=row.crossing.exports,
            imports=row.crossing.imports,
            reason=row.crossing.reason,
        ),
        manifest=msgspec.Raw(package.manifest.encode()),
        limits=limits_of(instance.spec.limits, (await control.supervisor.snapshot()).controllers),
        operations=metadata.operations if metadata is not None else [],
        ends=[EndAnswer(end.incarnation, end.at, end.outcome, end.detail) for end in control.registry.ends(component)],
    )


async def start(control: Control, request: web.Request, peer: Peer) -> ComponentStatus:
    """Start a component; answers once it runs or has failed to."""
    component = await _recorded(control, "component.start", request, peer)
    return status_of(control, await control.lifecycle.start(component), None)


async def stop(control: Control, request: web.Request, peer: Peer) -> ComponentStatus:
    """Stop a component; answers once its worker is gone."""
    drain = read_query(request, StopQuery).drain
    component = await _recorded(control, "component.stop", request, peer)
    return status_of(control, await control.lifecycle.stop(component, drain=drain), None)


async def restart(control: Control, request: web.Request, peer: Peer) -> ComponentStatus:
    """End a component's worker and start another; its mailbox stays."""
    component = await _recorded(control, "component.restart", request, peer)
    return status_of(control, await control.lifecycle.restart(component), None)


async def release(control: Control, request: web.Request, peer: Peer) -> ComponentStatus:
    """Start a quarantined component; answers once it runs or has failed to."""
    control.lifecycle.quarantined(component_of(request))
    component = await _recorded(control, "component.release", request, peer)
    return status_of(control, await control.lifecycle.release(component), None)


async def remove(control: Control, request: web.Request, peer: Peer) -> Accepted:
    """Uninstall a component, and its package when it was the last instance of it."""
    purge = read_query(request, RemoveQuery).purge
    component = await _recorded(control, "component.uninstall", request, peer)
    await control.lifecycle.remove(component, purge=purge)
    control.installer.drop_unused()
    return Accepted(f"{component} uninstalled")


async def _recorded(control: Control, event: str, request: web.Request, peer: Peer) -> ComponentId:
    component = component_of(request)
    control.lifecycle.get(component)
    await control.audit.record_soon(
        event, "allowed", component=str(component), detail={"user": peer.name, "uid": peer.uid}
    )
    return component
