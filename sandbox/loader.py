"""Loading a component's native code from a sealed memfd, and finding where the engine put it.

Deserialising means trusting: the bytes become native code. They come from control's cache, whose MAC was checked on
exactly these sealed bytes; nothing else may ever reach this function.

The engine maps a copy of the .cwasm and makes its text executable; it does not say where. A worker has no /proc to look
it up, so the place is known beforehand: an anonymous mapping of the copy's size is made and undone, and the kernel,
which takes the highest hole that fits, gives the engine's mapping the same place (mmap(2), top-down layout). Whether it
did is looked at; if not, nothing is found and nothing is sealed.
"""

from __future__ import annotations

import ctypes
from typing import Any

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wasmtime_component

from sandbox.kernel import memory

PAGE = memory.PAGE
_loaded: list[Any] = []
"""Every component ever loaded: sealed pages cannot be unmapped, and the engine aborts when it is refused."""


def deserialize(engine: Any, fd: int, size: int) -> tuple[Any, list[tuple[int, int]]]:
    """The component in the first `size` bytes of `fd`, and the span of pages that holds its code, if found.

    Raises:
        wasmtime.WasmtimeError: not a component of this engine's version and settings.
        OSError: the descriptor cannot be mapped.
    """
    length = -(-size // PAGE) * PAGE
    with memory.mapped_file(fd, length) as address:
        hole = memory.next_hole(length)
        pointer = ctypes.POINTER(ffi.wasmtime_component_t)()
        body = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
        error = ffi.wasmtime_component_deserialize(engine.ptr(), body, size, ctypes.byref(pointer))
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        # Only the first bytes: pages looked at would be pages of this process's own.
        found = memory.is_mapped(hole, length) and ctypes.string_at(hole, 64) == ctypes.string_at(address, 64)
    component = wasmtime_component.Component._from_ptr(pointer)
    _loaded.append(component)
    return component, [(hole, length)] if found else []
