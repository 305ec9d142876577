"""The contract between the host and a component: which functions the host serves, and whether a component keeps to it.

The contract is not written down a second time: it is read from the WIT packages. `check_component` compares it with
the type wasmtime computes of a compiled component, function by function and type by type, so that a component built
against another version is refused at install with the name of what differs, and not at its first call.

Importing part of an interface is fine, and so are further exports; what the host calls is the lifecycle and, where a
component has it, the handler of topics.

WASI is served in one version. The Component Model links `0.2.x` to any other `0.2.y`, so a component may name whichever
its toolchain knows; a function that this host lacks is named like any other.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import wasmtime
from wasmtime import component as wt

from sandbox import resources
from sandbox.errors import AirssysError
from sandbox.patch import names
from sandbox.wit import Package, parse_directory
from sandbox.wit_resolve import MAX_SIGNATURE, Resolver, function_text, members_text, type_text

LIFECYCLE = names.LIFECYCLE
"""The interface every component must export."""
TOPIC_HANDLER = names.TOPIC_HANDLER
"""The interface that a component exports to get publications."""
PACKAGES = ("airssys-core", "airssys-osl", "airssys-messaging")
"""Directories of the packages that are the host's own."""
WASI_PACKAGES = ("wasi-io", "wasi-clocks", "wasi-random", "wasi-cli", "wasi-filesystem", "wasi-sockets")
"""Directories of the packages of WASI, of all of which every interface is served."""
WASI_VERSION = "0.2.12"
_WASI = re.compile(r"(wasi:[a-z0-9-]+/[a-z0-9-]+)@0\.2\.[0-9]+\Z")
_PRIMITIVES: dict[type, str] = {
    wt.Bool: "bool", wt.Char: "char", wt.String: "string", wt.F32: "f32", wt.F64: "f64",
    wt.U8: "u8", wt.U16: "u16", wt.U32: "u32", wt.U64: "u64",
    wt.S8: "s8", wt.S16: "s16", wt.S32: "s32", wt.S64: "s64",
}  # fmt: skip


class ContractError(AirssysError):
    """A component that does not fit. `E_IMPORTS` or `E_EXPORTS`; `subject` is `interface#function` or the import."""

    code = "E_IMPORTS"


@dataclass(frozen=True)
class Served:
    """One interface: its functions and types, by name, written out in full, and the resources that are its own."""

    functions: dict[str, str]
    types: dict[str, str]
    resources: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Contract:
    """What the host serves (`imports`, by full name as `airssys:core/storage@1.0.0`) and what it calls (`exports`)."""

    packages: tuple[Package, ...]
    imports: dict[str, Served]
    exports: dict[str, Served]

    def served(self, name: str) -> Served | None:
        """What is served to a component that imports `name`, whichever 0.2.x of WASI it names."""
        wasi = _WASI.match(name)
        return self.imports.get(f"{wasi[1]}@{WASI_VERSION}" if wasi else name)


@dataclass(frozen=True)
class ComponentFacts:
    """What a component that fits uses and offers.

    Attributes:
        imports: interface -> the functions it imports, both sorted; no functions where only types are imported.
        exports: names of everything it exports, sorted.
    """

    imports: dict[str, list[str]]
    exports: list[str]


@functools.cache
def load() -> Contract:
    """The contract; files are read by the first call only, so a process that enters a cage calls it before.

    Raises:
        WitError: a package is damaged.
        FileNotFoundError: the packages are not where they belong.
    """
    root = resources.wit_directory()
    own = tuple(parse_directory(root / name) for name in PACKAGES)
    wasi = tuple(parse_directory(root / name) for name in WASI_PACKAGES)
    packages = own + wasi
    resolver = Resolver.of(packages)
    imports: dict[str, Served] = {}
    exports: dict[str, Served] = {}
    for package in packages:
        for world in package.worlds:
            for table, found in (
                (imports, resolver.imported(package, world)),
                (exports, resolver.exported(package, world)),
            ):
                for home, interface in found:
                    table[home.full_name(interface.name)] = Served(
                        resolver.functions(home, interface), resolver.types(home, interface)
                    )
        for interface in package.interfaces:
            # Types alone need no host; a component may import them whatever its world. WASI belongs to every world.
            if not interface.functions or package in wasi:
                resources_ = frozenset(each.name for each in interface.types if each.kind == "resource")
                imports.setdefault(
                    package.full_name(interface.name),
                    Served(resolver.functions(package, interface), resolver.types(package, interface), resources_),
                )
    return Contract(packages, imports, exports)


