"""The messages that wait for one component: by priority, in order, bounded by number and bytes, surviving its worker.

Order: the highest priority first, and within one priority as they came; so of one sender and priority in order. Nobody
starves: after `STREAK` messages in a row that overtook a lower priority, the one that waits longest of all lower ones
has its turn.

Bounds: messages (`handle-message`, `handle-topic`) are bounded by the component's limit and by bytes; what happens to
one that does not fit is `delivery`'s to decide. A callback (`handle-callback`) is never refused or pushed out: there is
at most one for each request the router let the component make, and `correlation` bounds those; when callbacks hold too
many bytes, a small failure takes the reply's place. What the router itself tells a worker (initialize, health,
shutdown, acknowledgements) is never queued here and so never shed.

Every operation takes the same time however many messages wait, but for `drain` and `drop_callbacks`.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from sandbox.types import ComponentId
from sandbox.wire.router_frames import NORMAL, Callback, Deliver, Publication
from supervisor.router.correlation import Pending
from supervisor.router.timers import Timer

TOTAL_BYTES = 512 << 20
"""Bytes that all messages the router keeps, and what workers have not read yet, hold together; beyond it every message
is refused as `queue-full`."""
NEVER = float("inf")
OVERHEAD = 512
"""What a message costs beside its payload, bytes, about."""
MAX_WHY = 256
"""Longest text about a message's end that is kept, characters: guests have a part in it."""
STREAK = 8
"""Messages that may overtake lower priorities in a row."""


class Message(msgspec.Struct, eq=False, gc=False):
    """One message on its way. `pending` is the request it carries, if somebody waits for its answer.

    The collector does not look at messages, of which a trace keeps many: whatever leads from one back to itself (a
    timer, a place in a line) is cut when that is over.
    """

    id: int
    callback: bool
    sender: ComponentId
    seconds: int
    nanoseconds: int
    payload: bytes
    correlation: str | None = None
    reply_to: ComponentId | None = None
    content_type: str | None = None
    pending: Pending | None = None
    incarnation: int = 0  # a callback is for this worker alone
    priority: int = NORMAL
    deliveries: int = 0  # how often it was handed over
    expires: float = NEVER  # monotonic seconds
    topic: str = ""  # of a publication
    waits: bool = False  # its sender may be kept waiting for room; where not, `block` is as `error`
    failure: str = ""  # of a callback: one of FAILURES
    target: ComponentId | None = None  # set when it is submitted
    expiry: Timer | None = None  # while it waits in a mailbox
    # For the trace, monotonic seconds; 0.0: not yet.
    delivered: float = 0.0
    finished: float = 0.0
    end: str = ""  # how it ended: replied, failed, dead
    why: str = ""
    note: str = ""  # where it comes from, if that is not plain
    story: list[tuple[str, float, str]] | None = None  # what an ordinary message does not meet with

    @property
    def size(self) -> int:
        """Bytes it counts for."""
        return len(self.payload) + OVERHEAD

    def frame(self) -> Deliver | Publication | Callback:
        """What its worker gets, in front of the payload."""
        if self.callback:
            return Callback(
                self.id,
                self.sender,
                self.seconds,
                self.nanoseconds,
                self.correlation,
                self.reply_to,
                self.content_type,
                self.failure,
                self.priority,
            )
        if self.topic:
            return Publication(
                self.id,
                self.sender,
                self.seconds,
                self.nanoseconds,
                self.topic,
                self.content_type,
                self.deliveries,
                self.priority,
            )
        return Deliver(
            self.id,
            self.sender,
            self.seconds,
            self.nanoseconds,
            self.correlation,
            self.reply_to,
            self.content_type,
            self.deliveries,
            self.priority,
        )

    def tell_delivery(self) -> None:
        """There is to be another one: write this one, if there was one, into the story."""
        if self.delivered:
            delivered = "delivered", self.delivered, f"delivery {self.deliveries}"
            self.story, self.delivered = [*(self.story or ()), delivered], 0.0


