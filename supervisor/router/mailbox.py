"""The messages that wait for one component: in order, bounded by number and by bytes, and surviving its worker.

Messages (`handle-message`) and callbacks (`handle-callback`) share one queue, so neither starves the other. Messages
are bounded by the component's limit and by bytes; what does not fit is refused and its sender is told. A callback is
never refused: there is at most one for each request the router let the component make, and `correlation` bounds
those; when callbacks hold too many bytes, a small failure takes the reply's place. What the router itself tells a
worker (initialize, health, shutdown, acknowledgements) is never queued here and so never shed.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from sandbox.types import ComponentId
from sandbox.wire.router_frames import NORMAL
from supervisor.router.correlation import Pending

TOTAL_BYTES = 512 << 20
"""Bytes that all mailboxes, and what workers have not read yet, hold together; beyond it every message is refused as
`queue-full`."""
NEVER = float("inf")
OVERHEAD = 512
"""What a message costs beside its payload, bytes, about."""


class Message(msgspec.Struct, eq=False):
    """One message on its way. `pending` is the request it carries, if somebody waits for its answer."""

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


class Account:
    """The bytes all mailboxes hold together."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = TOTAL_BYTES) -> None:
        self.limit = limit
        self.used = 0


class Mailbox:
    """One component's queue.

    Args:
        account: shared by all mailboxes.
        capacity: most messages, callbacks not counted.
        size: most bytes of messages, and again of callbacks.
        message_size: largest payload the component takes, bytes; one message always fits.
    """

    __slots__ = ("_account", "_bytes", "_callback_bytes", "_queue", "byte_limit", "callbacks", "capacity")

    def __init__(self, account: Account, capacity: int, size: int, message_size: int) -> None:
        self._account = account
        self._queue: OrderedDict[int, Message] = OrderedDict()
        self._bytes = self._callback_bytes = 0
        self.callbacks = 0
        self.resize(capacity, size, message_size)

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, message_id: int) -> bool:
        """Whether this message waits here."""
        return message_id in self._queue

    def resize(self, capacity: int, size: int, message_size: int) -> None:
        """Take new bounds; what waits already stays."""
        self.capacity = capacity
        self.byte_limit = max(size, message_size + OVERHEAD)

    def put(self, message: Message) -> bool:
        """Queue a message; False when the mailbox, or all of them together, are full."""
        size = len(message.payload) + OVERHEAD
        if (
            len(self._queue) - self.callbacks >= self.capacity
            or self._bytes + size > self.byte_limit
            or self._account.used + size > self._account.limit
        ):
            return False
        self._bytes += size
        self._account.used += size
        self._queue[message.id] = message
        return True

    def put_callback(self, message: Message) -> bool:
        """Queue a callback; False when its payload is more than the bytes left for callbacks.

        A callback without a payload worth mentioning is always taken.
        """
        size = len(message.payload) + OVERHEAD
        if len(message.payload) > OVERHEAD and (
            self._callback_bytes + size > self.byte_limit or self._account.used + size > self._account.limit
        ):
            return False
        self._callback_bytes += size
        self._account.used += size
        self.callbacks += 1
        self._queue[message.id] = message
        return True

    def take(self) -> Message | None:
        """The oldest message or callback, out of the queue."""
        if not self._queue:
            return None
        _, message = self._queue.popitem(last=False)
        self._release(message)
        return message

    def put_back(self, message: Message) -> None:
        """Put a message that could not be handed over at the front again, whatever the bounds say."""
        size = len(message.payload) + OVERHEAD
        self._account.used += size
        if message.callback:
            self.callbacks += 1
            self._callback_bytes += size
        else:
            self._bytes += size
        self._queue[message.id] = message
        self._queue.move_to_end(message.id, last=False)

    def remove(self, message_id: int) -> Message | None:
        """Take one message out of the middle, or None if it is not here any more."""
        message = self._queue.pop(message_id, None)
        if message is not None:
            self._release(message)
        return message

    def drop_callbacks(self, incarnation: int) -> int:
        """Forget the callbacks of a worker that is gone; how many there were."""
        gone = [m.id for m in self._queue.values() if m.callback and m.incarnation == incarnation]
        for message_id in gone:
            self.remove(message_id)
        return len(gone)

    def drain(self) -> list[Message]:
        """Everything, oldest first; the mailbox is empty afterwards."""
        messages = list(self._queue.values())
        self._queue.clear()
        for message in messages:
            self._release(message)
        return messages

    def _release(self, message: Message) -> None:
        size = len(message.payload) + OVERHEAD
        self._account.used -= size
        if message.callback:
            self.callbacks -= 1
            self._callback_bytes -= size
        else:
            self._bytes -= size
