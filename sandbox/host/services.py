"""`airssys:core/host-services@1.0.0`: log and sleep ask the bridge, the component list asks the router.

The clock is the vDSO's, or clock_gettime(2), which the seal allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit
from sandbox.host.links import links, sleep_until
from sandbox.host.messaging import from_id, to_id
from sandbox.wire import router_frames as frames
from sandbox.wire.bridge_ops import Op

_LEVELS = {level: number for number, level in enumerate(wit.LogLevel)}
_ERRORS: dict[int, Callable[[str], wit.ComponentError]] = {
    1: wit.ComponentErrorInitializationFailed,
    2: lambda _text: wit.ComponentErrorAlreadyInitialized(),
    3: lambda _text: wit.ComponentErrorNotInitialized(),
    4: wit.ComponentErrorShutdownFailed,
    5: wit.ComponentErrorInvalidState,
}
_TEXT_MAX = 16 * 1024


def _log(level: wit.LogLevel, message: str, context: list[tuple[str, str]] | None) -> None:
    pairs = None if context is None else [(key[:256], value[:1024]) for key, value in context[:32]]
    links.bridge.ask(Op.LOG, _LEVELS[level], message[:_TEXT_MAX], pairs)


def _current_time() -> wit.Timestamp:
    return wit.Timestamp(*divmod(time.time_ns(), 1_000_000_000))


def _current_time_millis() -> int:
    return time.time_ns() // 1_000_000


def _sleep_millis(duration_ms: int) -> None:
    sleep_until(time.monotonic_ns() + duration_ms * 1_000_000)


def _list_components() -> list[wit.ComponentId]:
    ask = links.router.next_ask()
    links.router.send(frames.ListComponents(ask))
    return [from_id(component) for component in links.router.acknowledged(ask).components]


def _get_component_metadata(component: wit.ComponentId) -> wit.ComponentInfo | Err:
    ask = links.router.next_ask()
    wanted = to_id(component)
    links.router.send(frames.GetMetadata(ask, wanted))
    ack = links.router.acknowledged(ask)
    if ack.case or ack.info is None:
        return Err(_ERRORS.get(ack.case, wit.ComponentErrorInvalidState)(ack.text))
    name, version, health = ack.info
    return wit.ComponentInfo(from_id(wanted), name, version, health)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": _log,
    "current-time": _current_time,
    "current-time-millis": _current_time_millis,
    "sleep-millis": _sleep_millis,
    "list-components": _list_components,
    "get-component-metadata": _get_component_metadata,
}
