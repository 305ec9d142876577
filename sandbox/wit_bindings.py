"""Python modules made from WIT packages: a class per type, and every function's signature as `sandbox.abi.types`.

What `scripts/make-bindings` writes into `sandbox/bindings/`. The same packages give the same text.
"""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Iterator

from sandbox.abi.of_wit import Reader
from sandbox.abi.types import (
    BOOL,
    BYTES,
    STRING,
    U8,
    U32,
    U64,
    EnumType,
    FlagsType,
    HandleType,
    ListType,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
    may_be_none,
)
from sandbox.wit import Interface, Package
from sandbox.wit_lexer import WitError
from sandbox.wit_resolve import Resolver

_WIDTH = 120
_CONSTANTS: dict[Type, str] = {
    STRING: "STRING", BOOL: "BOOL", U8: "U8", U32: "U32", U64: "U64", BYTES: "BYTES",
}  # fmt: skip
"""Types that `sandbox.abi.types` has a name for."""
_PYTHON = {"bool": "bool", "f32": "float", "f64": "float", "char": "str", "string": "str"}
_Named = RecordType | VariantType | EnumType | FlagsType


def module_name(package: str) -> str:
    """`airssys_core` for `airssys:core`."""
    return package.replace(":", "_").replace("-", "_")


def field_name(name: str) -> str:
    """`reply_to` for `reply-to`; a word that Python keeps for itself gets an underscore behind it."""
    snake = name.replace("-", "_").lower()
    return snake + "_" if keyword.iskeyword(snake) else snake


def class_name(name: str) -> str:
    """`ComponentId` for `component-id`."""
    return "".join(part.capitalize() for part in name.split("-"))


def modules(packages: Iterable[Package]) -> dict[str, str]:
    """Each package's module, by file name.

    Raises:
        WitError: a package is damaged, or two of its types would have one name in Python.
    """
    packages = tuple(packages)
    reader = Reader(Resolver.of(packages))
    return {f"{module_name(package.name)}.py": _Module(package, reader).text() for package in packages}


