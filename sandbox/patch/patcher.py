"""The patch: an adapter appended to a component, inside the component that lifts `handle-message`.

Appending shifts no index, so everything that was there stays byte for byte, but for one thing: imported instances are
given further functions, and that changes their types in place (each such type's own index space grows at its end).

1. Read the component (`component`). A name of the host's own in it refuses it.
2. Follow the exported lifecycle to the `canon lift` of each fast export (`trace`); where it is, is the place.
3. At the place, find the fast imports: `canon lower`s of functions of an imported interface that an element segment
   (`core`) puts into a table through which the guest calls them. One that is passed on in any other way stays as it
   is, and so does one whose options differ: it must use the memory of the lift, and UTF-8.
4. Give the imported instance types `x-airssys-<function>: func()`, at the place and at each level outside it.
5. Append at the place: the adapter; the new functions, lowered; the adapter's instance, made last, so that it writes
   its functions over those in the table, which it calls itself until the worker has taken it into use; its exports,
   lifted and exported.
6. At each level outside, append an alias of each such export, and export that.

Nothing is relied on for safety. A component that is built to mislead this gets an adapter that misbehaves towards the
component's own memory; the adapter is code in the component's sandbox, and reaches nothing that is not the component's
but its scratch memory and host functions the component imports anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sandbox.patch import binary, core, names
from sandbox.patch.adapter import AdapterExport, AdapterImport, Unsuitable, adapter, suits_export, suits_import
from sandbox.patch.binary import Bytes, Unreadable, section, u32, vector
from sandbox.patch.component import (
    ALIAS,
    CANON,
    CORE_INSTANCE,
    CORE_MODULE,
    EXPORT,
    TYPE,
    AliasExport,
    Component,
    Import,
    Inline,
    InstanceType,
    Instantiate,
    Lift,
    Lower,
    Module,
    Options,
    Ref,
    parse,
)
from sandbox.patch.trace import Scope, Steps, export_of, resolve, resolve_core
from sandbox.types import FastExport

_FUNC, _INSTANCE = b"\x01", b"\x05"
_CORE_FUNC, _CORE_TABLE, _CORE_MEMORY = b"\x00", b"\x01", b"\x02"
_EXPORT_OF, _CORE_EXPORT_OF = b"\x00", b"\x01"
_NOTHING = b"\x40\x00\x01\x00"
"""The type func()."""
_RESERVE = b"\x40" + vector([binary.name("nonce") + b"\x79", binary.name("bytes") + b"\x79"]) + b"\x00\x79"
"""The type func(nonce: u32, bytes: u32) -> u32."""


class Declined(Exception):
    """The component cannot be patched, or need not be; it runs on the general path. Says why."""


@dataclass(frozen=True)
class Patched:
    """A patched component. `exports` are the functions of the lifecycle that are fast, `imports` those of each imported
    interface, by their own names."""

    wasm: bytes
    exports: tuple[FastExport, ...]
    imports: dict[str, tuple[str, ...]]


def check_names(data: Bytes) -> None:
    """Refuse a component that is not patched, too, when it uses a name of the host's.

    Raises:
        ReservedName: it does.
    """
    try:
        parse(data)
    except Unreadable:
        return  # what stands at the root of a component, the contract's check sees as well


def patch(data: Bytes) -> Patched:
    """Patch a component; the same bytes always become the same bytes.

    Raises:
        Declined: it runs on the general path.
        ReservedName: it uses a name of the host's.
    """
    try:
        return _patch(parse(data))
    except (Unreadable, Unsuitable) as error:
        raise Declined(str(error)) from error


def _patch(root: Component) -> Patched:
    outside = Scope(root, Steps())
    place, lifts = _place(outside)
    memory = resolve_core(place, Ref("core memory", _memory(lifts[0].lift.options)))
    imports = _imports(place, memory)
    edits: dict[tuple[int, ...], _Edits] = {}
    lifted = {each.name for each in lifts}
    exports = tuple(name for name in names.FAST_EXPORTS if name in lifted)
    for scope in _outwards(place):
        edits[scope.path] = _Edits(scope.component)
    kept = []
    for each in imports:
        if _extend(place, each, edits):
            kept.append(each)
    added = _append(place, lifts, kept)
    for scope in _outwards(place):
        body = edits[scope.path].apply(added)
        if scope.parent is not None:
            edits[scope.parent.path].replace(scope.parent.component.nested[scope.nested], body)
            added = _pass_on(scope.parent.component, scope.instance, exports)
    fast: dict[str, list[str]] = {}
    for each in kept:
        fast.setdefault(each.interface, []).append(each.name)
    return Patched(body, exports, {interface: tuple(functions) for interface, functions in fast.items()})


def _outwards(place: Scope) -> Iterator[Scope]:
    scope: Scope | None = place
    while scope is not None:
        yield scope
        scope = scope.parent


# -- what is there -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _FastExport:
    name: FastExport
    lift: Lift


@dataclass(frozen=True)
class _FastImport:
    """A fast import that the guest calls through slot `slot` of the core table `table`; `lowered` is the core function
    that stands there."""

    interface: str
    name: str
    instance: int
    lowered: int
    options: Options
    table: AliasExport
    slot: int


def _place(outside: Scope) -> tuple[Scope, list[_FastExport]]:
    """Where the fast exports are lifted, and how."""
    place: Scope | None = None
    found: list[_FastExport] = []
    for name, interface in names.FAST_EXPORTS.items():
        try:
            where, lift = _lift(outside, interface, name)
            if place is not None and not _together(place, found[0].lift, where, lift):
                raise Declined(f"{name} is elsewhere")
        except Declined:
            if not found:  # the first is what the adapter is for
                raise
            continue
        place = where
        found.append(_FastExport(name, lift))
    assert place is not None
    return place, found


def _together(place: Scope, first: Lift, where: Scope, lift: Lift) -> bool:
    if place.path != where.path:
        return False
    memories = [resolve_core(place, Ref("core memory", _memory(each.options))) for each in (first, lift)]
    return memories[0] == memories[1]


def _lift(outside: Scope, interface: str, name: str) -> tuple[Scope, Lift]:
    ref = outside.component.exports.get(interface)
    if ref is None or ref.sort != "instance":
        raise Declined(f"it does not export the {'lifecycle' if interface == names.LIFECYCLE else interface}")
    at = export_of(outside, ref, name)
    if at is None:
        raise Declined(f"{name} is not to be found")
    where, _, item = resolve(*at)
    if not isinstance(item, Lift):
        raise Declined(f"{name} is not lifted in this component")
    options = item.options
    if not options.plain or options.encoding != "utf8" or options.memory is None or options.realloc is None:
        raise Declined(f"{name} is not lifted with UTF-8, a memory and an allocator")
    if not suits_export(names.functions()[interface][name]):
        raise Declined(f"{name} has a type no adapter is made for")
    return where, item


def _memory(options: Options) -> int:
    assert options.memory is not None
    return options.memory


def _imports(place: Scope, memory: Ref | AliasExport) -> list[_FastImport]:
    """The fast imports that can be intercepted, all through one table, in the order of `names.FAST_IMPORTS`."""
    lowered = _lowered(place, memory)
    found: dict[tuple[str, str], _FastImport] = {}
    the_table: AliasExport | None = None
    for table, slot, function in _slots(place):
        if function not in lowered:
            continue
        interface, name, instance, options = lowered[function]
        the_table = the_table or table
        if table == the_table:
            found.setdefault((interface, name), _FastImport(interface, name, instance, function, options, table, slot))
    order = [(interface, name) for interface, all_names in names.FAST_IMPORTS.items() for name in all_names]
    return [found[key] for key in order if key in found]


def _lowered(place: Scope, memory: Ref | AliasExport) -> dict[int, tuple[str, str, int, Options]]:
    """Index of a core function -> interface, function, the instance it is of, and the options it was lowered with."""
    found = {}
    component = place.component
    known = {name for functions in names.FAST_IMPORTS.values() for name in functions}
    for index, item in enumerate(component.spaces["core func"]):
        if not isinstance(item, Lower):
            continue
        of = component.item(Ref("func", item.function))
        if not isinstance(of, AliasExport) or of.name not in known:
            continue
        interface = _interface(place, Ref("instance", of.instance))
        if interface is None or of.name not in names.FAST_IMPORTS.get(interface, ()):
            continue
        options = item.options
        if not options.plain or options.encoding != "utf8" or options.memory is None:
            continue
        if resolve_core(place, Ref("core memory", options.memory)) != memory:
            continue
        function = names.functions()[interface][of.name]
        if suits_import(function):
            found[index] = (interface, of.name, of.instance, options)
    return found


def _interface(scope: Scope, ref: Ref) -> str | None:
    """The interface, as the root imports it, that an instance is, if each level hands on its own import unchanged."""
    while True:
        item = scope.component.item(ref)
        if not isinstance(item, Import) or ref.sort != "instance":
            return None
        if scope.parent is None:
            return item.name
        given = (scope.arguments or {}).get(item.name)
        if given is None:
            return None
        scope, ref = scope.parent, given


def _slots(place: Scope) -> Iterator[tuple[AliasExport, int, int]]:
    """The slots that element segments fill: table, slot, index of the core function. Later ones overwrite earlier."""
    component = place.component
    known: dict[int, core.Filled] = {}
    filled: dict[tuple[AliasExport, int], int] = {}
    for item in component.spaces["core instance"]:
        if not isinstance(item, Instantiate):
            continue
        module = component.item(Ref("core module", item.of))
        if not isinstance(module, Module):
            continue
        if item.of not in known:
            known[item.of] = core.filled(component.data[module.start : module.end])
        for (imported, slot), function in known[item.of].items():
            place.steps.take()
            table = _given(place, item, imported)
            if not isinstance(table, AliasExport):
                continue
            given = None if function is None else _given(place, item, function)
            if isinstance(given, Ref):
                filled[table, slot] = given.index
            else:
                filled.pop((table, slot), None)
    for (table, slot), index in filled.items():
        yield table, slot, index


def _given(place: Scope, instance: Instantiate, imported: core.Name) -> Ref | AliasExport | None:
    """What a core instance is given for an import (module, name)."""
    module, name = imported
    argument = instance.arguments.get(module)
    if argument is None:
        return None
    given = place.component.item(argument)
    if isinstance(given, Inline):
        return resolve_core(place, given.exports[name]) if name in given.exports else None
    return AliasExport(argument.index, name)


# -- what is changed in place ------------------------------------------------------------------------------------------


@dataclass
class _Edits:
    """What becomes of one component: new functions for instance types, new bodies for sections, more at its end."""

    component: Component
    bodies: dict[int, bytes] = field(default_factory=dict)
    functions: dict[int, list[str]] = field(default_factory=dict)
    """Index of an instance type -> functions to be added to it."""

    def replace(self, number: int, body: bytes) -> None:
        """Give the section with this number another body."""
        self.bodies[number] = body

    def apply(self, added: bytes) -> bytes:
        """The component's new bytes."""
        component = self.component
        cuts: list[tuple[int, int, bytes]] = []
        for index, functions in self.functions.items():
            kind = component.spaces["type"][index]
            assert isinstance(kind, InstanceType)
            cuts.append((kind.start, kind.end, _with_functions(component, kind, functions)))
        cuts.sort()
        parts: list[Bytes] = [binary.COMPONENT_HEADER]
        for number, each in enumerate(component.sections):
            inside = [cut for cut in cuts if each.body <= cut[0] < each.end] if each.number == TYPE else []
            if number in self.bodies:
                parts.append(section(each.number, self.bodies[number]))
            elif inside:
                parts.append(section(each.number, _cut(component.data, each.body, each.end, inside)))
            else:
                parts.append(component.data[each.start : each.end])
        return b"".join([*parts, added])


