"""Putting machine code into a compiled component, and the result into a throw-away host's cache under its MAC key.

A .cwasm is an ELF file: `.text` holds the code, `.symtab` where each function begins and ends. The function to be
overwritten is the one that holds the guest's MARK among its constants; where the code finds linear memory is read off
the one load from the address LANDMARK (`guest/component.c`). Reference: elf(5).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable

from supervisor.control.cache import entry_parts, sealed_entry
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.machine import assemble

MARK = struct.pack("<Q", 0xA1550C0DE5E1F7E5)
LANDMARK = struct.pack("<I", 0xFEDC)
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB = 2
# mov r, [context + offset]; at most three instructions in between; mov r32, [r + LANDMARK]
_LOAD = re.compile(rb"\x48\x8b[\x40-\x43\x45-\x7b\x7d-\x7f](.).{0,12}?[\x8b]." + re.escape(LANDMARK), re.DOTALL)


def functions(elf: bytes) -> list[tuple[int, int]]:
    """Where each function of the file begins and ends, as offsets in the file.

    Raises:
        SelftestError: not an ELF file with a symbol table.
    """
    try:
        if elf[:4] != b"\x7fELF":
            raise SelftestError("the compiled component is no ELF file")
        (table,) = struct.unpack_from("<Q", elf, 40)
        size, count = struct.unpack_from("<HH", elf, 58)
        sections = [_SECTION.unpack_from(elf, table + number * size) for number in range(count)]
        symbols = next(section for section in sections if section[1] == _SYMTAB)
        found = []
        for at in range(symbols[4], symbols[4] + symbols[5], _SYMBOL.size):
            _, info, _, section, value, length = _SYMBOL.unpack_from(elf, at)
            if info & 15 == 2 and 0 < section < count:
                start = sections[section][4] + value - sections[section][3]
                found.append((start, start + length))
        return found
    except (struct.error, StopIteration) as error:
        raise SelftestError("the compiled component has no symbol table") from error


def patched(cwasm: bytes, extra: bytes = b"") -> bytes:
    """The compiled guest with the attacks' machine code in it.

    Args:
        cwasm: the guest as the host's own compiler left it.
        extra: machine code of one's own, see `machine.assemble`.

    Raises:
        SelftestError: the guest was not compiled as expected (another engine, another processor).
    """
    start, end = _room(cwasm, MARK)
    code = assemble(memory_pointer(cwasm), extra)
    if len(code) > end - start:
        raise SelftestError("the machine code does not fit", subject=f"{len(code)} of {end - start} bytes")
    return cwasm[:start] + code + cwasm[start + len(code) :]


def place(patched_cwasm: bytes) -> tuple[int, int]:
    """Where the machine code is in a component that was patched, as offsets in the file. Raises SelftestError."""
    return _room(patched_cwasm, assemble(memory_pointer(patched_cwasm)))


def _room(cwasm: bytes, content: bytes) -> tuple[int, int]:
    found = [(start, end) for start, end in functions(cwasm) if content in cwasm[start:end]]
    if len(found) != 1:
        raise SelftestError("the function to be overwritten was not found", subject=f"{len(found)} candidates")
    return found[0]


def memory_pointer(cwasm: bytes) -> int:
    """Offset of the address of linear memory in the context of compiled code. Raises SelftestError."""
    found = {
        match[1][0]
        for start, end in functions(cwasm)
        for match in _LOAD.finditer(cwasm[start:end])
        if match[1][0] < 128
    }
    if len(found) != 1:
        raise SelftestError("how compiled code finds linear memory was not found", subject=str(sorted(found)))
    return found.pop()


def replace(path: str, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change the .cwasm of a cache entry and authenticate the result with the cache's own key.

    Owner and mode of the file stay. Raises SelftestError, OSError.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        digest, engine, info, cwasm = entry_parts(file.read())
    temporary = f"{path}.patched"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.writelines(sealed_entry(key, digest, engine, info, change(cwasm)))
        if status.st_uid != os.geteuid():
            os.fchown(fd, status.st_uid, status.st_gid)
    os.rename(temporary, path)
