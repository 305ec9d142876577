"""The fuel of the one guest of this process, on both paths alike.

The engine charges fuel for each byte that a `memory.copy` moves, and moves the bytes of the general path without any.
So that a budget means the same on both, what the adapter of the fast path uses is given beyond the budget, ahead of
time, and taken off what was used. A guest that spends the lead on itself is found out when it next asks the host for
something, before that is done, or else at the end of the call.
"""

from __future__ import annotations

import ctypes

from sandbox.marshal import capi

LEAD = 1 << 16
"""How far what was given is kept ahead of what the adapter has used."""
SLACK = 8192
"""How much more is given when a call begins: most ask the host for little."""


class OutOfFuel(Exception):
    """The guest used what was given for the adapter."""


class Fuel:
    """Attributes:
    context: address of the store's context.
    budget: of each call.
    patched: whether there is an adapter.
    used: in the last call, by the guest.
    """

    def __init__(self) -> None:
        self.context = self.budget = self.used = 0
        self.patched = False
        self._given = self._copied = 0
        self._left = ctypes.c_uint64()
        self._at = ctypes.addressof(self._left)

    def begin(self) -> None:
        """A call begins on the general path."""
        self._copied, self._given = 0, LEAD + SLACK if self.patched else 0
        capi.context_set_fuel(self.context, self.budget + self._given)

    def begin_copying(self, count: int) -> None:
        """A call begins on the fast path, for which the adapter will use so much."""
        self._copied = count
        self._given = count + LEAD + SLACK
        capi.context_set_fuel(self.context, self.budget + self._given)

    def asked(self, count: int) -> None:
        """The guest asks the host for something; the adapter has used so much for it.

        Raises:
            OutOfFuel: the guest has used more than its budget.
        """
        self._copied += count
        capi.context_get_fuel(self.context, self._at)
        if self._left.value < self._given - self._copied:
            raise OutOfFuel
        if self._given < self._copied + LEAD:
            given = self._copied + 2 * LEAD
            capi.context_set_fuel(self.context, self._left.value + given - self._given)
            self._given = given

    def copying(self, count: int) -> None:
        """The adapter uses so much more, or has."""
        self._copied += count
        if self._given < self._copied + LEAD:
            self._give(self._copied + 2 * LEAD)

    def copied(self, count: int) -> None:
        """The adapter has used so much more at the end of a call, within the lead."""
        self._copied += count

    def expect(self, count: int) -> None:
        """The adapter will use so much, and then it will be told by `copying`."""
        self._give(self._copied + count + 2 * LEAD)

    def _give(self, given: int) -> None:
        if given < self._given:
            return  # what was given is enough
        capi.context_get_fuel(self.context, self._at)
        capi.context_set_fuel(self.context, self._left.value + given - self._given)
        self._given = given

    def finish(self) -> None:
        """A call is over: `used` is what the guest itself has used in it.

        Raises:
            OutOfFuel: more than its budget.
        """
        capi.context_get_fuel(self.context, self._at)
        used = self.budget + self._given - self._left.value - self._copied
        self.used = used if used > 0 else 0
        if used > self.budget:
            raise OutOfFuel


fuel = Fuel()
"""One worker, one guest: module state is right."""
