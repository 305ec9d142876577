"""Values into a scratch memory, for the adapter to put into the guest: writers made from types.

A writer packs the header, the value's image and the descriptions of blobs with one `pack_into` where the type allows
it, and otherwise builds the image step by step. The layout: `sandbox.fast.protocol`. Reference: CanonicalABI.md,
"Storing".
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.abi.layout import (
    aligned,
    alignment,
    cases_of,
    discriminant_size,
    fields,
    members_of,
    payload_offset,
    size,
)
from sandbox.abi.types import (
    BYTES,
    STRING,
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
    TupleType,
    Type,
    VariantType,
    may_be_none,
)
from sandbox.bindings import CLASSES
from sandbox.fast.protocol import BLOBS, IMAGE, IMAGE_ROOM, OUT
from sandbox.fast.reading import FORMATS, enum_members
from sandbox.fast.straight import is_straight

Writer = Callable[[Any, Any], int]
"""Called with the scratch memory and the value: the bytes of scratch memory that it takes. If there are not so many,
nothing was written."""
_HEADER = struct.Struct("<4I16x")
_BLOB = struct.Struct("<4I")
_POINTER = struct.Struct("<II")
_CODES = {1: "B", 2: "H", 4: "I"}


def attribute(name: str) -> str:
    """A record's field in Python."""
    import keyword

    plain = name.replace("-", "_")
    return plain + "_" if keyword.iskeyword(plain) else plain


@functools.cache
def writer(kind: Type) -> Writer:
    """The writer of a value, which for a function's result is `T | Err` where the type is `result<T, E>`."""
    if isinstance(kind, ResultType):
        step_by_step = _built(kind, unless_err=not isinstance(kind.ok, ResultType))
        ok = kind.ok
        if ok is not None and (isinstance(ok, ResultType) or not is_straight(ok)):
            return step_by_step
        return _generated(ok, payload_offset(kind), size(kind), step_by_step) if _small(kind) else step_by_step
    if is_straight(kind) and _small(kind):
        return _generated(kind, 0, size(kind), None)
    return _built(kind, unless_err=False)


def straight_writer(kind: Type) -> Writer:
    """The writer of a value for an adapter that knows the type: of the image, and what follows it
    (`sandbox.fast.straight`)."""
    return _generated(kind, 0, size(kind), None, told=False)


def _small(kind: Type) -> bool:
    return size(kind) <= IMAGE_ROOM


# -- step by step ------------------------------------------------------------------------------------------------------

_Put = Callable[[Any, bytearray, int, list[tuple[int, int, int, int]]], None]
"""Called with a value, a region, where in it the value's image goes, and the blobs of the region so far."""


def _built(kind: Type, *, unless_err: bool) -> Writer:
    put, length = _put(kind), size(kind)

    def write(view: Any, value: Any) -> int:
        region = bytearray(length)
        blobs: list[tuple[int, int, int, int]] = []
        put(Ok(value) if unless_err and type(value) is not Err else value, region, 0, blobs)
        start = aligned(BLOBS + 16 * len(blobs), 8)
        end = start + len(region)
        if end > len(view):
            return end
        _HEADER.pack_into(view, 0, length, start, len(blobs), 0)
        for number, (slot, source, count, align) in enumerate(blobs):
            _BLOB.pack_into(view, BLOBS + 16 * number, start + slot, start + source, count, align)
        view[start:end] = region
        return end

    return write


@functools.cache
def _put(kind: Type) -> _Put:
    if kind == STRING:
        return lambda value, region, at, blobs: _put_blob(value.encode(), region, at, blobs)
    if kind == BYTES:
        return lambda value, region, at, blobs: _put_blob(value, region, at, blobs)
    if isinstance(kind, Primitive):
        return _put_primitive(kind.kind)
    if isinstance(kind, ListType):
        return _put_list(kind)
    if isinstance(kind, RecordType | TupleType):
        return _put_members(kind)
    if isinstance(kind, FlagsType):
        return _put_flags(kind)
    if isinstance(kind, HandleType):
        raise TypeError("handles are the engine's")
    return _put_choice(kind)


def _put_blob(data: bytes, region: bytearray, at: int, blobs: list[tuple[int, int, int, int]]) -> None:
    _POINTER.pack_into(region, at, 0, len(data))
    blobs.append((at, len(region), len(data), 1))
    region += data


def _put_primitive(kind: str) -> _Put:
    form = struct.Struct("<" + FORMATS[kind])
    if kind == "char":
        return lambda value, region, at, _: form.pack_into(region, at, scalar(value))
    if kind == "bool":
        return lambda value, region, at, _: form.pack_into(region, at, 1 if value else 0)
    return lambda value, region, at, _: form.pack_into(region, at, value)