class _Module:
    """One package's module while it is written."""

    def __init__(self, package: Package, reader: Reader) -> None:
        self._package = package
        self._reader = reader
        self._docs = {
            f"{package.full_name(interface.name)}#{each.name}": each.docs
            for interface in package.interfaces
            for each in interface.types
        }
        self._written: dict[str, Type] = {}
        self._lines: list[str] = []
        self._classes: list[str] = []
        self._names: set[str] = set()
        self._abi: set[str] = set()
        self._siblings: set[str] = set()
        self._modules: set[str] = set()

    def text(self) -> str:
        """All of it."""
        for interface in self._package.interfaces:
            for kind in self._reader.types(self._package, interface).values():
                self._define_all(kind)
        functions = [line for interface in self._package.interfaces for line in self._functions(interface)]
        lines = [*self._head(), *_spaced([*self._lines, "", *self._tables(functions)])]
        return "\n".join(part for text in lines for line in text.split("\n") for part in _folded(line)) + "\n"

    def _head(self) -> Iterator[str]:
        name = self._package.full_name("").replace("/", "")
        yield f'"""{name} in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""'
        yield ""
        yield "# fmt: off"
        yield "from __future__ import annotations"
        yield ""
        if "enum" in self._modules:
            yield "import enum"
            yield ""
        if "msgspec" in self._modules:
            yield "import msgspec"
            yield ""
        yield from _imported("sandbox.abi.types", self._abi | {"Function"})
        if self._siblings:
            yield from _imported("sandbox.bindings", self._siblings)

    def _tables(self, functions: list[str]) -> Iterator[str]:
        yield "CLASSES: dict[str, type | dict[str, type]] = {" + ("" if self._classes else "}")
        if self._classes:
            yield from self._classes
            yield "}"
        yield ""
        yield "FUNCTIONS: dict[str, dict[str, Function]] = {"
        yield from functions
        yield "}"

    # types

    def _define_all(self, kind: Type) -> None:
        """Write the class of each type of this package that `kind` is made of, parts first."""
        for part in _parts(kind):
            self._define_all(part)
        if isinstance(kind, _Named) and self._home(kind) == "" and kind.name not in self._written:
            self._written[kind.name] = kind
            self._define(kind)

    def _define(self, kind: _Named) -> None:
        short = kind.name.rpartition("#")[2]
        name = self._taken(class_name(short), kind.name)
        docs = list(_docstring(self._docs[kind.name] or f"`{short}`."))
        match kind:
            case RecordType():
                fields = [f"    {field_name(each)}: {self._python(of)}" for each, of in kind.fields]
                self._class(name, "msgspec.Struct, frozen=True, gc=False", [*docs, "", *fields])
                self._classes.append(f'    "{kind.name}": {name},')
            case EnumType():
                members = [f'    {each.replace("-", "_").upper()} = "{each}"' for each in kind.cases]
                self._class(name, "enum.Enum", [*docs, "", *members])
                self._classes.append(f'    "{kind.name}": {name},')
            case FlagsType():
                members = [
                    f"    {each.replace('-', '_').upper()} = {1 << number}" for number, each in enumerate(kind.flags)
                ]
                self._class(name, "enum.Flag", [*docs, "", *members])
                self._classes.append(f'    "{kind.name}": {name},')
            case VariantType():
                self._variant(kind, name, docs)
        constant = self._taken(_constant(short), kind.name)
        self._lines += [f"{constant} = {self._literal(kind)}"]

    def _variant(self, kind: VariantType, name: str, docs: list[str]) -> None:
        cases = {each: self._taken(name + class_name(each), kind.name) for each, _ in kind.cases}
        for each, payload in kind.cases:
            body = [] if payload is None else ["", f"    value: {self._python(payload)}"]
            self._class(cases[each], "msgspec.Struct, frozen=True, gc=False", [f'    """`{each}`."""', *body])
        self._lines += list(_wrapped(f"{name} = ", list(cases.values()), " | "))
        self._lines += [each.removeprefix("    ") for each in docs]
        listed = [f'        "{case}": {cls},' for case, cls in cases.items()]
        self._classes += [f'    "{kind.name}": {{', *listed, "    },"]

    def _class(self, name: str, bases: str, body: list[str]) -> None:
        self._modules.add(bases.partition(".")[0])
        self._lines += ["", "", f"class {name}({bases}):", *body, "", ""]

    def _taken(self, name: str, what: str) -> str:
        if name in self._names or not name.isidentifier():
            raise WitError(f"{name} cannot be the name of {what} in Python", subject=self._package.name)
        self._names.add(name)
        return name

    # how a type is written

    def _home(self, kind: _Named) -> str:
        """The module of a named type with a dot behind it; "" for this one."""
        package = kind.name.partition("/")[0]
        if package == self._package.name:
            return ""
        self._siblings.add(module_name(package))
        return f"{module_name(package)}."

    def _python(self, kind: Type | None) -> str:
        """The annotation of a value."""
        match kind:
            case None:
                return "None"
            case Primitive():
                return _PYTHON.get(kind.kind, "int")
            case RecordType() | VariantType() | EnumType() | FlagsType():
                return self._home(kind) + class_name(kind.name.rpartition("#")[2])
            case ListType():
                return "bytes" if kind == BYTES else f"list[{self._python(kind.element)}]"
            case TupleType():
                return f"tuple[{', '.join(map(self._python, kind.elements))}]"
            case OptionType():
                return f"{self._used('Some') if may_be_none(kind.payload) else self._python(kind.payload)} | None"
            case ResultType():
                return f"{self._used('Ok')} | {self._used('Err')}"
            case HandleType():
                return "int"

    def _type(self, kind: Type) -> str:
        """An expression that makes the type."""
        if kind in _CONSTANTS:
            return self._used(_CONSTANTS[kind])
        if isinstance(kind, _Named):
            return self._home(kind) + _constant(kind.name.rpartition("#")[2])
        return self._literal(kind)

    def _literal(self, kind: Type) -> str:
        made = self._used(type(kind).__name__)
        match kind:
            case Primitive():
                return f'{made}("{kind.kind}")'
            case ListType():
                return f"{made}({self._type(kind.element)})"
            case OptionType():
                return f"{made}({self._type(kind.payload)})"
            case TupleType():
                return f"{made}({_tuple(map(self._type, kind.elements))})"
            case ResultType():
                return f"{made}({self._perhaps(kind.ok)}, {self._perhaps(kind.err)})"
            case HandleType():
                return f'{made}("{kind.resource}", borrowed={kind.borrowed})'
            case RecordType():
                parts = [f'("{name}", {self._type(of)})' for name, of in kind.fields]
            case VariantType():
                parts = [f'("{name}", {self._perhaps(of)})' for name, of in kind.cases]
            case EnumType():
                parts = [f'"{name}"' for name in kind.cases]
            case FlagsType():
                parts = [f'"{name}"' for name in kind.flags]
        inner = (
            [f"    ({parts[0]},),"] if len(parts) == 1 else ["    (", *(f"        {part}," for part in parts), "    ),"]
        )
        return "\n".join([f"{made}(", *inner, f'    "{kind.name}",', ")"])

    def _perhaps(self, kind: Type | None) -> str:
        return "None" if kind is None else self._type(kind)

    def _used(self, name: str) -> str:
        self._abi.add(name)
        return name

    # functions

    def _functions(self, interface: Interface) -> Iterator[str]:
        functions = self._reader.functions(self._package, interface)
        if not functions:
            return
        yield f'    "{self._package.full_name(interface.name)}": {{'
        for name, function in functions.items():
            yield f'        "{name}": Function('
            yield f'            "{name}",'
            given = [f'("{each}", {self._type(of)})' for each, of in function.parameters]
            if len(given) > 1:
                yield from ("            (", *(f"                {each}," for each in given), "            ),")
            else:
                yield f"            {_tuple(given)},"
            if function.result is not None:
                yield f"            {self._type(function.result)},"
            yield "        ),"
        yield "    },"


