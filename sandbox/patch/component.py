"""A component's index spaces, read from its bytes. Reference: Component Model, `design/mvp/Binary.md`.

Each definition of a component goes into the index space of its sort, in order; what the patch never looks at is
there as `Opaque`, for its place counts. Nothing is validated beyond what reading needs: the engine does that, with
what comes out. Nested components are read too; what is inside core modules is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from sandbox.patch import binary
from sandbox.patch.binary import Budget, Bytes, Reader, Unreadable
from sandbox.patch.names import ReservedName, reserved

MAX_NESTING = 20
"""Components inside each other."""
MAX_TYPE_NESTING = 40
"""Types of instances and components inside each other."""

CUSTOM, CORE_MODULE, CORE_INSTANCE, CORE_TYPE, COMPONENT, INSTANCE, ALIAS, TYPE, CANON = range(9)
IMPORT, EXPORT = 10, 11
"""Numbers of sections."""
CORE_SORTS = {
    0: "core func", 1: "core table", 2: "core memory", 3: "core global", 4: "core tag",
    0x10: "core type", 0x11: "core module", 0x12: "core instance",
}  # fmt: skip
SORTS = {1: "func", 2: "value", 3: "type", 4: "component", 5: "instance"}


@dataclass(frozen=True, slots=True)
class Ref:
    """An index in the index space of a sort."""

    sort: str
    index: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something whose place counts."""


@dataclass(frozen=True, slots=True)
class Import:
    """What the component is given under a name; `type` is the index of its type, None for a type."""

    name: str
    type: int | None


@dataclass(frozen=True, slots=True)
class Export:
    """Exporting makes a new index for what `ref` is."""

    ref: Ref


@dataclass(frozen=True, slots=True)
class AliasExport:
    """An export of an instance; of a core instance where the sort is a core sort."""

    instance: int
    name: str


@dataclass(frozen=True, slots=True)
class Instantiate:
    """An instance made of a component or, with core instances as arguments, of a core module."""

    of: int
    arguments: dict[str, Ref]


@dataclass(frozen=True, slots=True)
class Inline:
    """An instance put together of what there is."""

    exports: dict[str, Ref]


