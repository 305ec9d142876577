"""`wasi:clocks`: the vDSO's clocks, or clock_gettime(2) where there is none; both are read in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sandbox.bindings import wasi_clocks as wit
from sandbox.host.links import FOREVER
from sandbox.host.wasi.handles import Kind
from sandbox.host.wasi.io import new_pollable

_origin = 0


def begin() -> None:
    """Let the guest's monotonic clock begin now: the machine's tells how long the machine is up."""
    global _origin
    _origin = time.monotonic_ns()


def _now() -> int:
    return time.monotonic_ns() - _origin


def _subscribe_instant(when: int) -> int:
    return new_pollable(min(_origin + when, FOREVER))


def _subscribe_duration(duration: int) -> int:
    # No time at all is "ready", without a look at the clock.
    return new_pollable(min(time.monotonic_ns() + duration, FOREVER) if duration else 0)


def _resolution() -> int:
    return 1


def _wall_now() -> wit.Datetime:
    return wit.Datetime(*divmod(time.time_ns(), 1_000_000_000))


def _wall_resolution() -> wit.Datetime:
    return wit.Datetime(0, 1)


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "clocks/monotonic-clock": {
        "now": _now,
        "resolution": _resolution,
        "subscribe-instant": _subscribe_instant,
        "subscribe-duration": _subscribe_duration,
    },
    "clocks/wall-clock": {
        "now": _wall_now,
        "resolution": _wall_resolution,
    },
}
RESOURCES: dict[str, dict[str, Kind]] = {}
