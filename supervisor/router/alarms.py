"""Timers of components: messages to oneself, once or again and again.

They belong to the component and not to its worker: a new worker finds them still coming. They end with the component,
and are bounded by its limit `timers` and, in bytes, as its mailbox is. A recurring one keeps its rhythm, whatever a
message takes; while the last one still waits in the mailbox no further one is added. One that finds the mailbox full
comes `AGAIN` seconds later if it is the only one, and otherwise in its rhythm.
"""

from __future__ import annotations

import functools
import time

from supervisor.router.delivery import Delivery
from supervisor.router.mailbox import OVERHEAD, Message
from supervisor.router.routes import Component
from supervisor.router.timers import Timer

MAX_RATE = 1_000.0
"""Messages a second that all recurring timers of one component together may make."""
AGAIN = 1.0
"""Seconds until a timer comes again that found no room."""


class _Alarm:
    __slots__ = ("component", "every", "id", "last", "payload", "timer", "when")

    def __init__(self, component: Component, number: str, payload: bytes, when: float, every: float) -> None:
        self.component, self.id, self.payload = component, number, payload
        self.when, self.every = when, every
        self.timer: Timer | None = None
        self.last = 0  # id of the message of the last time

    @property
    def size(self) -> int:
        return len(self.payload) + OVERHEAD


class Alarms:
    """All timers of all components."""

    __slots__ = ("_by_component", "_bytes", "_delivery", "_last_id")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._by_component: dict[Component, dict[str, _Alarm]] = {}
        self._bytes: dict[Component, int] = {}
        self._last_id = 0
        delivery.table.on_forget.append(self._forgotten)

    def set(self, component: Component, delay_ms: int, payload: bytes, *, every: bool) -> str | None:
        """Have a message come; the timer's id, or None when there is no room for another.

        Args:
            component: whose timer it is, and who gets the message.
            delay_ms: until it comes, and between two of a recurring one, milliseconds.
            payload: of the message.
            every: whether it recurs.
        """
        if component.removed:
            return None
        mine = self._by_component.setdefault(component, {})
        account, used = self._delivery.table.account, self._bytes.get(component, 0)
        seconds = delay_ms / 1000
        self._last_id += 1
        alarm = _Alarm(component, f"{self._last_id:x}", payload, time.monotonic() + seconds, seconds if every else 0.0)
        if (
            len(mine) >= component.limits.timers
            or (every and sum(1 / each.every for each in mine.values() if each.every) + 1 / seconds > MAX_RATE)
            or used + alarm.size > component.mailbox.byte_limit
            or account.used + alarm.size > account.limit
        ):
            return None
        mine[alarm.id] = alarm
        self._bytes[component] = used + alarm.size
        account.used += alarm.size
        component.alarms = len(mine)
        self._schedule(alarm)
        return alarm.id

    def cancel(self, component: Component, number: str) -> bool:
        """Have it not come; False when there is no such timer of this component."""
        alarm = self._by_component.get(component, {}).get(number)
        if alarm is None:
            return False
        self._drop(alarm)
        return True

    def _schedule(self, alarm: _Alarm) -> None:
        alarm.timer = self._delivery.timers.schedule(alarm.when, functools.partial(self._due, alarm))

    def _due(self, alarm: _Alarm) -> None:
        component = alarm.component
        if alarm.every and alarm.last in component.mailbox:
            self._next(alarm)
            return
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        number = alarm.last = self._delivery.message_id()
        # It leaves the account here and enters it in the mailbox, so that it never counts twice.
        self._delivery.table.account.used -= alarm.size
        refused = ""

        def done(reason: str) -> None:
            nonlocal refused
            refused = reason

        message = Message(number, False, component.id, seconds, nanoseconds, alarm.payload)
        self._delivery.submit(component, message, done)
        self._delivery.table.account.used += alarm.size
        if alarm.timer is None or component.removed:  # dropped meanwhile
            return
        if alarm.every:
            self._next(alarm)
        elif refused:
            alarm.when = time.monotonic() + AGAIN
            self._schedule(alarm)
        else:
            self._drop(alarm)

    def _next(self, alarm: _Alarm) -> None:
        """The next time of its rhythm that is still to come."""
        now = time.monotonic()
        alarm.when += alarm.every
        if alarm.when <= now:
            alarm.when += alarm.every * ((now - alarm.when) // alarm.every + 1)
        self._schedule(alarm)

    def _drop(self, alarm: _Alarm) -> None:
        component = alarm.component
        if alarm.timer is not None:
            self._delivery.timers.cancel(alarm.timer)
            alarm.timer = None
        mine = self._by_component[component]
        del mine[alarm.id]
        self._bytes[component] -= alarm.size
        self._delivery.table.account.used -= alarm.size
        component.alarms = len(mine)
        if not mine:
            del self._by_component[component], self._bytes[component]

    def _forgotten(self, component: Component) -> None:
        for alarm in list(self._by_component.get(component, {}).values()):
            self._drop(alarm)
