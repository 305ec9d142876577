"""Functions of a patched guest. The engine passes nothing: arguments and result are in the scratch memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sandbox.abi.layout import size
from sandbox.abi.types import U32, Function, Ok, ResultType, TupleType
from sandbox.fast.protocol import BLOBS, INLINE, OUT
from sandbox.fast.reading import refuse, result_reader
from sandbox.fast.scratch import KEPT, NoScratch, scratch
from sandbox.fast.straight import goes_straight
from sandbox.fast.writing import straight_writer, writer
from sandbox.fuel import fuel
from sandbox.marshal import capi
from sandbox.marshal.failures import forget, raise_of
from sandbox.marshal.instances import Instance
from sandbox.marshal.plans import plan_of
from sandbox.marshal.reentrance import gate, reentered
from sandbox.patch.names import RESERVE, TAKE, fast

FUEL = 405
"""Of the adapter's own instructions in one call, about."""
_copied_of = struct.Struct("<I").unpack_from
_unwanted = struct.Struct("<I").pack_into
_func_call = capi.func_call
_RESERVE = plan_of(Function(RESERVE, (("nonce", U32), ("bytes", U32)), U32))


class Oversized(NamedTuple):
    """In the place of a result: it has so many bytes, more than a message may, and was left where it was."""

    size: int


class Codec:
    """How a function's arguments are written and its result is read. Made in the zygote, for all workers."""

    __slots__ = ("end", "function", "plain", "read", "write")

    def __init__(self, function: Function) -> None:
        """
        Args:
            function: with one parameter at least, and a result.
        """
        kind = function.result
        assert kind is not None
        self.function = function
        parameters = TupleType(tuple(each for _, each in function.parameters))
        self.write = straight_writer(parameters) if goes_straight(parameters) else writer(parameters)
        self.read = result_reader(kind)
        self.end = OUT + size(kind)
        self.plain = isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType)


def bind(instance: Instance, codecs: Iterable[Codec], message_size: int) -> list[Export]:
    """The fast functions of a patched instance; its scratch memory is found on the way.

    Args:
        instance: just made.
        codecs: of the functions that are fast.
        message_size: bytes of the largest message.

    Raises:
        NoScratch: it is not what it says it is.
        WasmtimeError: it trapped.
    """
    reserve, take = instance.export(_RESERVE), _function(instance, TAKE)
    if reserve is None:
        raise NoScratch("nothing makes room in a scratch memory")
    scratch.find(reserve, message_size)
    return [Export(each, _function(instance, fast(each.function.name)), reserve, take) for each in codecs]


def _function(instance: Instance, name: str) -> bytearray:
    found = instance.function(name)
    if found is None:
        raise NoScratch(f"there is no {name}")
    return found


class Export:
    """One function of a patched guest.

    Args:
        codec: of its type.
        func: the C structure of its fast form.
        reserve: the component's function that makes the scratch memory larger.
        take: the one that copies a large result, likewise.
    """

    def __init__(self, codec: Codec, func: bytearray, reserve: Callable[[int, int], int], take: bytearray) -> None:
        self._write, self._read, self._end, self._plain = codec.write, codec.read, codec.end, codec.plain
        self.name = codec.function.name
        # The structures stay where they are as long as this object lives.
        self._kept = func, take
        self._address, self._take, self._reserve = capi.address_of(func), capi.address_of(take), reserve

    def __call__(self, *arguments: Any) -> Any:
        """Call it, with values as `sandbox.abi.types` has them.

        Raises:
            Reentered: a guest is running.
            wasmtime.WasmtimeError: it trapped, or ran out of fuel.
            OutOfFuel: it ran out of fuel, and used that of the adapter.
            Misformed: what it returned is no value of the type.
            Exception: whatever a host function raised.
        """
        if gate.busy:  # before anything of the call in hand is written over
            raise reentered()
        view = scratch.view
        end = self._write(view, arguments)
        fuel.begin_copying(end - BLOBS + FUEL)
        if end > len(view):
            self._reserve(0, end)
            view = scratch.view
            self._write(view, arguments)
        enter(self._address)
        view = scratch.view
        (copied,) = _copied_of(view, 20)
        if copied > INLINE:
            if copied > scratch.largest and not view[OUT]:  # an error's text is cut later
                _unwanted(view, 12, 1)
                enter(self._take)
                scratch.settle()
                fuel.finish()
                return Oversized(copied)
            fuel.copying(copied)
            enter(self._take)
            view = scratch.view
        else:
            fuel.copied(copied)  # out of the lead
        value, cursor = self._read(view, OUT, self._end)
        if cursor != self._end + copied:
            refuse("lengths that contradict each other")
        if self._plain and type(value) is Ok:
            value = value.value
        if end > KEPT or cursor > KEPT or scratch.used > KEPT or scratch.after_large:
            scratch.call_over(max(end, cursor, scratch.used))
        fuel.finish()
        return value


def enter(address: int) -> None:
    """Call a function of the guest that takes and gives nothing. Raises what ends it."""
    gate.busy = True
    try:
        forget()
        error = _func_call(address, fuel.context, 0, 0, 0, 0)
        if error:
            raise_of(error)
    finally:
        gate.busy = False
