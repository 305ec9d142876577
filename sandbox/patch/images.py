"""Data images: what a core module's data segments put into its memory, taken out of it, to be mapped instead of copied.

A module of 10 MB of data, as CPython is, would have every instance copy it. Here constant active segments are laid out
into an image, which workers map privately: pages that an instance does not write to are the same for all. The engine
has a way of its own for this, which excludes memories of the host's making (`sandbox.memories`).

Without a data count section no code can name a segment, and they go altogether. With one, an empty passive segment
takes the place of each, so that all have the numbers they had. To the code that is no difference: an active segment is
dropped when its module is instantiated, and one that was dropped is as one that is empty. The engine compiles code for
each active segment: Go's 42,000 take it 20 of 28 seconds. The memory gets a maximum by which the host knows it
(`MARKS`); the host holds it to the declared one. Reference: WebAssembly core specification 2.0, "Modules,
Instantiation" and "Binary format, Modules": between the making of a memory and the last of its data segments nothing
can read it.

A module is left alone unless all of this holds: it defines one memory of 32 bits, not shared, and imports none; each of
its active segments begins at a constant and lies within the memory it begins with; their data are `LEAST` bytes or
more, and not strewn over more than four times as much; all images together have no more than `MOST`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.patch import binary
from sandbox.patch.binary import Budget, Bytes, Reader, Unreadable, section, u32
from sandbox.wire.code_file import GRAIN, MAX_IMAGES, Image

LEAST = 64 << 10
"""Bytes of data from which an image is made: a plain copy of less takes less time than mapping it."""
MOST = 64 << 20
"""Bytes of all images of a component together, at most: the compiler has them in memory beside everything else."""
MARKS = range(65535, 65535 - 4 * MAX_IMAGES, -1)
"""Maxima, in pages of 64 KiB, that mark a memory; those that a module of the component declares itself are left out."""
_LARGEST = 65536
"""Pages of the largest memory."""
_MAX_NESTING = 20
_SEGMENTS = 1_000_000
"""Most sections and segments of all modules together."""
_CORE_MODULE, _COMPONENT = 1, 4
_IMPORT, _MEMORY, _DATA, _DATA_COUNT = 2, 5, 11, 12
_FUNCTION, _TABLE, _IMPORTED_MEMORY, _GLOBAL, _TAG = range(5)
_ACTIVE, _PASSIVE, _ACTIVE_IN = range(3)
_I32_CONST, _END = 0x41, 0x0B


@dataclass(frozen=True)
class Extracted:
    """The component without its data, and the images; the component as it was where there are none."""

    wasm: bytes
    images: list[tuple[Image, bytes]]


def extract(component: Bytes) -> Extracted:
    """Take the data out of a component's core modules, nested ones included.

    Bytes that cannot be read are left as they are: the engine will say what is wrong with them.
    """
    images: list[tuple[Image, bytes]] = []
    try:
        with memoryview(component) as wasm:
            marks = _marks(wasm, Budget(_SEGMENTS))
            changed = _component(wasm, Budget(_SEGMENTS), marks, images, 0)
            return Extracted(bytes(changed), images)
    except Unreadable:
        return Extracted(bytes(component), [])


def _component(
    wasm: memoryview, budget: Budget, marks: Iterator[int], images: list[tuple[Image, bytes]], nesting: int
) -> Bytes:
    """The component without its modules' data; the same object where nothing changes."""
    parts: list[Bytes] = [wasm[: len(binary.COMPONENT_HEADER)]]
    before = len(images)
    for each in binary.sections(wasm, binary.COMPONENT_HEADER, budget):
        body = wasm[each.body : each.end]
        changed: Bytes = body
        if each.number == _CORE_MODULE:
            changed = _module(body, budget, marks, images)
        elif each.number == _COMPONENT and nesting < _MAX_NESTING:
            changed = _component(body, budget, marks, images, nesting + 1)
        parts.append(wasm[each.start : each.end] if changed is body else section(each.number, changed))
    return b"".join(parts) if len(images) > before else wasm


def _module(module: memoryview, budget: Budget, marks: Iterator[int], images: list[tuple[Image, bytes]]) -> Bytes:
    """The module without its data, if that can be; else the same object."""
    try:
        sections = list(binary.sections(module, binary.CORE_HEADER, budget))
        found = {each.number: Reader(module, budget, each.body, each.end) for each in sections}
        if _MEMORY not in found or _DATA not in found or len(images) >= MAX_IMAGES:
            return module
        if _IMPORT in found and _imports_memory(found[_IMPORT]):
            return module
        limits = _limits(found[_MEMORY])
        data = _segments(found[_DATA])
    except Unreadable:
        return module
    if limits is None or data is None:
        return module
    minimum, maximum = limits
    laid_out = _lay_out(data, minimum, MOST - sum(len(content) for _, content in images))
    mark = next(marks, 0)
    # A memory that may become larger than the mark lets it would be held to less.
    if laid_out is None or mark < minimum or mark < maximum < _LARGEST:
        return module
    start, content = laid_out
    images.append((Image(mark * GRAIN, minimum * GRAIN, maximum * GRAIN, start, 0, len(content)), content))
    numbered = _DATA_COUNT in found or any(each.offset is None for each in data)
    parts: list[Bytes] = [module[: len(binary.CORE_HEADER)]]
    for each in sections:
        if each.number == _MEMORY:
            parts.append(section(_MEMORY, b"\x01\x01" + u32(minimum) + u32(mark)))
        elif each.number != _DATA:
            parts.append(module[each.start : each.end])
        elif numbered:
            parts.append(section(_DATA, _emptied(module, data)))
    return b"".join(parts)


