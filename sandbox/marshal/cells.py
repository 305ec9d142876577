"""Arrays of values for lists, made in Python's memory: filled by strides, with a template, not value by value.

Everything made is put into `keep`, and must live until the engine has copied it. Each function gives the address of the
array; an empty list has one, too, because the engine's slices have no null.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from ctypes import addressof, c_char
from typing import Any

from sandbox.marshal.capi import CELL, CELL_WORDS, KINDS, WORD, address_of
from sandbox.marshal.failures import TooLong
from sandbox.marshal.shapes import INTEGERS
from sandbox.types import LARGEST_GENERAL

BYTES_HEADER = bytes.__basicsize__ - 1
"""Where a bytes object's bytes begin (CPython's `PyBytesObject`); `sandbox.marshal.check` looks."""
NAN = float("nan")
_U8 = bytes([KINDS["u8"]])
_NOTHING = bytearray(CELL)
EMPTY = address_of(_NOTHING)
"""The address of an empty array."""
_ALL_BYTES = bytes | bytearray | memoryview


def bad(*_: object) -> Any:
    """Whatever it is, it is no value of its type; `sandbox.marshal.explain` says why."""
    raise ValueError


def of_bytes(value: Any, keep: list[Any]) -> int:
    """Of `list<u8>`.

    Raises:
        ValueError: neither bytes, bytearray nor memoryview of bytes.
        TooLong: more than the engine takes.
    """
    if not isinstance(value, _ALL_BYTES) or (isinstance(value, memoryview) and value.nbytes != len(value)):
        bad()
    size = len(value)
    if not size:
        return EMPTY
    if size > LARGEST_GENERAL:
        raise TooLong(f"a list of {size} bytes; {LARGEST_GENERAL} are the most on the general path")
    cells = bytearray(CELL * size)
    cells[::CELL] = _U8 * size
    cells[WORD::CELL] = value
    first = c_char.from_buffer(cells)
    keep.append(first)
    return addressof(first)


def of_integers(kind: str, values: Any, keep: list[Any]) -> int:
    """Of a list of integers. Raises ValueError, TypeError, OverflowError."""
    if not isinstance(values, list):
        bad()
    low, high = INTEGERS[kind]
    if values and (min(values) < low or max(values) > high):
        bad()
    # As 64 bits with sign, or without; the low bytes are the value either way. Refuses what is no integer.
    return _of_words(kind, array("q" if low else "Q", values), keep)


def of_booleans(values: Any, keep: list[Any]) -> int:
    """Of `list<bool>`. Raises ValueError."""
    if not isinstance(values, list) or any(each is not True and each is not False for each in values):
        bad()
    return _of_words("bool", array("Q", values), keep)


def of_floats(kind: str, values: Any, keep: list[Any]) -> int:
    """Of a list of f32 or f64; every NaN becomes the one. Raises ValueError."""
    if not isinstance(values, list) or any(each.__class__ is not float for each in values):
        bad()
    same = [each if each == each else NAN for each in values]  # noqa: PLR0124 (a NaN is not equal to itself)
    if kind == "f64":
        return _of_words(kind, array("Q", array("d", same).tobytes()), keep)
    return _of_words(kind, array("Q", array("I", array("f", same).tobytes())), keep)


def of_chars(values: Any, keep: list[Any]) -> int:
    """Of `list<char>`. Raises ValueError, TypeError."""
    if not isinstance(values, list):
        bad()
    words = array("Q", map(ord, values))
    if any(0xD7FF < each < 0xE000 for each in words) or not all(isinstance(each, str) for each in values):
        bad()
    return _of_words("char", words, keep)


def of_strings(values: Any, keep: list[Any]) -> int:
    """Of `list<string>`. Raises ValueError, TypeError."""
    if not isinstance(values, list):
        bad()
    texts = [str.encode(each) for each in values]
    keep.append(texts)
    words = array("Q", bytes(CELL * len(texts)))
    size = len(texts)
    words[0::CELL_WORDS] = array("Q", [KINDS["string"]]) * size
    words[1::CELL_WORDS] = array("Q", map(len, texts))
    words[2::CELL_WORDS] = array("Q", [id(each) + BYTES_HEADER for each in texts])
    return _kept(words, keep)


def _of_words(kind: str, payloads: array[int], keep: list[Any]) -> int:
    size = len(payloads)
    words = array(payloads.typecode, bytes(CELL * size))
    words[0::CELL_WORDS] = array(payloads.typecode, [KINDS[kind]]) * size
    words[1::CELL_WORDS] = payloads
    return _kept(words, keep)


def _kept(words: array[int], keep: list[Any]) -> int:
    if not words:
        return EMPTY
    keep.append(words)
    return words.buffer_info()[0]


class Elements:
    """How elements of one compound type are laid out: all cells first, then what belongs to each.

    `cell` and `parts` are one element's words before anything is written into them; `inner` are the places of its
    pointers to its own parts, as (word, part's word), those in the cell first.
    """

    __slots__ = ("_cell", "_in_cell", "_in_parts", "_parts", "_size", "write")

    def __init__(
        self,
        cell: Sequence[int],
        parts: Sequence[int],
        in_cell: Sequence[tuple[int, int]],
        in_parts: Sequence[tuple[int, int]],
    ) -> None:
        self._cell, self._parts = array("Q", cell), array("Q", parts)
        self._in_cell, self._in_parts = tuple(in_cell), tuple(in_parts)
        self._size = len(parts)
        self.write: Callable[..., object] = bad
        """Writes one element; known once its source is compiled."""

    def fill(self, values: Any, keep: list[Any], context: int) -> int:
        """The address of an array of these. Raises what the elements' own writing raises."""
        if not isinstance(values, list):
            bad()
        count, size = len(values), self._size
        if not count:
            return EMPTY
        words = self._cell * count + self._parts * count
        keep.append(words)
        base = words.buffer_info()[0]
        first = count * CELL_WORDS
        step = size * WORD
        for word, part in self._in_cell:
            start = base + WORD * (first + part)
            words[word:first:CELL_WORDS] = array("Q", range(start, start + count * step, step))
        for word, part in self._in_parts:
            start = base + WORD * (first + part)
            words[first + word :: size] = array("Q", range(start, start + count * step, step))
        raw = memoryview(words).cast("B")
        views = (words, raw.cast("q"), raw.cast("d"), raw.cast("f"), base)
        cell, write = 0, self.write
        part = first
        for value in values:
            write(value, *views, cell, part, keep, context)
            cell += CELL_WORDS
            part += size
        return base


def of_flags(names: Sequence[tuple[int, int]], keep: list[Any]) -> int:
    """Of the names of flags that are set, each as (size, address)."""
    return _kept(array("Q", [word for name in names for word in name]), keep)
