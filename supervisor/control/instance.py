"""One instance as control sees it now: its state, its worker, and what became of the last one."""

from __future__ import annotations

import asyncio
import enum
import time
from dataclasses import dataclass, field

from sandbox.types import ComponentId
from sandbox.wire.router_frames import Metadata, Route
from sandbox.wire.supervisor_frames import Started, WorkerEnded
from supervisor.control.health import Watch
from supervisor.control.registry import InstanceRow
from supervisor.control.spec import ComponentSpec


class State(enum.StrEnum):
    """What control is doing with an instance."""

    STOPPED = "stopped"
    """Not wanted, or ended of itself and its supervision does not start it again."""
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    """Ended; waits to be started again."""
    STOPPING = "stopping"
    QUARANTINED = "quarantined"
    """Ended too often in its window, or its supervisor gave up; only an operator starts it again."""
    FAILED = "failed"
    """May not or cannot be started (refused package, failed compilation); only an operator starts it again."""


@dataclass
class Incarnation:
    """One worker, from before it is asked for until its end is known."""

    number: int
    ready: asyncio.Future[None]
    ended: asyncio.Future[WorkerEnded]
    pid: int = 0
    uid: int = 0
    start: asyncio.Task[Started] | None = None
    asked_at: float = 0.0
    """When the supervisor was asked for it (monotonic seconds)."""
    ready_at: float | None = None
    init_error: str = ""
    kill_reason: str = ""
    """Why control itself had it killed, if it did."""
    metadata: Metadata | None = None
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the router has said why it ends."""
    watch: Watch | None = None
    """What came of its health checks, once it is ready."""

    @classmethod
    def new(cls, number: int) -> Incarnation:
        """An incarnation of which nothing is known yet; must be called in the event loop."""
        loop = asyncio.get_running_loop()
        return cls(number, loop.create_future(), loop.create_future())

    def mark_ready(self) -> None:
        """The router said so."""
        if not self.ready.done():
            self.ready_at = time.monotonic()
            self.ready.set_result(None)

    def uptime(self, now: float) -> float:
        """Seconds since it was ready; 0 when it never was."""
        return 0.0 if self.ready_at is None else now - self.ready_at


@dataclass
class Instance:
    """One instance."""

    row: InstanceRow
    spec: ComponentSpec
    restarts: int = 0
    state: State = State.STOPPED
    health: str = "unknown"
    live: Incarnation | None = None
    task: asyncio.Task[None] | None = None
    start_order: int = 0
    outcome: str = ""
    detail: str = ""
    next_start: float | None = None
    """Monotonic seconds, while in BACKOFF."""
    failed_at: float = 0.0
    lost_wall: str = ""
    claim: object | None = None
    """The operation that is going to stop it or start it; an end that comes before is no news."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def component(self) -> ComponentId:
        """Its id."""
        return self.row.component

    def route(self) -> Route:
        """What the router must know of it."""
        return self.spec.route(self.component, self.row.env, self.row.args)

    def enter(self, state: State) -> None:
        """Change state and wake who waits for a change."""
        self.state = state
        self.next_start = None
        self.changed.set()
        self.changed = asyncio.Event()

    def fail(self, state: State, outcome: str, detail: str) -> None:
        """End the attempts, keeping the cause."""
        self.outcome, self.detail, self.failed_at = outcome, detail, time.monotonic()
        self.enter(state)

    def unclaim(self, state: State) -> None:
        """No operation is going to do anything to it any more."""
        self.claim = None
        self.enter(state)

    @property
    def at_rest(self) -> bool:
        """Whether it should run by its row, and will not without an operator or its group: done, refused, given up."""
        return self.row.running and self.state in (State.STOPPED, State.FAILED, State.QUARANTINED)

    async def settled(self) -> None:
        """Wait until it is neither starting nor stopping."""
        while self.state in (State.STARTING, State.STOPPING):
            await self.changed.wait()

    async def decided(self) -> None:
        """Wait until it is ready, or will not be without something new: given up, resting, stopped."""
        while self.claim is not None or self.state in (State.STARTING, State.STOPPING, State.BACKOFF):
            await self.changed.wait()
