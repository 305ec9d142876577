"""wasmtime's C API for component values (`wasmtime/component/val.h`, `func.h`, `linker.h`), by plain integers.

A handle of our own to the library that wasmtime-py has loaded, so that its prototypes stay as they are and a call
converts nothing but integers. Addresses are integers throughout. `sandbox.marshal.check` compares what is assumed here
with the library and with wasmtime-py's own description of it before anything relies on it.

A value (`wasmtime_component_val_t`) is a cell of four 64-bit words: the kind, then up to three words of payload. The
payload of a small integer stands in the low bytes of its word (both machines the engine runs on are little-endian).
"""

from __future__ import annotations

import ctypes
from typing import Any

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi

WORD = 8
CELL_WORDS = 4
CELL = CELL_WORDS * WORD
"""Bytes of a value."""
FUNCTION = 32
"""Bytes of `wasmtime_component_func_t`."""
NAME_WORDS = 2
"""A name is its size and its address."""
ENTRY_WORDS = NAME_WORDS + CELL_WORDS
"""A field of a record: its name, then its value."""

KINDS = {
    "bool": 0, "s8": 1, "u8": 2, "s16": 3, "u16": 4, "s32": 5, "u32": 6, "s64": 7, "u64": 8, "f32": 9, "f64": 10,
    "char": 11, "string": 12, "list": 13, "record": 14, "tuple": 15, "variant": 16, "enum": 17, "option": 18,
    "result": 19, "flags": 20, "resource": 21,
}  # fmt: skip
"""The first byte of a cell: `WASMTIME_COMPONENT_BOOL` and so on."""

_library = ctypes.CDLL(str(ffi.filename))
_address, _size, _u32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
_u64, _i64 = ctypes.c_uint64, ctypes.c_int64
_SYMBOLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "wasmtime_component_func_call": (_address, (_address, _address, _address, _size, _address, _size)),
    "wasmtime_component_val_clone": (None, (_address, _address)),
    "wasmtime_component_val_delete": (None, (_address,)),
    "wasmtime_component_resource_host_new": (_address, (ctypes.c_bool, _u32, _u32)),
    "wasmtime_component_resource_host_rep": (_u32, (_address,)),
    "wasmtime_component_resource_host_type": (_u32, (_address,)),
    "wasmtime_component_resource_host_delete": (None, (_address,)),
    "wasmtime_component_resource_host_to_any": (_address, (_address, _address, _address)),
    "wasmtime_component_resource_any_to_host": (_address, (_address, _address, _address)),
    "wasmtime_component_resource_any_clone": (_address, (_address,)),
    "wasmtime_component_resource_any_drop": (_address, (_address, _address)),
    "wasmtime_component_resource_any_delete": (None, (_address,)),
    "wasmtime_component_linker_instance_add_func": (_address, (_address, _address, _size, _address, _size, _address)),
    "wasmtime_component_linker_instance_add_resource": (
        _address,
        (_address, _address, _size, _address, _address, _size, _address),
    ),
    "wasmtime_component_linker_instantiate": (_address, (_address, _address, _address, _address)),
    "wasmtime_component_instance_get_export_index": (_address, (_address, _address, _address, _address, _size)),
    "wasmtime_component_export_index_delete": (None, (_address,)),
    "wasmtime_component_instance_get_func": (ctypes.c_bool, (_address, _address, _address, _address)),
    "wasmtime_store_new": (_address, (_address, _address, _address)),
    "wasmtime_store_context": (_address, (_address,)),
    "wasmtime_store_limiter": (None, (_address, _i64, _i64, _i64, _i64, _i64)),
    "wasmtime_store_delete": (None, (_address,)),
    "wasmtime_context_set_fuel": (_address, (_address, _u64)),
    "wasmtime_context_get_fuel": (_address, (_address, _address)),
    "wasmtime_error_new": (_address, (ctypes.c_char_p,)),
}
"""Every symbol that is called: what it returns and takes."""


missing: list[str] = []
"""Symbols that the library lacks; `sandbox.marshal.check` refuses it for them."""


def _bound(name: str) -> Any:
    try:
        found = getattr(_library, name)
    except AttributeError:
        missing.append(name)
        return None
    found.restype, found.argtypes = _SYMBOLS[name][0], _SYMBOLS[name][1]
    return found


func_call = _bound("wasmtime_component_func_call")
val_clone = _bound("wasmtime_component_val_clone")
val_delete = _bound("wasmtime_component_val_delete")
host_new = _bound("wasmtime_component_resource_host_new")
host_rep = _bound("wasmtime_component_resource_host_rep")
host_type = _bound("wasmtime_component_resource_host_type")
host_delete = _bound("wasmtime_component_resource_host_delete")
host_to_any = _bound("wasmtime_component_resource_host_to_any")
any_to_host = _bound("wasmtime_component_resource_any_to_host")
any_clone = _bound("wasmtime_component_resource_any_clone")
any_drop = _bound("wasmtime_component_resource_any_drop")
any_delete = _bound("wasmtime_component_resource_any_delete")
add_func = _bound("wasmtime_component_linker_instance_add_func")
add_resource = _bound("wasmtime_component_linker_instance_add_resource")
linker_instantiate = _bound("wasmtime_component_linker_instantiate")
instance_get_export_index = _bound("wasmtime_component_instance_get_export_index")
export_index_delete = _bound("wasmtime_component_export_index_delete")
instance_get_func = _bound("wasmtime_component_instance_get_func")
store_new = _bound("wasmtime_store_new")
store_context = _bound("wasmtime_store_context")
store_limiter = _bound("wasmtime_store_limiter")
store_delete = _bound("wasmtime_store_delete")
context_set_fuel = _bound("wasmtime_context_set_fuel")
context_get_fuel = _bound("wasmtime_context_get_fuel")
error_new = _bound("wasmtime_error_new")

# The callbacks' types: all integers, and the results as addresses.
FunctionCallback = ctypes.CFUNCTYPE(_address, _size, _size, _size, _size, _size, _size, _size)
DestructorCallback = ctypes.CFUNCTYPE(_address, _size, _size, _u32)
FinalizerCallback = ctypes.CFUNCTYPE(None, _size)

MEMORY = memoryview((ctypes.c_ubyte * (1 << 56)).from_address(0)).cast("B").toreadonly()
"""The process's address space, to read what the engine has made at the addresses that it gives. A slice or an unpacking
costs a third of a call of `ctypes.string_at`. Read nothing else through it: a wrong address is a fault."""

# PyUnicode_DecodeUTF8(3): strict when `errors` is NULL, and raises UnicodeDecodeError.
decode_utf8 = ctypes.PYFUNCTYPE(ctypes.py_object, _address, ctypes.c_ssize_t, _address)(
    ("PyUnicode_DecodeUTF8", ctypes.pythonapi)
)


def address_of(buffer: Any) -> int:
    """Where a writable buffer's bytes are. It must live, and keep its size, as long as the address is used."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def callback_address(callback: Any) -> int:
    """The address of a callback's code."""
    return ctypes.cast(callback, ctypes.c_void_p).value or 0


def pointer_of(managed: Any) -> int:
    """The address that an object of wasmtime-py stands for."""
    return ctypes.cast(managed.ptr(), ctypes.c_void_p).value or 0


def context_of(store: Any) -> int:
    """The address of a store's context."""
    return ctypes.cast(store._context(), ctypes.c_void_p).value or 0


def error_at(address: int) -> WasmtimeError:
    """The error at an address, which is its owner from now on."""
    return WasmtimeError._from_ptr(ctypes.cast(address, ctypes.POINTER(ffi.wasmtime_error_t)))
