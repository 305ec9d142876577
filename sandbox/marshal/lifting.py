"""From the engine to Python: a function that reads values of given types out of the engine's cells.

The cells belong to the engine, which has made them after it checked the guest's values; whoever calls a plan gives
them back (`wasmtime_component_val_delete`), whatever becomes of the reading. A node of the tree is read by one
unpacking that takes the words in use of all its cells; its values become the arguments of its class.

What the engine says is compared with what was expected, kinds and sizes and names: should a plan ever be used with a
function of another type, it must find out before it takes a number for an address.

What is written is Python source, as by `sandbox.marshal.lowering`.
"""

from __future__ import annotations

from struct import Struct
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
from sandbox.marshal.capi import CELL, KINDS, MEMORY, NAME_WORDS, WORD, decode_utf8
from sandbox.marshal.cells import NAN
from sandbox.marshal.failures import TypesDiffer
from sandbox.marshal.resources import GuestResource, host_types, take
from sandbox.marshal.shapes import cases_of, class_of, kind_number
from sandbox.marshal.source import MAX_DEPTH, Source

_ENTRY = NAME_WORDS * WORD + CELL
_SCALARS = {
    "bool": "B23x", "s8": "b23x", "u8": "B23x", "s16": "h22x", "u16": "H22x", "s32": "i20x", "u32": "I20x",
    "s64": "q16x", "u64": "Q16x", "f32": "f20x", "f64": "d16x", "char": "I20x", "string": "QQ8x",
}  # fmt: skip
"""The words in use of a cell, its kind aside, as `struct` writes them."""
_OTHERS: dict[type, str] = {
    ListType: "QQ8x", RecordType: "QQ8x", TupleType: "QQ8x", VariantType: "QQQ", EnumType: "QQ8x", OptionType: "Q16x",
    ResultType: "B7xQ8x", FlagsType: "QQ8x", HandleType: "Q16x",
}  # fmt: skip
_PIECE = 2048
"""Cells that are copied at a time: as many as stay in the cache, and in memory the C library has at hand."""
_NAMES = Struct(f"<{NAME_WORDS * 'Q'}")


def differs(*_: object) -> Any:
    """The engine's value is not what was expected. Raises TypesDiffer."""
    raise TypesDiffer("a value of the engine's is of another type than its function was compiled for")


def read(address: int, size: int) -> bytes:
    """Bytes the engine has made."""
    return MEMORY[address : address + size].tobytes()


def bytes_at(count: int, address: int) -> bytes:
    """A `list<u8>`."""
    if not count:
        return b""
    if MEMORY[address] != KINDS["u8"]:
        differs()
    end = address + count * CELL
    if count <= _PIECE:
        return MEMORY[address:end].tobytes()[WORD::CELL]
    step = _PIECE * CELL
    return b"".join([MEMORY[at : min(at + step, end)].tobytes()[WORD::CELL] for at in range(address, end, step)])


