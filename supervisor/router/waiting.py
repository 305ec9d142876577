"""Senders that wait for room in a mailbox whose overflow policy is `block`: first come, first served, and not for ever.

A worker waits until shortly before its own deadline, which would end it; somebody outside
`OUTSIDE_SECONDS`, or as long as he says; each no longer than its request's timeout. Only who writes to a full mailbox
waits, so a slow component holds up nobody else.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sandbox.types import ComponentId
from supervisor.router.mailbox import NEVER, Account, Message
from supervisor.router.timers import Timer, Timers

if TYPE_CHECKING:
    from supervisor.router.routes import Component, Worker

OUTSIDE_SECONDS = 5.0
"""How long somebody outside waits with a plain send unless it says otherwise, seconds."""
MOST_OUTSIDE = 1_000
"""Messages of one user outside that may wait at one time."""
BEFORE_DEADLINE = 0.05
"""How long before its worker's deadline a sender is told that there is no room, seconds."""


class Waiter(msgspec.Struct, eq=False):
    """One message that no mailbox has yet, and who is to be told. Its bytes count in the account."""

    component: Component
    message: Message
    done: Callable[[str], None]
    worker: Worker | None  # None: somebody outside
    timer: Timer | None = None


class Waiting:
    """All lines in front of mailboxes.

    Args:
        timers: for those who have waited long enough.
        account: the mailboxes'.
        put: queues a message in a mailbox that has room for it.
    """

    __slots__ = ("_account", "_outside", "_put", "_timers")

    def __init__(self, timers: Timers, account: Account, put: Callable[[Component, Message], bool]) -> None:
        self._timers, self._account, self._put = timers, account, put
        self._outside: dict[ComponentId, int] = {}

    def join(
        self,
        component: Component,
        message: Message,
        done: Callable[[str], None],
        worker: Worker | None,
        patience: float | None = None,
    ) -> bool:
        """Have a sender wait at the end of the line; `done` hears what came of it. False: it must not wait.

        Args:
            patience: how long somebody outside waits with a plain send, seconds; None: `OUTSIDE_SECONDS`.
        """
        now = time.monotonic()
        outside = OUTSIDE_SECONDS if patience is None else patience
        until = now + outside if worker is None else worker.deadline - BEFORE_DEADLINE
        over = "queue-full"
        pending = message.pending
        if pending is not None:
            if worker is None:
                until = pending.deadline if pending.deadline != NEVER else until
            if pending.deadline <= until:
                until, over = pending.deadline, "timeout"
        if (
            until <= now
            or until == NEVER
            or (worker is None and self._outside.get(message.sender, 0) >= MOST_OUTSIDE)
            or (worker is not None and worker.waiter is not None)
            or not self._account.has_room(message.size)
        ):
            return False
        waiter = Waiter(component, message, done, worker)
        waiter.timer = self._timers.schedule(until, functools.partial(self.refuse, waiter, over))
        self._account.used += message.size
        component.waiting[message.id] = waiter
        if worker is None:
            self._outside[message.sender] = self._outside.get(message.sender, 0) + 1
        else:
            worker.waiter = waiter
        if pending is not None:
            pending.waiter = waiter
        message.story = [*(message.story or ()), ("waiting", now, "for room")]
        return True

    def admit(self, component: Component) -> None:
        """There may be room: let in who is first, and those behind him."""
        while component.waiting and not component.draining:
            waiter = next(iter(component.waiting.values()))
            # Its own bytes are in the account already, and are not to keep it out.
            self._account.used -= waiter.message.size
            fits = component.mailbox.fits(waiter.message.size)
            self._account.used += waiter.message.size
            if not fits:
                return
            self.leave(waiter)
            message = waiter.message
            message.story = [*(message.story or ()), ("queued", time.monotonic(), "")]
            self._put(component, message)
            waiter.done("")

    def refuse(self, waiter: Waiter, reason: str) -> None:
        """Tell a sender that its message was not taken."""
        self.leave(waiter)
        waiter.done(reason)
        self.admit(waiter.component)  # the one behind may be smaller

    def refuse_all(self, component: Component, reason: str) -> None:
        """Tell everybody in a line."""
        for waiter in list(component.waiting.values()):
            self.leave(waiter)
            waiter.done(reason)

    def leave(self, waiter: Waiter) -> None:
        """Take somebody out of the line without a word."""
        message = waiter.message
        if waiter.component.waiting.pop(message.id, None) is None:
            return
        self._account.used -= message.size
        if waiter.timer is not None:
            self._timers.cancel(waiter.timer)
        if waiter.worker is None:
            left = self._outside.pop(message.sender) - 1
            if left:
                self._outside[message.sender] = left
        elif waiter.worker.waiter is waiter:
            waiter.worker.waiter = None
        if message.pending is not None:
            message.pending.waiter = None
