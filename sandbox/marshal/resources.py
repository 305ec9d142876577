"""Resources across the boundary: what the host has made, by its representation; what a guest has made, by handle.

The engine keeps each guest's table of handles and never mixes up resource types. A resource of the host is a number of
ours there, the representation, and has a number for its type. A resource of a guest is an opaque handle here.
"""

from __future__ import annotations

from typing import Any

from sandbox.marshal import capi
from sandbox.marshal.failures import raise_of
from sandbox.marshal.reentrance import gate

host_types: dict[str, int] = {}
"""The engine's number for each resource type of the host, by name as in `HandleType`; a resource that is not in
here is a guest's."""


def name_resource(resource: str, number: int) -> None:
    """Let a resource of the host be known, before any plan is made of a function that mentions it.

    Raises:
        ValueError: it has another number already.
    """
    if host_types.setdefault(resource, number) != number:
        raise ValueError(f"{resource} has the number {host_types[resource]}")


_out = bytearray(capi.WORD)
_out_address = capi.address_of(_out)
_out_word = memoryview(_out).cast("Q")


class _Owned:
    """An engine's handle that Python has made: deleted with this object, after the engine has copied it."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    def __del__(self) -> None:
        capi.any_delete(self.address)


def give(context: int, representation: Any, number: int, borrowed: bool, keep: list[Any]) -> int:
    """The address of a handle for a resource of the host; it lives as long as `keep` does.

    Raises:
        TypeError: a representation is a number.
        ValueError: of 32 bits.
    """
    if representation.__class__ is not int:
        raise TypeError("a representation is an int")
    if not 0 <= representation < 1 << 32:
        raise ValueError("a representation has 32 bits")
    host = capi.host_new(not borrowed, representation, number)
    try:
        error = capi.host_to_any(context, host, _out_address)
    finally:
        capi.host_delete(host)
    if error:
        raise capi.error_at(error)
    keep.append(_Owned(_out_word[0]))
    return _out_word[0]


def take(context: int, address: int, number: int) -> int:
    """The representation behind a handle that a guest lends or gives.

    A borrow must be taken from the engine before the host function returns, or the guest traps.

    Raises:
        WasmtimeError: the engine has no such handle (any more).
        TypeError: it is of another type than the function says.
    """
    error = capi.any_to_host(context, address, _out_address)
    if error:
        raise capi.error_at(error)
    host = _out_word[0]
    representation: int = capi.host_rep(host)
    same = capi.host_type(host) == number
    capi.host_delete(host)
    if not same:
        raise TypeError("a handle of another resource")
    return representation


class GuestResource:
    """A resource that a guest has made and given or lent. `drop` runs the guest's destructor; without it the resource
    lives as long as its store. What has been given back to the guest is the guest's again."""

    __slots__ = ("_address", "_context")

    def __init__(self, context: int, address: int) -> None:
        # The engine takes its own copy of the handle away as soon as this call is over.
        self._address = capi.any_clone(address)
        self._context = context

    @property
    def address(self) -> int:
        """Of the engine's handle.

        Raises:
            ValueError: it was dropped.
        """
        if not self._address:
            raise ValueError("the resource was dropped")
        return int(self._address)

    def drop(self) -> None:
        """End it; the guest's destructor runs. The store must still be open.

        Raises:
            WasmtimeError: the destructor trapped, or the handle is the guest's again.
            Reentered: a guest is running.
        """
        address = self.address
        with gate:
            error = capi.any_drop(self._context, address)
        self._delete()
        if error:
            raise_of(error)

    def _delete(self) -> None:
        address, self._address = self._address, 0
        if address:
            capi.any_delete(address)

    def __del__(self) -> None:
        self._delete()
