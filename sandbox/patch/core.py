"""Which imported functions a core module puts into imported tables when it is instantiated.

A component encoder cannot give a module a host function that needs the module's own memory before that module exists.
So the module is given functions that call through a small table, and a last module fills the table with the lowered
host functions. It is not known by any name: what counts is that an element segment puts a function that the module
imports into a table that it imports. Reference: WebAssembly core specification 2.0, "Binary format, Modules".

What code puts into a table later is not looked for; toolchains do not do that with these tables.
"""

from __future__ import annotations

from typing import TypeAlias

from sandbox.patch import binary
from sandbox.patch.binary import Budget, Bytes, Reader, Unreadable

_IMPORT, _ELEMENT = 2, 9
_FUNCTION, _TABLE, _MEMORY, _GLOBAL = range(4)
_NUMBERS, _FUNCREF = (0x7F, 0x7E, 0x7D, 0x7C, 0x7B), 0x70
_I32_CONST, _GLOBAL_GET, _REF_FUNC, _REF_NULL, _END = 0x41, 0x23, 0xD2, 0xD0, 0x0B

Name: TypeAlias = tuple[str, str]
"""An import's module and name."""
Filled: TypeAlias = dict[tuple[Name, int], "Name | None"]
"""Table and slot -> the function put there, None for one of the module's own."""


def filled(data: Bytes) -> Filled:
    """What the module puts into tables that it imports; nothing, where that cannot be read."""
    budget = Budget()
    try:
        found = {
            section.number: Reader(data, budget, section.body, section.end)
            for section in binary.sections(data, binary.CORE_HEADER, budget)
            if section.number in (_IMPORT, _ELEMENT)
        }
        if len(found) < 2:
            return {}
        functions, tables = _imports(found[_IMPORT])
        return _elements(found[_ELEMENT], functions, tables) if tables else {}
    except Unreadable:
        return {}


def _imports(reader: Reader) -> tuple[list[Name], list[Name]]:
    """The functions and the tables of functions."""
    functions: list[Name] = []
    tables: list[Name] = []
    for _ in reader.items():
        name = (reader.name(), reader.name())
        kind = reader.one_of(_FUNCTION, _TABLE, _MEMORY, _GLOBAL)
        if kind == _FUNCTION:
            reader.u32()
            functions.append(name)
        elif kind == _GLOBAL:
            reader.one_of(*_NUMBERS)
            reader.one_of(0, 1)
        else:
            if kind == _TABLE:
                reader.one_of(_FUNCREF)
                tables.append(name)
            for _bound in range(1 + reader.one_of(0, 1)):
                reader.u32()
    return functions, tables


def _elements(reader: Reader, functions: list[Name], tables: list[Name]) -> Filled:
    found: Filled = {}
    for _ in reader.items():
        kind = reader.one_of(*range(8))
        table, offset = 0, None
        if not kind & 1:  # active
            table = reader.u32() if kind & 2 else 0
            offset = _offset(reader)
        if kind & 3:
            reader.one_of(_FUNCREF if kind & 4 else 0)
        listed = reader.vector(lambda: _function(reader)) if kind & 4 else reader.vector(reader.u32)
        if offset is None or table >= len(tables):
            continue
        for slot, index in enumerate(listed, offset):
            found[tables[table], slot] = functions[index] if index is not None and index < len(functions) else None
    return found


def _offset(reader: Reader) -> int | None:
    """Where a segment begins; None where a global says it."""
    if reader.one_of(_I32_CONST, _GLOBAL_GET) == _GLOBAL_GET:
        reader.u32()
        offset = None
    else:
        offset = reader.signed(32) & 0xFFFFFFFF
    reader.one_of(_END)
    return offset


def _function(reader: Reader) -> int | None:
    """A function as an expression."""
    index = None
    if reader.one_of(_REF_FUNC, _REF_NULL) == _REF_FUNC:
        index = reader.u32()
    else:
        reader.one_of(_FUNCREF)
    reader.one_of(_END)
    return index