def _cut(data: memoryview, start: int, end: int, cuts: Iterable[tuple[int, int, bytes]]) -> bytes:
    parts: list[Bytes] = []
    for first, last, instead in cuts:
        parts += [data[start:first], instead]
        start = last
    return b"".join([*parts, data[start:end]])


def _with_functions(component: Component, kind: InstanceType, functions: list[str]) -> bytes:
    """The declarations of an instance type and one func() more for each of these names."""
    more = [
        b"\x01" + _NOTHING + b"\x04\x00" + binary.name(names.fast(name)) + b"\x01" + u32(kind.types + number)
        for number, name in enumerate(functions)
    ]
    count = u32(kind.declarations + 2 * len(functions))
    return b"".join([count, component.data[kind.first : kind.end], *more])


def _extend(place: Scope, imported: _FastImport, edits: dict[tuple[int, ...], _Edits]) -> bool:
    """Have the function added to the type of the imported instance, here and outwards; False when that cannot be."""
    chain: list[tuple[Scope, int]] = []
    ref = Ref("instance", imported.instance)
    for scope in _outwards(place):
        component = scope.component
        item = component.item(ref)
        assert isinstance(item, Import)
        index = item.type
        if index is None or not isinstance(component.item(Ref("type", index)), InstanceType):
            return False
        # A type that two imports share would give both of them the function.
        if sum(isinstance(each, Import) and each.type == index for each in component.spaces["instance"]) > 1:
            return False
        chain.append((scope, index))
        if scope.arguments is not None:
            ref = scope.arguments[item.name]
    for scope, index in chain:
        edits[scope.path].functions.setdefault(index, []).append(imported.name)
    return True


