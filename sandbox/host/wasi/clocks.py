"""`wasi:clocks`: the vDSO's clocks, or clock_gettime(2) where there is none; both are read in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sandbox.host.links import FOREVER
from sandbox.host.wasi.handles import Kind, plain
from sandbox.host.wasi.io import new_pollable
from sandbox.values import GuestRecord

_origin = 0


def begin() -> None:
    """Let the guest's monotonic clock begin now: the machine's tells how long the machine is up."""
    global _origin
    _origin = time.monotonic_ns()


def _now() -> int:
    return time.monotonic_ns() - _origin


def _subscribe_instant(when: int) -> Any:
    return new_pollable(min(_origin + when, FOREVER))


def _subscribe_duration(duration: int) -> Any:
    # No time at all is "ready", without a look at the clock.
    return new_pollable(min(time.monotonic_ns() + duration, FOREVER) if duration else 0)


def _wall_now() -> GuestRecord:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return GuestRecord(seconds=seconds, nanoseconds=nanoseconds)


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "clocks/monotonic-clock": {
        "now": plain(_now),
        "resolution": plain(lambda: 1),
        "subscribe-instant": plain(_subscribe_instant),
        "subscribe-duration": plain(_subscribe_duration),
    },
    "clocks/wall-clock": {
        "now": plain(_wall_now),
        "resolution": plain(lambda: GuestRecord(seconds=0, nanoseconds=1)),
    },
}
RESOURCES: dict[str, dict[str, Kind]] = {}
