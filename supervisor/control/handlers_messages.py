"""Endpoints about messages: sending and publishing from outside, dead letters, and the way of one message."""

from __future__ import annotations

import base64
from typing import Literal

from aiohttp import web

from bridge.capabilities import InvalidPattern, validate_component_pattern, validate_topic
from sandbox.types import ComponentId
from sandbox.wire.router_frames import MAX_CONTENT_TYPE, MAX_KEY, MAX_TTL_MS, PRIORITIES, DeadLetter, Options
from supervisor.control.bodies import (
    DeadLetterAnswer,
    DeadLettersAnswer,
    DeadLettersChanged,
    DeadLettersQuery,
    DeadLettersRequest,
    MessageQuery,
    PublishAnswer,
    PublishQuery,
    StepAnswer,
    TraceAnswer,
)
from supervisor.control.context import Control
from supervisor.control.errors import MessageError, NotFoundError, ValidationError
from supervisor.control.instance import State
from supervisor.control.parsing import parse_target, read_bytes, read_json, read_query
from supervisor.control.peer import Peer

MAX_PAYLOAD = 8 << 20
"""Largest message from outside, bytes; the component's own `message-size` may be less."""
MAX_TIMEOUT_MS = 600_000
MAX_LETTERS = 4_000
"""Most dead letters in one list."""
MESSAGE_HEADER, CORRELATION_HEADER, VALUE_HEADER = "Airssys-Message", "Airssys-Correlation", "Airssys-Value"
"""Of an answer: the message's id and its correlation id, for a trace; and "none" where the handler gave no value."""
_MESSAGE_CODES = {
    "timeout": ("E_TIMEOUT", "the component did not answer in time"),
    "target-ended": ("E_TARGET_ENDED", "the component ended while it worked on the message"),
    "target-not-found": ("E_TARGET_NOT_FOUND", "there is no such running component"),
    "denied": ("E_AUTHORIZATION", "the component takes no messages from outside"),
    "queue-full": ("E_QUEUE_FULL", "the component's mailbox is full"),
    "too-large": ("E_TOO_LARGE", "the message, or the reply to it, is over the component's message-size"),
    "guest-error": ("E_GUEST_ERROR", "the component answered with an error"),
    "stopping": ("E_UNAVAILABLE", "the component is stopping"),
    "expired": ("E_EXPIRED", "the message's time to live was over before it was delivered"),
    "circuit-open": ("E_CIRCUIT_OPEN", "too many requests to the component have failed lately"),
}
_TOLD_BY_TEXT = frozenset({"queue-full", "stopping", "circuit-open"})
"""Where the router's words say all that ours do."""
_SEE_STATUS = frozenset({"E_TARGET_NOT_FOUND", "E_TARGET_ENDED", "E_CIRCUIT_OPEN"})


async def message(control: Control, request: web.Request, peer: Peer) -> web.Response:
    """Send a message (`kind=send`) or make a request (`kind=request`); the answer's body is the reply's bytes."""
    query = read_query(request, MessageQuery)
    target = parse_target(query.target)
    if query.kind not in ("send", "request"):
        raise ValidationError("kind is send or request", subject=query.kind[:40])
    if not 1 <= query.timeout <= MAX_TIMEOUT_MS:
        raise ValidationError(f"timeout is 1 to {MAX_TIMEOUT_MS} milliseconds", subject=str(query.timeout))
    options = _options(request, query.priority, query.ttl, query.key)
    payload = await read_bytes(request, MAX_PAYLOAD)
    instance = control.lifecycle.instances.get(target)
    if instance is not None and instance.state in (State.QUARANTINED, State.FAILED, State.STOPPED):
        raise MessageError(
            f"the component is {instance.state.value} and takes no messages",
            code="E_NOT_RUNNING",
            subject=str(target),
            hint="airssys info tells why; airssys start starts it again",
        )
    submitted, reply = await control.router.submit(
        peer.name, target, payload, request=query.kind == "request", timeout_ms=query.timeout, options=options
    )
    if submitted.error:
        raise _failed(submitted.error, submitted.text, str(target))
    answer = web.Response(body=reply, content_type="application/octet-stream")
    answer.headers[MESSAGE_HEADER] = str(submitted.message)
    if submitted.correlation:
        answer.headers[CORRELATION_HEADER] = submitted.correlation
    if query.kind == "request" and not submitted.some:
        answer.headers[VALUE_HEADER] = "none"
    return answer


async def publish(control: Control, request: web.Request, peer: Peer) -> PublishAnswer:
    """Publish the body under a topic; how many subscribers take it."""
    query = read_query(request, PublishQuery)
    try:
        topic = validate_topic(query.topic)
    except InvalidPattern as error:
        raise ValidationError(error.message, subject=error.subject, hint=error.hint) from error
    options = _options(request, query.priority, query.ttl, "")
    submitted = await control.router.publish(peer.name, topic, await read_bytes(request, MAX_PAYLOAD), options)
    if submitted.error:
        raise _failed(submitted.error, submitted.text, topic)
    return PublishAnswer(topic, submitted.number)