class Account:
    """The bytes that all mailboxes, messages in hand, waiting senders and dead letters hold together."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = TOTAL_BYTES) -> None:
        self.limit = limit
        self.used = 0

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes may be held."""
        return self.used + size <= self.limit


class _Level:
    """What waits of one priority, by id, oldest first; callbacks apart, so that neither hides the other's oldest."""

    __slots__ = ("callbacks", "messages", "priority", "size")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.messages: OrderedDict[int, Message] = OrderedDict()
        self.callbacks: OrderedDict[int, Message] = OrderedDict()
        self.size = 0  # bytes of messages

    @property
    def first(self) -> int:
        """Id of the one that came first; there must be one."""
        if not self.callbacks:
            return next(iter(self.messages))
        if not self.messages:
            return next(iter(self.callbacks))
        return min(next(iter(self.messages)), next(iter(self.callbacks)))


class Mailbox:
    """One component's queue.

    Args:
        account: shared by all mailboxes.
        capacity: most messages, callbacks not counted.
        size: most bytes of messages, and again of callbacks.
        message_size: largest payload the component takes, bytes; one message always fits.
    """

    __slots__ = (
        "_account",
        "_callback_bytes",
        "_levels",
        "_message_bytes",
        "_streak",
        "byte_limit",
        "callbacks",
        "capacity",
        "messages",
    )

    def __init__(self, account: Account, capacity: int, size: int, message_size: int) -> None:
        self._account = account
        self._levels: list[_Level] = []  # highest priority first; made when first needed
        self._message_bytes = self._callback_bytes = self._streak = 0
        self.messages = self.callbacks = 0
        self.resize(capacity, size, message_size)

    def __len__(self) -> int:
        return self.messages + self.callbacks

    @property
    def bytes(self) -> int:
        """Bytes that wait."""
        return self._message_bytes + self._callback_bytes

    def resize(self, capacity: int, size: int, message_size: int) -> None:
        """Take new bounds; what waits already stays."""
        self.capacity = capacity
        self.byte_limit = max(size, message_size + OVERHEAD)

    # -- in -----------------------------------------------------------------------------------------------------

    def put(self, message: Message) -> bool:
        """Queue a message; False when the mailbox, or all of them together, are full."""
        size = len(message.payload) + OVERHEAD
        account = self._account
        if (
            self.messages >= self.capacity
            or self._message_bytes + size > self.byte_limit
            or account.used + size > account.limit
        ):
            return False
        self.messages += 1
        self._message_bytes += size
        account.used += size
        level = self._level(message.priority)
        level.size += size
        level.messages[message.id] = message
        return True

    def put_callback(self, message: Message) -> bool:
        """Queue a callback; False when its payload is more than the bytes left for callbacks.

        A callback without a payload worth mentioning is always taken.
        """
        size = len(message.payload) + OVERHEAD
        if len(message.payload) > OVERHEAD and (
            self._callback_bytes + size > self.byte_limit or not self._account.has_room(size)
        ):
            return False
        self._callback_bytes += size
        self._account.used += size
        self.callbacks += 1
        self._level(message.priority).callbacks[message.id] = message
        return True

    def put_back(self, message: Message) -> None:
        """Put a message that was taken at the front of its priority again, whatever the bounds say."""
        size = len(message.payload) + OVERHEAD
        self._account.used += size
        level = self._level(message.priority)
        if message.callback:
            self.callbacks += 1
            self._callback_bytes += size
            queue = level.callbacks
        else:
            self.messages += 1
            self._message_bytes += size
            level.size += size
            queue = level.messages
        queue[message.id] = message
        queue.move_to_end(message.id, last=False)

    # -- out ----------------------------------------------------------------------------------------------------

    def take(self) -> Message | None:
        """The message or callback whose turn it is, out of the queue."""
        if not (self.messages or self.callbacks):
            return None
        top: _Level | None = None
        lower: _Level | None = None
        for level in self._levels:
            if not (level.messages or level.callbacks):
                continue
            if top is None:
                top = level
            elif lower is None or level.first < lower.first:
                lower = level
        if top is None:
            return None
        if lower is None:
            self._streak = 0
        elif self._streak < STREAK:
            self._streak += 1
        else:
            self._streak = 0
            top = lower
        callbacks = top.callbacks
        if callbacks and (not top.messages or next(iter(callbacks)) < next(iter(top.messages))):
            _, message = callbacks.popitem(last=False)
        else:
            _, message = top.messages.popitem(last=False)
        self._leave(top, message)
        return message

    def remove(self, message_id: int) -> Message | None:
        """Take one message out of the middle, or None if it is not here any more."""
        for level in self._levels:
            message = level.messages.pop(message_id, None) or level.callbacks.pop(message_id, None)
            if message is not None:
                self._leave(level, message)
                return message
        return None

    def push_out(self, newcomer: Message) -> list[Message] | None:
        """Make room for `newcomer`: the oldest of the lowest priority go, none of a higher one than its own.

        Returns:
            Those that went; None, and all stay, where that would not make room either.
        """
        size = newcomer.size
        lower = [level for level in self._levels if level.priority <= newcomer.priority]
        count, held = sum(len(level.messages) for level in lower), sum(level.size for level in lower)
        if (
            self.messages - count >= self.capacity
            or self._message_bytes - held + size > self.byte_limit
            or not self._account.has_room(size - held)
        ):
            return None
        gone: list[Message] = []
        while lower and not self.fits(size):
            level = lower[-1]
            if not level.messages:
                lower.pop()
                continue
            _, message = level.messages.popitem(last=False)
            self._leave(level, message)
            gone.append(message)
        return gone

    def fits(self, size: int) -> bool:
        """Whether a message that counts for `size` bytes would be taken now."""
        return (
            self.messages < self.capacity
            and self._message_bytes + size <= self.byte_limit
            and self._account.has_room(size)
        )

    def drop_callbacks(self, incarnation: int) -> int:
        """Forget the callbacks of a worker that is gone; how many there were."""
        dropped = 0
        for level in self._levels:
            gone = [message for message in level.callbacks.values() if message.incarnation == incarnation]
            for message in gone:
                del level.callbacks[message.id]
                self._leave(level, message)
            dropped += len(gone)
        return dropped

    def drain(self) -> list[Message]:
        """Everything, highest priority first and oldest first; the mailbox is empty afterwards."""
        messages = []
        for level in self._levels:
            messages += sorted([*level.messages.values(), *level.callbacks.values()], key=_by_id)
            for message in [*level.messages.values(), *level.callbacks.values()]:
                self._leave(level, message)
        self._levels.clear()
        return messages

    def __contains__(self, message_id: object) -> bool:
        """Whether this message waits here."""
        return any(message_id in level.messages or message_id in level.callbacks for level in self._levels)

    def find(self, wanted: int | str) -> list[Message]:
        """Those with this id, or this correlation id; looks at each."""
        return [
            message
            for level in self._levels
            for message in [*level.messages.values(), *level.callbacks.values()]
            if wanted in (message.id, message.correlation)
        ]

    def _level(self, priority: int) -> _Level:
        for level in self._levels:
            if level.priority == priority:
                return level
        level = _Level(priority)
        self._levels.append(level)
        self._levels.sort(key=_by_priority)
        return level

    def _leave(self, level: _Level, message: Message) -> None:
        size = len(message.payload) + OVERHEAD
        self._account.used -= size
        if message.callback:
            self.callbacks -= 1
            self._callback_bytes -= size
        else:
            self.messages -= 1
            self._message_bytes -= size
            level.size -= size


def _by_id(message: Message) -> int:
    return message.id


def _by_priority(level: _Level) -> int:
    return -level.priority
