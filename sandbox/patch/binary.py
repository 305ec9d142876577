"""The parts that core modules and components are both written with: LEB128 numbers, names, vectors, sections.

References: WebAssembly core specification 2.0, "Binary format, Values"; Component Model, `design/mvp/Binary.md`.

Reading is bounded three ways, for the bytes are a stranger's: each read is checked against the end of its section, a
vector cannot claim more items than it has bytes, and all items of a component together come out of one `Budget`, so
that time and memory grow with nothing but the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Bytes: TypeAlias = "bytes | bytearray | memoryview"

CORE_HEADER = b"\0asm\x01\0\0\0"
COMPONENT_HEADER = b"\0asm\x0d\0\x01\0"
MAX_ITEMS = 200_000
"""Items of vectors in one component, nested ones included. CPython as a component has 3,000."""
MAX_NAME = 100_000
"""Bytes of a name, as the engine has it."""


class Unreadable(Exception):
    """Bytes that are damaged, or that this reader does not know, or too many of them. Says where and why."""


@dataclass
class Budget:
    """Items that may still be read."""

    left: int = MAX_ITEMS

    def spend(self, items: int) -> None:
        """Raises Unreadable when there are not as many left."""
        self.left -= items
        if self.left < 0:
            raise Unreadable(f"more than {MAX_ITEMS} items")


class Reader:
    """Reads forward through one stretch of bytes. Every method raises `Unreadable` at its end."""

    __slots__ = ("at", "budget", "data", "end")

    def __init__(self, data: Bytes, budget: Budget, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.budget = budget
        self.at = at
        self.end = len(data) if end is None else end

    def byte(self) -> int:
        """One byte."""
        at = self.at
        if at >= self.end:
            raise Unreadable(f"ends within an item, at {at}")
        self.at = at + 1
        return self.data[at]

    def peek(self) -> int:
        """The next byte, which stays."""
        if self.at >= self.end:
            raise Unreadable(f"ends within an item, at {self.at}")
        return self.data[self.at]

    def u32(self) -> int:
        """Unsigned LEB128 of at most 32 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise Unreadable(f"number too long, at {self.at}")
        if value >> 32:
            raise Unreadable(f"number too large, at {self.at}")
        return value

    def signed(self, bits: int) -> int:
        """Signed LEB128 of at most `bits` bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                raise Unreadable(f"number too long, at {self.at}")
        if byte & 0x40:
            value -= 1 << shift
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise Unreadable(f"number too large, at {self.at}")
        return value

    def take(self, length: int) -> memoryview:
        """That many bytes; no copy."""
        start = self.at
        if length > self.end - start:
            raise Unreadable(f"{length} bytes do not fit, at {start}")
        self.at = start + length
        return memoryview(self.data)[start : self.at]

    def name(self) -> str:
        """A length, then UTF-8."""
        length = self.u32()
        if length > MAX_NAME:
            raise Unreadable(f"name too long, at {self.at}")
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(f"name is not UTF-8, at {self.at}") from error

    def items(self) -> range:
        """The length of a vector, to loop over. Each item has one byte at least."""
        count = self.u32()
        if count > self.end - self.at:
            raise Unreadable(f"{count} items do not fit, at {self.at}")
        self.budget.spend(count)
        return range(count)

    def vector(self, item: Callable[[], T]) -> list[T]:
        """A length, then as many items."""
        return [item() for _ in self.items()]

    def optional(self, item: Callable[[], T]) -> T | None:
        """0, or 1 and the item."""
        flag = self.byte()
        if flag > 1:
            raise Unreadable(f"neither there nor not, at {self.at}")
        return item() if flag else None

    def one_of(self, *allowed: int) -> int:
        """A byte that must be one of these."""
        byte = self.byte()
        if byte not in allowed:
            raise Unreadable(f"unknown byte {byte:#04x}, at {self.at - 1}")
        return byte

    def finish(self) -> None:
        """Raises unless everything was read."""
        if self.at != self.end:
            raise Unreadable(f"{self.end - self.at} bytes too many, at {self.at}")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of `data`: its number, where it starts (with its number) and where its body starts and ends."""

    number: int
    start: int
    body: int
    end: int


def sections(data: Bytes, header: bytes, budget: Budget) -> Iterator[Section]:
    """The sections of a core module or a component, in order.

    Raises:
        Unreadable: another header, or a section that does not fit.
    """
    if bytes(data[: len(header)]) != header:
        raise Unreadable("another kind or version of WebAssembly")
    reader = Reader(data, budget, len(header))
    while reader.at < reader.end:
        budget.spend(1)
        start = reader.at
        number = reader.byte()
        length = reader.u32()
        body = reader.at
        reader.take(length)
        yield Section(number, start, body, reader.at)


# -- writing -----------------------------------------------------------------------------------------------------------


def u32(number: int) -> bytes:
    """Unsigned LEB128, as short as can be."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def name(text: str) -> bytes:
    """A length, then UTF-8."""
    body = text.encode()
    return u32(len(body)) + body


def vector(items: Iterable[bytes]) -> bytes:
    """A length, then the items."""
    listed = list(items)
    return u32(len(listed)) + b"".join(listed)


def section(number: int, body: Bytes) -> bytes:
    """A whole section."""
    return bytes([number]) + u32(len(body)) + body
