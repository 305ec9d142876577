"""From Python to the engine: a function that writes values of given types into a tree of cells.

The tree of everything whose size is known (records, tuples, payloads) is laid out once per function, with kinds, names
and pointers filled in: the template. A call copies the template and writes what changes. The tree lies in memory that
Python owns, as do the texts and lists that it points to: the engine copies arguments, and what a host function returns
is copied for it (`wasmtime_component_val_clone`) once it is complete. So a value that turns out wrong leaves nothing
behind, and the C side frees nothing that it has not made.

What is written is Python source, a statement or two per value (`sandbox.marshal.source`).
Every value is checked while it is written; why one is refused, `sandbox.marshal.explain` finds out afterwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
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
from sandbox.errors import AirssysError
from sandbox.marshal import cells
from sandbox.marshal.capi import CELL_WORDS, ENTRY_WORDS, KINDS, WORD
from sandbox.marshal.resources import GuestResource, give, host_types
from sandbox.marshal.shapes import INTEGERS, cases_of, class_of, kind_number
from sandbox.marshal.source import MAX_DEPTH, Source

MAX_TREE = 1 << 16
"""Words of a function's tree. A component can name types that double at each level."""
_ELEMENT = ("words", "signed", "doubles", "floats", "base", "cell", "part", "keep", "context")
"""Parameters, behind the value, of a function that writes one value somewhere in an array of words."""
_RUNTIME: dict[str, Any] = {
    "bad": cells.bad,
    "encode": str.encode,
    "HEADER": cells.BYTES_HEADER,
    "NAN": cells.NAN,
    "isinstance": isinstance,
    "str": str,
    "float": float,
    "tuple": tuple,
    "len": len,
    "id": id,
    "ord": ord,
    "Ok": Ok,
    "Err": Err,
    "Some": Some,
    "Case": Case,
    "GuestResource": GuestResource,
    "of_bytes": cells.of_bytes,
    "of_integers": cells.of_integers,
    "of_booleans": cells.of_booleans,
    "of_floats": cells.of_floats,
    "of_chars": cells.of_chars,
    "of_strings": cells.of_strings,
    "of_flags": cells.of_flags,
    "give": give,
}
_names: dict[str, bytes] = {}
"""Names as the engine reads them; they live as long as the process, whose templates have their addresses."""


class TypeTooLarge(AirssysError):
    """A function whose values need a larger tree than `MAX_TREE`."""

    code = "E_VALUE"


def name_words(name: str) -> tuple[int, int]:
    """Size and address of a name."""
    text = _names.setdefault(name, name.encode())
    return len(text), id(text) + cells.BYTES_HEADER


@dataclass(frozen=True)
class _At:
    """A word of the tree: `word` words behind what `base` names ("" is the beginning)."""

    base: str
    word: int

    def __add__(self, words: int) -> _At:
        return _At(self.base, self.word + words)

    @property
    def text(self) -> str:
        if not self.base:
            return str(self.word)
        return f"{self.base} + {self.word}" if self.word else self.base

    @property
    def half(self) -> str:
        """The same place counted in 32 bits."""
        return str(2 * self.word) if not self.base else f"2 * ({self.text})"


@dataclass
class _Tree:
    """A template in the making: words, and which of them point to which other word."""

    words: list[int] = field(default_factory=list)
    pointers: list[tuple[int, int]] = field(default_factory=list)

    def more(self, count: int) -> int:
        """Room for `count` words; the first."""
        if len(self.words) + count > MAX_TREE:
            raise TypeTooLarge("a type of more parts than this host marshals")
        first = len(self.words)
        self.words += [0] * count
        return first


