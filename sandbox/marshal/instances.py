"""Instantiating a component under the same rules as calling it."""

from __future__ import annotations

from typing import Any

from wasmtime import WasmtimeError

from sandbox.marshal import failures
from sandbox.marshal.reentrance import gate


def instantiate(linker: Any, store: Any, component: Any) -> Any:
    """`linker.instantiate(store, component)`: a `wasmtime.component.Instance`. Start functions run, so it is a call.

    Raises:
        WasmtimeError: a start function trapped, a limit was reached, or the linker lacks an import.
        Reentered: a guest is running.
        Exception: whatever a host function raised.
    """
    with gate:
        failures.forget()
        try:
            return linker.instantiate(store, component)
        except WasmtimeError:
            failures.raise_waiting()
            raise
