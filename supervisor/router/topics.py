"""Topics: who subscribed to what, and the way of a publication to each of them.

A pattern is one of `bridge.capabilities`: parts between dots, `*` for one part, `>` at the end for one or more.
Subscriptions are kept in a tree of parts, so that a publication looks at the patterns that begin as its topic does and
at no others. A subscription belongs to the component, not to its worker: it holds until it is undone or the component
is gone, and as long as the component's rights cover it.

A publication goes once to each subscriber, however many of its patterns match, if the subscriber accepts the
publisher. It waits for nobody: a full mailbox counts as its owner's overflow policy says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable
from typing import Protocol

from bridge.capabilities import InvalidPattern, accepts, may_subscribe, validate_topic_pattern
from sandbox.types import ComponentId
from sandbox.wire.router_frames import Options
from supervisor.router.delivery import Delivery
from supervisor.router.mailbox import NEVER, OVERHEAD, Account, Message
from supervisor.router.routes import Component
from supervisor.router.turns import SLICE, Turns

PER_SUBSCRIBER = 8
"""What a publication costs for each of many subscribers while it waits for its turns, bytes."""


class Listener(Protocol):
    """A subscriber that is no component: a client outside."""

    def __hash__(self) -> int:
        """It is itself."""

    def hears(self, publisher: ComponentId) -> bool:
        """Whether it takes publications of this one."""

    def tell(self, publication: Message) -> bool:
        """Pass one on; False when it was shed."""


class _Node:
    __slots__ = ("all_below", "children", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.here: dict[Hashable, None] = {}
        self.all_below: dict[Hashable, None] = {}

    @property
    def empty(self) -> bool:
        return not (self.children or self.here or self.all_below)


class Trie:
    """Patterns, each with those who subscribed to it."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, pattern: str, subscriber: Hashable) -> None:
        """Subscribe (harmless when it is so already). The pattern is a valid one."""
        node = self._root
        *parts, last = pattern.split(".")
        for part in parts:
            node = node.children.setdefault(part, _Node())
        if last == ">":
            node.all_below[subscriber] = None
        else:
            node.children.setdefault(last, _Node()).here[subscriber] = None

    def remove(self, pattern: str, subscriber: Hashable) -> None:
        """Undo `add` (harmless when there is nothing to undo)."""
        path = [self._root]
        parts = pattern.split(".")
        below = parts[-1] == ">"
        for part in parts[: len(parts) - below]:
            child = path[-1].children.get(part)
            if child is None:
                return
            path.append(child)
        (path[-1].all_below if below else path[-1].here).pop(subscriber, None)
        for part in reversed(parts[: len(parts) - below]):
            if not path.pop().empty:
                return
            del path[-1].children[part]

    def match(self, topic: str) -> list[Hashable]:
        """Everybody with a pattern that covers the topic, once each."""
        found: dict[Hashable, None] = {}
        nodes = [self._root]
        for part in topic.split("."):
            deeper = []
            for node in nodes:
                found.update(node.all_below)
                for name in (part, "*"):
                    child = node.children.get(name)
                    if child is not None:
                        deeper.append(child)
            nodes = deeper
            if not nodes:
                break
        for node in nodes:
            found.update(node.here)
        return list(found)

    def __len__(self) -> int:
        """Parts that are kept, all patterns together."""
        count, left = 0, [self._root]
        while left:
            node = left.pop()
            count += len(node.children)
            left.extend(node.children.values())
        return count