def scalar(value: str) -> int:
    """The number of a char. Raises ValueError for half of a surrogate pair."""
    number = ord(value)
    if 0xD800 <= number < 0xE000:
        raise ValueError("half of a surrogate pair is no char")
    return number


def _put_list(kind: ListType) -> _Put:
    put, step, align = _put(kind.element), size(kind.element), alignment(kind.element)

    def put_list(value: Any, region: bytearray, at: int, blobs: list[tuple[int, int, int, int]]) -> None:
        base = aligned(len(region), align)
        region.extend(bytes(base - len(region) + step * len(value)))
        _POINTER.pack_into(region, at, 0, len(value))
        for number, each in enumerate(value):
            put(each, region, base + number * step, blobs)
        blobs.append((at, base, step * len(value), align))

    return put_list


def _put_members(kind: RecordType | TupleType) -> _Put:
    kinds = members_of(kind) or ()
    puts = [(offset, _put(each)) for offset, each in zip(fields(kinds)[0], kinds, strict=True)]
    names = (
        [attribute(name) for name, _ in kind.fields] if isinstance(kind, RecordType) and kind.name in CLASSES else None
    )

    def put_members(value: Any, region: bytearray, at: int, blobs: list[tuple[int, int, int, int]]) -> None:
        values = value if names is None else [getattr(value, name) for name in names]
        for (offset, put), each in zip(puts, values, strict=True):
            put(each, region, at + offset, blobs)

    return put_members


def _put_flags(kind: FlagsType) -> _Put:
    form = struct.Struct("<" + _CODES[size(kind)])
    bits = {name: 1 << bit for bit, name in enumerate(kind.flags)}
    if kind.name in CLASSES:
        return lambda value, region, at, _: form.pack_into(region, at, value.value)
    return lambda value, region, at, _: form.pack_into(region, at, sum(bits[name] for name in value))


def _put_choice(kind: Type) -> _Put:
    payloads = cases_of(kind) or ()
    form, offset = struct.Struct("<" + _CODES[discriminant_size(len(payloads))]), payload_offset(kind)
    puts = [None if each is None else _put(each) for each in payloads]
    which = _which(kind)

    def put_choice(value: Any, region: bytearray, at: int, blobs: list[tuple[int, int, int, int]]) -> None:
        number, payload = which(value)
        form.pack_into(region, at, number)
        put = puts[number]
        if put is not None:
            put(payload, region, at + offset, blobs)

    return put_choice


def _which(kind: Type) -> Callable[[Any], tuple[int, Any]]:
    """Number and payload of a value's case."""
    if isinstance(kind, OptionType):
        if may_be_none(kind.payload):
            return lambda value: (0, None) if value is None else (1, value.value)
        return lambda value: (0, None) if value is None else (1, value)
    if isinstance(kind, ResultType):
        return lambda value: ({Ok: 0, Err: 1}[type(value)], value.value)
    if isinstance(kind, EnumType):
        numbers = {member: number for number, member in enumerate(enum_members(kind))}
        return lambda value: (numbers[value], None)
    assert isinstance(kind, VariantType)
    classes = CLASSES.get(kind.name)
    if isinstance(classes, dict):
        by_class = {classes[name]: number for number, (name, _) in enumerate(kind.cases)}
        return lambda value: (by_class[type(value)], getattr(value, "value", None))
    by_name = {name: number for number, (name, _) in enumerate(kind.cases)}

    def by_case(value: Case) -> tuple[int, Any]:
        return by_name[value.name], value.value

    return by_case


# -- with one pack_into, by code made from the type --------------------------------------------------------------------


@dataclass(frozen=True)
class _Blob:
    """What a pointer of the image points to; `data`, `count` and `there` are expressions."""

    slot: int
    data: str
    count: str
    there: str
    joined: bool
    """Whether it is short, as strings are, and written together with others."""


