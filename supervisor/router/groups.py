"""Replicas under one name: `ns/name/*` is one instance of `ns/name`, picked here.

How is told by `[[group]]` of the host's configuration; round-robin where nothing is. Only those are picked that are
ready: attached, initialised, not on their way out, and not unhealthy by their own word. Where none is, one that
is being started, or started again: the mail waits for it. Where there is no such one either, nobody.
"""

from __future__ import annotations

import hashlib
import random

from sandbox.types import ComponentId
from sandbox.wire.router_frames import Settings
from supervisor.router.routes import Component, Table

EVERY = "*"
"""In the place of an instance: one of all. No component has this for its instance (`sandbox.types`)."""


class Groups:
    """Picks replicas."""

    __slots__ = ("_routing", "_routing_of", "_table", "_turns")

    def __init__(self, table: Table) -> None:
        self._table = table
        self._turns: dict[str, int] = {}
        self._routing: dict[str, str] = {}
        self._routing_of: Settings | None = None

    def pick(self, target: ComponentId, sender: ComponentId, key: str) -> Component | None:
        """One replica of the target's package; None when there is none that takes mail now or soon.

        Args:
            target: with `EVERY` for its instance.
            sender: whose messages stay together where no key says otherwise.
            key: messages of one key stay together, with sticky routing.
        """
        package = target.package
        members = self._table.replicas(package)
        among = [each for each in members if each.ready]
        if not among:
            awaited = [each for each in members if not each.resting and each.health != "unhealthy"]
            # One that is shutting down says so, where it is all there is.
            among = [each for each in awaited if not each.draining] or awaited
        return self._choose(package, among, key or str(sender)) if among else None

    def _choose(self, package: str, among: list[Component], key: str) -> Component:
        match self._how(package):
            case "random":
                return random.choice(among)  # noqa: S311, nothing depends on its being unpredictable
            case "sticky":
                return max(among, key=lambda each: _weight(key, each.id))
            case "least-loaded":
                least = min(map(_load, among))
                among = [each for each in among if _load(each) == least]
        turn = self._turns.get(package, 0)
        self._turns[package] = turn + 1
        return among[turn % len(among)]

    def _how(self, package: str) -> str:
        if self._routing_of is not self._table.settings:
            self._routing_of = self._table.settings
            self._routing = {group.package: group.routing for group in self._routing_of.groups}
        return self._routing.get(package, "round-robin")


def _load(component: Component) -> int:
    worker = component.worker
    return len(component.mailbox) + (worker is not None and worker.hand is not None)


def _weight(key: str, member: ComponentId) -> bytes:
    """Rendezvous hashing: a member that goes takes only its own keys along, and one that comes takes its share."""
    return hashlib.blake2b(f"{member}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