# -- checking a component --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Added:
    """Reserved names that a patch put into a component: exports of its root, and functions of its imports."""

    exports: frozenset[str] = frozenset()
    imports: Mapping[str, frozenset[str]] = field(default_factory=dict)


def check_component(
    component_type: wt.ComponentType, engine: wasmtime.Engine, added: Added | None = None
) -> ComponentFacts:
    """Compare a compiled component with the contract.

    Args:
        component_type: its type, as the engine has it.
        engine: the engine.
        added: what a patch added. It is left out of the facts; any other name that is reserved is refused.

    Raises:
        ContractError: `E_IMPORTS`, it asks for something the host does not serve, or serves with another type;
            `E_EXPORTS`, the lifecycle is missing, or a function of it, or has another type.
        ReservedName: it uses a name of the host's own.
    """
    added = added or Added()
    contract = load()
    imports: dict[str, list[str]] = {}
    resources_ = _Resources()
    for name, extern in component_type.imports(engine).items():
        served = contract.served(name)
        if served is None:
            raise ContractError(
                "the component imports what this host does not serve" + _of_wasi(name),
                subject=_short(name),
                hint=f"it serves {', '.join(sorted(n for n, s in contract.imports.items() if s.functions))}",
            )
        imports[name] = _check_import(name, extern.ty, served, engine, resources_, added.imports.get(name, frozenset()))
    exports = {name: extern.ty for name, extern in component_type.exports(engine).items()}
    exports = {name: kind for name, kind in exports.items() if not _is_added(name, kind, added.exports)}
    _check_exported(LIFECYCLE, exports.get(LIFECYCLE), contract.exports[LIFECYCLE], engine)
    if TOPIC_HANDLER in exports:
        _check_exported(TOPIC_HANDLER, exports[TOPIC_HANDLER], contract.exports[TOPIC_HANDLER], engine)
    return ComponentFacts(dict(sorted(imports.items())), sorted(exports))


def _of_wasi(name: str) -> str:
    if not name.startswith("wasi:"):
        return ""
    return f"; of WASI it serves version 0.2 of {', '.join(each.removeprefix('wasi-') for each in WASI_PACKAGES)}"


class _Resources:
    """The component's resources, with the names the contract has for them."""

    def __init__(self) -> None:
        self._known: list[tuple[wt.ResourceType, str]] = []

    def add(self, resource: wt.ResourceType, text: str) -> None:
        """It is imported from the interface that it belongs to."""
        if self.own(resource) is None:
            self._known.append((resource, text))

    def own(self, resource: wt.ResourceType) -> str | None:
        """`own<wasi:io/poll.pollable>`, or None for one that is not of the contract."""
        return next((text for known, text in self._known if known == resource), None)


def _check_import(
    name: str,
    kind: wt.ComponentItem,
    served: Served,
    engine: wasmtime.Engine,
    resources_: _Resources,
    added: frozenset[str],
) -> list[str]:
    """The functions of one imported interface."""
    if not isinstance(kind, wt.ComponentInstanceType):
        raise ContractError("the component imports this as something other than an interface", subject=name)
    functions = []
    for item, extern in kind.exports(engine).items():
        item_type = extern.ty
        if _is_added(item, item_type, added):
            continue
        known = served.functions if isinstance(item_type, wt.FuncType) else served.types
        subject = f"{name}#{_short(item)}"
        if item not in known:
            raise ContractError("the component imports what this host does not serve", subject=subject)
        if isinstance(item_type, wt.ResourceType) and item in served.resources:
            resources_.add(item_type, known[item])
        found = item_text(item_type, resources_)
        if found != known[item]:
            raise ContractError(f"the host has {known[item]}, the component wants {found}", subject=subject)
        if isinstance(item_type, wt.FuncType):
            functions.append(item)
    return sorted(functions)