class Lowering:
    """Writes the source for one function's parameters, or its result."""

    def __init__(self) -> None:
        self._source = Source(_RUNTIME)
        self._elements: dict[Type, str] = {}
        self._pending: list[tuple[cells.Elements, str]] = []

    def plan(self, kinds: tuple[Type, ...], title: str, result: bool) -> Lowered:
        """The plan for values of these types, side by side.

        Args:
            kinds: of the parameters, or of the one result.
            title: the function's name, for tracebacks.
            result: at the top of a result an ok value stands for itself.

        Raises:
            TypeTooLarge: the types have too many parts.
        """
        tree = _Tree()
        source = self._source
        names = tuple(f"a{number}" for number in range(len(kinds)))
        with source.define("lower", ("words", "signed", "doubles", "floats", "base", "keep", "context", *names)):
            tree.more(CELL_WORDS * len(kinds))
            for number, (kind, name) in enumerate(zip(kinds, names, strict=True)):
                cell = number * CELL_WORDS
                if result and isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType):
                    self._result(kind, name, cell, "", tree, top=True)
                else:
                    self._value(kind, name, cell, "", tree)
        namespace = source.made(title)
        for elements, name in self._pending:
            elements.write = namespace[name]
        return Lowered(namespace["lower"], tree.words, tree.pointers)

    # One method per type. `cell` and the parts that it takes from `tree` are numbers of words; in the source they are
    # counted from the beginning, or, within an element of a list, from `cell` and `part`.

    def _at(self, word: int, place: str) -> _At:
        if not place:
            return _At("", word)
        return _At("cell", word) if word < CELL_WORDS else _At("part", word - CELL_WORDS)

    def _value(self, kind: Type, value: str, cell: int, place: str, tree: _Tree) -> None:
        if self._source.depth > MAX_DEPTH:
            self._outlined(kind, value, cell, place, tree)
            return
        tree.words[cell] = kind_number(kind)
        at = self._at(cell, place) + 1
        match kind:
            case Primitive():
                self._primitive(kind.kind, value, at)
            case ListType():
                self._list(kind, value, at)
            case RecordType():
                self._record(kind, value, cell, place, tree)
            case TupleType():
                self._tuple(kind, value, cell, place, tree)
            case VariantType():
                self._variant(kind, value, cell, place, tree)
            case EnumType():
                self._enum(kind, value, at)
            case OptionType():
                self._option(kind, value, cell, place, tree)
            case ResultType():
                self._result(kind, value, cell, place, tree)
            case FlagsType():
                self._flags(kind, value, at)
            case HandleType():
                self._handle(kind, value, at)

    def _outlined(self, kind: Type, value: str, cell: int, place: str, tree: _Tree) -> None:
        """In a function of its own, because the one being written is nested too deeply. It works on the same tree."""
        name = self._source.new("f")
        # Only places that count from elsewhere need to be told where that is.
        with self._source.define(name, ("v", *_ELEMENT)):
            self._value(kind, "v", cell, place, tree)
        where = "cell, part" if place else "0, 0"
        self._source.line(f"{name}({value}, words, signed, doubles, floats, base, {where}, keep, context)")

    def _primitive(self, kind: str, value: str, at: _At) -> None:
        line = self._source.line
        if kind == "string":
            text = self._source.new()
            line(f"{text} = encode({value})")
            line(f"keep.append({text})")
            line(f"words[{at.text}] = len({text})")
            line(f"words[{(at + 1).text}] = id({text}) + HEADER")
        elif kind == "bool":
            line(f"words[{at.text}] = 1 if {value} is True else 0 if {value} is False else bad()")
        elif kind == "char":
            number = self._source.new()
            line(f"if not isinstance({value}, str): bad()")
            line(f"{number} = ord({value})")
            line(f"words[{at.text}] = bad() if 0xD7FF < {number} < 0xE000 else {number}")
        elif kind == "f64":
            line(f"if not isinstance({value}, float): bad()")
            line(f"doubles[{at.text}] = {value} if {value} == {value} else NAN")
        elif kind == "f32":
            line(f"if not isinstance({value}, float): bad()")
            line(f"floats[{at.half}] = {value} if {value} == {value} else NAN")
        elif kind == "u64":
            line(f"words[{at.text}] = {value}")  # an array of 64 bits refuses what they cannot hold
        elif kind == "s64":
            line(f"signed[{at.text}] = {value}")
        else:
            low, high = INTEGERS[kind]
            line(f"{'signed' if low else 'words'}[{at.text}] = {value} if {low} <= {value} <= {high} else bad()")

    def _list(self, kind: ListType, value: str, at: _At) -> None:
        element = kind.element
        if kind == BYTES:
            made = f"of_bytes({value}, keep)"
        elif isinstance(element, Primitive):
            match element.kind:
                case "bool":
                    made = f"of_booleans({value}, keep)"
                case "char":
                    made = f"of_chars({value}, keep)"
                case "string":
                    made = f"of_strings({value}, keep)"
                case "f32" | "f64":
                    made = f'of_floats("{element.kind}", {value}, keep)'
                case _:
                    made = f'of_integers("{element.kind}", {value}, keep)'
        else:
            made = f"{self._element(element)}.fill({value}, keep, context)"
        self._source.line(f"words[{(at + 1).text}] = {made}")
        self._source.line(f"words[{at.text}] = len({value})")

    def _element(self, kind: Type) -> str:
        """The name of the `Elements` for lists of `kind`."""
        known = self._elements.get(kind)
        if known is None:
            tree, name = _Tree(), self._source.new("f")
            tree.more(CELL_WORDS)
            with self._source.define(name, ("v", *_ELEMENT)):
                self._value(kind, "v", 0, "element", tree)
            words, pointers = tree.words, tree.pointers
            elements = cells.Elements(
                words[:CELL_WORDS],
                words[CELL_WORDS:],
                [(word, part - CELL_WORDS) for word, part in pointers if word < CELL_WORDS],
                [(word - CELL_WORDS, part - CELL_WORDS) for word, part in pointers if word >= CELL_WORDS],
            )
            self._pending.append((elements, name))
            known = self._elements[kind] = self._source.object(elements)
        return known

    def _record(self, kind: RecordType, value: str, cell: int, place: str, tree: _Tree) -> None:
        first = self._parts(len(kind.fields), ENTRY_WORDS, cell, tree)
        cls = class_of(kind)
        if cls is not None:
            self._source.line(f"if {value}.__class__ is not {self._source.object(cls)}: bad()")
            taken = [f"{value}.{name}" for name in cast("Any", cls).__struct_fields__]
        else:
            taken = self._unpacked(value, len(kind.fields))
        for number, ((name, member), expression) in enumerate(zip(kind.fields, taken, strict=True)):
            entry = first + number * ENTRY_WORDS
            tree.words[entry : entry + 2] = name_words(name)
            self._value(member, self._named(expression), entry + 2, place, tree)

    def _tuple(self, kind: TupleType, value: str, cell: int, place: str, tree: _Tree) -> None:
        first = self._parts(len(kind.elements), CELL_WORDS, cell, tree)
        for number, (member, name) in enumerate(
            zip(kind.elements, self._unpacked(value, len(kind.elements)), strict=True)
        ):
            self._value(member, name, first + number * CELL_WORDS, place, tree)

    def _parts(self, count: int, words: int, cell: int, tree: _Tree) -> int:
        """Room for all parts of a record or tuple, and the cell's pointer to it."""
        first = tree.more(count * words)
        tree.words[cell + 1] = count
        tree.pointers.append((cell + 2, first))
        return first

    def _unpacked(self, value: str, count: int) -> list[str]:
        self._source.line(f"if {value}.__class__ is not tuple or len({value}) != {count}: bad()")
        names = [self._source.new() for _ in range(count)]
        if names:
            self._source.line(f"{', '.join(names)}, = {value}")
        return names

    def _named(self, expression: str) -> str:
        name = self._source.new()
        self._source.line(f"{name} = {expression}")
        return name

    def _option(self, kind: OptionType, value: str, cell: int, place: str, tree: _Tree) -> None:
        at, source = self._at(cell, place) + 1, self._source
        part = tree.more(CELL_WORDS)
        with source.block(f"if {value} is None"):
            source.line(f"words[{at.text}] = 0")
        with source.block("else"):
            inner = value
            if may_be_none(kind.payload):
                source.line(f"if {value}.__class__ is not Some: bad()")
                inner = self._named(f"{value}.value")
            self._pointer(at, part, place)
            self._value(kind.payload, inner, part, place, tree)

    def _pointer(self, at: _At, part: int, place: str) -> None:
        target = self._at(part, place)
        self._source.line(f"words[{at.text}] = base + {WORD} * ({target.text})")

    def _payload(self, kind: Type | None, value: str, at: _At, place: str, tree: _Tree) -> None:
        """The payload of a result or variant, and the pointer to it; null without one, which is as the template is."""
        if kind is None:
            self._source.line(f"if {value} is not None: bad()")
            self._source.line(f"words[{at.text}] = 0")
            return
        part = tree.more(CELL_WORDS)
        self._pointer(at, part, place)
        self._value(kind, value, part, place, tree)

    def _result(self, kind: ResultType, value: str, cell: int, place: str, tree: _Tree, top: bool = False) -> None:
        tree.words[cell] = KINDS["result"]
        at, source = self._at(cell, place) + 1, self._source
        with source.block(f"if {value}.__class__ is Err"):
            source.line(f"words[{at.text}] = 0")
            self._payload(kind.err, self._named(f"{value}.value"), at + 1, place, tree)
        with source.block("else"):
            source.line(f"words[{at.text}] = 1")
            inner = value
            if not top:
                source.line(f"if {value}.__class__ is not Ok: bad()")
                inner = self._named(f"{value}.value")
            self._payload(kind.ok, inner, at + 1, place, tree)

    def _variant(self, kind: VariantType, value: str, cell: int, place: str, tree: _Tree) -> None:
        at, source, classes = self._at(cell, place) + 1, self._source, cases_of(kind)
        if classes is None:
            source.line(f"if {value}.__class__ is not Case: bad()")
            chosen = self._named(f"{value}.name")
        else:
            chosen = self._named(f"{value}.__class__")
        for number, (name, payload) in enumerate(kind.cases):
            test = f"== {source.object(name)}" if classes is None else f"is {source.object(classes[name])}"
            with source.block(f"{'elif' if number else 'if'} {chosen} {test}"):
                size, address = name_words(name)
                source.line(f"words[{at.text}] = {size}")
                source.line(f"words[{(at + 1).text}] = {address}")
                if payload is not None or classes is None:
                    self._payload(payload, self._named(f"{value}.value"), at + 2, place, tree)
                else:
                    source.line(f"words[{(at + 2).text}] = 0")
        with source.block("else"):
            source.line("bad()")

    def _enum(self, kind: EnumType, value: str, at: _At) -> None:
        cls, line = class_of(kind), self._source.line
        pair = self._source.new()
        if cls is None:
            table: dict[Any, tuple[int, int]] = {name: name_words(name) for name in kind.cases}
            line(f"{pair} = {self._source.object(table)}[{value}]")
        else:
            # By identity: an enum hashes its members in Python. They live as long as their class, which the source has.
            line(f"if {value}.__class__ is not {self._source.object(cls)}: bad()")
            table = {id(member): name_words(member.value) for member in cast("Any", cls)}
            line(f"{pair} = {self._source.object(table)}[id({value})]")
        line(f"words[{at.text}], words[{(at + 1).text}] = {pair}")

    def _flags(self, kind: FlagsType, value: str, at: _At) -> None:
        cls, source = class_of(kind), self._source
        names = self._named("[]")
        if cls is None:
            table: Any = {name: name_words(name) for name in kind.flags}
            source.line(f"{names} = [{source.object(table)}[name] for name in {self._set(value)}]")
        else:
            source.line(f"if {value}.__class__ is not {source.object(cls)}: bad()")
            table = [(1 << number, name_words(name)) for number, name in enumerate(kind.flags)]
            bits = self._named(f"{value}._value_")
            source.line(f"{names} = [name for bit, name in {source.object(table)} if {bits} & bit]")
        source.line(f"words[{at.text}] = len({names})")
        source.line(f"words[{(at + 1).text}] = of_flags({names}, keep)")

    def _set(self, value: str) -> str:
        self._source.line(f"if not isinstance({value}, {self._source.object((frozenset, set))}): bad()")
        return value

    def _handle(self, kind: HandleType, value: str, at: _At) -> None:
        number = host_types.get(kind.resource)
        if number is None:
            self._source.line(f"if not isinstance({value}, GuestResource): bad()")
            self._source.line(f"words[{at.text}] = {value}.address")
        else:
            self._source.line(f"words[{at.text}] = give(context, {value}, {number}, {kind.borrowed}, keep)")


@dataclass(frozen=True)
class Lowered:
    """A plan: the source's function, and the template it writes into."""

    write: Callable[..., None]
    words: list[int]
    pointers: list[tuple[int, int]]

    def template(self, base: int) -> bytes:
        """The tree as it is before a call, for a tree at address `base`."""
        words = array("Q", self.words)
        for word, part in self.pointers:
            words[word] = base + part * WORD
        return words.tobytes()
