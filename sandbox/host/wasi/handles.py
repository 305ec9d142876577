"""What a guest holds: handles of WASI resources, counted, and the things of ours behind them.

The engine keeps the guest's own table of handles and never mixes up resource types; what it hands over and asks for is
a number, the representation, and that is what host functions take and give. Here a representation is the key of one
thing, and is used again once the guest has dropped it. The engine puts no bound on how many handles a guest makes;
these are ours.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NoReturn

from sandbox.host.links import GuestStopped
from sandbox.types import Outcome

MAX_HANDLES = 1024
"""Handles of any kind that one guest may hold at a time."""
MAX_POLLABLES = 256
"""Pollables among them."""


class Kind(enum.IntEnum):
    """The resource types; each value is the engine's name for one."""

    ERROR = 1
    POLLABLE = 2
    INPUT_STREAM = 3
    OUTPUT_STREAM = 4
    TERMINAL_INPUT = 5
    TERMINAL_OUTPUT = 6
    DESCRIPTOR = 7
    DIRECTORY_ENTRY_STREAM = 8
    NETWORK = 9
    TCP_SOCKET = 10
    UDP_SOCKET = 11
    INCOMING_DATAGRAM_STREAM = 12
    OUTGOING_DATAGRAM_STREAM = 13
    RESOLVE_ADDRESS_STREAM = 14


def trap(text: str) -> GuestStopped:
    """What WASI calls a trap: the guest asked for what must not be asked."""
    return GuestStopped(Outcome.TRAP, text)


class Handles:
    """The things of one guest by representation."""

    def __init__(self) -> None:
        self._things: dict[int, Any] = {}
        self._free: list[int] = []
        self._pollables = 0

    def __len__(self) -> int:
        return len(self._things)

    def clear(self) -> None:
        """Forget everything: another instance begins."""
        self.__init__()  # type: ignore[misc]

    def give(self, kind: Kind, thing: Any) -> int:
        """The representation of a new handle of `thing`, for the guest to own.

        Raises:
            GuestStopped: it holds as many as it may.
        """
        if len(self._things) >= MAX_HANDLES:
            raise trap(f"more than {MAX_HANDLES} handles at a time")
        if kind is Kind.POLLABLE:
            if self._pollables >= MAX_POLLABLES:
                raise trap(f"more than {MAX_POLLABLES} pollables at a time")
            self._pollables += 1
        representation = self._free.pop() if self._free else len(self._things) + 1
        self._things[representation] = thing
        return representation

    def thing(self, representation: int) -> Any:
        """The thing behind a handle that the guest lends or gives."""
        return self._things[representation]

    def destructor(self, kind: Kind) -> Callable[[int], None]:
        """What the engine calls when the guest drops a handle of this kind."""

        def drop(representation: int) -> None:
            del self._things[representation]
            self._free.append(representation)
            if kind is Kind.POLLABLE:
                self._pollables -= 1

        return drop


handles = Handles()
"""The one guest's; a worker is one process with one guest."""


class Unreachable:
    """A method of a resource that this host never gives anybody: the engine lets no guest call it."""

    def __init__(self, resource: str) -> None:
        self._resource = resource

    def __call__(self) -> NoReturn:
        """Raises: GuestStopped."""
        raise trap(f"there is no {self._resource}")


def unreachable(resource: str, *methods: str) -> dict[str, Callable[..., Any]]:
    """These methods of a resource, all `Unreachable`."""
    return {f"[method]{resource}.{method}": Unreachable(resource) for method in methods}