class _Code:
    """Source text of a straight writer of `kind` at `offset` of an image of `length` bytes.

    Everything but what pointers point to is packed at once; an option that is not there has zeros and an empty blob.
    Where the adapter is `told`, a header and descriptions of blobs are packed, too.
    """

    def __init__(self, kind: Type | None, offset: int, length: int, otherwise: Writer | None, told: bool) -> None:
        self._image: list[tuple[int, str, str]] = []
        self._found: list[_Blob] = []
        self._lines: list[str] = []
        self._defaults: list[str] = []
        self._names = 0
        self.scope: dict[str, Any] = {"Err": Err, "otherwise": otherwise, "scalar": scalar}
        if kind is not None:
            self._value(kind, IMAGE + offset, "value", "1", "    ")
        blobs = sorted(self._found, key=lambda blob: not blob.joined)
        joined = [blob.data for blob in blobs if blob.joined]
        ends = len(blobs)
        self._line(f"    e0 = {BLOBS + 16 * ends if told else OUT}")
        for number, blob in enumerate(blobs):
            self._line(f"    e{number + 1} = e{number} + {blob.count}")
        self._line(f"    if e{ends} > len(view): return e{ends}")
        words = self._packed(length, blobs) if told else self._image_alone(length)
        self._line(f"    pack_into(view, {0 if told else IMAGE}, {words})")
        if joined:
            self._line(f"    view[e0:e{len(joined)}] = b''.join(({', '.join(joined)},))")
        for number in range(len(joined), ends):
            self._line(f"    view[e{number}:e{number + 1}] = {blobs[number].data}")
        head = ["def write(view, value):"]
        if otherwise is not None:
            head.append("    if type(value) is Err: return otherwise(view, value)")
        self.source = "\n".join([*head, *self._lines, f"    return e{ends}"])

    def _line(self, text: str) -> None:
        self._lines.append(text)

    def _name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def _packed(self, length: int, blobs: list[_Blob]) -> str:
        """The words of the one `pack_into`, whose format covers all before the blobs' data."""
        image, words, end = self._fields()
        form = f"<4I16x{image}{BLOBS - end}x" + "4I" * len(blobs)
        words = [str(length), str(IMAGE), str(len(blobs)), "0", *words]
        for number, blob in enumerate(blobs):
            words += [str(blob.slot), f"e{number}", blob.count, blob.there]
        self.scope["pack_into"] = struct.Struct(form).pack_into
        return ", ".join(words)

    def _image_alone(self, length: int) -> str:
        image, words, end = self._fields()
        self.scope["pack_into"] = struct.Struct(f"<{image}{IMAGE + length - end}x").pack_into
        return ", ".join(words)

    def _fields(self) -> tuple[str, list[str], int]:
        """The format of the image without its end, the words, and where that is."""
        form, words, at = "", [], IMAGE
        for offset, code, word in sorted(self._image):
            form += f"{offset - at}x{code}"
            at = offset + struct.calcsize("<" + code)
            words.append(word)
        return form, words, at

    def _value(self, kind: Type, at: int, expression: str, there: str, indent: str) -> None:
        """Lines that bring one value into names; they are set, too, where an option around it is not there."""
        if isinstance(kind, OptionType):
            self._option(kind, at, expression, indent)
        elif kind in (STRING, BYTES):
            name = self._assigned(f"{expression}.encode()" if kind == STRING else expression, "b''", indent)
            count = self._assigned(f"len({name})", "0", indent)
            self._image.append((at + 4, "I", count))
            self._found.append(_Blob(at, name, count, there, joined=kind == STRING))
        elif isinstance(kind, Primitive):
            words = {"bool": f"1 if {expression} else 0", "char": f"scalar({expression})"}
            self._image.append((at, FORMATS[kind.kind], self._assigned(words.get(kind.kind, expression), "0", indent)))
        elif isinstance(kind, EnumType):
            known = f"k{len(self.scope)}"
            self.scope[known] = {member: number for number, member in enumerate(enum_members(kind))}
            self._image.append((at, _CODES[size(kind)], self._assigned(f"{known}[{expression}]", "0", indent)))
        else:
            self._members(kind, at, expression, there, indent)

    def _members(self, kind: Type, at: int, expression: str, there: str, indent: str) -> None:
        kinds = members_of(kind) or ()
        known = isinstance(kind, RecordType) and kind.name in CLASSES
        for number, (offset, each) in enumerate(zip(fields(kinds)[0], kinds, strict=True)):
            part = f".{attribute(kind.fields[number][0])}" if known and isinstance(kind, RecordType) else f"[{number}]"
            within = expression + part
            if members_of(each) is not None:
                within = self._name()
                self._line(f"{indent}{within} = {expression}{part}")
            self._value(each, at + offset, within, there, indent)

    def _option(self, kind: OptionType, at: int, expression: str, indent: str) -> None:
        name = self._assigned(expression, "None", indent)
        there = self._name()
        outer, self._defaults = self._defaults, [f"{there} = 0"]
        begin = len(self._lines)
        self._line(f"{indent}if {name} is not None:")
        self._line(f"{indent}    {there} = 1")
        self._image.append((at, "B", there))
        self._value(kind.payload, at + payload_offset(kind), name, there, indent + "    ")
        self._lines[begin:begin] = [indent + line for line in self._defaults]
        self._defaults = outer + self._defaults

    def _assigned(self, expression: str, otherwise: str, indent: str) -> str:
        name = self._name()
        self._line(f"{indent}{name} = {expression}")
        self._defaults.append(f"{name} = {otherwise}")
        return name


def _generated(kind: Type | None, offset: int, length: int, otherwise: Writer | None, *, told: bool = True) -> Writer:
    code = _Code(kind, offset, length, otherwise, told)
    exec(compile(code.source, "<writer>", "exec"), code.scope)  # noqa: S102, made of types alone
    return code.scope["write"]  # type: ignore[no-any-return]
