"""`airssys:messaging@0.1.0`, what a guest asks: like `messaging`, every call is a question to the router.

A failure comes as the record `failure`, whose reason is the acknowledgement's case. What the router would take for a
breach of the protocol, as a key that is too long, is answered here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as core
from sandbox.bindings import airssys_messaging as wit
from sandbox.host.links import links
from sandbox.host.messaging import to_id
from sandbox.wire import router_frames as frames
from sandbox.wire.router_frames import MAX_CONTENT_TYPE, MAX_KEY, MAX_TOPIC, MAX_TTL_MS

_REASONS = tuple(wit.FailureReason)
_PRIORITIES = tuple(wit.Priority)
_NUMBERS = {priority: number for number, priority in enumerate(_PRIORITIES)}
MAX_TOKEN, MAX_ERROR = 64, 4096
"""Characters of a token or timer, and of a deferred error, that are passed on."""


class _Failed(msgspec.Struct):
    """The payload of a failed request's callback, as far as it is of use here."""

    message: str = ""


_failed = msgspec.json.Decoder(_Failed)


def _failure(ack: frames.Ack) -> Err:
    return Err(wit.Failure(_REASONS[ack.case - 1], ack.text))


def _invalid(text: str) -> Err:
    return Err(wit.Failure(wit.FailureReason.INVALID, text))


def _ask(frame: Any, payload: bytes = b"") -> frames.Ack:
    links.router.send(frame, payload)
    return links.router.acknowledged(frame.ask)


def _done(frame: Any, payload: bytes = b"") -> Err | None:
    ack = _ask(frame, payload)
    return _failure(ack) if ack.case else None


def _refusal(payload: bytes) -> Err | None:
    # The router checks again, and ends a worker that sends more.
    if len(payload) > links.message_size:
        text = f"payload of {len(payload)} bytes is over the limit of {links.message_size}"
        return Err(wit.Failure(wit.FailureReason.TOO_LARGE, text))
    return None


def _options(given: wit.Options) -> frames.Options | Err:
    key, kind = given.key, given.content_type
    if len(key) > MAX_KEY:
        return _invalid(f"a key has at most {MAX_KEY} characters")
    if kind is not None and len(kind) > MAX_CONTENT_TYPE:
        return _invalid(f"a content type has at most {MAX_CONTENT_TYPE} characters")
    return frames.Options(_NUMBERS[given.priority], min(given.ttl_ms, MAX_TTL_MS), key, kind)


def _send(target: core.ComponentId, payload: bytes, options: wit.Options) -> Err | None:
    told = _refusal(payload) or _options(options)
    if isinstance(told, Err):
        return told
    return _done(frames.Send(links.router.next_ask(), to_id(target), told), payload)


def _request(target: core.ComponentId, payload: bytes, timeout_ms: int, options: wit.Options) -> str | Err:
    told = _refusal(payload) or _options(options)
    if isinstance(told, Err):
        return told
    ack = _ask(frames.Request(links.router.next_ask(), to_id(target), timeout_ms, told), payload)
    return _failure(ack) if ack.case else ack.text


def _publish(topic: str, payload: bytes, options: wit.Options) -> int | Err:
    told = _refusal(payload) or _options(options)
    if isinstance(told, Err):
        return told
    if len(topic) > MAX_TOPIC:
        return _invalid(f"a topic has at most {MAX_TOPIC} characters")
    ack = _ask(frames.Publish(links.router.next_ask(), topic, told), payload)
    return _failure(ack) if ack.case else ack.number


def _subscribe(pattern: str) -> Err | None:
    if not links.topics:
        return _invalid("this component does not export topic-handler")
    if len(pattern) > MAX_TOPIC:
        return _invalid(f"a topic pattern has at most {MAX_TOPIC} characters")
    return _done(frames.Subscribe(links.router.next_ask(), pattern))


def _unsubscribe(pattern: str) -> Err | None:
    if len(pattern) > MAX_TOPIC:
        return _invalid("there is no such subscription")
    return _done(frames.Unsubscribe(links.router.next_ask(), pattern))


def _defer() -> str | Err:
    ack = _ask(frames.Defer(links.router.next_ask()))
    return _failure(ack) if ack.case else ack.text


def _reply(token: str, payload: bytes) -> Err | None:
    refused = _refusal(payload)
    if refused:
        return refused
    return _done(frames.Respond(links.router.next_ask(), token[:MAX_TOKEN]), payload)


def _fail(token: str, message: str) -> Err | None:
    # Without a text it would be a reply.
    return _done(frames.Respond(links.router.next_ask(), token[:MAX_TOKEN], message[:MAX_ERROR] or "failed"))


def _current() -> wit.MessageInfo | None:
    frame = links.hand
    if frame is None:
        return None
    if not isinstance(frame, frames.Callback):
        return wit.MessageInfo(frame.id, _PRIORITIES[frame.priority], frame.deliveries, None)
    failure = None
    if frame.failure:
        failure = wit.Failure(_REASONS[frames.FAILURES.index(frame.failure)], _failed.decode(links.payload).message)
    return wit.MessageInfo(frame.id, _PRIORITIES[frame.priority], 1, failure)


def _timer(delay_ms: int, payload: bytes, *, every: bool) -> str | Err:
    refused = _refusal(payload)
    if refused:
        return refused
    if delay_ms > MAX_TTL_MS:
        return _invalid(f"a timer waits at most {MAX_TTL_MS} ms")
    ack = _ask(frames.SetTimer(links.router.next_ask(), delay_ms, every), payload)
    return _failure(ack) if ack.case else ack.text


def _send_after(delay_ms: int, payload: bytes) -> str | Err:
    return _timer(delay_ms, payload, every=False)


def _send_every(interval_ms: int, payload: bytes) -> str | Err:
    return _timer(interval_ms, payload, every=True)


def _cancel(timer: str) -> Err | None:
    return _done(frames.CancelTimer(links.router.next_ask(), timer[:MAX_TOKEN]))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "send": _send,
    "request": _request,
    "publish": _publish,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "defer": _defer,
    "reply": _reply,
    "fail": _fail,
    "current": _current,
}
"""`airssys:messaging/messaging`."""
TIMERS: dict[str, Callable[..., Any]] = {"send-after": _send_after, "send-every": _send_every, "cancel": _cancel}
"""`airssys:messaging/timers`."""
