"""Calls of a patched guest, and of the host by it, with nothing but the scratch memory in between.

A call of the engine takes no argument and gives no result here: everything is in the scratch memory. Fuel is charged by
the engine for each byte a `memory.copy` moves; since the general path moves bytes without fuel, what the adapter copied
is given back, so that a budget means the same on both paths.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi

from sandbox.abi.layout import size
from sandbox.abi.types import Function, Ok, ResultType, TupleType
from sandbox.fast.protocol import AGAIN, ANNOUNCE, BLOBS, INLINE, OUT
from sandbox.fast.reading import arguments_reader, reader, refuse
from sandbox.fast.scratch import KEPT, scratch
from sandbox.fast.writing import writer

_library = ctypes.CDLL(ffi.dll._name)  # a handle of its own: nobody else's argument types change
_word = ctypes.c_size_t
_call = _library.wasmtime_component_func_call
_call.restype, _call.argtypes = _word, [_word] * 6
_set_fuel = _library.wasmtime_context_set_fuel
_set_fuel.restype, _set_fuel.argtypes = _word, [_word, ctypes.c_uint64]
_get_fuel = _library.wasmtime_context_get_fuel
_get_fuel.restype, _get_fuel.argtypes = _word, [_word, _word]
_new_error = _library.wasmtime_error_new
_new_error.restype, _new_error.argtypes = _word, [ctypes.c_char_p]
_Callback = ctypes.CFUNCTYPE(_word, *[_word] * 7)

_REASON = struct.Struct("<II")
_NEED = struct.Struct("<I")
_HEADER_FUEL = 250
"""Fuel of the adapter's own instructions in one call of the guest, about."""
_IMPORT_FUEL = 100
"""The same of one call by the guest."""


class Fuel:
    """The fuel of one guest, without what the adapter uses up in its place.

    `extra` is what it was given beyond its budget, `spent` what the adapter has used up. So that copying never runs out
    where the general path would not, the first is kept ahead of the second; a guest that used the lead for itself is
    found out at the end.
    """

    def __init__(self) -> None:
        self.context = 0
        """Address of the store's context."""
        self._budget = self._extra = self._spent = 0
        self._left = ctypes.c_uint64()
        self._at = ctypes.addressof(self._left)

    def begin(self, budget: int, incoming: int) -> None:
        """A call begins with so much fuel, and so many bytes to be copied into the guest."""
        self._budget, self._spent = budget, incoming + _HEADER_FUEL
        self._extra = self._spent + INLINE
        _set_fuel(self.context, budget + self._extra)

    def copying(self, count: int) -> None:
        """So many bytes more are, or were, copied."""
        self._spent += count
        if self._extra < self._spent + INLINE:
            self._raise(self._spent + 2 * INLINE)

    def expect(self, count: int) -> None:
        """So many bytes will be copied, and then told."""
        self._raise(self._spent + count + 2 * INLINE)

    def _raise(self, extra: int) -> None:
        _get_fuel(self.context, self._at)
        _set_fuel(self.context, self._left.value + extra - self._extra)
        self._extra = extra

    def used(self) -> int:
        """What the guest itself has used since the call began."""
        _get_fuel(self.context, self._at)
        return max(self._budget + self._extra - self._left.value - self._spent, 0)


fuel = Fuel()
_failures: list[BaseException] = []
"""What a host function raised; the engine carries only an error of its own through the guest."""


# -- the host's functions ----------------------------------------------------------------------------------------------


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
        self.callback = _Callback(self.called)

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
                fuel.copying(copied + _IMPORT_FUEL)
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
            _failures.append(error)
            return int(_new_error(b"a host function failed"))


def _announced(count: int) -> None:
    """Large arguments are about to be copied."""
    scratch.used = max(scratch.used, OUT + count)
    fuel.expect(count)


def _returned(end: int) -> None:
    """A reply that takes so many bytes of the scratch memory is about to be copied."""
    scratch.used = max(scratch.used, end)
    fuel.copying(end - BLOBS)


# -- the guest's functions ---------------------------------------------------------------------------------------------


class Export:
    """One function of a patched guest.

    Args:
        function: its type; one parameter at least, and a result.
        address: of the engine's `wasmtime_component_func_t` of the patched function.
        reserve: the component's function that makes the scratch memory larger.
        take: address of the one that copies a large result.
    """

    def __init__(self, function: Function, address: int, reserve: Callable[[int, int], int], take: int) -> None:
        kind = function.result
        assert kind is not None
        self._write = writer(TupleType(tuple(each for _, each in function.parameters)))
        self._read = reader(kind)
        self._end = OUT + size(kind)
        self._plain = isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType)
        self._address, self._take, self._reserve = address, take, reserve

    def __call__(self, budget: int, *arguments: Any) -> Any:
        """Call it.

        Args:
            budget: fuel.
            arguments: as `sandbox.abi.types` has them.

        Raises:
            wasmtime.WasmtimeError: it trapped, or ran out of fuel.
            Misformed: what it returned is no value of the type.
            BaseException: what a host function raised.
        """
        view = scratch.view
        end = self._write(view, arguments)
        if end > len(view):
            self._reserve(0, end)
            view = scratch.view
            self._write(view, arguments)
        fuel.begin(budget, end - BLOBS)
        enter(self._address)
        view = scratch.view
        copied = _NEED.unpack_from(view, 20)[0]
        fuel.copying(copied)
        if copied > INLINE:
            enter(self._take)
            view = scratch.view
        most = max(end, self._end + copied, scratch.used)
        value, cursor = self._read(view, OUT, self._end)
        if cursor != self._end + copied:
            refuse("lengths that contradict each other")
        if self._plain and type(value) is Ok:
            value = value.value
        if most > KEPT or scratch.after_large:
            scratch.call_over(most)
        return value


def enter(address: int) -> None:
    """Call a function of the guest that takes and gives nothing. Raises what ends it."""
    error = _call(address, fuel.context, 0, 0, 0, 0)
    if error:
        failure = _failures.pop() if _failures else None
        trapped = WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
        if failure is not None:
            raise failure
        raise trapped
