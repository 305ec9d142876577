"""What the bytes claim to be: a WebAssembly component and nothing else.

Implements the preamble and section framing of the component model's binary format. It is a gate, not a validator: the
caged compiler judges what is inside the sections. Core modules, precompiled code and cut files end here.
"""

from __future__ import annotations

from supervisor.packages.errors import PackageError

COMPONENT_PREAMBLE = b"\0asm\x0d\x00\x01\x00"
_CORE_PREAMBLE = b"\0asm\x01\x00\x00\x00"
_LAST_SECTION = 12
_MAX_SECTIONS = 100_000


def check_component(wasm: bytes, *, subject: str = "") -> None:
    """Refuse what is not framed as a component.

    Raises:
        PackageError: E_LAYER.
    """

    def refuse(message: str, hint: str = "") -> PackageError:
        return PackageError(message, subject=subject, hint=hint, code="E_LAYER")

    if wasm[:8] != COMPONENT_PREAMBLE:
        if wasm[:8] == _CORE_PREAMBLE:
            raise refuse("this is a core module, not a component", "wrap it: wasm-tools component new")
        if wasm[:4] == b"\x7fELF":
            raise refuse("this is precompiled native code, which is never taken from outside", "give the .wasm")
        if len(wasm) < 8 and COMPONENT_PREAMBLE.startswith(wasm):
            raise refuse("the file is cut off")
        raise refuse("this is not a WebAssembly component")
    at = 8
    for _ in range(_MAX_SECTIONS):
        if at == len(wasm):
            return
        if wasm[at] > _LAST_SECTION:
            raise refuse(f"unknown section {wasm[at]} at byte {at}")
        size, at = _leb128(wasm, at + 1)
        if size < 0 or at + size > len(wasm):
            raise refuse(f"the file is cut off: the section before byte {at} is longer than what is left")
        at += size
    raise refuse(f"more than {_MAX_SECTIONS} sections")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned 32-bit LEB128 and the position behind it; -1 where there is none."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            return -1, at
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (value if value < 1 << 32 else -1), at
    return -1, at