def _parts(kind: Type) -> Iterator[Type]:
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


def _constant(short: str) -> str:
    return short.replace("-", "_").upper()


def _tuple(parts: Iterable[str]) -> str:
    listed = list(parts)
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"


def _docstring(text: str) -> Iterator[str]:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    lines = textwrap.wrap(paragraph, _WIDTH - 12, break_long_words=False, break_on_hyphens=False)
    lines = [each.replace("\\", "\\\\") for each in lines]
    if len(lines) == 1:
        yield f'    """{lines[0]}"""'
        return
    yield f'    """{lines[0]}'
    yield from (f"    {each}" for each in lines[1:])
    yield '    """'


def _imported(module: str, names: Iterable[str]) -> Iterator[str]:
    # Constants, classes, the rest: the order of isort.
    ordered = sorted(names, key=lambda name: (not name.isupper(), name.islower(), _natural(name)))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= _WIDTH:
        yield line
    else:
        yield f"from {module} import ("
        yield from (f"    {name}," for name in ordered)
        yield ")"


def _folded(line: str) -> Iterator[str]:
    """In lines that are not too long, broken behind commas."""
    deeper = " " * (len(line) - len(line.lstrip()) + 4)
    while len(line) > _WIDTH and ", " in line:
        end = line.rindex(", ", 0, _WIDTH) + 1
        yield line[:end]
        line = deeper + line[end + 1 :]
    yield line


def _spaced(lines: list[str]) -> Iterator[str]:
    """With two blank lines together at most."""
    blank = 0
    for line in lines:
        blank = 0 if line else blank + 1
        if blank <= 2:
            yield line


def _natural(name: str) -> tuple[str, int]:
    """U8 before U32."""
    letters = name.rstrip("0123456789")
    return letters, int(name.removeprefix(letters) or 0)


def _wrapped(start: str, parts: list[str], between: str) -> Iterator[str]:
    line = start + between.join(parts)
    if len(line) <= _WIDTH:
        yield line
        return
    yield f"{start}("
    yield f"    {parts[0]}"
    yield from (f"    {between.strip()} {part}" for part in parts[1:])
    yield ")"