# -- what is appended --------------------------------------------------------------------------------------------------


class _Tail:
    """Sections to be appended to a component, and the indices that its definitions get."""

    def __init__(self, component: Component) -> None:
        self._next = {sort: len(items) for sort, items in component.spaces.items()}
        self._parts: list[bytes] = []

    def add(self, number: int, sort: str, items: list[bytes]) -> list[int]:
        """A section of definitions of one sort; their indices."""
        if not items:
            return []
        self._parts.append(section(number, vector(items)))
        return self._indices(sort, len(items))

    def module(self, body: bytes) -> int:
        """A core module."""
        self._parts.append(section(CORE_MODULE, body))
        return self._indices("core module", 1)[0]

    def _indices(self, sort: str, count: int) -> list[int]:
        first = self._next[sort]
        self._next[sort] += count
        return list(range(first, first + count))

    def inline(self, exports: list[tuple[str, bytes, int]]) -> int:
        """A core instance of (name, sort, index)."""
        items = [binary.name(name) + sort + u32(index) for name, sort, index in exports]
        return self.add(CORE_INSTANCE, "core instance", [b"\x01" + vector(items)])[0]

    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


class _Reallocs:
    """The allocators in use, numbered: most guests have one, under several indices."""

    def __init__(self, place: Scope) -> None:
        self._place = place
        self._known: list[Ref | AliasExport] = []
        self.indices: list[int] = []

    def number(self, index: int) -> int:
        """The number of the allocator that is the core function `index`."""
        what = resolve_core(self._place, Ref("core func", index))
        if what not in self._known:
            self._known.append(what)
            self.indices.append(index)
        return self._known.index(what)


