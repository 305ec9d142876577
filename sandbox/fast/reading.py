"""Values out of a scratch memory: readers made from types.

A value's image is as the canonical ABI lays it out, but its pointers mean nothing here: what they pointed to follows
elsewhere in the order in which the pointers stand (`sandbox.patch.adapter`), and a cursor goes along with the lengths.
Every number a guest may choose is checked: cases, booleans, characters, UTF-8. Lengths are those that the adapter
copied by, and that nothing is left over is checked at the end. Reference: CanonicalABI.md, "Loading".
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, NoReturn

from sandbox.abi.layout import (
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
    Function,
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
from sandbox.bindings import CLASSES
from sandbox.fast.protocol import OUT

Reader = Callable[[Any, int, int], tuple[Any, int]]
"""Called with the scratch memory, where the value's image is, and the cursor: the value, and the cursor behind it."""
FORMATS = {
    "bool": "B", "u8": "B", "s8": "b", "u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q",
    "f32": "f", "f64": "d", "char": "I",
}  # fmt: skip
_WIDTHS = {1: "B", 2: "H", 4: "I"}


class Misformed(Exception):
    """A guest passed what is no value of the type: it traps."""


def refuse(what: str) -> NoReturn:
    """Raises Misformed."""
    raise Misformed(f"the guest passed {what}")


# -- readers, by interpretation ----------------------------------------------------------------------------------------


@functools.cache
def reader(kind: Type) -> Reader:
    """The reader of a type. Raises TypeError for handles, which are the engine's."""
    if isinstance(kind, Primitive):
        return _string if kind.kind == "string" else _primitive(kind.kind)
    if isinstance(kind, ListType):
        return _bytes if kind == BYTES else _list(kind)
    if isinstance(kind, RecordType | TupleType):
        return _members(kind)
    if isinstance(kind, FlagsType):
        return _flags(kind)
    if isinstance(kind, HandleType):
        raise TypeError("handles are the engine's")
    return _choice(kind)


def _string(view: Any, at: int, cursor: int) -> tuple[Any, int]:
    end = cursor + _LENGTH.unpack_from(view, at + 4)[0]
    return text(view[cursor:end]), end


def _bytes(view: Any, at: int, cursor: int) -> tuple[Any, int]:
    end = cursor + _LENGTH.unpack_from(view, at + 4)[0]
    return bytes(view[cursor:end]), end


_LENGTH = struct.Struct("<I")


