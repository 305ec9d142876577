"""Who may talk to whom: the capability language of `bridge.capabilities`, asked for both sides and remembered.

The sender's rules must cover the target with the action, and the target's must accept the sender. A sender without the
right learns nothing about whether the target exists.
"""

from __future__ import annotations

import enum

from bridge.capabilities import (
    HOST_NAMESPACE,
    MESSAGING_ACCESS,
    accepts,
    covers,
    may_publish,
    may_send,
    topic_covers,
)
from sandbox.types import ComponentId
from sandbox.wire.router_frames import Settings
from supervisor.router.mailbox import Message
from supervisor.router.routes import Component, Table

_CACHE = 65_536


class Verdict(enum.Enum):
    """What became of the question."""

    ALLOWED = enum.auto()
    DENIED = enum.auto()
    MISSING = enum.auto()  # allowed, but there is no such component


class Permissions:
    """Answers for one table; remembered until a route changes."""

    __slots__ = ("_answers", "_generation", "_publishes", "_recorded", "_recorded_of", "_table")

    def __init__(self, table: Table) -> None:
        self._table = table
        self._answers: dict[tuple[ComponentId, ComponentId, str], Verdict] = {}
        self._publishes: dict[tuple[ComponentId, str], bool] = {}
        self._recorded: dict[ComponentId, bool] = {}
        self._recorded_of: Settings | None = None
        self._generation = table.generation

    def check(self, sender: Component, target: ComponentId, action: str) -> Verdict:
        """Whether `sender` may do `action` (send, request, broadcast) to `target`."""
        if sender.removed:
            return Verdict.DENIED
        self._refresh()
        key = (sender.id, target, action)
        verdict = self._answers.get(key)
        if verdict is None:
            verdict = self._decide(sender, target, action)
            # Names a worker makes up are not worth remembering.
            if target in self._table.components or (target.instance == "*" and self._table.replicas(target.package)):
                self._answers[key] = verdict
        return verdict

    def refused_by(self, sender: Component, target: ComponentId, action: str) -> str:
        """Of a denial, whose rules it was: `sender` or `target`. For the audit log; the sender is not told."""
        return "target" if may_send(sender.rules, target, action) else "sender"

    def publishes(self, sender: Component, topic: str) -> bool:
        """Whether `sender` may publish under a valid topic."""
        if sender.removed:
            return False
        self._refresh()
        key = (sender.id, topic)
        answer = self._publishes.get(key)
        if answer is None:
            answer = may_publish(sender.rules, topic)
            if answer:
                self._publishes[key] = True
        return answer

    def recorded(self, sender: ComponentId, target: ComponentId | None) -> bool:
        """Whether an allowed message between these is recorded: the host's configuration covers one of them."""
        settings = self._table.settings
        if self._recorded_of is not settings or len(self._recorded) >= _CACHE:
            self._recorded, self._recorded_of = {}, settings
        return any(self._is_recorded(each, settings) for each in (sender, target) if each is not None)

    def _is_recorded(self, component: ComponentId, settings: Settings) -> bool:
        answer = self._recorded.get(component)
        if answer is None:
            answer = self._recorded[component] = any(covers(pattern, component) for pattern in settings.record)
        return answer

    def _refresh(self) -> None:
        """Forget what was decided under other rules, and everything when it is too much."""
        changed = self._generation != self._table.generation
        if changed or len(self._answers) >= _CACHE or len(self._publishes) >= _CACHE:
            self._answers.clear()
            self._publishes.clear()
            self._generation = self._table.generation

    def accepts_outside(self, target: Component, sender: ComponentId) -> bool:
        """Whether the component takes messages from this person outside."""
        return accepts(target.rules, sender)

    def visible(self, sender: Component) -> list[ComponentId]:
        """Components that `sender` may talk to in some way, sorted."""
        if sender.removed:
            return []
        generation, found = sender.visible
        if generation != self._table.generation:
            found = sorted(target for target in self._table.components if self.sees(sender, target))
            sender.visible = (self._table.generation, found)
        return found

    def sees(self, sender: Component, target: ComponentId) -> bool:
        """Whether `sender` may talk to the existing component `target` in some way."""
        return any(self.check(sender, target, action) is Verdict.ALLOWED for action in sorted(MESSAGING_ACCESS))

    def _decide(self, sender: Component, target: ComponentId, action: str) -> Verdict:
        if not may_send(sender.rules, target, action):
            return Verdict.DENIED
        component = self._table.components.get(target)
        if component is None:
            return Verdict.MISSING
        return Verdict.ALLOWED if accepts(component.rules, sender.id) else Verdict.DENIED


def may_replay(table: Table, component: Component, message: Message) -> bool:
    """Whether a dead letter's sender could send it now: rights may have changed since, or the sender be gone."""
    if message.sender == component.id:
        return True  # a timer
    if not accepts(component.rules, message.sender):
        return False
    if message.topic and not any(topic_covers(each, message.topic) for each in component.subscriptions):
        return False
    if message.sender.namespace == HOST_NAMESPACE:
        return True
    sender = table.components.get(message.sender)
    if sender is None:
        return False
    if message.topic:
        return may_publish(sender.rules, message.topic)
    return any(may_send(sender.rules, component.id, action) for action in MESSAGING_ACCESS)
