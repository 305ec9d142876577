"""The canonical ABI a second time, by the book and slowly, to compare with: CanonicalABI.md, "Storing", "Loading" and
"Flattening". Values look as `sandbox.abi.types` says, types have no classes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

from hypothesis import strategies as st

from sandbox.abi.layout import alignment, cases_of, discriminant_size, fields, flat, members_of, payload_offset, size
from sandbox.abi.types import (
    BYTES,
    INTEGERS,
    Case,
    EnumType,
    Err,
    FlagsType,
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

_FORMS = {
    "bool": "<B", "u8": "<B", "s8": "<b", "u16": "<H", "s16": "<h", "u32": "<I", "s32": "<i", "u64": "<Q", "s64": "<q",
    "f32": "<f", "f64": "<d", "char": "<I",
}  # fmt: skip
_WIDTH = {1: "<B", 2: "<H", 4: "<I"}


class Memory(Protocol):
    """A guest's memory."""

    def write(self, at: int, data: bytes) -> None:
        """Write there."""

    def read(self, at: int, count: int) -> bytes:
        """Read there."""

    def allocate(self, count: int, align: int) -> int:
        """Room for so many bytes."""


def store(kind: Type, value: Any, memory: Memory, at: int) -> None:
    """Store a value."""
    if isinstance(kind, Primitive) and kind.kind == "string":
        _store_block(value.encode(), 1, memory, at)
    elif kind == BYTES:
        _store_block(value, 1, memory, at)
    elif isinstance(kind, Primitive):
        number = ord(value) if kind.kind == "char" else value
        memory.write(at, struct.pack(_FORMS[kind.kind], number))
    elif isinstance(kind, ListType):
        step = size(kind.element)
        base = memory.allocate(step * len(value), alignment(kind.element))
        for number, each in enumerate(value):
            store(kind.element, each, memory, base + number * step)
        memory.write(at, struct.pack("<II", base, len(value)))
    elif isinstance(kind, FlagsType):
        memory.write(at, struct.pack(_WIDTH[size(kind)], _bits(kind, value)))
    elif (members := members_of(kind)) is not None:
        for offset, each, part in zip(fields(members)[0], members, value, strict=True):
            store(each, part, memory, at + offset)
    else:
        number, payload_type, payload = case_of(kind, value)
        memory.write(at, struct.pack(_WIDTH[discriminant_size(len(cases_of(kind) or ()))], number))
        if payload_type is not None:
            store(payload_type, payload, memory, at + payload_offset(kind))


def load(kind: Type, memory: Memory, at: int) -> Any:
    """Load a value."""
    if isinstance(kind, Primitive) and kind.kind == "string":
        return _load_block(memory, at).decode()
    if kind == BYTES:
        return _load_block(memory, at)
    if isinstance(kind, Primitive):
        (number,) = struct.unpack(_FORMS[kind.kind], memory.read(at, size(kind)))
        return {"char": chr, "bool": bool}.get(kind.kind, lambda same: same)(number)
    if isinstance(kind, ListType):
        base, count = struct.unpack("<II", memory.read(at, 8))
        return [load(kind.element, memory, base + number * size(kind.element)) for number in range(count)]
    if isinstance(kind, FlagsType):
        (number,) = struct.unpack(_WIDTH[size(kind)], memory.read(at, size(kind)))
        return frozenset(name for bit, name in enumerate(kind.flags) if number >> bit & 1)
    members = members_of(kind)
    if members is not None:
        return tuple(load(each, memory, at + place) for place, each in zip(fields(members)[0], members, strict=True))
    payloads = cases_of(kind) or ()
    width = discriminant_size(len(payloads))
    (number,) = struct.unpack(_WIDTH[width], memory.read(at, width))
    payload_type = payloads[number]
    payload = None if payload_type is None else load(payload_type, memory, at + payload_offset(kind))
    return made(kind, number, payload)


def flatten(kind: Type, value: Any, memory: Memory) -> list[float]:
    """The core values of a value; types without choices but options, enums and flags."""
    if isinstance(kind, ListType) or (isinstance(kind, Primitive) and kind.kind == "string"):
        at = memory.allocate(8, 4)
        store(kind, value, memory, at)
        return list(struct.unpack("<II", memory.read(at, 8)))
    if isinstance(kind, Primitive):
        return [ord(value) if kind.kind == "char" else value]
    if isinstance(kind, FlagsType):
        return [_bits(kind, value)]
    members = members_of(kind)
    if members is not None:
        return [core for each, part in zip(members, value, strict=True) for core in flatten(each, part, memory)]
    number, payload_type, payload = case_of(kind, value)
    rest = [] if payload_type is None else flatten(payload_type, payload, memory)
    return [number, *rest, *[0] * (len(flat(kind)) - 1 - len(rest))]