def _options(request: web.Request, priority: str, ttl: int, key: str) -> Options:
    content_type: str | None = request.headers.get("Content-Type")
    if content_type == "application/octet-stream":
        content_type = None
    if priority not in PRIORITIES:
        raise ValidationError(f"priority is one of {', '.join(PRIORITIES)}", subject=priority[:40])
    if not 0 <= ttl <= MAX_TTL_MS:
        raise ValidationError(f"ttl is 0 to {MAX_TTL_MS} milliseconds", subject=str(ttl))
    if len(key) > MAX_KEY or len(content_type or "") > MAX_CONTENT_TYPE:
        raise ValidationError(f"a key has {MAX_KEY} characters, a content type {MAX_CONTENT_TYPE}, at most")
    return Options(PRIORITIES.index(priority), ttl, key, content_type)


def _failed(error: str, text: str, subject: str) -> MessageError:
    code, sentence = _MESSAGE_CODES.get(error, ("E_MESSAGE", error))
    return MessageError(
        text if text and error in _TOLD_BY_TEXT else f"{sentence}: {text}" if text else sentence,
        code=code,
        subject=subject,
        hint="see airssys status" if code in _SEE_STATUS else "",
    )


# -- dead letters -------------------------------------------------------------------------------------------------


async def deadletters(control: Control, request: web.Request, _peer: Peer) -> DeadLettersAnswer:
    """List the newest messages that were not delivered or not dealt with, oldest first."""
    query = read_query(request, DeadLettersQuery)
    if not 0 <= query.limit <= MAX_LETTERS:
        raise ValidationError(f"limit is 0 to {MAX_LETTERS}", subject=str(query.limit))
    found, _ = await control.router.dead("list", component=_pattern(query.component), most=query.limit)
    return DeadLettersAnswer([_letter(each) for each in found.letters], found.count)


async def deadletter(control: Control, request: web.Request, _peer: Peer) -> DeadLetterAnswer:
    """Show one dead letter with its payload."""
    text = request.match_info["letter"]
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    found, payload = await control.router.dead("show", letter=number) if number else (None, b"")
    if found is None or not found.letters:
        raise NotFoundError("no such dead letter", subject=text[:40], hint="see airssys deadletters list")
    return _letter(found.letters[0], base64.b64encode(payload).decode())


async def deadletters_replay(control: Control, request: web.Request, peer: Peer) -> DeadLettersChanged:
    """Send dead letters again, as the same sender to the same target; those that are taken are no letters any more."""
    return await _change(control, request, peer, "replay")


async def deadletters_purge(control: Control, request: web.Request, peer: Peer) -> DeadLettersChanged:
    """Forget dead letters."""
    return await _change(control, request, peer, "purge")


async def _change(
    control: Control, request: web.Request, peer: Peer, action: Literal["replay", "purge"]
) -> DeadLettersChanged:
    body = await read_json(request, DeadLettersRequest)
    if body.letter < 0 or bool(body.letter) == bool(body.component):
        raise ValidationError("one of letter (an id) and component (a pattern, * for all)")
    pattern = _pattern(body.component or "*")
    await control.audit.record_soon(
        f"deadletters.{action}",
        "allowed",
        object=str(body.letter or pattern),
        detail={"user": peer.name, "uid": peer.uid},
    )
    done, _ = await control.router.dead(action, letter=body.letter, component=pattern)
    if body.letter and not done.count and not done.error:
        raise NotFoundError("no such dead letter", subject=str(body.letter), hint="see airssys deadletters list")
    return DeadLettersChanged(done.count, done.error)


def _pattern(text: str) -> str:
    try:
        return validate_component_pattern(text)
    except InvalidPattern as error:
        raise ValidationError(error.message, subject=error.subject, hint=error.hint) from error


def _letter(letter: DeadLetter, payload: str = "") -> DeadLetterAnswer:
    return DeadLetterAnswer(
        id=letter.id,
        reason=letter.reason,
        sender=_name(letter.sender),
        target=_name(letter.target),
        at=letter.at,
        sent_at=letter.sent_at,
        size=letter.size,
        deliveries=letter.deliveries,
        priority=PRIORITIES[letter.priority],
        topic=letter.topic,
        content_type=letter.content_type,
        correlation=letter.correlation,
        text=letter.text,
        payload=payload,
    )


def _name(component: ComponentId) -> str:
    return str(component)


# -- the way of one message ---------------------------------------------------------------------------------------


async def trace(control: Control, request: web.Request, _peer: Peer) -> TraceAnswer:
    """The way of one message, by its id or its correlation id: sent, queued, delivered, replied."""
    text = request.match_info["message"]
    found = await control.router.trace(text[:64])
    if not found.steps:
        raise NotFoundError(
            "no such message, or not any more",
            subject=text[:64],
            hint="the router remembers what is under way and the last 10000 that ended",
        )
    steps = [StepAnswer(step.what, step.at, step.component, step.text) for step in found.steps]
    return TraceAnswer(found.message, found.correlation, steps)
