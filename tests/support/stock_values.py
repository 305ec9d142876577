"""Values as wasmtime-py has them, and as `sandbox.abi.types` has them, of types without classes."""

from __future__ import annotations

from typing import Any

from wasmtime import component as wt
from wasmtime.component import _types

from sandbox.abi.types import Ok


class Unlike(Exception):
    """wasmtime-py cannot say this value, or says two values alike."""


def to_stock(kind: Any, value: Any) -> Any:
    """A value of ours for wasmtime-py, by its own type object."""
    match kind:
        case wt.ListType():
            return value if isinstance(value, bytes) else [to_stock(kind.element, each) for each in value]
        case wt.TupleType():
            return tuple(to_stock(of, each) for of, each in zip(kind.elements, value, strict=True))
        case wt.RecordType():
            record = _types.Record()
            for (name, of), each in zip(kind.fields, value, strict=True):
                setattr(record, name, to_stock(of, each))
            return record
        case wt.FlagsType():
            return set(value)
        case wt.OptionType() | wt.ResultType() | wt.VariantType():
            name, payload = _case(kind, value)
            of = dict(kind._cases())[name]
            inner = None if of is None else to_stock(of, payload)
            if kind._tagged():
                return _types.Variant(name, inner)
            if not _chosen(kind, name, inner):
                raise Unlike(name)
            return inner
    return value


def _case(kind: Any, value: Any) -> tuple[str, Any]:
    if isinstance(kind, wt.OptionType):
        if value is None:
            return "none", None
        return "some", value.value if isinstance(kind.payload, wt.OptionType) else value
    if isinstance(kind, wt.ResultType):
        return "ok" if isinstance(value, Ok) else "err", value.value
    return value.name, value.value


def _chosen(kind: Any, name: str, inner: Any) -> bool:
    """Whether wasmtime-py, which goes by the value's class, would take the case that is meant."""
    for case, of in kind._cases():
        classes: set[type] = set()
        if of is not None:
            of.add_classes(classes)
        if inner is None if of is None else isinstance(inner, tuple(classes)):
            return bool(case == name)
    return False


def same(kind: Any, ours: Any, stock: Any) -> bool:
    """Whether two values say the same."""
    match kind:
        case wt.RecordType():
            return all(same(of, each, getattr(stock, name)) for (name, of), each in zip(kind.fields, ours, strict=True))
        case wt.TupleType():
            return all(same(of, a, b) for of, a, b in zip(kind.elements, ours, stock, strict=True))
        case wt.ListType():
            if isinstance(ours, bytes):
                return bool(ours == stock)
            return len(ours) == len(stock) and all(same(kind.element, a, b) for a, b in zip(ours, stock, strict=True))
        case wt.FlagsType():
            return bool(ours == stock)
        case wt.OptionType() | wt.ResultType() | wt.VariantType():
            name, payload = _case(kind, ours)
            of = dict(kind._cases())[name]
            if kind._tagged():
                return bool(stock.tag == name) and (of is None or same(of, payload, stock.payload))
            return stock is None if of is None else same(of, payload, stock)
    return bool(ours == stock)