def scalars_at(count: int, address: int, kind: str) -> list[Any]:
    """A list of integers, booleans, floats or characters."""
    if not count:
        return []
    cells = MEMORY[address : address + count * CELL]
    if cells[0] != KINDS[kind]:
        differs()
    letter = _SCALARS[kind][0]
    width = Struct(f"<{letter}").size
    values = memoryview(cells.tobytes()).cast(cast("Any", letter))[WORD // width :: CELL // width].tolist()
    if kind == "bool":
        return [each != 0 for each in values]
    if kind == "char":
        return [chr(each) for each in values]
    if letter in "fd":
        return [each if each == each else NAN for each in values]  # noqa: PLR0124 (a NaN is not equal to itself)
    return cast("list[Any]", values)


def flags_at(count: int, address: int, table: dict[bytes, Any]) -> list[Any]:
    """What `table` has for each name that is set."""
    names = MEMORY[address : address + count * _NAMES.size].tobytes() if count else b""
    try:
        return [table[read(start, size)] for size, start in _NAMES.iter_unpack(names)]
    except KeyError:
        return cast("list[Any]", differs())


_RUNTIME: dict[str, Any] = {
    "MEMORY": MEMORY,
    "NAN": NAN,
    "differs": differs,
    "decode": decode_utf8,
    "read": read,
    "bytes_at": bytes_at,
    "scalars_at": scalars_at,
    "flags_at": flags_at,
    "chr": chr,
    "frozenset": frozenset,
    "sum": sum,
    "Ok": Ok,
    "Err": Err,
    "Some": Some,
    "Case": Case,
    "GuestResource": GuestResource,
    "take": take,
}


class Lifting:
    """Writes the source for one function's result, or its parameters."""

    def __init__(self) -> None:
        self._source = Source(_RUNTIME)
        self._elements: dict[Type, str] = {}

    def plan(self, kinds: tuple[Type, ...], title: str, result: bool) -> Any:
        """The plan: a function of `(buffer, offset, context)` that reads values side by side.

        Args:
            kinds: of the one result, or of the parameters.
            title: the function's name, for tracebacks.
            result: it gives the value itself, at the top of a result the ok value; otherwise a tuple of all.
        """
        source = self._source
        with source.define("lift", ("buffer", "offset", "context")):
            cells = self._cells(kinds, "buffer", "offset", 0)
            if result:
                ((kind, names),) = zip(kinds, cells, strict=True)
                if isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType):
                    value = self._result(kind, names, top=True)
                else:
                    value = self._value(kind, names)
                source.line(f"return {value}")
            else:
                values = [self._value(kind, names) for kind, names in zip(kinds, cells, strict=True)]
                source.line(f"return ({''.join(f'{value}, ' for value in values)})")
        return source.made(title)["lift"]

    def _cells(self, kinds: tuple[Type, ...], buffer: str, offset: str, before: int) -> list[list[str]]:
        """Unpack cells that stand side by side, `before` bytes of something else before each; their words' names."""
        if not kinds:
            return []
        source, layout, names, checks = self._source, "<", [], []
        for kind in kinds:
            payload = _payload(kind)
            layout += f"{before}xB7x{payload}" if before else f"B7x{payload}"
            words = [source.new() for letter in payload if letter.isalpha() and letter != "x"]
            names.append([source.new("k"), *words])
            checks.append(f"{names[-1][0]} != {kind_number(kind)}")
        # The text is one object as long as the struct module's cache and this function have it: one of each layout.
        unpack = source.object(_struct(layout).unpack_from)
        listed = ", ".join(name for cell in names for name in cell)
        source.line(f"{listed}, = {unpack}({buffer}, {offset})")
        source.line(f"if {' or '.join(checks)}: differs()")
        return [cell[1:] for cell in names]

    def _value(self, kind: Type, words: list[str]) -> str:
        """Statements that read the value whose cell has these words; an expression that is the value."""
        if self._source.depth > MAX_DEPTH:
            return self._outlined(kind, words)
        match kind:
            case Primitive():
                return self._primitive(kind.kind, words)
            case ListType():
                return self._list(kind, *words)
            case RecordType():
                return self._record(kind, *words)
            case TupleType():
                self._source.line(f"if {words[0]} != {len(kind.elements)}: differs()")
                return f"({''.join(f'{each}, ' for each in self._each(kind.elements, words[1], 0))})"
            case VariantType():
                return self._variant(kind, *words)
            case EnumType():
                return self._enum(kind, *words)
            case OptionType():
                return self._option(kind, *words)
            case ResultType():
                return self._result(kind, words)
            case FlagsType():
                return self._flags(kind, *words)
            case HandleType():
                return self._handle(kind, *words)

    def _outlined(self, kind: Type, words: list[str]) -> str:
        """In a function of its own, because the one being written is nested too deeply."""
        name = self._source.new("f")
        with self._source.define(name, (*words, "context")):
            self._source.line(f"return {self._value(kind, words)}")
        return f"{name}({', '.join(words)}, context)"

    def _primitive(self, kind: str, words: list[str]) -> str:
        word = words[0]
        match kind:
            case "string":
                return f"decode({words[1]}, {word}, None)"
            case "bool":
                return f"{word} != 0"
            case "char":
                return f"chr({word})"
            case "f32" | "f64":
                return f"({word} if {word} == {word} else NAN)"
            case _:
                return word

    def _list(self, kind: ListType, size: str, address: str) -> str:
        element = kind.element
        if kind == BYTES:
            return f"bytes_at({size}, {address})"
        if isinstance(element, Primitive) and element.kind != "string":
            return f'scalars_at({size}, {address}, "{element.kind}")'
        function = self._elements.get(element)
        if function is None:
            function = self._elements[element] = self._source.new("f")
            with self._source.define(function, ("context", "k", *(words := self._words(element)))):
                self._source.line(f"if k != {kind_number(element)}: differs()")
                self._source.line(f"return {self._value(element, words)}")
        rows = self._source.object(_struct(f"<B7x{_payload(element)}").iter_unpack)
        cells = f"read({address}, {CELL} * {size})"
        return f"[{function}(context, *row) for row in {rows}({cells})] if {size} else []"

    def _words(self, kind: Type) -> list[str]:
        return [self._source.new() for letter in _payload(kind) if letter.isalpha() and letter != "x"]

    def _each(self, kinds: tuple[Type, ...], address: str, before: int) -> list[str]:
        """Every part of a record or tuple."""
        return [
            self._value(kind, words)
            for kind, words in zip(kinds, self._cells(kinds, "MEMORY", address, before), strict=True)
        ]

    def _record(self, kind: RecordType, size: str, address: str) -> str:
        self._source.line(f"if {size} != {len(kind.fields)}: differs()")
        values = self._each(tuple(member for _, member in kind.fields), address, _ENTRY - CELL)
        cls = class_of(kind)
        if cls is None:
            return f"({''.join(f'{each}, ' for each in values)})"
        return f"{self._source.object(cls)}({', '.join(values)})"

    def _payload_at(self, kind: Type, address: str) -> str:
        (words,) = self._cells((kind,), "MEMORY", address, 0)
        return self._value(kind, words)

    def _option(self, kind: OptionType, address: str) -> str:
        value, source = self._source.new(), self._source
        with source.block(f"if {address}"):
            inner = self._payload_at(kind.payload, address)
            source.line(f"{value} = Some({inner})" if may_be_none(kind.payload) else f"{value} = {inner}")
        with source.block("else"):
            source.line(f"{value} = None")
        return value

    def _result(self, kind: ResultType, words: list[str], top: bool = False) -> str:
        (good, address), value, source = words, self._source.new(), self._source
        with source.block(f"if {good}"):
            inner = self._perhaps(kind.ok, address)
            source.line(f"{value} = {inner}" if top else f"{value} = Ok({inner})")
        with source.block("else"):
            source.line(f"{value} = Err({self._perhaps(kind.err, address)})")
        return value

    def _perhaps(self, kind: Type | None, address: str) -> str:
        """The payload of a case that may have none."""
        if kind is None:
            self._source.line(f"if {address}: differs()")
            return "None"
        self._source.line(f"if not {address}: differs()")
        return self._payload_at(kind, address)

    def _variant(self, kind: VariantType, size: str, address: str, payload: str) -> str:
        name, value, source, classes = self._source.new(), self._source.new(), self._source, cases_of(kind)
        source.line(f"{name} = read({address}, {size})")
        for number, (case, inner) in enumerate(kind.cases):
            with source.block(f"{'elif' if number else 'if'} {name} == {source.object(_name(case))}"):
                read_ = self._perhaps(inner, payload)
                if classes is None:
                    source.line(f"{value} = Case({source.object(case)}, {read_})")
                else:
                    given = "" if inner is None else read_
                    source.line(f"{value} = {source.object(classes[case])}({given})")
        with source.block("else"):
            source.line("differs()")
        return value

    def _enum(self, kind: EnumType, size: str, address: str) -> str:
        cls, value, source = class_of(kind), self._source.new(), self._source
        table = {_name(case): case if cls is None else cls(case) for case in kind.cases}
        source.line(f"{value} = {source.object(table)}.get(read({address}, {size}))")
        source.line(f"if {value} is None: differs()")
        return value

    def _flags(self, kind: FlagsType, size: str, address: str) -> str:
        cls, source = class_of(kind), self._source
        table: dict[bytes, Any] = {
            _name(name): name if cls is None else 1 << number for number, name in enumerate(kind.flags)
        }
        made = f"flags_at({size}, {address}, {source.object(table)})"
        return f"frozenset({made})" if cls is None else f"{source.object(cls)}(sum({made}))"

    def _handle(self, kind: HandleType, address: str) -> str:
        value, number = self._source.new(), host_types.get(kind.resource)
        # Taken at once, in the order of the types: a list of borrows must be taken before the host function begins.
        made = f"GuestResource(context, {address})" if number is None else f"take(context, {address}, {number})"
        self._source.line(f"{value} = {made}")
        return value


_structs: dict[str, Struct] = {}
_encoded: dict[str, bytes] = {}


def _struct(layout: str) -> Struct:
    """One of each layout."""
    return _structs.setdefault(layout, Struct(layout))


def _name(name: str) -> bytes:
    return _encoded.setdefault(name, name.encode())


def _payload(kind: Type) -> str:
    return _SCALARS[kind.kind] if isinstance(kind, Primitive) else _OTHERS[type(kind)]
