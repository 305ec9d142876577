"""Calling a guest's functions."""

from __future__ import annotations

from ctypes import addressof
from typing import Any

from sandbox.abi.types import Function
from sandbox.marshal import capi
from sandbox.marshal.failures import forget, raise_of
from sandbox.marshal.plans import Plan, plan_of
from sandbox.marshal.reentrance import gate, reentered

_result = bytearray(capi.CELL)
_RESULT = capi.address_of(_result)
_result_words = memoryview(_result).cast("Q")
"""Where the engine puts a result. It drops what was there before, so this is a boolean, which owns nothing, whenever a
call begins."""


class Export:
    """A function of an instance, by its type. Calling it takes and gives values as in `sandbox.abi.types`.

    The type must be the component's own: `sandbox.contract` has compared it at install, or it comes from the engine
    (`sandbox.marshal.engine_types`).
    """

    __slots__ = ("_address", "_context", "_count", "_kept", "_read", "_write", "_writer", "name")

    def __init__(self, store: Any, func: Any, function: Function | Plan) -> None:
        """
        Args:
            store: the instance's `marshal.Store`, or `wasmtime.Store`.
            func: a `wasmtime.component.Func`, or the bytes of the C structure, in a bytearray.
            function: name and type, or the plan of it; looking up a plan costs a walk of the type.
        """
        plan = function if isinstance(function, Plan) else plan_of(function)
        self.name = plan.function.name
        # The structure stays where it is, and the store open, as long as this object lives.
        self._kept = store, func
        if isinstance(func, bytearray):
            self._context, self._address = store.context, capi.address_of(func)
        else:
            self._context, self._address = capi.context_of(store), addressof(func._func)
        self._count, self._writer, self._read = plan.for_export
        self._write = self._writer.write

    def __call__(self, *arguments: Any) -> Any:
        """Call it.

        Raises:
            BadValue: an argument is not of its type; the guest was not called.
            Reentered: a guest is running.
            WasmtimeError: the guest trapped, ran out of fuel, or broke the canonical ABI.
            Exception: whatever a host function raised.
        """
        if gate.busy:
            raise reentered()
        gate.busy = True
        try:
            keep: list[Any] = []
            self._write(self._context, keep, arguments)
            forget()
            read = self._read
            error = capi.func_call(
                self._address,
                self._context,
                self._writer.address,
                self._count,
                _RESULT,
                0 if read is None else 1,
            )
            if error:
                raise_of(error)
            if read is None:
                return None
            try:
                return read(_result, 0, self._context)
            finally:
                capi.val_delete(_RESULT)
                _result_words[0] = 0
        finally:
            gate.busy = False
