"""The way of single messages, for `airssys trace`: kept in the messages while they live, and in a ring after that.

A message carries its times as plain numbers, so that an ordinary one costs two readings of the clock; what few meet
with (waiting for room, another attempt, a worker that died) is written down as a story. Lost with the router.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from sandbox.wire.router_frames import PRIORITIES, Step, Trace
from supervisor.router.mailbox import Message

KEPT = 10_000
"""Messages that are remembered after their end."""


class Traces:
    """The ring.

    Args:
        living: all messages under way that have this id or correlation id.
    """

    def __init__(self, living: Callable[[int | str], Iterable[Message]]) -> None:
        self._living = living
        self._ended: deque[Message] = deque(maxlen=KEPT)
        self.keep = self._ended.append
        """Remember a message that has come to its end; its payload is gone already."""

    def find(self, text: str) -> Trace:
        """The way of the message with this id or correlation id; of a request with its callback. Its `id` is 0.

        Nothing is found out about a message that is not known, or not any more: it has no steps.
        """
        found = self._with(int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text)
        correlation = next((message.correlation for message in found if message.correlation), "")
        if correlation and not all(message.correlation == text for message in found):
            found = self._with(correlation)
        if not found:
            return Trace(0)
        offset = time.time() - time.monotonic()
        steps = [step for message in found for step in _steps(message, offset)]
        first = min(found, key=lambda message: message.id)
        return Trace(0, first.id, correlation, sorted(steps, key=lambda step: step.at))

    def _with(self, wanted: int | str) -> list[Message]:
        ended = [message for message in self._ended if wanted in (message.id, message.correlation)]
        return [*ended, *self._living(wanted)]


def _steps(message: Message, offset: float) -> list[Step]:
    target = str(message.target or "")
    about = "callback" if message.callback else PRIORITIES[message.priority]
    if message.topic:
        about += f", topic {message.topic}"
    if message.note:
        about += f", {message.note}"
    if message.failure:
        about += f", {message.failure}"
    sent = message.seconds + message.nanoseconds / 1e9
    steps = [Step("sent", sent, str(message.sender), about)]
    story = [Step(what, at + offset, target, text) for what, at, text in message.story or ()]
    if not any(step.what == "waiting" for step in story):
        steps.append(Step("queued", sent, target))
    steps += story
    if message.delivered:
        steps.append(Step("delivered", message.delivered + offset, target, f"delivery {message.deliveries}"))
    if message.finished:
        steps.append(Step(message.end, message.finished + offset, target, message.why))
    return steps
