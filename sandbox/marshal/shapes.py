"""What both directions know of a type: its class in Python, and whether its handles are the host's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from sandbox.abi.types import (
    EnumType,
    FlagsType,
    Function,
    HandleType,
    ListType,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
)
from sandbox.bindings import CLASSES
from sandbox.marshal.capi import KINDS

INTEGERS = {
    "u8": (0, (1 << 8) - 1), "s8": (-(1 << 7), (1 << 7) - 1), "u16": (0, (1 << 16) - 1),
    "s16": (-(1 << 15), (1 << 15) - 1), "u32": (0, (1 << 32) - 1), "s32": (-(1 << 31), (1 << 31) - 1),
    "u64": (0, (1 << 64) - 1), "s64": (-(1 << 63), (1 << 63) - 1),
}  # fmt: skip
"""The least and the largest of each."""


def class_of(kind: RecordType | EnumType | FlagsType) -> type | None:
    """The class of its values; None for a type that has none."""
    return cast("type | None", CLASSES.get(kind.name)) if kind.name else None


def cases_of(kind: VariantType) -> dict[str, type] | None:
    """The classes of its cases by name."""
    return cast("dict[str, type] | None", CLASSES.get(kind.name)) if kind.name else None


def kind_number(kind: Type) -> int:
    """The first byte of a value's cell."""
    match kind:
        case Primitive():
            return KINDS[kind.kind]
        case HandleType():
            return KINDS["resource"]
        case _:
            return KINDS[type(kind).__name__.removesuffix("Type").lower()]


def parts(kind: Type) -> Iterator[Type]:
    """The types that `kind` is directly made of."""
    match kind:
        case ListType():
            yield kind.element
        case OptionType():
            yield kind.payload
        case TupleType():
            yield from kind.elements
        case ResultType():
            yield from (each for each in (kind.ok, kind.err) if each is not None)
        case RecordType():
            yield from (each for _, each in kind.fields)
        case VariantType():
            yield from (each for _, each in kind.cases if each is not None)


def types_of(function: Function) -> Iterator[Type]:
    """Of parameters and result."""
    yield from (kind for _, kind in function.parameters)
    if function.result is not None:
        yield function.result


def handles_in(function: Function) -> list[str]:
    """The resources a function mentions, sorted."""
    found: set[str] = set()
    seen: set[Type] = set()
    waiting = list(types_of(function))
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        if isinstance(kind, HandleType):
            found.add(kind.resource)
        waiting += parts(kind)
    return sorted(found)
