"""Host functions that a patched guest calls: no argument and no result but in the scratch memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from sandbox.abi.layout import members_of
from sandbox.abi.types import STRING, Function, ListType, OptionType, Type
from sandbox.fast.protocol import AGAIN, ANNOUNCE, BLOBS, OUT
from sandbox.fast.reading import Misformed, arguments_reader
from sandbox.fast.scratch import KEPT, scratch
from sandbox.fast.writing import writer
from sandbox.fuel import fuel
from sandbox.marshal import capi
from sandbox.marshal.failures import stop

CALL_FUEL, ANSWER_FUEL, BLOB_FUEL, ELEMENT_FUEL = 40, 30, 28, 20
"""Fuel of the adapter's own instructions: of one call, of an answer, of each string or list among its parameters, and
of each element of a list that is gone through. Never more than they are: a guest must not gain fuel by asking the host
for something."""
_REASON = struct.Struct("<II")
_NEED = struct.Struct("<I")


def define(linker_instance: Any, name: str, function: Function, implementation: Callable[..., Any]) -> None:
    """Add the fast form of a host function to an instance of a linker. In the zygote: no callback can be made later.

    Args:
        linker_instance: a `wasmtime.component.LinkerInstance`.
        name: of the fast form.
        function: type of the function it stands for.
        implementation: the host function itself, the same that the general path calls.

    Raises:
        WasmtimeError: the name is taken.
    """
    made = HostFunction(function, implementation)
    _defined.append(made)
    encoded = name.encode()
    address = capi.callback_address(made.callback)
    error = capi.add_func(capi.pointer_of(linker_instance), encoded, len(encoded), address, 0, 0)
    if error:
        raise capi.error_at(error)


_defined: list[HostFunction] = []
"""Kept: the engine knows them by address only."""


class HostFunction:
    """A fast import. Made in the zygote: no callback can be made later.

    Args:
        function: its type.
        implementation: the host function itself; the same that the general path calls.
    """

    def __init__(self, function: Function, implementation: Callable[..., Any]) -> None:
        self._read = arguments_reader(function)
        self._write = None if function.result is None else writer(function.result)
        self._implementation = implementation
        kinds = [kind for _, kind in function.parameters]
        self._base_fuel = (
            CALL_FUEL
            + ANSWER_FUEL * (function.result is not None)
            + BLOB_FUEL * sum(_always_there(kind) for kind in kinds)
        )
        self._walks = [(place, _element_fuel(kind)) for place, kind in enumerate(kinds) if _element_fuel(kind)]
        self._waiting: Any = None
        self.callback = capi.FunctionCallback(self.called)

    def called(self, *_: int) -> int:
        """What the engine calls: 0, or the address of an error."""
        try:
            view = scratch.view
            why, copied = _REASON.unpack_from(view, 16)
            if why == ANNOUNCE:
                _announced(copied)
                return 0
            if why == AGAIN:
                answer, self._waiting = self._waiting, None
            else:
                if copied > KEPT:
                    scratch.used = max(scratch.used, OUT + copied)
                try:
                    arguments = self._read(view)
                except (struct.error, IndexError, OverflowError) as error:
                    raise Misformed(f"the guest passed what is no argument: {error}") from error
                fuel.asked(copied + (self._fuel(arguments) if self._walks else self._base_fuel))
                answer = self._implementation(*arguments)
            if self._write is not None:
                end = self._write(view, answer)
                if end > len(view):
                    self._waiting = answer
                    _NEED.pack_into(view, 12, end)
                else:
                    _returned(end)
            return 0
        except BaseException as error:  # whatever it is goes on when the engine has come back
            return stop(error)

    def _fuel(self, arguments: tuple[Any, ...]) -> int:
        """Of the adapter, for bringing these out of the guest, the bytes apart."""
        used = self._base_fuel
        for place, each in self._walks:
            found = arguments[place]
            if type(found) is list:
                used += each * len(found)
        return used


def _always_there(kind: Type) -> int:
    """How many strings and lists a parameter has whatever its value."""
    if isinstance(kind, ListType) or kind == STRING:
        return 1
    return sum(_always_there(each) for each in members_of(kind) or ())


def _element_fuel(kind: Type) -> int:
    """Of each element of a list that is gone through because its elements hold strings; 0 of any other type."""
    if isinstance(kind, OptionType):
        return _element_fuel(kind.payload)
    inside = _always_there(kind.element) if isinstance(kind, ListType) else 0
    return ELEMENT_FUEL + BLOB_FUEL * inside if inside else 0


def _announced(count: int) -> None:
    """Large arguments are about to be copied."""
    fuel.expect(count)


def _returned(end: int) -> None:
    """A reply that takes so many bytes of the scratch memory is about to be copied."""
    if end > KEPT:
        scratch.used = max(scratch.used, end)
    fuel.copying(end - BLOBS)
