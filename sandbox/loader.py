"""Deserialising a .cwasm from a mapped, sealed memfd.

Deserialising means trusting: the bytes become native code. They come from control's cache, whose MAC was checked on
exactly these sealed bytes; nothing else may ever reach this function.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wasmtime_component


def deserialize(engine: Any, code: mmap.mmap, size: int) -> Any:
    """The component in the first `size` bytes of `code`, copied by the engine (which maps it executable).

    Raises:
        wasmtime.WasmtimeError: not a component of this engine's version and settings.
    """
    pointer = ctypes.POINTER(ffi.wasmtime_component_t)()
    # The array borrows a copy that outlives the call; the engine copies once more into pages of its own.
    body = (ctypes.c_uint8 * size).from_buffer_copy(code)
    error = ffi.wasmtime_component_deserialize(engine.ptr(), body, size, ctypes.byref(pointer))
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    return wasmtime_component.Component._from_ptr(pointer)
