"""Make a component out of a core module and a template: `python -m airssys.componentize TEMPLATE CORE OUT`.

A component (Component Model, Binary.md) is a list of sections. For a given set of imports everything in it but the
guest's own code is the same: types, import declarations, the shims that lower imports and lift exports. A template
is such a component, made once by wit-component, whose first core module is a dummy with the guest's imports and
exports and no code. Putting another core module in the dummy's place gives the component of that guest, without any
tool but Python. The dummy is the template's description of itself: what it imports is what a guest may import, what
it exports is what a guest must export, types included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CORE_HEADER = b"\0asm\x01\0\0\0"
COMPONENT_HEADER = b"\0asm\x0d\0\x01\0"
_CORE_MODULE = 1  # section of a component
_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT = 1, 2, 3, 4, 5, 6, 7  # sections of a core module
_KINDS = {0: "function", 1: "table", 2: "memory", 3: "global"}
_VALUES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}


class ComponentizeError(ValueError):
    """The template or the core module is not what it should be.

    Attributes:
        code: `E_TEMPLATE` (not a template), `E_CORE` (not a core module), or `E_MISMATCH` (they do not fit).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class CoreInterface:
    """What a core module asks for and offers.

    Attributes:
        imports: (module, name) -> signature, as `(i32, i32) -> ()`; functions only, anything else is refused.
        exports: name -> signature, or the word "memory", "table" or "global".
    """

    imports: dict[tuple[str, str], str]
    exports: dict[str, str]


class _Reader:
    """Bytes with a position; every read is checked against the end."""

    def __init__(self, data: bytes, code: str) -> None:
        self.data = data
        self.at = 0
        self.code = code

    def fail(self, what: str) -> ComponentizeError:
        return ComponentizeError(self.code, f"{what} at byte {self.at}")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.fail("unexpected end")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """Unsigned LEB128 of at most 32 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise self.fail("a number longer than 32 bits")
        if value >= 1 << 32:
            raise self.fail("a number longer than 32 bits")
        return value

    def name(self) -> str:
        try:
            return self.take(self.number()).decode()
        except UnicodeDecodeError:
            raise self.fail("a name that is not UTF-8") from None

    def signature(self) -> str:
        if self.byte() != 0x60:
            raise self.fail("a type that is not a plain function type")
        parameters = [self._value() for _ in range(self.number())]
        results = [self._value() for _ in range(self.number())]
        return f"({', '.join(parameters)}) -> ({', '.join(results)})"

    def _value(self) -> str:
        kind = self.byte()
        if kind not in _VALUES:
            raise self.fail(f"an unknown value type 0x{kind:02x}")
        return _VALUES[kind]

    def sections(self) -> Iterator[tuple[int, bytes]]:
        """(id, body) of each section behind the 8-byte header."""
        self.at = 8
        while self.at < len(self.data):
            section = self.byte()
            yield section, self.take(self.number())


def core_interface(core: bytes, *, code: str = "E_CORE") -> CoreInterface:
    """Read the imports and exports of a core module.

    Raises:
        ComponentizeError: with `code`, when it is malformed or imports anything but functions.
    """
    if core[:8] != CORE_HEADER:
        raise ComponentizeError(code, "not a core WebAssembly module")
    types: list[str] = []
    functions: list[str] = []  # by index; imports first
    imports: dict[tuple[str, str], str] = {}
    exports: dict[str, str] = {}
    for section, body in _Reader(core, code).sections():
        reader = _Reader(body, code)
        if section == _TYPE:
            types = [reader.signature() for _ in range(reader.number())]
        elif section == _IMPORT:
            for _ in range(reader.number()):
                module, name, kind = reader.name(), reader.name(), reader.byte()
                if kind != 0:
                    raise ComponentizeError(code, f"imports the {_KINDS.get(kind, 'item')} {module} {name}")
                imports[module, name] = _pick(types, reader)
                functions.append(imports[module, name])
        elif section == _FUNCTION:
            functions += [_pick(types, reader) for _ in range(reader.number())]
        elif section == _EXPORT:
            for _ in range(reader.number()):
                name, kind = reader.name(), reader.byte()
                exports[name] = _pick(functions, reader) if kind == 0 else _KINDS.get(kind, "item")
                if kind != 0:
                    reader.number()
    return CoreInterface(imports, exports)


def _pick(items: list[str], reader: _Reader) -> str:
    index = reader.number()
    if index >= len(items):
        raise reader.fail(f"index {index} out of {len(items)}")
    return items[index]


def check_fit(template: CoreInterface, guest: CoreInterface) -> None:
    """Whether `guest` can stand where the template's dummy stands.

    Raises:
        ComponentizeError: `E_MISMATCH`, naming the first import or export that does not fit.
    """
    for (module, name), signature in guest.imports.items():
        offered = template.imports.get((module, name))
        if offered is None:
            raise ComponentizeError("E_MISMATCH", f"the module imports {module} {name}, which this template lacks")
        if offered != signature:
            raise ComponentizeError("E_MISMATCH", f"import {module} {name} is {signature}, should be {offered}")
    for name, signature in template.exports.items():
        given = guest.exports.get(name)
        if given is None:
            raise ComponentizeError("E_MISMATCH", f"the module does not export {name}")
        if given != signature:
            raise ComponentizeError("E_MISMATCH", f"export {name} is {given}, should be {signature}")


def componentize(template: bytes, core: bytes) -> bytes:
    """The component of `core`.

    Raises:
        ComponentizeError: the template or the module is malformed, or they do not fit together.
    """
    dummy = template_core(template)
    check_fit(core_interface(dummy, code="E_TEMPLATE"), core_interface(core))
    return replace_core(template, core)


def template_core(template: bytes) -> bytes:
    """The first core module of a component.

    Raises:
        ComponentizeError: `E_TEMPLATE`, when it is no component or has none.
    """
    if template[:8] != COMPONENT_HEADER:
        raise ComponentizeError("E_TEMPLATE", "not a WebAssembly component")
    for section, body in _Reader(template, "E_TEMPLATE").sections():
        if section == _CORE_MODULE:
            return body
    raise ComponentizeError("E_TEMPLATE", "a component without a core module")


def replace_core(template: bytes, core: bytes) -> bytes:
    """`template` with its first core module replaced, unchecked otherwise. `template_core` must have accepted it."""
    out = bytearray(COMPONENT_HEADER)
    replaced = False
    for section, body in _Reader(template, "E_TEMPLATE").sections():
        first = section == _CORE_MODULE and not replaced
        replaced |= first
        content = core if first else body
        out.append(section)
        out += leb128(len(content))
        out += content
    return bytes(out)


def leb128(value: int) -> bytes:
    """Unsigned LEB128 of a number >= 0."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 8 (build failed) with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m airssys.componentize", description=(__doc__ or "").split(":")[0])
    parser.add_argument("template", type=Path, help="component made for the imports that are needed")
    parser.add_argument("core", type=Path, help="core module of the guest")
    parser.add_argument("out", type=Path, help="where the component goes")
    given = parser.parse_args(arguments)
    try:
        given.out.write_bytes(componentize(given.template.read_bytes(), given.core.read_bytes()))
    except (ComponentizeError, OSError) as error:
        print(f"airssys.componentize: {error}", file=sys.stderr)
        return 8
    return 0


if __name__ == "__main__":
    sys.exit(main())
