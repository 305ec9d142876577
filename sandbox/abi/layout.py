"""Where the canonical ABI puts a value: size, alignment and flat form. CanonicalABI.md, "Alignment", "Element Size",
"Flattening"; memories are 32-bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

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

MAX_FLAT_PARAMETERS = 16
"""A function with more flat parameters takes one pointer to all of them."""
MAX_FLAT_RESULTS = 1
"""A function with more flat results returns a pointer (exports) or is given one (imports)."""
_SIZES = {
    "bool": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8,
    "f32": 4, "f64": 8, "char": 4, "string": 8,
}  # fmt: skip
_FLAT = {"u64": "i64", "s64": "i64", "f32": "f32", "f64": "f64"}


def cases_of(kind: Type) -> tuple[Type | None, ...] | None:
    """The payloads of a type that is a choice of cases, in order; None for any other type."""
    if isinstance(kind, VariantType):
        return tuple(payload for _, payload in kind.cases)
    if isinstance(kind, EnumType):
        return (None,) * len(kind.cases)
    if isinstance(kind, OptionType):
        return (None, kind.payload)
    if isinstance(kind, ResultType):
        return (kind.ok, kind.err)
    return None


def members_of(kind: Type) -> tuple[Type, ...] | None:
    """The parts of a type that has all of them, in order; None for any other type."""
    if isinstance(kind, RecordType):
        return tuple(member for _, member in kind.fields)
    return kind.elements if isinstance(kind, TupleType) else None


def discriminant_size(cases: int) -> int:
    """Bytes of the number that says which of the cases it is."""
    return 1 if cases <= 1 << 8 else 2 if cases <= 1 << 16 else 4


def aligned(offset: int, alignment: int) -> int:
    """The next multiple."""
    return -(-offset // alignment) * alignment


@functools.cache
def alignment(kind: Type) -> int:
    """Bytes."""
    if isinstance(kind, Primitive):
        return 4 if kind.kind == "string" else _SIZES[kind.kind]
    if isinstance(kind, ListType | HandleType):
        return 4
    if isinstance(kind, FlagsType):
        return min(size(kind), 4)
    cases = cases_of(kind)
    if cases is not None:
        return max(discriminant_size(len(cases)), _widest(cases))
    return _widest(members_of(kind) or ())


@functools.cache
def size(kind: Type) -> int:
    """Bytes, padding at the end included."""
    if isinstance(kind, Primitive):
        return _SIZES[kind.kind]
    if isinstance(kind, ListType):
        return 8
    if isinstance(kind, HandleType):
        return 4
    if isinstance(kind, FlagsType):
        return 1 if len(kind.flags) <= 8 else 2 if len(kind.flags) <= 16 else 4
    cases = cases_of(kind)
    if cases is not None:
        longest = max((size(payload) for payload in cases if payload is not None), default=0)
        return aligned(payload_offset(kind) + longest, alignment(kind))
    _offsets, end = fields(members_of(kind) or ())
    return aligned(end, alignment(kind))


def payload_offset(kind: Type) -> int:
    """Where the payload of a choice stands behind its discriminant."""
    cases = cases_of(kind) or ()
    return aligned(discriminant_size(len(cases)), _widest(cases))


def fields(kinds: Iterable[Type]) -> tuple[tuple[int, ...], int]:
    """The offset of each of several values one after the other, and where the last ends."""
    at, offsets = 0, []
    for kind in kinds:
        at = aligned(at, alignment(kind))
        offsets.append(at)
        at += size(kind)
    return tuple(offsets), at


@functools.cache
def flat(kind: Type) -> tuple[str, ...]:
    """The core types a value becomes as parameters: of `i32`, `i64`, `f32`, `f64`."""
    if isinstance(kind, Primitive):
        return ("i32", "i32") if kind.kind == "string" else (_FLAT.get(kind.kind, "i32"),)
    if isinstance(kind, ListType):
        return ("i32", "i32")
    if isinstance(kind, FlagsType | HandleType):
        return ("i32",)
    cases = cases_of(kind)
    if cases is None:
        return tuple(core for member in members_of(kind) or () for core in flat(member))
    joined: list[str] = []
    for payload in cases:
        for position, core in enumerate(flat(payload) if payload is not None else ()):
            if position == len(joined):
                joined.append(core)
            else:
                joined[position] = _join(joined[position], core)
    return ("i32", *joined)


def flat_parameters(function: Function) -> tuple[str, ...]:
    """The core types of all parameters, however many."""
    return tuple(core for _, kind in function.parameters for core in flat(kind))


def flat_result(function: Function) -> tuple[str, ...]:
    """The core types of the result, however many."""
    return () if function.result is None else flat(function.result)


def _join(left: str, right: str) -> str:
    if left == right:
        return left
    return "i32" if {left, right} == {"i32", "f32"} else "i64"


def _widest(kinds: Iterable[Type | None]) -> int:
    return max((alignment(kind) for kind in kinds if kind is not None), default=1)
