"""`airssys:core/host-messaging@1.0.0`: every call is a question to the router, answered by one `Ack`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit
from sandbox.host.links import links
from sandbox.types import MAX_NAME, ComponentId
from sandbox.wire import router_frames as frames
from sandbox.wire.router_frames import MAX_TARGETS

_TEXT_CASES: dict[int, Callable[[str], wit.MessagingError]] = {
    1: wit.MessagingErrorDeliveryFailed,
    2: wit.MessagingErrorCorrelationTimeout,
    3: wit.MessagingErrorInvalidMessage,
}
_QUEUE_FULL = 4


def to_id(record: wit.ComponentId) -> ComponentId:
    """The record `component-id` as the host's own type.

    Any text; the router decides whether it names anybody. One character more than a name may have is enough for that,
    and keeps what a guest says within what the router reads.
    """
    most = MAX_NAME + 1
    return ComponentId(record.namespace[:most], record.name[:most], record.instance[:most])


def from_id(component: ComponentId) -> wit.ComponentId:
    """The host's component id as the record `component-id`."""
    return wit.ComponentId(component.namespace, component.name, component.instance)


def _error(ack: frames.Ack, target: ComponentId | None) -> Err:
    if ack.case in _TEXT_CASES:
        return Err(_TEXT_CASES[ack.case](ack.text))
    if ack.case == _QUEUE_FULL:
        return Err(wit.MessagingErrorQueueFull())
    return Err(wit.MessagingErrorTargetNotFound(from_id(target or (ack.components or [links.self_id])[0])))


def _too_large(payload: bytes) -> Err | None:
    # The router checks again: this only spares it the bytes.
    if len(payload) > links.message_size:
        text = f"payload of {len(payload)} bytes is over the limit of {links.message_size}"
        return Err(wit.MessagingErrorInvalidMessage(text))
    return None


def _send(target: wit.ComponentId, payload: bytes) -> Err | None:
    refused = _too_large(payload)
    if refused:
        return refused
    ask = links.router.next_ask()
    links.router.send(frames.Send(ask, to_id(target)), payload)
    ack = links.router.acknowledged(ask)
    return _error(ack, to_id(target)) if ack.case else None


def _request(target: wit.ComponentId, payload: bytes, timeout_ms: int) -> str | Err:
    refused = _too_large(payload)
    if refused:
        return refused
    ask = links.router.next_ask()
    links.router.send(frames.Request(ask, to_id(target), timeout_ms), payload)
    ack = links.router.acknowledged(ask)
    return _error(ack, to_id(target)) if ack.case else ack.text


def _cancel_request(request_id: str) -> Err | None:
    ask = links.router.next_ask()
    links.router.send(frames.Cancel(ask, request_id[: MAX_NAME + 1]))  # ours have 32 characters
    ack = links.router.acknowledged(ask)
    return _error(ack, None) if ack.case else None


def _broadcast(targets: list[wit.ComponentId], payload: bytes) -> Err | None:
    refused = _too_large(payload)
    if refused:
        return refused
    if len(targets) > MAX_TARGETS:
        return Err(wit.MessagingErrorInvalidMessage(f"more than {MAX_TARGETS} targets"))
    ask = links.router.next_ask()
    links.router.send(frames.Broadcast(ask, [to_id(target) for target in targets]), payload)
    ack = links.router.acknowledged(ask)
    return _error(ack, None) if ack.case else None


def _self_id() -> wit.ComponentId:
    return from_id(links.self_id)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "send": _send,
    "request": _request,
    "cancel-request": _cancel_request,
    "broadcast": _broadcast,
    "self-id": _self_id,
}