@dataclass(frozen=True, slots=True)
class Module:
    """A core module: where its bytes are."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Options:
    """Canonical options; `plain` when there are none but an encoding, memory, realloc and post-return."""

    encoding: str = "utf8"
    memory: int | None = None
    realloc: int | None = None
    post_return: int | None = None
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Lift:
    """A component function made of a core function."""

    function: int
    options: Options


@dataclass(frozen=True, slots=True)
class Lower:
    """A core function made of a component function."""

    function: int
    options: Options


@dataclass(frozen=True, slots=True)
class InstanceType:
    """The type of an instance, written out: `start` to `end` are the vector of its declarations, `declarations` of them
    beginning at `first`; `types` is how many types its own index space has."""

    start: int
    first: int
    end: int
    declarations: int
    types: int


Item: TypeAlias = (
    "Opaque | Import | Export | AliasExport | Instantiate | Inline | Module | Lift | Lower | InstanceType | Component"
)


@dataclass
class Component:
    """One component. Offsets, here and in its items, are those of `data`.

    Attributes:
        data: its bytes.
        sections: all of them, in order.
        spaces: sort -> its definitions in order.
        exports: what it exports, by name.
        nested: for each index in the space of components, the number of the section it is in, None for others.
    """

    data: memoryview
    sections: list[binary.Section] = field(default_factory=list)
    spaces: dict[str, list[Item]] = field(
        default_factory=lambda: {sort: [] for sort in (*CORE_SORTS.values(), *SORTS.values())}
    )
    exports: dict[str, Ref] = field(default_factory=dict)
    nested: dict[int, int] = field(default_factory=dict)

    def item(self, ref: Ref) -> Item:
        """What is defined there. Raises Unreadable when nothing is."""
        space = self.spaces[ref.sort]
        if ref.index >= len(space):
            raise Unreadable(f"there is no {ref.sort} {ref.index}")
        return space[ref.index]

    def add(self, sort: str, item: Item) -> None:
        """The next definition of this sort."""
        self.spaces[sort].append(item)


def parse(data: Bytes) -> Component:
    """Read a component.

    Raises:
        Unreadable: the bytes are damaged, too much, or hold what this reader does not know.
        ReservedName: a name of the host's own occurs in it.
    """
    return _parse(memoryview(data), Budget(), 0)


def _parse(data: memoryview, budget: Budget, depth: int) -> Component:
    if depth > MAX_NESTING:
        raise Unreadable(f"components nested more than {MAX_NESTING} deep")
    component = Component(data)
    for section in binary.sections(data, binary.COMPONENT_HEADER, budget):
        component.sections.append(section)
        if section.number == CORE_MODULE:
            component.add("core module", Module(section.body, section.end))
        elif section.number == COMPONENT:
            component.nested[len(component.spaces["component"])] = len(component.sections) - 1
            component.add("component", _parse(data[section.body : section.end], budget, depth + 1))
        elif section.number in _SECTIONS:
            reader = _ComponentReader(data, budget, section.body, section.end)
            for _ in reader.items():
                _SECTIONS[section.number](reader, component)
            reader.finish()
        elif section.number == CORE_TYPE:
            pass  # nothing else refers to one by its index but types, which are passed over, and core modules' imports
        elif section.number != CUSTOM:
            raise Unreadable(f"a section of the unknown kind {section.number}")
    return component


class _ComponentReader(Reader):
    """Reads what occurs in several sections."""

    __slots__ = ()

    def name(self) -> str:
        found = super().name()
        if reserved(found):
            raise ReservedName("names that begin with x-airssys- are the host's own", subject=found[:200])
        return found

    def extern_name(self) -> str:
        """The name of an import or export; a version suffix, an older form, means nothing more."""
        self.one_of(0, 1)
        return self.name()

    def sort(self) -> str:
        """A sort of component or core definitions."""
        number = self.byte()
        found = CORE_SORTS.get(self.byte()) if number == 0 else SORTS.get(number)
        if found is None:
            raise Unreadable(f"unknown sort, at {self.at}")
        return found

    def ref(self) -> Ref:
        return Ref(self.sort(), self.u32())

    def core_ref(self) -> Ref:
        sort = CORE_SORTS.get(self.byte())
        if sort is None:
            raise Unreadable(f"unknown core sort, at {self.at}")
        return Ref(sort, self.u32())

    def argument(self) -> tuple[str, Ref]:
        return self.name(), self.ref()

    def core_argument(self) -> tuple[str, Ref]:
        name = self.name()
        self.one_of(0x12)
        return name, Ref("core instance", self.u32())

    def inline_export(self) -> tuple[str, Ref]:
        return self.extern_name(), self.ref()

    def core_inline_export(self) -> tuple[str, Ref]:
        return self.name(), self.core_ref()

    def description(self) -> Ref:
        """An externdesc: its sort, and the index of its type (of a type's bound, where there is one)."""
        kind = self.byte()
        if kind == 0:
            self.one_of(0x11)
            return Ref("core module", self.u32())
        if kind == 3:
            return Ref("type", self.u32() if self.one_of(0, 1) == 0 else 0)
        if kind in (1, 4, 5):
            return Ref(SORTS[kind], self.u32())
        raise Unreadable(f"unknown kind of import or export, at {self.at}")

    def value_type(self) -> None:
        """An index, or a primitive type as a negative number."""
        self.signed(33)

    def labelled(self) -> None:
        self.name()
        self.value_type()


# -- types, which are passed over --------------------------------------------------------------------------------------


def _types(reader: _ComponentReader, component: Component) -> None:
    component.add("type", _definition(reader, 0))


def _definition(reader: _ComponentReader, depth: int) -> Opaque | InstanceType:
    """One deftype."""
    kind = reader.byte()
    if kind == 0x42:
        return _instance_type(reader, depth)
    if kind == 0x41:
        for _ in reader.items():
            if reader.peek() == 3:
                reader.byte()
                reader.extern_name()
                reader.description()
            else:
                _declaration(reader, depth)
    elif kind in _TYPES:
        _TYPES[kind](reader)
    elif not 0x73 <= kind <= 0x7F and kind != 0x64:
        raise Unreadable(f"unknown type {kind:#04x}, at {reader.at}")
    return Opaque()


def _instance_type(reader: _ComponentReader, depth: int) -> InstanceType:
    start = reader.at
    declarations = reader.items()
    first, types = reader.at, 0
    for _ in declarations:
        types += _declaration(reader, depth)
    return InstanceType(start, first, reader.at, len(declarations), types)


def _declaration(reader: _ComponentReader, depth: int) -> bool:
    """One instancedecl; whether it adds a type to the index space."""
    if depth >= MAX_TYPE_NESTING:
        raise Unreadable(f"types nested more than {MAX_TYPE_NESTING} deep")
    kind = reader.one_of(1, 2, 4)
    if kind == 1:
        _definition(reader, depth + 1)
        return True
    if kind == 2:
        sort, _alias = _alias_target(reader)
        return sort == "type"
    reader.extern_name()
    return reader.description().sort == "type"


def _function_type(reader: _ComponentReader) -> None:
    reader.vector(reader.labelled)
    if reader.one_of(0, 1) == 0:
        reader.value_type()
    else:
        reader.one_of(0)


def _case(reader: _ComponentReader) -> None:
    reader.name()
    reader.optional(reader.value_type)
    reader.one_of(0)


def _resource(reader: _ComponentReader) -> None:
    reader.one_of(0x7F)
    reader.optional(reader.u32)


def _fixed_list(reader: _ComponentReader) -> None:
    reader.value_type()
    reader.u32()


def _twice(item: Callable[[_ComponentReader], object]) -> Callable[[_ComponentReader], None]:
    def both(reader: _ComponentReader) -> None:
        item(reader)
        item(reader)

    return both


_TYPES: dict[int, Callable[[_ComponentReader], object]] = {
    0x40: _function_type,
    0x43: _function_type,  # async
    0x3F: _resource,
    0x72: lambda reader: reader.vector(reader.labelled),  # record
    0x71: lambda reader: reader.vector(lambda: _case(reader)),  # variant
    0x70: _ComponentReader.value_type,  # list
    0x6F: lambda reader: reader.vector(reader.value_type),  # tuple
    0x6E: lambda reader: reader.vector(reader.name),  # flags
    0x6D: lambda reader: reader.vector(reader.name),  # enum
    0x6B: _ComponentReader.value_type,  # option
    0x6A: _twice(lambda reader: reader.optional(reader.value_type)),  # result
    0x69: _ComponentReader.u32,  # own
    0x68: _ComponentReader.u32,  # borrow
    0x67: _fixed_list,
    0x66: lambda reader: reader.optional(reader.value_type),  # stream
    0x65: lambda reader: reader.optional(reader.value_type),  # future
    0x63: _twice(_ComponentReader.value_type),  # map
}


# -- definitions -------------------------------------------------------------------------------------------------------


def _core_instances(reader: _ComponentReader, component: Component) -> None:
    if reader.one_of(0, 1) == 0:
        of = reader.u32()
        component.add("core instance", Instantiate(of, dict(reader.vector(reader.core_argument))))
    else:
        component.add("core instance", Inline(dict(reader.vector(reader.core_inline_export))))


def _instances(reader: _ComponentReader, component: Component) -> None:
    if reader.one_of(0, 1) == 0:
        of = reader.u32()
        component.add("instance", Instantiate(of, dict(reader.vector(reader.argument))))
    else:
        component.add("instance", Inline(dict(reader.vector(reader.inline_export))))


def _alias_target(reader: _ComponentReader) -> tuple[str, Opaque | AliasExport]:
    sort = reader.sort()
    if reader.one_of(0, 1, 2) == 2:
        reader.u32(), reader.u32()
        return sort, Opaque()
    return sort, AliasExport(reader.u32(), reader.name())


def _aliases(reader: _ComponentReader, component: Component) -> None:
    component.add(*_alias_target(reader))


def _options(reader: _ComponentReader) -> Options:
    encoding, plain = "utf8", True
    indices: dict[int, int] = {}
    for _ in reader.items():
        kind = reader.one_of(*range(9))
        if kind <= 2:
            encoding = ("utf8", "utf16", "latin1+utf16")[kind]
        elif kind in (3, 4, 5):
            indices[kind] = reader.u32()
        else:
            plain = False  # async, callback, core type
            if kind != 6:
                reader.u32()
    return Options(encoding, indices.get(3), indices.get(4), indices.get(5), plain)


def _canons(reader: _ComponentReader, component: Component) -> None:
    kind = reader.byte()
    if kind == 0:
        reader.one_of(0)
        function, options = reader.u32(), _options(reader)
        reader.u32()
        component.add("func", Lift(function, options))
    elif kind == 1:
        reader.one_of(0)
        component.add("core func", Lower(reader.u32(), _options(reader)))
    elif kind in _BUILTINS:
        for part in _BUILTINS[kind]:
            part(reader)
        component.add("core func", Opaque())
    else:
        raise Unreadable(f"unknown canonical definition {kind:#04x}, at {reader.at}")


def _results(reader: _ComponentReader) -> None:
    if reader.one_of(0, 1) == 0:
        reader.value_type()
    else:
        reader.one_of(0)


def _flag(reader: _ComponentReader) -> None:
    reader.one_of(0, 1)


_index, _storage = _ComponentReader.u32, (_ComponentReader.byte, _ComponentReader.u32)
_BUILTINS: dict[int, tuple[Callable[[_ComponentReader], object], ...]] = {
    2: (_index,), 3: (_index,), 4: (_index,), 7: (_index,),  # resource.new, .drop, .rep, .drop async
    5: (), 8: (), 0x24: (), 0x25: (),  # task.cancel, backpressure.set, .inc, .dec
    9: (_results, _options),  # task.return
    0x0A: _storage, 0x0B: _storage,  # context.get, .set
    0x0C: (_flag,), 6: (_flag,), 0x0D: (),  # thread.yield, subtask.cancel, .drop
    0x0E: (_index,), 0x0F: (_index, _options), 0x10: (_index, _options),  # stream.new, .read, .write
    0x11: (_index, _flag), 0x12: (_index, _flag), 0x13: (_index,), 0x14: (_index,),  # stream.cancel-*, .drop-*
    0x15: (_index,), 0x16: (_index, _options), 0x17: (_index, _options),  # future.new, .read, .write
    0x18: (_index, _flag), 0x19: (_index, _flag), 0x1A: (_index,), 0x1B: (_index,),  # future.cancel-*, .drop-*
    0x1C: (_options,), 0x1D: (_options,), 0x1E: (),  # error-context.new, .debug-message, .drop
    0x1F: (), 0x20: (_flag, _index), 0x21: (_flag, _index), 0x22: (), 0x23: (),  # waitable-set.*, waitable.join
}  # fmt: skip
"""What follows the number of each canonical built-in function; each makes one core function."""


def _imports(reader: _ComponentReader, component: Component) -> None:
    name, what = reader.extern_name(), reader.description()
    component.add(what.sort, Import(name, what.index if what.sort != "type" else None))


def _exports(reader: _ComponentReader, component: Component) -> None:
    name, ref = reader.extern_name(), reader.ref()
    reader.optional(reader.description)
    component.add(ref.sort, Export(ref))
    component.exports[name] = ref


_SECTIONS: dict[int, Callable[[_ComponentReader, Component], None]] = {
    CORE_INSTANCE: _core_instances,
    INSTANCE: _instances,
    ALIAS: _aliases,
    TYPE: _types,
    CANON: _canons,
    IMPORT: _imports,
    EXPORT: _exports,
}
