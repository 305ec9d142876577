"""Values across the wasm boundary: the stock conversions of wasmtime-py with four defects mended.

1. `list<u8>` was converted element by element (32 bytes of dynamic value per byte, one Python object each); here the
   value array is filled and read with strided slices, once per list.
2. A host function returning `result<option<T>, E>` could not return an error, because the payload-less `none` case
   matched every value. Results are lowered by tag here.
3. Types were walked again on every call; the walk's results are kept per type object.
4. `Linker.instantiate` reported an exception of a host function as "python exception"; here it is raised, as by a call.

Installed once by `install()`, checked against the engine's version, before the first conversion.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from typing import Any

from wasmtime import WasmtimeError
from wasmtime import _ffi as ffi
from wasmtime.component import _enter, _func, _linker, _types

from sandbox.errors import AirssysError

Variant = _types.Variant
_VALUE = ctypes.sizeof(ffi.wasmtime_component_val_t)
_PAYLOAD = ffi.wasmtime_component_val_t.of.offset
_KIND = ffi.wasmtime_component_val_t.kind.offset
_U8 = bytes([ffi.WASMTIME_COMPONENT_U8.value])
_stock_list_to_c = _types.ListType.convert_to_c
_stock_list_from_c = _types.ListType.convert_from_c
_stock_lower = _types.ResultType._lower


class EngineMismatch(AirssysError):
    """The engine is not a version these conversions were checked with."""

    code = "E_ENGINE"


class GuestRecord(_types.Record):
    """A WIT record: fields keep their WIT names, dashes included, as attributes."""

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name.replace("_", "-"), value)


def field(record: Any, name: str) -> Any:
    """A field of a record the guest made."""
    return getattr(record, name)


def _is_bytes(self: Any) -> bool:
    known = self.__dict__.get("_airssys_is_bytes")
    if known is None:
        known = self.__dict__["_airssys_is_bytes"] = isinstance(self.element, _types.U8)
    return bool(known)


def _list_to_c(self: Any, store: Any, value: Any, target: Any) -> None:
    if not (isinstance(value, bytes | bytearray | memoryview) and _is_bytes(self)):
        _stock_list_to_c(self, store, value, target)
        return
    data = bytes(value)
    raw = ffi.wasmtime_component_vallist_t()
    ffi.wasmtime_component_vallist_new_uninit(raw, len(data))
    if data:
        cells = bytearray(len(data) * _VALUE)
        cells[_KIND::_VALUE] = _U8 * len(data)
        cells[_PAYLOAD::_VALUE] = data
        # The list owns len(data) cells of _VALUE bytes; a u8 cell holds no pointer, so plain bytes are a valid value.
        ctypes.memmove(raw.data, (ctypes.c_char * len(cells)).from_buffer(cells), len(cells))
    target.contents.kind = ffi.WASMTIME_COMPONENT_LIST
    target.contents.of.list = raw


def _list_from_c(self: Any, cell: Any) -> Any:
    if not _is_bytes(self):
        return _stock_list_from_c(self, cell)
    size = cell.of.list.size
    data = ctypes.string_at(cell.of.list.data, size * _VALUE)[_PAYLOAD::_VALUE] if size else b""
    ffi.wasmtime_component_vallist_delete(ctypes.byref(cell.of.list))
    return data


def _result_lower(self: Any, store: Any, value: Any) -> Any:
    if isinstance(value, Variant) and not self._tagged():
        err = self.err
        if isinstance(err, _types.VariantType) and err._tagged():
            raw = ffi.wasmtime_component_val_t()
            err.convert_to_c(store, value, ctypes.pointer(raw))
            return "err", ffi.wasmtime_component_val_new(ctypes.byref(raw))
    return _stock_lower(self, store, value)


def _kept(cls: Any, name: str) -> None:
    """Replace property or method `name` of a type class by one that computes once per type object."""
    stock: Any = cls.__dict__[name]
    compute: Any = stock.fget if isinstance(stock, property) else stock
    key = f"_airssys_{name}"

    def get(self: Any) -> Any:
        found = self.__dict__.get(key, get)
        if found is get:
            found = self.__dict__[key] = compute(self)
        return found

    setattr(cls, name, property(get) if isinstance(stock, property) else get)


class _OnceTyped:
    """A component function whose type is asked for once."""

    @staticmethod
    def type_of(func: Any, store: Any) -> Any:
        known = func.__dict__.get("_airssys_type")
        if known is None:
            known = func.__dict__["_airssys_type"] = _stock_func_type(func, store)
        return known


def _instantiate(self: Any, store: Any, component: Any) -> Any:
    try:
        return _stock_instantiate(self, store, component)
    except WasmtimeError:
        _enter.maybe_raise_last_exn()
        raise


def set_type(func: Any, known: Any) -> None:
    """Tell a component function its type, so that it need not be asked for."""
    func.__dict__["_airssys_type"] = known


_stock_func_type = _func.Func.type
_stock_instantiate = _linker.Linker.instantiate
_MENDED: tuple[tuple[type, str, Any], ...] = (
    (_types.ListType, "_is_bytes", _is_bytes),
    (_types.ListType, "convert_to_c", _list_to_c),
    (_types.ListType, "convert_from_c", _list_from_c),
    (_types.ResultType, "_lower", _result_lower),
    (_func.Func, "type", _OnceTyped.type_of),
    (_linker.Linker, "instantiate", _instantiate),
)
_installed = False


def install() -> None:
    """Put the mended conversions in place.

    Raises:
        EngineMismatch: another wasmtime-py than the one these were checked with.
    """
    global _installed
    if _installed:
        return
    version = importlib.metadata.version("wasmtime")
    if not version.startswith("50.0."):
        raise EngineMismatch("value conversions are checked with wasmtime 50.0", subject=version)
    for cls, name, method in _MENDED:
        setattr(cls, name, method)
    for cls, names in {
        _types.ListType: ("element",),
        _types.RecordType: ("fields",),
        _types.FuncType: ("params", "result"),
        _types.OptionType: ("payload",),
        _types.ResultType: ("ok", "err"),
        _types.VariantType: ("cases",),
        _types.VariantLikeType: ("_tagged",),
    }.items():
        for name in names:
            if name in cls.__dict__:
                _kept(cls, name)
    _installed = True
