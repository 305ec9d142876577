"""Endpoints about the host: status, walls, its end, and the lines of logs and audit."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import time

import msgspec
from aiohttp import web

from sandbox.wire.supervisor_frames import Confinement
from supervisor.control.bodies import (
    Accepted,
    DoctorAnswer,
    HostStatus,
    LinesQuery,
    ProcessConfinement,
    ProcessStatus,
    StatusAnswer,
)
from supervisor.control.context import Control
from supervisor.control.errors import AuditError, UnavailableError, ValidationError
from supervisor.control.handlers_components import statuses
from supervisor.control.handlers_supervisors import supervisors
from supervisor.control.parsing import parse_component, read_query
from supervisor.control.peer import Peer
from supervisor.packages.limit_table import TABLE, beside, held_by

FOLLOW_EVERY = 0.25
"""Seconds between two looks for new lines."""
MAX_LINES = 1000


def version() -> str:
    """The version of the installed distribution."""
    try:
        return importlib.metadata.version("airssys-wasm")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


async def status(control: Control, _request: web.Request, _peer: Peer) -> StatusAnswer:
    """The host's processes, the walls it lost, and all components."""
    living = await control.supervisor.snapshot()
    processes = [ProcessStatus(p.name, p.pid, p.uid, p.restarts, p.ready) for p in living.processes]
    if living.stopping or control.lifecycle.draining:
        state = "stopping"
    else:
        state = "ready" if all(process.ready for process in processes) else "degraded"
    lost = {name: detail for name, detail in living.walls.items() if detail.partition(" ")[0] != "on"}
    uptime = round(time.monotonic() - control.started, 3)
    config = control.config
    held = {row.key: held_by(row, living.controllers) for row in TABLE} | beside(living.controllers)
    components = await statuses(control)
    mail = control.router.counters
    host = HostStatus(version(), state, uptime, config.profile, config.spawn, config.pool, processes, lost, held, mail)
    return StatusAnswer(host, components, supervisors(control))


async def doctor(control: Control, _request: web.Request, _peer: Peer) -> DoctorAnswer:
    """Every wall as it runs, and what confines each process."""
    living = await control.supervisor.snapshot()
    processes = [ProcessStatus(p.name, p.pid, p.uid, p.restarts, p.ready) for p in living.processes]
    measured = await control.supervisor.measure()
    return DoctorAnswer(living.walls, processes, [_confinement(p) for p in measured.processes], measured.more)


def _confinement(found: Confinement) -> ProcessConfinement:
    values = msgspec.structs.asdict(found)
    return ProcessConfinement(
        **values | {"capabilities": f"{found.capabilities:016x}", "bounding": f"{found.bounding:016x}"}
    )


async def down(control: Control, _request: web.Request, peer: Peer) -> Accepted:
    """Stop every component and then the host; answers when that has begun."""
    # A host whose log cannot be written must be stoppable too: the record is queued, and stopping is always allowed.
    with contextlib.suppress(AuditError):
        await control.audit.record_soon("host.down", "allowed", detail={"user": peer.name, "uid": peer.uid})
    await control.supervisor.stop_host()
    return Accepted("the host is stopping")


async def logs(control: Control, request: web.Request, _peer: Peer) -> web.StreamResponse:
    """What components logged, as JSON lines."""
    return await _lines(control, request, "logs")


async def audit(control: Control, request: web.Request, _peer: Peer) -> web.StreamResponse:
    """The audit log, as JSON lines."""
    return await _lines(control, request, "audit")


async def _lines(control: Control, request: web.Request, stream: str) -> web.StreamResponse:
    query = read_query(request, LinesQuery)
    if not 1 <= query.limit <= MAX_LINES:
        raise ValidationError(f"limit is 1 to {MAX_LINES}", subject=str(query.limit))
    component = str(parse_component(query.component)) if query.component else ""
    result = await control.audit.read(
        stream, after=query.after, limit=query.limit, component=component, denied=query.denied
    )
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Airssys-Last": str(result.last)})
    await response.prepare(request)
    await _write(response, result.lines)
    after = result.last
    while query.follow:
        await asyncio.sleep(FOLLOW_EVERY)
        try:
            result = await control.audit.read(
                stream, after=after, limit=MAX_LINES, component=component, denied=query.denied
            )
        except UnavailableError:
            continue  # the auditor is being restarted; its lines are still there afterwards
        after = max(after, result.last)
        await _write(response, result.lines)
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, lines: list[str]) -> None:
    if lines:
        await response.write("".join(f"{line.rstrip()}\n" for line in lines).encode())


def render(answer: msgspec.Struct, status: int = 200) -> web.Response:
    """A structure as a JSON answer."""
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")
