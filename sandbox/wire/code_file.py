"""What the compiler leaves and a worker loads: a component's native code, and images of its linear memories.

    the .cwasm          from the start of the file on
    images              each from a multiple of `GRAIN` on, so that its pages can be mapped
    table               MessagePack, a list of `Image`
    footer              8 bytes magic, u64 length of the .cwasm, u32 length of the table; little endian

A component without images is its .cwasm and nothing else. Control keeps the whole under one MAC, and hands it on in
one sealed memfd: whoever could change an image could change the code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.wire import UNDECODABLE

GRAIN = 64 << 10
"""Images begin at multiples of this, in the file and in their memory: a page of wasm, and of any machine."""
MAGIC = b"\x8eairimg1"
FOOTER = struct.Struct("<8sQI")
MAX_IMAGES = 16
MAX_TABLE = 4096
"""Bytes."""
_MOST = 1 << 32
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]


class Image(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a linear memory holds when it begins. All in bytes.

    `mark` is the maximum the compiled module declares for that memory, by which it is known; `maximum` the one its
    author declared, or all that a memory can be. The image is `length` bytes of the file from `offset` on, and lies
    `start` bytes into the memory; everything else in it is zero.
    """

    mark: _Bytes
    minimum: _Bytes
    maximum: _Bytes
    start: _Bytes
    offset: _Bytes
    length: _Bytes


_table = msgspec.msgpack.Decoder(list[Image])


def pack(cwasm: bytes, images: list[tuple[Image, bytes]]) -> list[bytes]:
    """The file's parts in order; the offset of an image is put in here."""
    if not images:
        return [cwasm]
    parts, size, placed = [cwasm], len(cwasm), []
    for image, content in images:
        padding = -size % GRAIN
        placed.append(msgspec.structs.replace(image, offset=size + padding, length=len(content)))
        parts += [bytes(padding), content]
        size += padding + len(content)
    table = msgspec.msgpack.encode(placed)
    return [*parts, table, FOOTER.pack(MAGIC, len(cwasm), len(table))]


def unpack(read: Callable[[int, int], bytes], size: int) -> tuple[int, list[Image]]:
    """Length of the .cwasm, and the images.

    Args:
        read: the bytes of the file from an offset on, that many.
        size: the file's, bytes.

    Raises:
        ProtocolViolation: there is a footer, and what it says cannot be.
    """
    if size < FOOTER.size:
        return size, []
    magic, cwasm, length = FOOTER.unpack(read(size - FOOTER.size, FOOTER.size))
    if magic != MAGIC:
        return size, []
    end = size - FOOTER.size - length
    if length > MAX_TABLE or not cwasm <= end:
        raise ProtocolViolation("the footer of a code file does not fit it", subject=f"{size} bytes")
    try:
        images = _table.decode(read(end, length))
    except UNDECODABLE as error:
        raise ProtocolViolation(f"the table of a code file is malformed: {error}") from error
    if len(images) > MAX_IMAGES or not all(_fits(image, cwasm, end) for image in images):
        raise ProtocolViolation("an image of a code file does not fit it", subject=f"{size} bytes")
    return cwasm, images


def _fits(image: Image, cwasm: int, end: int) -> bool:
    aligned = not (image.start % GRAIN or image.offset % GRAIN or image.length % GRAIN or image.minimum % GRAIN)
    in_file = cwasm <= image.offset and image.offset + image.length <= end
    return aligned and in_file and image.start + image.length <= image.minimum <= image.maximum <= _MOST
