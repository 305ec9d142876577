"""Host functions that a patched guest calls: no argument and no result but in the scratch memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Function
from sandbox.fast.protocol import AGAIN, ANNOUNCE, BLOBS, OUT
from sandbox.fast.reading import arguments_reader
from sandbox.fast.scratch import scratch
from sandbox.fast.writing import writer
from sandbox.fuel import fuel
from sandbox.marshal import capi
from sandbox.marshal.failures import stop

FUEL = 127
"""Of the adapter's own instructions in one call, about."""
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
                arguments = self._read(view)
                fuel.asked(copied + FUEL)
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


def _announced(count: int) -> None:
    """Large arguments are about to be copied."""
    scratch.used = max(scratch.used, OUT + count)
    fuel.expect(count)


def _returned(end: int) -> None:
    """A reply that takes so many bytes of the scratch memory is about to be copied."""
    scratch.used = max(scratch.used, end)
    fuel.copying(end - BLOBS)