# -- reading a module -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Segment:
    """One data segment: its offset in the memory (None: passive), where it begins, and where its bytes do and end."""

    offset: int | None
    start: int
    data: int
    end: int
    module: Bytes


def _imports_memory(reader: Reader) -> bool:
    """Whether a memory is imported. Raises Unreadable where an import is of a kind this does not know."""
    for _ in reader.items():
        reader.name(), reader.name()
        kind = reader.one_of(_FUNCTION, _TABLE, _IMPORTED_MEMORY, _GLOBAL, _TAG)
        if kind == _IMPORTED_MEMORY:
            return True
        if kind == _FUNCTION:
            reader.u32()
        elif kind == _TABLE:
            reader.one_of(0x70, 0x6F)
            _bounds(reader, reader.one_of(0, 1))
        elif kind == _GLOBAL:
            reader.one_of(0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F)
            reader.one_of(0, 1)
        else:
            reader.one_of(0)
            reader.u32()
    return False


def _bounds(reader: Reader, flags: int) -> tuple[int, int | None]:
    return reader.u32(), reader.u32() if flags & 1 else None


def _limits(reader: Reader) -> tuple[int, int] | None:
    """Pages at least and at most of the one memory; None where it is another kind or there are several."""
    if len(reader.items()) != 1 or (flags := reader.byte()) > 1:
        return None
    minimum, maximum = _bounds(reader, flags)
    reader.finish()
    if maximum is None:
        maximum = _LARGEST
    return (minimum, maximum) if minimum <= maximum <= _LARGEST else None


def _segments(reader: Reader) -> list[_Segment] | None:
    """All data segments; None where an active one does not begin at a constant of the first memory."""
    found = []
    for _ in reader.items():
        start = reader.at
        kind = reader.one_of(_ACTIVE, _PASSIVE, _ACTIVE_IN)
        offset = None
        if kind == _ACTIVE_IN:
            return None
        if kind == _ACTIVE:
            if reader.byte() != _I32_CONST:
                return None
            offset = reader.signed(32) & 0xFFFFFFFF
            if reader.byte() != _END:
                return None
        length = reader.u32()
        data = reader.at
        reader.take(length)
        found.append(_Segment(offset, start, data, reader.at, reader.data))
    reader.finish()
    return found


def _lay_out(segments: list[_Segment], pages: int, most: int) -> tuple[int, bytes] | None:
    """Where the image begins in the memory, and the image, both in whole pages; None where there is to be none."""
    active = [(each.offset, each) for each in segments if each.offset is not None]
    filled = [(offset, each) for offset, each in active if each.end > each.data]
    if any(offset + each.end - each.data > pages * GRAIN for offset, each in active) or not filled:
        return None
    total = sum(each.end - each.data for _, each in filled)
    start = min(offset for offset, _ in filled) // GRAIN * GRAIN
    end = -(-max(offset + each.end - each.data for offset, each in filled) // GRAIN) * GRAIN
    if total < LEAST or end - start > min(4 * total, most):
        return None
    image = bytearray(end - start)
    for offset, each in filled:
        # In their order: what overlaps holds what came last.
        image[offset - start : offset - start + each.end - each.data] = each.module[each.data : each.end]
    return start, bytes(image)


def _emptied(module: memoryview, segments: list[_Segment]) -> bytes:
    """The data section with an empty passive segment in the place of each active one."""
    empty = bytes([_PASSIVE, 0])
    parts: list[Bytes] = [empty if each.offset is not None else module[each.start : each.end] for each in segments]
    return u32(len(segments)) + b"".join(parts)


# -- marks ----------------------------------------------------------------------------------------------------------


def _marks(wasm: memoryview, budget: Budget) -> Iterator[int]:
    """The marks that no memory of the component declares as its own maximum."""
    declared = _declared(wasm, budget, 0)
    return iter([mark for mark in MARKS if mark not in declared])


def _declared(wasm: memoryview, budget: Budget, nesting: int) -> set[int]:
    found: set[int] = set()
    for each in binary.sections(wasm, binary.COMPONENT_HEADER, budget):
        body = wasm[each.body : each.end]
        if each.number == _COMPONENT:
            if nesting == _MAX_NESTING:
                raise Unreadable("components nested too deep")
            found |= _declared(body, budget, nesting + 1)
        elif each.number == _CORE_MODULE:
            for inner in binary.sections(body, binary.CORE_HEADER, budget):
                if inner.number == _MEMORY:
                    found |= _maxima(Reader(body, budget, inner.body, inner.end))
    return found


def _maxima(reader: Reader) -> set[int]:
    """Of all memories; raises Unreadable where one is of a kind this does not know."""
    found = set()
    for _ in reader.items():
        flags = reader.byte()
        if flags > 3:
            raise Unreadable("a memory of another kind")
        _, maximum = _bounds(reader, flags)
        if maximum is not None:
            found.add(maximum)
    return found
