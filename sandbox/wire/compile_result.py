"""What the compiler says: two words on its channel, and into its output memfd a short header, then the component.

    u32 little endian   length of the header, bytes
    header              MessagePack map, a `CompileResult`
    cwasm               `cwasm_size` bytes, nothing after them

The compiler has parsed a stranger's bytes: whoever reads this treats every field as the stranger's word. The
`.cwasm` is native code that came out of a caged process; it is bound to its original only by the reader's own
knowledge of what it asked to have compiled.
"""

from __future__ import annotations

import struct

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.types import CallPath
from sandbox.wire import UNDECODABLE

SEALED = b"SEALED"
"""Compiler to supervisor: every wall is up."""
GO = b"GO"
"""Supervisor to compiler: the walls have been looked at; read the component."""
PREFIX = struct.Struct("<I")
MAX_HEADER = 256 * 1024
"""Largest header, bytes."""
MAX_CWASM = 512 << 20
"""Largest compiled component accepted, bytes."""


class Crossing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How values cross the component's boundary.

    Attributes:
        path: "fast" when it was patched; what is not named below still takes the general path.
        exports: functions of the lifecycle that are called through the adapter.
        imports: interface -> functions of it that the adapter intercepts.
        reason: why `path` is "general", else "".
    """

    path: CallPath = "general"
    exports: list[str] = []
    imports: dict[str, list[str]] = {}
    reason: str = ""


class CompileResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the compiler found; `error` is (code, message, subject) when there is no .cwasm.

    `imports` and `exports` are the component's own, without what a patch adds.
    """

    imports: dict[str, list[str]]
    exports: list[str]
    error: tuple[str, str, str] | None
    cwasm_size: int
    crossing: Crossing = Crossing()


_decoder = msgspec.msgpack.Decoder(CompileResult)


def pack_header(result: CompileResult) -> bytes:
    """The bytes that stand before the .cwasm.

    Raises:
        ProtocolViolation: the header is longer than `MAX_HEADER`.
    """
    body = msgspec.msgpack.encode(result)
    if len(body) > MAX_HEADER:
        raise ProtocolViolation("compile result header too long", subject=f"{len(body)} bytes")
    return PREFIX.pack(len(body)) + body


def parse_header(data: bytes | memoryview) -> tuple[CompileResult, int]:
    """Parse the header at the start of the whole output; return it and where the .cwasm begins.

    Raises:
        ProtocolViolation: short, overlong or malformed, or its sizes do not add up to the output's.
    """
    if len(data) < PREFIX.size:
        raise ProtocolViolation("compile result shorter than its prefix", subject=f"{len(data)} bytes")
    (length,) = PREFIX.unpack_from(data)
    start = PREFIX.size + length
    if length > MAX_HEADER or start > len(data):
        raise ProtocolViolation("compile result header of impossible length", subject=f"{length} bytes")
    try:
        result = _decoder.decode(data[PREFIX.size : start])
    except UNDECODABLE as error:
        raise ProtocolViolation(f"compile result header is malformed: {error}") from error
    if not 0 <= result.cwasm_size <= MAX_CWASM or start + result.cwasm_size != len(data):
        raise ProtocolViolation("compile result size differs from what it says", subject=f"{result.cwasm_size} bytes")
    if (result.error is None) != (result.cwasm_size > 0):
        raise ProtocolViolation("compile result has neither or both of an error and a component")
    return result, start
