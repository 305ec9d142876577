"""`airssys:core/host-services@1.0.0`: log and sleep ask the bridge, the component list asks the router.

The clock is the vDSO's, or clock_gettime(2), which the seal allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sandbox.host.links import links, sleep_until
from sandbox.host.messaging import from_id, to_id
from sandbox.values import GuestRecord, Variant
from sandbox.wire import router_frames as frames
from sandbox.wire.bridge_ops import Op

_LEVELS = {"trace": 0, "debug": 1, "info": 2, "warn": 3, "error": 4}
_COMPONENT_ERRORS = {
    1: "initialization-failed",
    2: "already-initialized",
    3: "not-initialized",
    4: "shutdown-failed",
    5: "invalid-state",
}
_TEXT_MAX = 16 * 1024


def _log(_store: Any, level: str, message: str, context: list[tuple[str, str]] | None) -> None:
    pairs = None if context is None else [(key[:256], value[:1024]) for key, value in context[:32]]
    links.bridge.ask(Op.LOG, _LEVELS[level], message[:_TEXT_MAX], pairs)


def _current_time(_store: Any) -> Any:
    now = time.time_ns()
    return GuestRecord(seconds=now // 1_000_000_000, nanoseconds=now % 1_000_000_000)


def _current_time_millis(_store: Any) -> int:
    return time.time_ns() // 1_000_000


def _sleep_millis(_store: Any, duration_ms: int) -> None:
    sleep_until(time.monotonic_ns() + duration_ms * 1_000_000)


def _list_components(_store: Any) -> Any:
    ask = links.router.next_ask()
    links.router.send(frames.ListComponents(ask))
    return [from_id(component) for component in links.router.acknowledged(ask).components]


def _get_component_metadata(_store: Any, component: Any) -> Any:
    ask = links.router.next_ask()
    wanted = to_id(component)
    links.router.send(frames.GetMetadata(ask, wanted))
    ack = links.router.acknowledged(ask)
    if ack.case or ack.info is None:
        case = _COMPONENT_ERRORS.get(ack.case, "invalid-state")
        return Variant(case, None if case in ("already-initialized", "not-initialized") else ack.text)
    name, version, health = ack.info
    return GuestRecord(id=from_id(wanted), name=name, version=version, health=health)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": _log,
    "current-time": _current_time,
    "current-time-millis": _current_time_millis,
    "sleep-millis": _sleep_millis,
    "list-components": _list_components,
    "get-component-metadata": _get_component_metadata,
}
