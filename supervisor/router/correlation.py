"""Requests that wait for their answer: who asked, until when, and the id the router made for it.

A request is open from the moment its message is in the target's mailbox until exactly one of: the reply, a failure, the
deadline, a cancellation, the end of its requester. Whoever closes it first answers it; everything later is late.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sandbox.types import ComponentId
from sandbox.wire.router_frames import NORMAL
from supervisor.router.timers import Timer

if TYPE_CHECKING:
    from supervisor.router.breaker import Breaker
    from supervisor.router.mailbox import Message
    from supervisor.router.retries import Asleep
    from supervisor.router.waiting import Waiter

MAX_SUBMITS = 10_000
"""Requests from outside open at one time, over all targets."""
MAX_TIMEOUT_MS = 24 * 3600 * 1000
"""Longest wait for an answer, milliseconds; longer wishes are cut to it."""

ID_BYTES = 16
"""Randomness of an id."""
IDS = 64
"""Ids made at one time."""


class Result(NamedTuple):
    """What becomes of a message from outside: `error` is "" or one of FAILURES, `text` explains it."""

    error: str = ""
    text: str = ""
    some: bool = False
    payload: bytes = b""  # of a reply
    message: int = 0  # its id, for a trace; 0: there was none
    correlation: str = ""
    number: int = 0  # subscribers that a publication goes to


Answer = Callable[[Result], None]
"""Who asked from outside; called exactly once, at once or later."""


class Pending(msgspec.Struct, eq=False):
    """One open request. The requester is a worker (`incarnation`) or somebody outside (`outside`)."""

    correlation: str
    target: ComponentId
    incarnation: int = 0
    outside: Answer | None = None
    message: int = 0  # id of the request's message
    timer: Timer | None = None
    wait_ms: int = 0
    deadline: float = float("inf")  # monotonic seconds
    priority: int = NORMAL  # of the request, and so of its callback
    queued: bool = False  # its message is in the target's mailbox
    waiter: Waiter | None = None  # its message waits for room there
    asleep: Asleep | None = None  # its message waits for the next attempt
    attempts: int = 0  # that failed
    carrier: Message | None = None  # its message, from when it was handed over: for the trace
    abandoned: bool = False  # its requester is gone, and its message a plain one
    breaker: Breaker | None = None  # that admitted it, ...
    ticket: int = 0  # ... with this ticket
    token: str = ""  # its reply was deferred, and is given with this by ...
    holder: int = 0  # ... the worker with this incarnation


class Correlations:
    """All open requests."""

    __slots__ = ("_by_worker", "_deferred", "_ids", "_open", "submits")

    def __init__(self) -> None:
        self._open: dict[str, Pending] = {}
        self._by_worker: dict[int, dict[str, Pending]] = {}
        self._deferred: dict[int, dict[str, Pending]] = {}
        self._ids: list[str] = []
        self.submits = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._open.values())

    def open(self, target: ComponentId, *, incarnation: int = 0, outside: Answer | None = None) -> Pending:
        """A new request with an id nobody can guess (128 bits, hexadecimal)."""
        if not self._ids:
            # Asking the kernel costs more than all the rest here: for many at once.
            made = secrets.token_hex(ID_BYTES * IDS)
            self._ids = [made[at : at + 2 * ID_BYTES] for at in range(0, len(made), 2 * ID_BYTES)]
        pending = Pending(self._ids.pop(), target, incarnation, outside)
        self._open[pending.correlation] = pending
        if outside is not None:
            self.submits += 1
        else:
            self._by_worker.setdefault(incarnation, {})[pending.correlation] = pending
        return pending

    def close(self, pending: Pending) -> bool:
        """Take the right to answer it; False when it was answered before."""
        if self._open.pop(pending.correlation, None) is None:
            return False
        if pending.outside is not None:
            self.submits -= 1
        else:
            mine = self._by_worker[pending.incarnation]
            del mine[pending.correlation]
            if not mine:
                del self._by_worker[pending.incarnation]
        if pending.token:
            self.undefer(pending)
        return True

    def is_open(self, pending: Pending) -> bool:
        """Whether nobody has answered it."""
        return pending.correlation in self._open

    def defer(self, pending: Pending, holder: int) -> str:
        """Let the worker with this incarnation answer an open request later; the token (128 bits) that it needs."""
        pending.token, pending.holder = secrets.token_hex(16), holder
        self._deferred.setdefault(holder, {})[pending.token] = pending
        return pending.token

    def undefer(self, pending: Pending) -> None:
        """The token is worth nothing any more; the request is as it was before `defer`."""
        theirs = self._deferred[pending.holder]
        del theirs[pending.token]
        if not theirs:
            del self._deferred[pending.holder]
        pending.token, pending.holder = "", 0

    def deferred(self, holder: int, token: str) -> Pending | None:
        """The open request that this worker deferred under this token."""
        return self._deferred.get(holder, {}).get(token)

    def deferred_by(self, holder: int) -> list[Pending]:
        """The open requests whose reply this worker still owes."""
        return list(self._deferred.get(holder, {}).values())

    def deferrals(self, holder: int) -> int:
        """How many those are."""
        return len(self._deferred.get(holder, ()))

    def count(self, incarnation: int) -> int:
        """Open requests made by this worker."""
        return len(self._by_worker.get(incarnation, ()))

    def find(self, incarnation: int, correlation: str) -> Pending | None:
        """The open request with this id, if this worker made it."""
        return self._by_worker.get(incarnation, {}).get(correlation)

    def of(self, incarnation: int) -> list[Pending]:
        """Open requests made by this worker."""
        return list(self._by_worker.get(incarnation, {}).values())
