"""Types whose values always have the same fields: what both sides know of them beforehand need not be told each time.

No choice with different payloads, no lists but of bytes. The worker writes such a value's image to `IMAGE`, and behind
it, from `OUT` on, what its pointers point to, one after the other in the order of `blobs`; the adapter, made for the
type, knows where each pointer belongs and whether it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sandbox.abi.layout import fields, members_of, payload_offset, size
from sandbox.abi.types import BYTES, STRING, EnumType, OptionType, Primitive, Type, may_be_none
from sandbox.fast.protocol import IMAGE_ROOM


class Blob(NamedTuple):
    """A pointer and length in an image.

    Attributes:
        slot: where.
        option: where the discriminant of the option around it is; None when it is always there.
        text: whether it is a string.
    """

    slot: int
    option: int | None
    text: bool


def is_straight(kind: Type) -> bool:
    """Whether a type is of this kind."""
    if isinstance(kind, Primitive | EnumType) or kind == BYTES:
        return True
    if isinstance(kind, OptionType):
        return is_straight(kind.payload) and not may_be_none(kind.payload)
    members = members_of(kind)
    return members is not None and all(is_straight(each) for each in members)


def goes_straight(kind: Type) -> bool:
    """Whether the worker and the adapter treat values of a type so: its image must fit into its place, too."""
    return is_straight(kind) and size(kind) <= IMAGE_ROOM


def blobs(kind: Type) -> list[Blob]:
    """What a value points to, in order: strings first, which are short, and written together."""
    return sorted(_blobs(kind, 0, None), key=lambda blob: not blob.text)


def _blobs(kind: Type, at: int, option: int | None) -> Iterator[Blob]:
    if kind in (STRING, BYTES):
        yield Blob(at, option, kind == STRING)
    elif isinstance(kind, OptionType):
        yield from _blobs(kind.payload, at + payload_offset(kind), at)
    else:
        members = members_of(kind) or ()
        for offset, member in zip(fields(members)[0], members, strict=True):
            yield from _blobs(member, at + offset, option)