def _is_added(name: str, kind: wt.ComponentItem, added: frozenset[str]) -> bool:
    """Whether this is one of the names added. Raises ReservedName for any other that is reserved."""
    if not names.reserved(name):
        return False
    wanted = names.RESERVE_TYPE if name == names.RESERVE else names.FAST_TYPE
    if name not in added or not isinstance(kind, wt.FuncType) or item_text(kind) != wanted:
        raise names.ReservedName("names that begin with x-airssys- are the host's own", subject=_short(name))
    return True


def _check_exported(interface: str, kind: wt.ComponentItem | None, wanted: Served, engine: wasmtime.Engine) -> None:
    if not isinstance(kind, wt.ComponentInstanceType):
        raise ContractError(
            "the component does not export its lifecycle" if interface == LIFECYCLE else "this is no interface",
            subject=interface,
            hint="build it for the world airssys:core/runtime-host or airssys:osl/osl-host",
            code="E_EXPORTS",
        )
    given = {name: extern.ty for name, extern in kind.exports(engine).items()}
    for name, expected in wanted.functions.items():
        subject = f"{interface}#{name}"
        item = given.get(name)
        if not isinstance(item, wt.FuncType):
            raise ContractError("the component does not export this function", subject=subject, code="E_EXPORTS")
        found = item_text(item)
        if found != expected:
            message = f"the host calls {expected}, the component has {found}"
            raise ContractError(message, subject=subject, code="E_EXPORTS")


# -- types as wasmtime tells them --------------------------------------------------------------------------------------


def item_text(item: wt.ComponentItem, resources_: _Resources | None = None) -> str:
    """The canonical text of a function's or a type's wasmtime description, in the form `sandbox.wit_resolve` writes.

    What the contract's language has no word for (a resource not among `resources_`, a stream, a nested component) comes
    out as `unknown TypeName`, and what is longer than any type of ours as `too long`; neither equals anything.
    """
    writer = _Writer(resources_ or _Resources())
    text = writer.function(item) if isinstance(item, wt.FuncType) else writer.type(item)
    return "too long" if writer.left < 0 else text


class _Writer:
    """Writes types out, at most `MAX_SIGNATURE` parts of them: a component can name types that double at each level."""

    def __init__(self, resources_: _Resources) -> None:
        self.left = MAX_SIGNATURE
        self._resources = resources_

    def function(self, item: wt.FuncType) -> str:
        given = [(name, self.type(kind)) for name, kind in item.params]
        return function_text(given, None if item.result is None else self.type(item.result))

    def type(self, item: object) -> str:
        self.left -= 1
        if self.left < 0:
            return ""
        if type(item) in _PRIMITIVES:
            return _PRIMITIVES[type(item)]
        if isinstance(item, wt.ListType):
            return type_text("list", [self.type(item.element)])
        if isinstance(item, wt.OptionType):
            return type_text("option", [self.type(item.payload)])
        if isinstance(item, wt.ResultType):
            return type_text("result", [self._perhaps(item.ok), self._perhaps(item.err)])
        if isinstance(item, wt.TupleType):
            return type_text("tuple", [self.type(element) for element in item.elements])
        if isinstance(item, wt.RecordType):
            return members_text("record", [(name, self.type(kind)) for name, kind in item.fields])
        if isinstance(item, wt.VariantType):
            return members_text("variant", [(name, self._perhaps(kind)) for name, kind in item.cases])
        if isinstance(item, wt.EnumType):
            return members_text("enum", [(name, None) for name in item.names])
        if isinstance(item, wt.FlagsType):
            return members_text("flags", [(name, None) for name in item.names])
        if isinstance(item, wt.ResourceType | wt.OwnType | wt.BorrowType):
            return self._handle(item)
        return f"unknown {type(item).__name__}"

    def _handle(self, item: wt.ResourceType | wt.OwnType | wt.BorrowType) -> str:
        text = self._resources.own(item if isinstance(item, wt.ResourceType) else item.ty)
        if text is None:
            return "unknown resource"
        return "borrow" + text.removeprefix("own") if isinstance(item, wt.BorrowType) else text

    def _perhaps(self, item: object | None) -> str | None:
        return None if item is None else self.type(item)


def _short(text: str) -> str:
    """A stranger's name, cut to what an error message can carry."""
    return text if len(text) <= 200 else text[:200] + "..."
