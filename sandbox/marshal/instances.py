"""Stores and instances: what a guest runs in, by the C API alone.

wasmtime-py's own objects for these make several objects of Python and of ctypes for each name that is looked up, and a
worker has a page of its own for each one's neighbourhood. Engine, linker and component stay wasmtime-py's.
"""

from __future__ import annotations

from typing import Any

from sandbox.abi.types import Function
from sandbox.marshal import capi
from sandbox.marshal.exports import Export
from sandbox.marshal.failures import forget, raise_of
from sandbox.marshal.plans import Plan
from sandbox.marshal.reentrance import gate

_INSTANCE = 16
"""Bytes of `wasmtime_component_instance_t`."""
_word = bytearray(capi.WORD)
_WORD_ADDRESS = capi.address_of(_word)


class Store:
    """What one instance lives in. Closed when nobody has it any more."""

    __slots__ = ("_address", "context")

    def __init__(self, engine: Any) -> None:
        """
        Args:
            engine: a `wasmtime.Engine`.
        """
        self._address: int | None = None
        self._address = capi.store_new(capi.pointer_of(engine), None, None)
        self.context: int = capi.store_context(self._address)
        """Its context's address, which calls are told."""

    def set_limits(self, memory: int, table_elements: int, instances: int, tables: int, memories: int) -> None:
        """What it may hold: bytes of each linear memory, entries of each table, and how many of each."""
        capi.store_limiter(self._address, memory, table_elements, instances, tables, memories)

    def set_fuel(self, fuel: int) -> None:
        """Let it have this much fuel. Raises: WasmtimeError, the engine was made without."""
        error = capi.context_set_fuel(self.context, fuel)
        if error:
            raise_of(error)

    def fuel(self) -> int:
        """The fuel it has left. Raises: WasmtimeError, the engine was made without."""
        error = capi.context_get_fuel(self.context, _WORD_ADDRESS)
        if error:
            raise_of(error)
        return int.from_bytes(_word, "little")

    def __del__(self) -> None:
        address, self._address = self._address, None
        if address:
            capi.store_delete(address)


class Instance:
    """An instance of a component in a store of its own or of others."""

    __slots__ = ("_instance", "_instance_address", "_store")

    def __init__(self, linker: Any, store: Store, component: Any) -> None:
        """Instantiate. Start functions run, so it is a call.

        Args:
            linker: a `wasmtime.component.Linker` of the store's engine.
            store: where.
            component: a `wasmtime.component.Component` of the same engine.

        Raises:
            WasmtimeError: a start function trapped, a limit was reached, or the linker lacks an import.
            Reentered: a guest is running.
            Exception: whatever a host function raised.
        """
        self._store = store
        self._instance = bytearray(_INSTANCE)
        self._instance_address = capi.address_of(self._instance)
        with gate:
            forget()
            error = capi.linker_instantiate(
                capi.pointer_of(linker), store.context, capi.pointer_of(component), self._instance_address
            )
            if error:
                raise_of(error)

    def export(self, function: Function | Plan, interface: str = "") -> Export | None:
        """The function of this name; None when there is none.

        Args:
            function: its name and type, which must be the component's own (`Export`), or the plan of it.
            interface: the exported interface that it belongs to; "" for a function of the component's own.
        """
        found = self.function((function.function if isinstance(function, Plan) else function).name, interface)
        return None if found is None else Export(self._store, found, function)

    def function(self, name: str, interface: str = "") -> bytearray | None:
        """The C structure of the function of this name (`wasmtime_component_func_t`); None when there is none."""
        parent = self._index(interface, None) if interface else None
        if interface and not parent:
            return None
        try:
            index = self._index(name, parent)
        finally:
            if parent:
                capi.export_index_delete(parent)
        if not index:
            return None
        found = bytearray(capi.FUNCTION)
        try:
            is_function = capi.instance_get_func(
                self._instance_address, self._store.context, index, capi.address_of(found)
            )
        finally:
            capi.export_index_delete(index)
        return found if is_function else None

    def _index(self, name: str, parent: int | None) -> int | None:
        encoded = name.encode()
        index: int | None = capi.instance_get_export_index(
            self._instance_address, self._store.context, parent, encoded, len(encoded)
        )
        return index
