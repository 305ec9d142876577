"""Long work, done a slice in each turn of the loop, so that nobody waits for all of it.

Whoever tells many (a broadcast, a publication) is a generator that yields after each `SLICE` of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

SLICE = 16
"""Mailboxes written to in one turn by one broadcast or publication."""
_DONE = object()


class Turns:
    """What is under way; all of it has its turns."""

    __slots__ = ("_going",)

    def __init__(self) -> None:
        self._going: deque[Generator[None, None, None]] = deque()

    def start(self, work: Generator[None, None, None]) -> None:
        """Do the first slice now; the rest, if there is any, in turns to come."""
        if next(work, _DONE) is not _DONE:
            self._going.append(work)

    @property
    def going(self) -> bool:
        """Whether anything is under way."""
        return bool(self._going)

    def go_on(self) -> None:
        """Take one of them a slice further."""
        if self._going:
            self.start(self._going.popleft())
