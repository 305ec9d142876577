"""Which imported functions a core module puts into an imported table when it is instantiated.

A component encoder cannot give a module a host function that needs the module's own memory before that module exists.
So the module is given functions of a small table instead, and a last module, which has nothing but imports and an
element segment, fills the table with the lowered host functions. That last module is what is read here, by its
structure alone. Reference: WebAssembly core specification 2.0, "Binary format, Modules".
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.patch import binary
from sandbox.patch.binary import Budget, Bytes, Reader, Unreadable

_CUSTOM, _TYPE, _IMPORT, _START, _ELEMENT, _DATA_COUNT = 0, 1, 2, 8, 9, 12
_FUNCTION, _TABLE = 0, 1
_I32_CONST, _END = 0x41, 0x0B


@dataclass(frozen=True)
class Filler:
    """A module that fills a table: (module, name) of the table's import, and slot -> (module, name) of a function's."""

    table: tuple[str, str]
    slots: dict[int, tuple[str, str]]


def filler(data: Bytes, budget: Budget) -> Filler | None:
    """What the module fills; None for a module that does, or may do, anything else."""
    try:
        return _filler(data, budget)
    except Unreadable:
        return None  # some other module: what this reader does not know, a filler does not hold


def _filler(data: Bytes, budget: Budget) -> Filler | None:
    known = (_CUSTOM, _TYPE, _IMPORT, _START, _ELEMENT, _DATA_COUNT)
    found = {}
    for section in binary.sections(data, binary.CORE_HEADER, budget):
        if section.number not in known:
            return None
        if section.number in (_IMPORT, _ELEMENT):
            found[section.number] = Reader(data, budget, section.body, section.end)
    if found.keys() != {_IMPORT, _ELEMENT}:
        return None
    functions, tables = _imports(found[_IMPORT])
    if len(tables) != 1:
        return None
    slots: dict[int, tuple[str, str]] = {}
    reader = found[_ELEMENT]
    for _ in reader.items():
        first = _offset(reader)
        for place, index in enumerate(reader.vector(reader.u32)):
            if index >= len(functions):
                return None
            slots[first + place] = functions[index]
    reader.finish()
    return Filler(tables[0], slots)


def _imports(reader: Reader) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The functions and the tables, each by (module, name)."""
    functions, tables = [], []
    for _ in reader.items():
        name = (reader.name(), reader.name())
        kind = reader.one_of(_FUNCTION, _TABLE)
        if kind == _FUNCTION:
            reader.u32()
            functions.append(name)
        else:
            reader.one_of(0x70)  # funcref
            for _bound in range(1 + reader.one_of(0, 1)):
                reader.u32()
            tables.append(name)
    reader.finish()
    return functions, tables


def _offset(reader: Reader) -> int:
    """The head of an active segment of table 0 that lists functions by index: where it begins."""
    reader.one_of(0)
    reader.one_of(_I32_CONST)
    offset = reader.signed(32) & 0xFFFFFFFF
    reader.one_of(_END)
    return offset
