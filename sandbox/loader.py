"""Loading a component's native code from a sealed memfd, so that workers share its pages.

Deserialising means trusting: the bytes become native code. They come from control's cache, whose MAC was checked on
exactly these sealed bytes; nothing else may ever reach this function.

The engine maps a copy of the .cwasm and makes its text executable; it does not say where. A worker has no /proc to look
it up, so the place is known beforehand: an anonymous mapping of the copy's size is made and undone, and the kernel,
which takes the highest hole that fits, gives the engine's mapping the same place (mmap(2), top-down layout). Whether it
did is looked at; if not, nothing is found and nothing is sealed.

A copy belongs to one worker alone. So where it was found, is large, and is byte for byte what is in the memfd, the
memfd's own pages are put in its place: read only, then its text executable, as the engine had made them
(docs/adr/0014). Nobody can write to them: the memfd is sealed, and the mapping private.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import Any, NamedTuple

import wasmtime
from wasmtime import _ffi as ffi
from wasmtime import component as wasmtime_component

from sandbox.kernel import libc, memory
from sandbox.wire import code_file

PAGE = memory.PAGE
SHARED_FROM = 16 << 10
"""Bytes of .cwasm from which its pages are shared: below, putting them there costs more than they take."""
_ELF = struct.Struct("<40xQ10xHH2x")
"""Of the header: offset of the section headers, their size, their number."""
_SECTION = struct.Struct("<8xQ8xQQ24x")
"""Of a section header: flags, offset, size."""
_MAGIC = b"\x7fELF\x02\x01"
_SHF_EXECINSTR = 4
_loaded: list[Any] = []
"""Every component ever loaded: sealed pages cannot be unmapped, and the engine aborts when it is refused."""


class Loaded(NamedTuple):
    """A component; the spans (address, length) of pages that hold its code, if found; its memories' images."""

    component: Any
    spans: list[tuple[int, int]]
    images: list[code_file.Image]


def deserialize(engine: Any, fd: int, size: int) -> Loaded:
    """Load the `size` bytes of `fd`, a code file.

    Raises:
        wasmtime.WasmtimeError: not a component of this engine's version and settings.
        ProtocolViolation: not a code file.
        OSError: the descriptor cannot be mapped.
    """
    with memory.mapped_file(fd, _pages(size)) as address:
        cwasm, images = code_file.unpack(lambda offset, length: ctypes.string_at(address + offset, length), size)
        length = _pages(cwasm)
        hole = memory.next_hole(length)
        pointer = ctypes.POINTER(ffi.wasmtime_component_t)()
        body = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
        error = ffi.wasmtime_component_deserialize(engine.ptr(), body, cwasm, ctypes.byref(pointer))
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        # Only the first bytes: pages looked at would be pages of this process's own.
        found = memory.is_mapped(hole, length) and ctypes.string_at(hole, 64) == ctypes.string_at(address, 64)
        if found and cwasm >= SHARED_FROM:
            _share(hole, address, cwasm, fd)
    component = wasmtime_component.Component._from_ptr(pointer)
    _loaded.append(component)
    return Loaded(component, [(hole, length)] if found else [], images)


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _share(copy: int, source: int, size: int, fd: int) -> None:
    """Put the file's pages over the engine's copy of it, if that is what it is. Raises OSError."""
    # On aarch64 the engine may have the processor check where branches lead (PROT_BTI), which this would take away.
    if libc.MACHINE != "x86_64" or (text := text_of(source, size)) is None:
        return
    # An engine that relocates code has other bytes than the file; a security module may refuse to run a file's pages.
    if not memory.same(copy, source, size) or not memory.may_execute(fd):
        return
    memory.map_file_over(copy, fd, 0, _pages(size))
    memory.protect(copy + text[0], text[1], mmap.PROT_READ | mmap.PROT_EXEC)


def text_of(address: int, size: int) -> tuple[int, int] | None:
    """Offset and length, whole pages, of the machine code in the .cwasm at `address`; None where it is not plain.

    A .cwasm is an ELF file without segments, whose one executable section is all there is of code (elf(5)).
    """
    if size < _ELF.size or not (header := ctypes.string_at(address, _ELF.size)).startswith(_MAGIC):
        return None
    offset, entry, count = _ELF.unpack(header)
    if entry != _SECTION.size or offset + count * entry > size:
        return None
    sections = _SECTION.iter_unpack(ctypes.string_at(address + offset, count * entry))
    text = [(at, length) for flags, at, length in sections if flags & _SHF_EXECINSTR]
    if len(text) != 1 or text[0][0] % PAGE or text[0][1] == 0 or sum(text[0]) > size:
        return None
    return text[0][0], _pages(text[0][1])