def text(data: Any) -> str:
    """UTF-8, strictly."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        refuse("a string that is not UTF-8")


def character(number: int) -> str:
    """A Unicode scalar value."""
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        refuse(f"a char of {number:#x}")
    return chr(number)


def _primitive(kind: str) -> Reader:
    form = struct.Struct("<" + FORMATS[kind])
    if kind == "bool":
        return lambda view, at, cursor: (view[at] != 0, cursor)
    if kind == "char":
        return lambda view, at, cursor: (character(form.unpack_from(view, at)[0]), cursor)
    return lambda view, at, cursor: (form.unpack_from(view, at)[0], cursor)


def _list(kind: ListType) -> Reader:
    read_elements = elements_reader(kind)
    return lambda view, at, cursor: read_elements(view, cursor, _LENGTH.unpack_from(view, at + 4)[0])


def _members(kind: RecordType | TupleType) -> Reader:
    kinds = members_of(kind) or ()
    parts = [(offset, reader(each)) for offset, each in zip(fields(kinds)[0], kinds, strict=True)]
    make = CLASSES.get(kind.name) if isinstance(kind, RecordType) else None

    def read_members(view: Any, at: int, cursor: int) -> tuple[Any, int]:
        values = []
        for offset, read in parts:
            value, cursor = read(view, at + offset, cursor)
            values.append(value)
        return (tuple(values) if make is None else make(*values)), cursor  # type: ignore[operator]

    return read_members


def _flags(kind: FlagsType) -> Reader:
    form, make = struct.Struct("<" + _WIDTHS[size(kind)]), flags_maker(kind)
    return lambda view, at, cursor: (make(form.unpack_from(view, at)[0]), cursor)


def flags_maker(kind: FlagsType) -> Callable[[int], Any]:
    """The value of so many bits; those without a name are dropped, as the canonical ABI has it."""
    known = (1 << len(kind.flags)) - 1
    made: Any = CLASSES.get(kind.name)
    if made is not None:
        return lambda number: made(number & known)
    return lambda number: frozenset(name for bit, name in enumerate(kind.flags) if number >> bit & 1)


def _choice(kind: Type) -> Reader:
    payloads = cases_of(kind) or ()
    form, offset = struct.Struct("<" + _WIDTHS[discriminant_size(len(payloads))]), payload_offset(kind)
    parts = [(None if each is None else reader(each)) for each in payloads]
    make = makers(kind)

    def read_choice(view: Any, at: int, cursor: int) -> tuple[Any, int]:
        number = form.unpack_from(view, at)[0]
        if number >= len(parts):
            refuse(f"case {number} of {len(parts)}")
        read, value = parts[number], None
        if read is not None:
            value, cursor = read(view, at + offset, cursor)
        return make[number](value), cursor

    return read_choice


def makers(kind: Type) -> list[Callable[[Any], Any]]:
    """For each case of a choice what makes the value out of the payload."""
    if isinstance(kind, OptionType):
        return [lambda _: None, Some if may_be_none(kind.payload) else _itself]
    if isinstance(kind, ResultType):
        return [Ok, Err]
    if isinstance(kind, EnumType):
        return [functools.partial(_always, member) for member in enum_members(kind)]
    assert isinstance(kind, VariantType)
    classes = CLASSES.get(kind.name)
    found: list[Callable[[Any], Any]] = []
    for name, payload in kind.cases:
        if not isinstance(classes, dict):
            found.append(functools.partial(Case, name))
        elif payload is None:
            found.append(functools.partial(_always, classes[name]()))
        else:
            found.append(classes[name])
    return found


def enum_members(kind: EnumType) -> list[Any]:
    """The values of an enum, in order."""
    made = CLASSES.get(kind.name)
    return list(kind.cases) if made is None else [made(name) for name in kind.cases]  # type: ignore[operator]


def _itself(value: Any) -> Any:
    return value


def _always(member: Any, _: Any) -> Any:
    return member


def result_reader(kind: Type) -> Reader:
    """The reader of what an export returns; it may leave out the `Ok` around a value that needs none."""
    read = reader(kind)
    if not (isinstance(kind, ResultType) and kind.ok == OptionType(BYTES) and payload_offset(kind) == 4):
        return read
    # A reply: `ok(some(bytes))` is nearly every message's end, so it is read in one go.
    unpack_from = struct.Struct("<B3xB7xI").unpack_from

    def read_reply(view: Any, at: int, cursor: int) -> tuple[Any, int]:
        failed, some, length = unpack_from(view, at)
        if failed or some != 1:
            return read(view, at, cursor)
        return bytes(view[cursor : cursor + length]), cursor + length

    return read_reply


# -- arguments of an import, by code made from the types ---------------------------------------------------------------


class _Arguments:
    """Source text of a function that reads the flat parameters of an import: one `unpack_from`, then slices."""

    def __init__(self, function: Function) -> None:
        self._form = "<II8x"
        self._words: list[str] = []
        self._lines: list[str] = []
        self.names: dict[str, Any] = {
            "OUT": OUT, "text": text, "character": character, "refuse": refuse, "bytes": bytes, "Some": Some,
        }  # fmt: skip
        values = [self._value(kind, "    ") for _, kind in function.parameters]
        words = "".join(f", {word}" for word in self._words)
        self.source = "\n".join(
            [
                "def read(view):",
                f"    _, copied{words} = unpack_from(view, 16)",
                "    at = OUT",
                *self._lines,
                "    if at != OUT + copied:",
                "        refuse('lengths that contradict each other')",
                f"    return ({''.join(value + ', ' for value in values)})",
            ]
        )
        self.names["unpack_from"] = struct.Struct(self._form).unpack_from

    def _word(self, code: str, pad: str) -> str:
        name = f"w{len(self._words)}"
        self._words.append(name)
        self._form += code + pad
        return name

    def _known(self, thing: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = thing
        return name

    def _new(self, indent: str, expression: str) -> str:
        name = f"v{len(self._lines)}"
        self._lines.append(f"{indent}{name} = {expression}")
        return name

    def _value(self, kind: Type, indent: str) -> str:
        """Lines that read one value; the name or expression that stands for it."""
        if isinstance(kind, Primitive) and kind.kind != "string":
            return self._primitive(kind.kind)
        if isinstance(kind, ListType) or kind == STRING:
            self._form += "8x"
            return self._pointed(kind, self._word("I", "4x"), indent)
        if isinstance(kind, FlagsType):
            return self._flags(kind, indent)
        if isinstance(kind, OptionType):
            return self._option(kind, indent)
        members_ = members_of(kind)
        if members_ is None:
            return self._case(kind, indent)
        values = [self._value(each, indent) for each in members_]
        make = CLASSES.get(kind.name) if isinstance(kind, RecordType) else None
        inside = "".join(value + ", " for value in values)
        return self._new(indent, f"({inside})" if make is None else f"{self._known(make)}({inside})")

    def _primitive(self, kind: str) -> str:
        if kind in ("u64", "s64", "f64"):
            return self._word(FORMATS[kind], "")
        if kind in ("f32", "u32", "s32"):
            return self._word(FORMATS[kind], "4x")
        if kind == "bool":
            return f"({self._word('I', '4x')} != 0)"
        if kind == "char":
            return f"character({self._word('I', '4x')})"
        # What is wider than the type is cut off, as the canonical ABI has it.
        return self._word(FORMATS[kind], "7x" if kind in ("u8", "s8") else "6x")

    def _flags(self, kind: FlagsType, indent: str) -> str:
        word = self._word("I", "4x")
        return self._new(indent, f"{self._known(flags_maker(kind))}({word})")

    def _case(self, kind: Type, indent: str) -> str:
        """An enum, or another choice of which no case has a payload."""
        payloads = cases_of(kind) or ()
        if any(each is not None for each in payloads):
            raise TypeError("no adapter is made for such a parameter")
        word = self._word("I", "4x")
        self._lines.append(f"{indent}if {word} >= {len(payloads)}: refuse(f'case {{{word}}} of {len(payloads)}')")
        values = self._known([make(None) for make in makers(kind)])
        return self._new(indent, f"{values}[{word}]")

    def _pointed(self, kind: Type, length: str, indent: str) -> str:
        if kind in (STRING, BYTES):
            value = self._new(indent, f"{'text' if kind == STRING else 'bytes'}(view[at:at + {length}])")
            self._lines.append(f"{indent}at += {length}")
            return value
        assert isinstance(kind, ListType)
        # The list's own image stands at the cursor: pointer and length are of no use any more.
        elements = self._known(elements_reader(kind))
        value = f"v{len(self._lines)}"
        self._lines.append(f"{indent}{value}, at = {elements}(view, at, {length})")
        return value

    def _option(self, kind: OptionType, indent: str) -> str:
        there = self._word("I", "4x")
        name = f"o{len(self._words)}"
        self._lines.append(f"{indent}{name} = None")
        self._lines.append(f"{indent}if {there}:")
        self._lines.append(f"{indent}    if {there} != 1: refuse(f'case {{{there}}} of 2')")
        value = self._value(kind.payload, indent + "    ")
        self._lines.append(f"{indent}    {name} = {f'Some({value})' if may_be_none(kind.payload) else value}")
        return name


def elements_reader(kind: ListType) -> Callable[[Any, int, int], tuple[list[Any], int]]:
    """Reads so many elements whose images stand at the cursor."""
    read, step = reader(kind.element), size(kind.element)

    def read_elements(view: Any, first: int, count: int) -> tuple[list[Any], int]:
        found = []
        cursor = first + count * step
        for at in range(first, cursor, step):
            value, cursor = read(view, at, cursor)
            found.append(value)
        return found, cursor

    return read_elements


def arguments_reader(function: Function) -> Callable[[Any], tuple[Any, ...]]:
    """What reads an import's arguments out of the scratch memory. Raises Misformed."""
    made = _Arguments(function)
    exec(compile(made.source, f"<arguments of {function.name}>", "exec"), made.names)  # noqa: S102, made of types alone
    return made.names["read"]  # type: ignore[no-any-return]
