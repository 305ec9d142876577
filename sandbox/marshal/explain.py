"""Why a value is not of its type: found by a walk of both, once marshalling has refused it."""

from __future__ import annotations

from typing import Any, cast

from sandbox.abi.types import (
    BYTES,
    Case,
    EnumType,
    Err,
    FlagsType,
    HandleType,
    ListType,
    Ok,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    Some,
    TupleType,
    Type,
    VariantType,
    may_be_none,
)
from sandbox.marshal.failures import BadValue
from sandbox.marshal.resources import GuestResource, host_types
from sandbox.marshal.shapes import INTEGERS, cases_of, class_of

_SHOWN = 60
"""Characters of a value that an error shows."""


def refusal(what: str, named: list[tuple[str, Type]], values: tuple[Any, ...], error: BaseException) -> BadValue:
    """The error for values that were refused; names the first part that is wrong.

    Args:
        what: the function's name.
        named: the values' names and types.
        values: as they were given.
        error: what refused them, for what the walk cannot see.
    """
    if len(named) != len(values):
        return BadValue(f"{len(values)} values where there are {len(named)}", subject=what)
    for (name, kind), value in zip(named, values, strict=True):
        top = name == RESULT and isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType)
        found = _result_at_top(kind, value, name) if top and isinstance(kind, ResultType) else _why(kind, value, name)
        if found:
            return BadValue(found, subject=what)
    return BadValue(f"{type(error).__name__}: {error}", subject=what)


RESULT = "the result"
"""The name of what a function gives."""


def _is_not(value: Any, name: str, what: str) -> str:
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return f"{name} is not {what}: {shown} ({type(value).__name__})"


def _result_at_top(kind: ResultType, value: Any, name: str) -> str:
    if isinstance(value, Err):
        return _perhaps(kind.err, value.value, f"{name}, the error")
    return _perhaps(kind.ok, value, name)


def _perhaps(kind: Type | None, value: Any, name: str) -> str:
    if kind is None:
        return "" if value is None else _is_not(value, name, "None")
    return _why(kind, value, name)


def _why(kind: Type, value: Any, name: str) -> str:
    """What is wrong; "" for nothing."""
    match kind:
        case Primitive():
            return "" if _fits(kind.kind, value) else _is_not(value, name, _article(kind.kind))
        case ListType():
            return _list(kind, value, name)
        case RecordType():
            return _record(kind, value, name)
        case TupleType():
            if type(value) is not tuple or len(value) != len(kind.elements):
                return _is_not(value, name, f"a tuple of {len(kind.elements)}")
            each = zip(kind.elements, value, range(len(value)), strict=True)
            return next((why for member, part, at in each if (why := _why(member, part, f"{name}[{at}]"))), "")
        case OptionType():
            if value is None:
                return ""
            if may_be_none(kind.payload):
                if type(value) is not Some:
                    return _is_not(value, name, "None or Some")
                value = value.value
            return _why(kind.payload, value, name)
        case ResultType():
            if type(value) not in (Ok, Err):
                return _is_not(value, name, "Ok or Err")
            return _perhaps(kind.ok if isinstance(value, Ok) else kind.err, value.value, f"{name}.value")
        case VariantType():
            return _variant(kind, value, name)
        case EnumType():
            cls = class_of(kind)
            fits = type(value) is cls if cls else isinstance(value, str) and value in kind.cases
            return "" if fits else _is_not(value, name, cls.__name__ if cls else f"one of {', '.join(kind.cases)}")
        case FlagsType():
            cls = class_of(kind)
            fits = type(value) is cls if cls else isinstance(value, frozenset | set) and value <= {*kind.flags}
            return "" if fits else _is_not(value, name, cls.__name__ if cls else f"a set of {', '.join(kind.flags)}")
        case HandleType():
            if kind.resource in host_types:
                fits = type(value) is int and 0 <= value < 1 << 32
                return "" if fits else _is_not(value, name, f"the representation of a {kind.resource}")
            return "" if isinstance(value, GuestResource) else _is_not(value, name, f"a {kind.resource} of a guest")


def _fits(kind: str, value: Any) -> bool:
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        return isinstance(value, int) and low <= value <= high
    if kind == "bool":
        return isinstance(value, bool)
    if kind in ("f32", "f64"):
        return isinstance(value, float)
    if not isinstance(value, str) or (kind == "char" and len(value) != 1):
        return False
    return not any(0xD7FF < ord(each) < 0xE000 for each in value)


def _article(kind: str) -> str:
    if kind == "string":
        return "a string of Unicode without surrogates"
    if kind == "char":
        return "one Unicode character"
    return f"{'an' if kind[0] in 'fs' else 'a'} {kind}"


def _list(kind: ListType, value: Any, name: str) -> str:
    if kind == BYTES:
        return "" if isinstance(value, bytes | bytearray | memoryview) else _is_not(value, name, "bytes")
    if not isinstance(value, list):
        return _is_not(value, name, "a list")
    return next((why for at, each in enumerate(value) if (why := _why(kind.element, each, f"{name}[{at}]"))), "")


def _record(kind: RecordType, value: Any, name: str) -> str:
    cls = class_of(kind)
    if cls is None:
        return _why(TupleType(tuple(member for _, member in kind.fields)), value, name)
    if type(value) is not cls:
        return _is_not(value, name, cls.__name__)
    fields: tuple[str, ...] = cast("Any", cls).__struct_fields__
    each = zip(fields, kind.fields, strict=True)
    return next((why for at, (_, member) in each if (why := _why(member, getattr(value, at), f"{name}.{at}"))), "")


def _variant(kind: VariantType, given: object, name: str) -> str:
    classes = cases_of(kind)
    for case, payload in kind.cases:
        if classes is None:
            if isinstance(given, Case) and given.name == case:
                return _perhaps(payload, given.value, f"{name}, {case}")
        elif type(given) is classes[case]:
            return "" if payload is None else _why(payload, cast("Any", given).value, f"{name}.value")
    names = ", ".join(
        [case for case, _ in kind.cases] if classes is None else [each.__name__ for each in classes.values()]
    )
    return _is_not(given, name, f"{'a Case of' if classes is None else 'one of'} {names}")
