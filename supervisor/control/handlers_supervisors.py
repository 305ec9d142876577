"""Endpoints about supervisors: the tree as it stands, and the release of what it gave up."""

from __future__ import annotations

import time

from aiohttp import web

from sandbox.types import ComponentId
from supervisor.config_tree import ROOT
from supervisor.control.bodies import SupervisorStatus
from supervisor.control.context import Control
from supervisor.control.errors import NotFoundError
from supervisor.control.instance import State
from supervisor.control.peer import Peer
from supervisor.control.supervision import flat

_MOVING = frozenset({State.STARTING, State.STOPPING, State.BACKOFF})


def supervisors(control: Control) -> list[SupervisorStatus]:
    """The root, then every declared supervisor in the order of the file."""
    tree = control.lifecycle.tree
    root = SupervisorStatus(ROOT, "", "one-for-one", _state(control, ROOT), tree.children(ROOT), 0, None, None, 0)
    return [root, *(supervisor_status(control, spec.name) for spec in tree.supervisors())]


def supervisor_status(control: Control, name: str) -> SupervisorStatus:
    """One declared supervisor. Raises NotFoundError."""
    tree = control.lifecycle.tree
    for spec in tree.supervisors():
        if spec.name == name:
            return SupervisorStatus(
                name=name,
                parent=spec.parent,
                strategy=spec.strategy,
                state=_state(control, name),
                children=tree.children(name),
                restarts=tree.recent(name, time.monotonic()),
                max_restarts=spec.max_restarts,
                window=spec.window_ms / 1000,
                gave_up=tree.times_given_up(name),
            )
    raise NotFoundError("no such supervisor", subject=name[:80], hint="see airssys status")


def _state(control: Control, supervisor: str) -> str:
    """What those below it that should run are doing, in one word."""
    names = flat(control.lifecycle.tree.batches(supervisor))
    below = [control.lifecycle.instances[ComponentId.parse(name)] for name in names]
    states = [instance.state for instance in below if instance.row.running and not instance.row.resting]
    if not states:
        return "running" if supervisor == ROOT else "stopped"
    if all(state is State.RUNNING for state in states):
        return "running"
    if any(state in _MOVING for state in states):
        return "restarting"
    if all(state is State.QUARANTINED for state in states):
        return "quarantined"
    return "degraded"


async def release(control: Control, request: web.Request, peer: Peer) -> SupervisorStatus:
    """Start what is quarantined below a supervisor, in order; answers once each runs or has failed to."""
    name = request.match_info["supervisor"]
    control.lifecycle.quarantined_below(name)
    await control.audit.record_soon(
        "supervisor.release", "allowed", object=name, detail={"user": peer.name, "uid": peer.uid}
    )
    await control.lifecycle.release_below(name)
    return supervisor_status(control, name)
