"""`airssys:core/host-messaging@1.0.0`: every call is a question to the router, answered by one `Ack`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.links import links
from sandbox.types import MAX_NAME, ComponentId
from sandbox.values import GuestRecord, Variant, field
from sandbox.wire import router_frames as frames
from sandbox.wire.router_frames import MAX_TARGETS

_TEXT_CASES = {1: "delivery-failed", 2: "correlation-timeout", 3: "invalid-message"}


def to_id(record: Any) -> ComponentId:
    """The record `component-id` as the host's own type.

    Any text; the router decides whether it names anybody. One character more than a name may have is enough for that,
    and keeps what a guest says within what the router reads.
    """
    return ComponentId(*(field(record, part)[: MAX_NAME + 1] for part in ("namespace", "name", "instance")))


def from_id(component: ComponentId) -> GuestRecord:
    """The host's component id as the record `component-id`."""
    return GuestRecord(namespace=component.namespace, name=component.name, instance=component.instance)


def _error(ack: frames.Ack, target: ComponentId | None) -> Variant:
    if ack.case in _TEXT_CASES:
        return Variant(_TEXT_CASES[ack.case], ack.text)
    if ack.case == 4:
        return Variant("queue-full")
    return Variant("target-not-found", from_id(target or (ack.components or [links.self_id])[0]))


def _too_large(payload: bytes) -> Variant | None:
    # The router checks again: this only spares it the bytes.
    if len(payload) > links.message_size:
        return Variant("invalid-message", f"payload of {len(payload)} bytes is over the limit of {links.message_size}")
    return None


def _send(_store: Any, target: Any, payload: bytes) -> Any:
    refused = _too_large(payload)
    if refused:
        return refused
    ask = links.router.next_ask()
    links.router.send(frames.Send(ask, to_id(target)), payload)
    ack = links.router.acknowledged(ask)
    return _error(ack, to_id(target)) if ack.case else None


def _request(_store: Any, target: Any, payload: bytes, timeout_ms: int) -> Any:
    refused = _too_large(payload)
    if refused:
        return refused
    ask = links.router.next_ask()
    links.router.send(frames.Request(ask, to_id(target), timeout_ms), payload)
    ack = links.router.acknowledged(ask)
    return _error(ack, to_id(target)) if ack.case else ack.text


def _cancel_request(_store: Any, request_id: str) -> Any:
    ask = links.router.next_ask()
    links.router.send(frames.Cancel(ask, request_id[: MAX_NAME + 1]))  # ours have 32 characters
    ack = links.router.acknowledged(ask)
    return _error(ack, None) if ack.case else None


def _broadcast(_store: Any, targets: list[Any], payload: bytes) -> Any:
    refused = _too_large(payload)
    if refused:
        return refused
    if len(targets) > MAX_TARGETS:
        return Variant("invalid-message", f"more than {MAX_TARGETS} targets")
    ask = links.router.next_ask()
    links.router.send(frames.Broadcast(ask, [to_id(target) for target in targets]), payload)
    ack = links.router.acknowledged(ask)
    return _error(ack, None) if ack.case else None


def _self_id(_store: Any) -> Any:
    return from_id(links.self_id)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "send": _send,
    "request": _request,
    "cancel-request": _cancel_request,
    "broadcast": _broadcast,
    "self-id": _self_id,
}
