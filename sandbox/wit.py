"""A small parser for the WIT we use: packages of interfaces and worlds, read into frozen dataclasses.

Implements the subset of the Component Model's WIT.md that airssys:core, airssys:osl and the packages of WASI 0.2 need:
`package`, `interface` with `use`, `record`, `variant`, `enum`, `flags`, `type`, functions and `resource` with methods,
and `world` with `import` and `export` of interfaces. Constructors, static functions, streams, inline interfaces,
`include` and feature gates are refused by name: what this parser does not understand must not slip into the contract
unread. Documentation comments are kept.

A method becomes a function of its interface under the name it has in a component, `[method]pollable.ready`, with a
first parameter `self: borrow<pollable>`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sandbox.wit_lexer import KEYWORDS, Token, WitError, tokens

PRIMITIVES = frozenset(["bool", "char", "f32", "f64", "s16", "s32", "s64", "s8", "string", "u16", "u32", "u64", "u8"])
MAX_DEPTH = 32
"""Deepest nesting of type expressions; `list<list<...>>`."""
_T = TypeVar("_T")


# -- what is parsed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Type:
    """A type expression: a primitive, a name, or `list`, `option`, `tuple`, `result`, `borrow` of others.

    The name of a resource means owning it. `arguments` of a result are always (ok, error), either of them None where
    WIT says `_` or nothing.
    """

    head: str
    arguments: tuple[Type | None, ...] = ()

    def __str__(self) -> str:
        if self.head != "result":
            inner = ", ".join(str(argument) for argument in self.arguments)
            return f"{self.head}<{inner}>" if inner else self.head
        ok, error = self.arguments
        if error is None:
            return "result" if ok is None else f"result<{ok}>"
        return f"result<{ok or '_'}, {error}>"


@dataclass(frozen=True)
class Member:
    """A field of a record, a case of a variant or enum, a flag, or a parameter. `type` is None where there is none."""

    name: str
    type: Type | None
    docs: str = ""


@dataclass(frozen=True)
class TypeDef:
    """A named type. `kind` is record, variant, enum, flags (with `members`), type (with `alias`) or resource."""

    name: str
    kind: str
    members: tuple[Member, ...] = ()
    alias: Type | None = None
    docs: str = ""
    line: int = 0


@dataclass(frozen=True)
class Function:
    """A function of an interface; `result` is None when it returns nothing."""

    name: str
    parameters: tuple[Member, ...]
    result: Type | None
    docs: str = ""
    line: int = 0


@dataclass(frozen=True)
class Reference:
    """An interface by name: `storage` here, or with package and version (`airssys:core/storage@1.0.0`) anywhere."""

    interface: str
    package: str = ""
    version: str = ""
    line: int = 0


@dataclass(frozen=True)
class Use:
    """`use INTERFACE.{name as alias, ...}`; `names` are (name there, name here)."""

    source: Reference
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Interface:
    """An interface; `types` and `functions` in the order written."""

    name: str
    uses: tuple[Use, ...]
    types: tuple[TypeDef, ...]
    functions: tuple[Function, ...]
    docs: str = ""
    file: str = ""


@dataclass(frozen=True)
class World:
    """A world: the interfaces a component imports and exports."""

    name: str
    imports: tuple[Reference, ...]
    exports: tuple[Reference, ...]
    docs: str = ""
    file: str = ""


@dataclass(frozen=True)
class Package:
    """All files of one package."""

    name: str
    version: str
    interfaces: tuple[Interface, ...]
    worlds: tuple[World, ...]
    docs: str = ""

    def full_name(self, item: str) -> str:
        """`airssys:core/storage@1.0.0` for the interface or world `storage`."""
        return f"{self.name}/{item}" + (f"@{self.version}" if self.version else "")


# -- reading --------------------------------------------------------------------------------------------------------


def parse_directory(directory: Path) -> Package:
    """The package whose files are `directory/*.wit`.

    Raises:
        WitError: no or several packages, a file that is malformed or not UTF-8, or a name given twice.
    """
    files: dict[str, str] = {}
    for path in sorted(directory.glob("*.wit")):
        try:
            files[f"{directory.name}/{path.name}"] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise WitError("not UTF-8", subject=f"{directory.name}/{path.name}") from error
    return parse_files(files, subject=directory.name)


def parse_files(files: dict[str, str], *, subject: str = "") -> Package:
    """The package made of these files (name -> text). Raises: WitError, as `parse_directory`."""
    parsers = [_Parser(text, file) for file, text in files.items()]
    for parser in parsers:
        parser.file_items()
    named = [parser for parser in parsers if parser.package is not None]
    declared = {parser.package for parser in named}
    if len(declared) != 1:
        raise WitError("no package declaration" if not declared else "files of several packages", subject=subject)
    ((name, version),) = (pair for pair in declared if pair is not None)
    interfaces = [interface for parser in parsers for interface in parser.interfaces]
    worlds = [world for parser in parsers for world in parser.worlds]
    seen: set[str] = set()
    for name_of, file in [(item.name, item.file) for item in interfaces] + [(item.name, item.file) for item in worlds]:
        if name_of in seen:
            raise WitError(f"{name_of} is defined twice", subject=file)
        seen.add(name_of)
    docs = "\n".join(parser.package_docs for parser in named if parser.package_docs)
    return Package(name, version, tuple(interfaces), tuple(worlds), docs)


class _Parser:
    """Recursive descent over one file's tokens; one method per production, named after it."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.tokens = tokens(text, file)
        self.at = 0
        self.package: tuple[str, str] | None = None
        self.package_docs = ""
        self.interfaces: list[Interface] = []
        self.worlds: list[World] = []

    # tokens

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.next
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def error(self, message: str, token: Token | None = None) -> WitError:
        return WitError(message, subject=f"{self.file}:{(token or self.next).line}")

    def accept(self, kind: str) -> bool:
        if self.next.kind != kind:
            return False
        self.take()
        return True

    def expect(self, kind: str) -> Token:
        if self.next.kind != kind:
            raise self.error(f"expected `{kind}`, found `{self.next.text or 'the end of the file'}`")
        return self.take()

    def keyword(self, word: str) -> bool:
        """Take the keyword `word`, if it is next."""
        if self.next.kind != "word" or self.next.escaped or self.next.text != word:
            return False
        self.take()
        return True

    def name(self) -> str:
        token = self.expect("word")
        if token.text in KEYWORDS and not token.escaped:
            raise self.error(f"`{token.text}` is a keyword; write `%{token.text}` to use it as a name", token)
        return token.text

    def listed(self, item: Callable[[], _T], end: str) -> list[_T]:
        """Items between an opening that is already taken and `end`, with commas between and perhaps behind."""
        items = []
        while self.next.kind != end:
            items.append(item())
            if not self.accept(","):
                break
        self.expect(end)
        return items

    # file

    def file_items(self) -> None:
        while self.next.kind != "end":
            docs = self.next.docs
            if self.keyword("package"):
                self.package_declaration(docs)
            elif self.keyword("interface"):
                self.interfaces.append(self.interface(docs))
            elif self.keyword("world"):
                self.worlds.append(self.world(docs))
            else:
                raise self.error(f"expected package, interface or world, found `{self.next.text}`")

    def package_declaration(self, docs: str) -> None:
        if self.package is not None or self.interfaces or self.worlds:
            raise self.error("the package declaration must come first, and once")
        namespace = self.name()
        self.expect(":")
        self.package = (f"{namespace}:{self.name()}", self.version())
        self.package_docs = docs
        self.expect(";")

    def version(self) -> str:
        return self.take().text if self.next.kind == "version" else ""

    def reference(self) -> Reference:
        """`storage` or `airssys:core/storage@1.0.0`."""
        line = self.next.line
        first = self.name()
        if not self.accept(":"):
            return Reference(first, line=line)
        package = f"{first}:{self.name()}"
        self.expect("/")
        return Reference(self.name(), package, self.version(), line)

    # interfaces

    def interface(self, docs: str) -> Interface:
        name = self.name()
        self.expect("{")
        uses: list[Use] = []
        types: list[TypeDef] = []
        functions: list[Function] = []
        while not self.accept("}"):
            if self.keyword("use"):
                uses.append(self.use())
            elif (start := self.next) and self.keyword("resource"):
                types.append(TypeDef(self.name(), "resource", docs=start.docs, line=start.line))
                functions += self.methods(types[-1].name)
            elif definition := self.type_definition():
                types.append(definition)
            else:
                functions.append(self.function())
        seen: set[str] = set()
        used = [here for use in uses for _, here in use.names]
        for item in (*used, *(each.name for each in types), *(each.name for each in functions)):
            if item in seen:
                raise self.error(f"{item} is defined twice in interface {name}")
            seen.add(item)
        return Interface(name, tuple(uses), tuple(types), tuple(functions), docs, self.file)

    def use(self) -> Use:
        source = self.reference()
        self.expect(".")
        self.expect("{")
        names = self.listed(self.used_name, "}")
        self.expect(";")
        return Use(source, tuple(names))

    def used_name(self) -> tuple[str, str]:
        name = self.name()
        return name, self.name() if self.keyword("as") else name

    def type_definition(self) -> TypeDef | None:
        start = self.next
        if self.keyword("type"):
            name = self.name()
            self.expect("=")
            alias = self.type()
            self.expect(";")
            return TypeDef(name, "type", alias=alias, docs=start.docs, line=start.line)
        readers = {"record": self.field, "variant": self.case, "enum": self.label, "flags": self.label}
        for kind, reader in readers.items():
            if self.keyword(kind):
                name = self.name()
                self.expect("{")
                members = self.listed(reader, "}")
                self.distinct(members, f"{kind} {name}", start)
                if not members:
                    raise self.error(f"{kind} {name} is empty", start)
                return TypeDef(name, kind, tuple(members), docs=start.docs, line=start.line)
        return None

    def distinct(self, members: list[Member], where: str, token: Token) -> None:
        seen: set[str] = set()
        for member in members:
            if member.name in seen:
                raise self.error(f"{member.name} is given twice in {where}", token)
            seen.add(member.name)

    def field(self) -> Member:
        docs, name = self.next.docs, self.name()
        self.expect(":")
        return Member(name, self.type(), docs)

    def case(self) -> Member:
        docs, name = self.next.docs, self.name()
        payload = None
        if self.accept("("):
            payload = self.type()
            self.expect(")")
        return Member(name, payload, docs)

    def label(self) -> Member:
        docs = self.next.docs
        return Member(self.name(), None, docs)

    def methods(self, resource: str) -> list[Function]:
        """What follows a resource's name: `;`, or its methods in braces."""
        if self.accept(";"):
            return []
        self.expect("{")
        found = []
        this = Member("self", Type("borrow", (Type(resource),)))
        while not self.accept("}"):
            start, plain = self.next, self.function()
            parameters = (this, *plain.parameters)
            self.distinct(list(parameters), f"method {plain.name}", start)
            found.append(replace(plain, name=f"[method]{resource}.{plain.name}", parameters=parameters))
        return found

    def function(self) -> Function:
        start = self.next
        name = self.name()
        self.expect(":")
        if not self.keyword("func"):
            raise self.error(f"expected `func`, found `{self.next.text}`")
        self.expect("(")
        parameters = self.listed(self.field, ")")
        self.distinct(parameters, f"function {name}", start)
        result = self.type() if self.accept("->") else None
        self.expect(";")
        return Function(name, tuple(parameters), result, start.docs, start.line)

    # types

    def type(self, depth: int = 0) -> Type:
        if depth > MAX_DEPTH:
            raise self.error("types nested too deeply")
        token = self.expect("word")
        if token.escaped or token.text not in KEYWORDS:
            return Type(token.text)
        if token.text in PRIMITIVES:
            return Type(token.text)
        if token.text in ("list", "option"):
            self.expect("<")
            inner = self.type(depth + 1)
            self.expect(">")
            return Type(token.text, (inner,))
        if token.text == "tuple":
            self.expect("<")
            return Type("tuple", tuple(self.listed(lambda: self.type(depth + 1), ">")))
        if token.text == "borrow":
            self.expect("<")
            borrowed = Type(self.name())
            self.expect(">")
            return Type("borrow", (borrowed,))
        if token.text == "result":
            return self.result(depth)
        raise self.error(f"`{token.text}` is not a type this host knows", token)

    def result(self, depth: int) -> Type:
        if not self.accept("<"):
            return Type("result", (None, None))
        ok = None if self.accept("_") else self.type(depth + 1)
        error = self.type(depth + 1) if self.accept(",") else None
        self.expect(">")
        return Type("result", (ok, error))

    # worlds

    def world(self, docs: str) -> World:
        name = self.name()
        self.expect("{")
        imports: list[Reference] = []
        exports: list[Reference] = []
        while not self.accept("}"):
            if self.keyword("import"):
                imports.append(self.reference())
            elif self.keyword("export"):
                exports.append(self.reference())
            else:
                raise self.error(f"expected import or export, found `{self.next.text}`")
            self.expect(";")
        return World(name, tuple(imports), tuple(exports), docs, self.file)