def _append(place: Scope, lifts: list[_FastExport], imports: list[_FastImport]) -> bytes:
    component = place.component
    tail = _Tail(component)
    reallocs = _Reallocs(place)
    exported, imported = [], []
    functions = names.functions()
    for each in lifts:
        assert each.lift.options.realloc is not None
        number = reallocs.number(each.lift.options.realloc)
        post = each.lift.options.post_return is not None
        exported.append(AdapterExport(each.name, functions[names.FAST_EXPORTS[each.name]][each.name], number, post))
    for one in imports:
        given = one.options.realloc
        realloc = None if given is None else reallocs.number(given)
        imported.append(AdapterImport(one.interface, one.name, functions[one.interface][one.name], realloc, one.slot))
    module = tail.module(adapter(exported, imported, len(reallocs.indices)))
    arguments = [("guest", _guest(tail, lifts, reallocs.indices))]
    if imports:
        arguments.append(("host", _host(tail, imports)))
        before = [(f"{each.interface}#{each.name}", _CORE_FUNC, each.lowered) for each in imports]
        arguments.append(("general", tail.inline(before)))
        (table,) = _aliases(tail, "core table", _CORE_TABLE, [(imports[0].table.instance, imports[0].table.name)])
        arguments.append(("shim", tail.inline([("table", _CORE_TABLE, table)])))
    given_to = vector(binary.name(name) + b"\x12" + u32(instance) for name, instance in arguments)
    (instance,) = tail.add(CORE_INSTANCE, "core instance", [b"\x00" + u32(module) + given_to])
    wanted = [(names.RESERVE, "reserve"), (names.TAKE, "take")]
    wanted += [(names.fast(each.name), each.name) for each in lifts]
    cores = _aliases(tail, "core func", _CORE_FUNC, [(instance, name) for _, name in wanted])
    reserve, nothing = tail.add(TYPE, "type", [_RESERVE, _NOTHING])
    kinds = [reserve] + [nothing] * (len(wanted) - 1)
    lifted = [b"\x00\x00" + u32(index) + b"\x00" + u32(kind) for index, kind in zip(cores, kinds, strict=True)]
    _export(tail, [name for name, _ in wanted], tail.add(CANON, "func", lifted))
    return tail.bytes()


