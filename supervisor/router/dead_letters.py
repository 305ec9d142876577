"""Messages that were not delivered or not dealt with, kept for an operator to look at, replay or purge.

A ring bounded by number and by bytes: the oldest go first, and are counted (`dead-letters-evicted`). It lies in the
router's memory and is lost with it. A letter's id is that of its message.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from bridge.capabilities import covers
from sandbox.types import ComponentId
from sandbox.wire.router_frames import DeadLetter, Settings
from supervisor.router.mailbox import MAX_WHY, OVERHEAD, Account, Message

EXPIRED, POISONED, DROPPED, UNDELIVERABLE = "expired", "poisoned", "dropped", "undeliverable"
"""Reasons: its time to live was over; workers died with it in hand too often; shed by the overflow policy; its worker
or component ended."""
_Letters = list[DeadLetter]


class DeadLetters:
    """The ring.

    Args:
        account: the mailboxes'; the letters' bytes count in it.
        counters: `dead-<reason>` and `dead-letters-evicted` are counted here.
        post: puts a message into the mailbox of its target (never waiting); "" or why not.
        message_id: a number no other message has.
    """

    def __init__(
        self,
        account: Account,
        counters: dict[str, int],
        post: Callable[[Message], str],
        message_id: Callable[[], int],
    ) -> None:
        self._account, self._counters, self._post, self._message_id = account, counters, post, message_id
        self._letters: OrderedDict[int, tuple[DeadLetter, bytes]] = OrderedDict()
        self._size = 0
        self._most, self._most_bytes = Settings().dead_letters, Settings().dead_letter_bytes

    def __len__(self) -> int:
        return len(self._letters)

    def resize(self, most: int, most_bytes: int) -> None:
        """Take new bounds, in letters and bytes."""
        self._most, self._most_bytes = most, most_bytes
        self._shrink()

    def add(self, target: ComponentId, message: Message, reason: str, text: str) -> None:
        """Keep a message that died, with its payload; who holds it lets go of it."""
        letter = DeadLetter(
            message.id,
            reason,
            message.sender,
            target,
            time.time(),
            message.seconds + message.nanoseconds / 1e9,
            len(message.payload),
            message.deliveries,
            message.priority,
            message.topic,
            message.content_type,
            message.correlation or "",
            text[:MAX_WHY],
        )
        self._counters[f"dead-{reason}"] += 1
        self._letters[letter.id] = letter, message.payload
        size = letter.size + OVERHEAD
        self._size += size
        self._account.used += size
        self._shrink()

    def list(self, component: str = "*", most: int = 1_000) -> tuple[_Letters, int]:
        """The newest `most` letters to targets that the pattern covers, oldest first, and how many there are."""
        found = [*self._matching(0, component)]
        return (found[-most:] if most > 0 else []), len(found)

    def show(self, letter: int) -> tuple[DeadLetter, bytes] | None:
        """One letter with its payload."""
        return self._letters.get(letter)

    def replay(self, letter: int = 0, component: str = "*") -> tuple[int, str]:
        """Send again, as the same sender to the same target, without a time to live; nobody waits for an answer.

        Args:
            letter: its id; 0: all to targets that `component` covers.

        Returns:
            How many are on their way (their letters are gone), and why the first of the others is not.
        """
        count, error = 0, ""
        for found in [*self._matching(letter, component)]:
            if found.id not in self._letters:
                continue  # pushed out by the letter of one that was replayed, and shed again
            _, payload = self._letters[found.id]
            seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
            message = Message(
                self._message_id(),
                False,
                found.sender,
                seconds,
                nanoseconds,
                payload,
                content_type=found.content_type,
                priority=found.priority,
                topic=found.topic,
                target=found.target,
                note=f"replay of {found.id}",
            )
            self._remove(found.id)  # first: a refused one is put back, and a shed one is a letter of its own
            refused = self._post(message)
            if refused:
                self._put_back(found, payload)
                error = error or refused
            else:
                count += 1
        return count, error

    def purge(self, letter: int = 0, component: str = "*") -> int:
        """Forget one letter, or all to targets that the pattern covers; how many."""
        found = [match.id for match in self._matching(letter, component)]
        for letter_id in found:
            self._remove(letter_id)
        return len(found)

    def _matching(self, letter: int, component: str) -> Iterator[DeadLetter]:
        if letter:
            found = self._letters.get(letter)
            if found is not None:
                yield found[0]
            return
        for each, _ in self._letters.values():
            # A pattern of an operator, not a right: `*` is everything.
            if component == "*" or covers(component, each.target):
                yield each

    def _put_back(self, letter: DeadLetter, payload: bytes) -> None:
        self._letters[letter.id] = letter, payload
        size = letter.size + OVERHEAD
        self._size += size
        self._account.used += size

    def _remove(self, letter_id: int) -> None:
        letter, _ = self._letters.pop(letter_id)
        size = letter.size + OVERHEAD
        self._size -= size
        self._account.used -= size

    def _shrink(self) -> None:
        while self._letters and (len(self._letters) > self._most or self._size > self._most_bytes):
            self._remove(next(iter(self._letters)))
            self._counters["dead-letters-evicted"] += 1