def _store_block(data: bytes, align: int, memory: Memory, at: int) -> None:
    base = memory.allocate(len(data), align)
    memory.write(base, data)
    memory.write(at, struct.pack("<II", base, len(data)))


def _load_block(memory: Memory, at: int) -> bytes:
    base, count = struct.unpack("<II", memory.read(at, 8))
    return memory.read(base, count)


def _bits(kind: FlagsType, value: Any) -> int:
    return sum(1 << bit for bit, name in enumerate(kind.flags) if name in value)


def case_of(kind: Type, value: Any) -> tuple[int, Type | None, Any]:
    """Number, payload type and payload of a value's case."""
    if isinstance(kind, OptionType):
        if value is None:
            return 0, None, None
        return 1, kind.payload, value.value if may_be_none(kind.payload) else value
    if isinstance(kind, ResultType):
        return (0, kind.ok, value.value) if isinstance(value, Ok) else (1, kind.err, value.value)
    if isinstance(kind, EnumType):
        return kind.cases.index(value), None, None
    assert isinstance(kind, VariantType)
    number = [name for name, _ in kind.cases].index(value.name)
    return number, kind.cases[number][1], value.value


def made(kind: Type, number: int, payload: Any) -> Any:
    """The value of a case."""
    if isinstance(kind, OptionType):
        return (None, Some(payload) if may_be_none(kind.payload) else payload)[number]
    if isinstance(kind, ResultType):
        return (Ok, Err)[number](payload)
    if isinstance(kind, EnumType):
        return kind.cases[number]
    assert isinstance(kind, VariantType)
    return Case(kind.cases[number][0], payload)


# -- types and values for hypothesis -----------------------------------------------------------------------------------


def types(leaves: int = 8) -> st.SearchStrategy[Type]:
    """Any type but handles."""
    names = st.sampled_from([f"n{number}" for number in range(40)])
    simple: st.SearchStrategy[Type] = st.one_of(
        st.sampled_from(sorted(_FORMS)).map(Primitive),
        st.just(Primitive("string")),
        st.just(BYTES),
        st.lists(names, min_size=1, max_size=32, unique=True).map(lambda given: FlagsType(tuple(given))),
        st.lists(names, min_size=1, max_size=20, unique=True).map(lambda given: EnumType(tuple(given))),
    )

    def larger(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
        several = st.lists(inner, min_size=1, max_size=4)
        return st.one_of(
            inner.map(ListType),
            inner.map(OptionType),
            several.map(lambda given: TupleType(tuple(given))),
            several.map(lambda given: RecordType(tuple((f"f{n}", each) for n, each in enumerate(given)))),
            st.lists(st.none() | inner, min_size=1, max_size=4).map(
                lambda given: VariantType(tuple((f"c{n}", each) for n, each in enumerate(given)))
            ),
            st.tuples(st.none() | inner, st.none() | inner).map(lambda given: ResultType(*given)),
        )

    return st.recursive(simple, larger, max_leaves=leaves)


def values(kind: Type) -> st.SearchStrategy[Any]:
    """Values of a type. Floats are such as every float of that width is equal to itself."""
    if isinstance(kind, Primitive):
        return _primitives(kind.kind)
    if kind == BYTES:
        return st.binary(max_size=300)
    if isinstance(kind, ListType):
        return st.lists(values(kind.element), max_size=5)
    if isinstance(kind, FlagsType):
        return st.frozensets(st.sampled_from(kind.flags))
    members = members_of(kind)
    if members is not None:
        return st.tuples(*[values(each) for each in members])
    payloads = cases_of(kind) or ()
    return st.integers(0, len(payloads) - 1).flatmap(
        lambda number: _payload(payloads[number]).map(lambda payload: made(kind, number, payload))
    )


def _payload(kind: Type | None) -> st.SearchStrategy[Any]:
    return st.none() if kind is None else values(kind)


def _primitives(kind: str) -> st.SearchStrategy[Any]:
    if kind in INTEGERS:
        bits = int(kind[1:])
        low = 0 if kind[0] == "u" else -(1 << bits - 1)
        return st.integers(low, low + (1 << bits) - 1)
    if kind in ("f32", "f64"):
        return st.floats(allow_nan=False, width=32 if kind == "f32" else 64)
    text: Callable[..., st.SearchStrategy[str]] = st.text
    return {"bool": st.booleans(), "char": st.characters(exclude_categories=["Cs"]), "string": text(max_size=40)}[kind]
