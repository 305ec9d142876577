"""Whether the engine is the one that marshalling was written for: version, structures, symbols, and a trial.

Reading a value at a wrong offset would be reading any memory at all, so nothing is marshalled before this has passed.
It costs a few milliseconds, once in the zygote.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import struct
import sys
from typing import Any

from wasmtime import _ffi as ffi

from sandbox.abi.types import (
    BOOL,
    BYTES,
    STRING,
    U32,
    Case,
    EnumType,
    Err,
    FlagsType,
    Function,
    ListType,
    Ok,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    Some,
    TupleType,
    VariantType,
)
from sandbox.errors import AirssysError
from sandbox.marshal import capi
from sandbox.marshal.cells import BYTES_HEADER
from sandbox.marshal.failures import TypesDiffer, prepare
from sandbox.marshal.plans import Plan

VERSION = "50.0."
"""Of the engine; its C API changes with each major version."""


class EngineMismatch(AirssysError):
    """The engine, or the interpreter, is not what value marshalling was written for."""

    code = "E_ENGINE"


_OFFSETS: tuple[tuple[str, str, int], ...] = (
    ("wasmtime_component_val_t", "kind", 0),
    ("wasmtime_component_val_t", "of", capi.WORD),
    ("wasmtime_component_valrecord_entry_t", "name", 0),
    ("wasmtime_component_valrecord_entry_t", "val", capi.NAME_WORDS * capi.WORD),
    ("wasmtime_component_vallist_t", "size", 0),
    ("wasmtime_component_vallist_t", "data", capi.WORD),
    ("wasmtime_component_valrecord_t", "size", 0),
    ("wasmtime_component_valrecord_t", "data", capi.WORD),
    ("wasmtime_component_valtuple_t", "size", 0),
    ("wasmtime_component_valtuple_t", "data", capi.WORD),
    ("wasmtime_component_valflags_t", "size", 0),
    ("wasmtime_component_valflags_t", "data", capi.WORD),
    ("wasmtime_component_valvariant_t", "discriminant", 0),
    ("wasmtime_component_valvariant_t", "val", 2 * capi.WORD),
    ("wasmtime_component_valresult_t", "is_ok", 0),
    ("wasmtime_component_valresult_t", "val", capi.WORD),
    ("wasm_byte_vec_t", "size", 0),
    ("wasm_byte_vec_t", "data", capi.WORD),
)
_SIZES = {
    "wasmtime_component_val_t": capi.CELL,
    "wasmtime_component_valrecord_entry_t": capi.ENTRY_WORDS * capi.WORD,
    "wasm_byte_vec_t": capi.NAME_WORDS * capi.WORD,
    "wasmtime_component_func_t": capi.FUNCTION,
    "wasmtime_component_instance_t": 2 * capi.WORD,
}

_TRIAL = RecordType(
    (
        ("text", STRING),
        ("bytes", BYTES),
        (
            "numbers",
            TupleType((Primitive("s8"), Primitive("u16"), Primitive("s32"), Primitive("u64"), Primitive("s64"))),
        ),
        ("floats", TupleType((Primitive("f32"), Primitive("f64"), Primitive("char"), BOOL))),
        ("small", TupleType((Primitive("u8"), Primitive("s16"), U32))),
        ("list", ListType(TupleType((STRING, OptionType(OptionType(U32)))))),
        ("variant", ListType(VariantType((("a", None), ("b", U32))))),
        ("enum", EnumType(("one", "other"))),
        ("flags", FlagsType(("x", "y", "z"))),
        ("good", ResultType(U32, None)),
        ("bad", ResultType(U32, STRING)),
    )
)
"""A value of every kind but resources, which need a store."""
_TRIED = (
    "\u00e9t\u00e9",
    b"\0\xff",
    (-128, 65535, -(1 << 31), (1 << 64) - 1, -(1 << 63)),
    (1.5, -0.1, "\U0010ffff", True),
    (255, -32768, 1 << 31),
    [("k", None), ("", Some(None)), ("v", Some(7))],
    [Case("a"), Case("b", 9)],
    "other",
    frozenset(("x", "z")),
    Ok(3),
    Err("no"),
)

_passed = False


def check_engine() -> None:
    """Compare everything marshalling relies on. Once per process; a second call does nothing.

    Raises:
        EngineMismatch: names what differs.
    """
    global _passed
    if _passed:
        return
    version = importlib.metadata.version("wasmtime")
    if not version.startswith(VERSION):
        raise _mismatch(f"value marshalling is written for wasmtime {VERSION}x", version)
    if sys.implementation.name != "cpython" or sys.byteorder != "little" or struct.calcsize("P") != capi.WORD:
        raise _mismatch(
            "value marshalling needs CPython on a little-endian machine of 64 bits", sys.implementation.name
        )
    if capi.missing:
        raise _mismatch("the engine's library lacks a symbol", capi.missing[0])
    _check_structures(ffi)
    text = b"where a bytes object's bytes are"
    if ctypes.string_at(id(text) + BYTES_HEADER, len(text)) != text or capi.MEMORY[id(text) + BYTES_HEADER] != text[0]:
        raise _mismatch("bytes objects are laid out differently", sys.version.split()[0])
    _try()
    prepare()
    _passed = True


def _check_structures(library: Any) -> None:
    """Compare with wasmtime-py's own description, which is made from the header files."""
    for name, number in capi.KINDS.items():
        if getattr(library, f"WASMTIME_COMPONENT_{name.upper()}").value != number:
            raise _mismatch("a kind of value has another number", name)
    for structure, size in _SIZES.items():
        if ctypes.sizeof(getattr(library, structure)) != size:
            raise _mismatch("a structure has another size", structure)
    for structure, field, offset in _OFFSETS:
        if getattr(getattr(library, structure), field).offset != offset:
            raise _mismatch("a field is somewhere else", f"{structure}.{field}")


def _try() -> None:
    """Have the library copy a value of every kind, and read the copy."""
    plan = Plan(Function("trial", (("value", _TRIAL),), _TRIAL))
    keep: list[Any] = []
    writer, reader = plan.write_arguments, plan.read_result
    assert reader is not None
    writer.write(0, keep, (_TRIED,))
    cell = bytearray(capi.CELL)
    address = capi.address_of(cell)
    capi.val_clone(writer.address, address)
    try:
        found = reader(cell, 0, 0)
    except TypesDiffer as error:
        raise _mismatch("a value does not come back as it went", "trial") from error
    finally:
        capi.val_delete(address)
    if found != _TRIED:
        raise _mismatch("a value does not come back as it went", "trial")


def _mismatch(message: str, subject: str) -> EngineMismatch:
    return EngineMismatch(message, subject=subject, hint="install the versions this package asks for")