class Topics:
    """Subscriptions of components and clients, and publications.

    Args:
        delivery: whose components subscribe.
        turns: where publications to many are carried out.
    """

    def __init__(self, delivery: Delivery, turns: Turns) -> None:
        self._delivery = delivery
        self._turns = turns
        self._trie = Trie()
        self._declared: dict[Component, list[str]] = {}
        delivery.table.on_route.append(self._routed)
        delivery.table.on_forget.append(self._forgotten)

    # -- subscriptions ----------------------------------------------------------------------------------------

    def subscribe(self, component: Component, pattern: str) -> str:
        """Subscribe a component at run time; "" or one of FAILURES. Its right to do so is checked, too."""
        try:
            validate_topic_pattern(pattern)
        except InvalidPattern:
            return "invalid"
        if component.removed or not may_subscribe(component.rules, pattern):
            return "denied"
        if pattern in component.subscriptions:
            return ""
        own = len(component.subscriptions) - sum(component.subscriptions.values())
        if own >= component.limits.subscriptions:
            return "queue-full"
        self._add(component, pattern, declared=False)
        return ""

    def unsubscribe(self, component: Component, pattern: str) -> str:
        """Undo a subscription; "" or `invalid` when there is none."""
        if component.subscriptions.pop(pattern, None) is None:
            return "invalid"
        self._trie.remove(pattern, component)
        return ""

    def listen(self, pattern: str, listener: Listener) -> None:
        """Subscribe a client; whoever calls has checked pattern and right."""
        self._trie.add(pattern, listener)

    def unlisten(self, pattern: str, listener: Listener) -> None:
        """Undo `listen`."""
        self._trie.remove(pattern, listener)

    def _add(self, component: Component, pattern: str, *, declared: bool) -> None:
        component.subscriptions[pattern] = declared
        self._trie.add(pattern, component)

    def _routed(self, component: Component) -> None:
        """The component is new or its rights have changed: take the manifest's patterns, drop what is not covered.

        A pattern of the manifest that the component undid stays undone while the manifest is the same.
        """
        declared = component.mailing.subscribe
        before = self._declared.get(component)
        if before != declared:
            self._declared[component] = declared
            for pattern in set(before or ()) - set(declared):
                if component.subscriptions.get(pattern):
                    self.unsubscribe(component, pattern)
            for pattern in declared:
                if before is None or pattern not in before:
                    self._add(component, pattern, declared=True)
        for pattern in list(component.subscriptions):
            if not may_subscribe(component.rules, pattern):
                self.unsubscribe(component, pattern)
                self._delivery.audit.record("messaging.subscribe", str(component.id), "denied", pattern, "revoked")

    def _forgotten(self, component: Component) -> None:
        for pattern in list(component.subscriptions):
            self.unsubscribe(component, pattern)
        self._declared.pop(component, None)

    # -- publications -----------------------------------------------------------------------------------------

    def publish(
        self,
        publisher: ComponentId,
        topic: str,
        payload: bytes,
        options: Options,
        told: Callable[[int, int], None],
        room: Account,
    ) -> bool:
        """Put a publication into the mailbox of each subscriber; whoever calls has checked topic and right.

        Args:
            publisher: who it is from.
            topic: a valid one.
            payload: passed on as it is.
            options: of each message.
            told: hears how many subscribers take it, and how many there are that accept the publisher; at once, or in
                a later turn when there are many.
            room: where it counts while it waits for these turns.

        Returns:
            False when there are many and there is no room for it to wait; `told` hears nothing then.
        """
        subscribers = self._trie.match(topic)
        size = len(payload) + OVERHEAD + PER_SUBSCRIBER * len(subscribers) if len(subscribers) > SLICE else 0
        if size and not room.has_room(size):
            return False
        room.used += size

        def over(taken: int, there: int) -> None:
            room.used -= size
            told(taken, there)

        self._turns.start(self._publication(publisher, topic, payload, options, subscribers, over))
        return True

    def _publication(
        self,
        publisher: ComponentId,
        topic: str,
        payload: bytes,
        options: Options,
        subscribers: list[Hashable],
        told: Callable[[int, int], None],
    ) -> Generator[None, None, None]:
        # One moment for all of them: what is published together is as old everywhere.
        now, (seconds, nanoseconds) = time.monotonic(), divmod(time.time_ns(), 1_000_000_000)
        expires = now + options.ttl_ms / 1000 if options.ttl_ms else NEVER
        taken = there = 0

        def done(reason: str) -> None:
            nonlocal taken
            taken += not reason

        for count, subscriber in enumerate(subscribers, 1):
            message = Message(
                self._delivery.message_id(),
                False,
                publisher,
                seconds,
                nanoseconds,
                payload,
                content_type=options.content_type,
                priority=options.priority,
                expires=expires,
                topic=topic,
            )
            if not isinstance(subscriber, Component):
                listener: Listener = subscriber  # type: ignore[assignment]  # what else was put in
                if listener.hears(publisher):
                    there += 1
                    taken += listener.tell(message)
            elif not subscriber.removed and accepts(subscriber.rules, publisher):
                there += 1
                if len(payload) <= subscriber.limits.message_size:
                    self._delivery.submit(subscriber, message, done)
                else:
                    self._delivery.table.counters["publications-too-large"] += 1
            if count % SLICE == 0:
                yield
        told(taken, there)