def _guest(tail: _Tail, lifts: list[_FastExport], reallocs: list[int]) -> int:
    """The core instance of what the adapter needs of the guest."""
    exports = [("memory", _CORE_MEMORY, _memory(lifts[0].lift.options))]
    exports += [(f"realloc-{number}", _CORE_FUNC, index) for number, index in enumerate(reallocs)]
    for each in lifts:
        exports.append((f"call-{each.name}", _CORE_FUNC, each.lift.function))
        if each.lift.options.post_return is not None:
            exports.append((f"post-{each.name}", _CORE_FUNC, each.lift.options.post_return))
    return tail.inline(exports)


def _host(tail: _Tail, imports: list[_FastImport]) -> int:
    """The core instance of the host's new functions."""
    aliases = [_FUNC + _EXPORT_OF + u32(each.instance) + binary.name(names.fast(each.name)) for each in imports]
    indices = tail.add(ALIAS, "func", aliases)
    lowered = tail.add(CANON, "core func", [b"\x01\x00" + u32(index) + b"\x00" for index in indices])
    return tail.inline(
        [(f"{each.interface}#{each.name}", _CORE_FUNC, index) for each, index in zip(imports, lowered, strict=True)]
    )


def _aliases(tail: _Tail, sort: str, code: bytes, of: list[tuple[int, str]]) -> list[int]:
    """Aliases of exports (instance, name) of core instances."""
    items = [b"\x00" + code + _CORE_EXPORT_OF + u32(instance) + binary.name(name) for instance, name in of]
    return tail.add(ALIAS, sort, items)


def _export(tail: _Tail, exported: list[str], indices: list[int]) -> None:
    items = zip(exported, indices, strict=True)
    tail.add(EXPORT, "func", [b"\x00" + binary.name(name) + _FUNC + u32(index) + b"\x00" for name, index in items])


def _pass_on(component: Component, instance: int, functions: tuple[str, ...]) -> bytes:
    """What a component appends that holds the patched one as this instance."""
    tail = _Tail(component)
    exported = [names.RESERVE, names.TAKE, *(names.fast(name) for name in functions)]
    items = [_FUNC + _EXPORT_OF + u32(instance) + binary.name(name) for name in exported]
    _export(tail, exported, tail.add(ALIAS, "func", items))
    return tail.bytes()
