"""A guest with the worker's own host functions in this process; the bridge is an object that remembers its requests.

What a real bridge, router and cage make of the same guests is shown by the end-to-end tests.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from wasmtime import component as wt

from sandbox import host
from sandbox.engine import make_engine
from sandbox.guest import Guest, GuestFailed
from sandbox.host import wasi
from sandbox.host.links import Bridge, links
from sandbox.types import ComponentId, Limits
from sandbox.wire import router_frames as frames
from sandbox.wire.bridge_ops import Op

LEVELS = ("trace", "debug", "info", "warn", "error")


class Clock:
    """The process's monotonic clock, which a sleep moves on instead of waiting: no test depends on a quiet machine."""

    def __init__(self) -> None:
        self._stopped = time.monotonic_ns()

    def now(self) -> int:
        """Nanoseconds; a little later each time."""
        self._stopped += 100
        return self._stopped

    def advance(self, until: int) -> None:
        """Let it be `until`."""
        self._stopped = max(self._stopped, until)


class AskedBridge:
    """Answers log and sleep as the bridge does, and remembers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lines: list[tuple[str, str]] = []
        """(level, message)"""
        self.sleeps: list[int] = []
        """Nanoseconds from the request to what was asked for."""
        self.early = False
        """Answer sleeps at once, as if the host were ending."""

    def ask(self, op: Op, *arguments: Any) -> tuple[int, Any]:
        """As `links.Bridge.ask`."""
        if op is Op.LOG:
            self.lines.append((LEVELS[arguments[0]], arguments[1]))
            return 0, None
        assert op is Op.SLEEP
        until, deadline = arguments
        self.sleeps.append(until - self._clock.now())
        if not self.early:
            self._clock.advance(min(until, deadline))
        return int(until > deadline and not self.early), None

    def log(self) -> list[str]:
        """The messages alone."""
        return [message for _, message in self.lines]


class Wasi:
    """An engine with the worker's linker, and guests made with it."""

    def __init__(self) -> None:
        self.engine = make_engine(counted=True)
        self.linker = wt.Linker(self.engine)
        host.define(self.linker)
        self._components: dict[Path, wt.Component] = {}

    def component(self, path: Path) -> wt.Component:
        """Compiled once."""
        if path not in self._components:
            self._components[path] = wt.Component(self.engine, path.read_bytes())
        return self._components[path]

    @contextlib.contextmanager
    def running(
        self,
        component: Path | wt.Component,
        *,
        env: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        limits: Limits = Limits(memory=16 << 20, fuel=2_000_000_000),  # noqa: B008 - frozen
    ) -> Iterator[Running]:
        """An initialised guest; `links` is as it was afterwards."""
        gc.collect()  # guests that other tests' errors still hold would count against this one's memory
        real, clock = time.monotonic_ns, Clock()
        bridge = AskedBridge(clock)
        before = dict(links.__dict__)
        links.bridge, links.self_id = cast(Bridge, bridge), ComponentId("test", "guest")
        links.message_size = limits.message_size
        try:
            time.monotonic_ns = clock.now
            links.allow(60_000)
            code = self.component(component) if isinstance(component, Path) else component
            pairs = list((env or {}).items())
            wasi.begin(pairs, ["test/guest", *arguments])
            guest = Guest(self.engine, self.linker, code, limits)
            assert guest.initialize(frames.Initialize(pairs, limits), None) == ""
            yield Running(guest, bridge, limits)
        finally:
            time.monotonic_ns = real
            links.__dict__.clear()
            links.__dict__.update(before)


class Running:
    """One guest."""

    def __init__(self, guest: Guest, bridge: AskedBridge, limits: Limits) -> None:
        self.guest, self.bridge, self._limits = guest, bridge, limits

    def ask(self, text: str) -> str:
        """The reply to a message."""
        links.allow(self._limits.deadline_ms)
        frame = frames.Deliver(1, ComponentId("test", "asker"), 1, 2)
        reply, error, _ = self.guest.handle_message(frame, text.encode())
        assert reply is not None, error
        return reply.decode()

    def end(self, text: str) -> GuestFailed:
        """How a message ends the guest."""
        try:
            reply = self.ask(text)
        except GuestFailed as failure:
            return failure
        raise AssertionError(f"it answered {reply!r}")
