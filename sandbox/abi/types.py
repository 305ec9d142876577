"""Types of the Component Model as frozen values. Two types are equal when their structure and their names are.

How values of them look in Python, everywhere in this project:

============================  ==========================================================================================
bool, integers, f32, f64      `bool`, `int`, `float`
char, string                  `str` (a char is one character)
list<u8>, other lists         `bytes`, `list`
tuple                         `tuple`
record                        an instance of the record's class, fields in snake_case; without a class, `tuple`
variant                       an instance of the case's class (`.value` where the case has a payload);
                              without a class, `Case(name, value)`
enum                          a member of the enum's class, whose value is the WIT name; without a class, the name
flags                         a member of the flags' class (`enum.Flag`); without a class, a frozenset of names
option<T>                     `T | None`; `Some(T) | None` where T itself may be None (an option)
result<T, E>                  `Ok(T) | Err(E)`; at the top of a function's result `T | Err(E)`, unless T is a result
own, borrow                   a resource of the host: its representation, an `int`; one of a guest: `GuestResource`
============================  ==========================================================================================

Classes are those of `sandbox.bindings`, made from the WIT packages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
PRIMITIVES = frozenset(("bool", *INTEGERS, "f32", "f64", "char", "string"))


@dataclass(frozen=True)
class Primitive:
    """`kind` is one of `PRIMITIVES`."""

    kind: str


@dataclass(frozen=True)
class ListType:
    """`list<element>`."""

    element: Type


@dataclass(frozen=True)
class TupleType:
    """`tuple<...>`, one element at least."""

    elements: tuple[Type, ...]


@dataclass(frozen=True)
class RecordType:
    """`name` is `package/interface@version#type`, "" where it is not known; fields in order, with their WIT names."""

    fields: tuple[tuple[str, Type], ...]
    name: str = ""


@dataclass(frozen=True)
class VariantType:
    """Cases in order; a case without payload has None."""

    cases: tuple[tuple[str, Type | None], ...]
    name: str = ""


@dataclass(frozen=True)
class EnumType:
    """Cases in order."""

    cases: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class FlagsType:
    """Flags in order, at most 32."""

    flags: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class OptionType:
    """`option<payload>`."""

    payload: Type


@dataclass(frozen=True)
class ResultType:
    """`result<ok, err>`; None where there is no payload."""

    ok: Type | None
    err: Type | None


@dataclass(frozen=True)
class HandleType:
    """`own<resource>` or, `borrowed`, `borrow<resource>`; the resource is `package/interface.name` without version."""

    resource: str
    borrowed: bool


Type: TypeAlias = (
    "Primitive | ListType | TupleType | RecordType | VariantType | EnumType | FlagsType | OptionType | ResultType"
    " | HandleType"
)

STRING, BOOL, U8, U32, U64 = (Primitive(kind) for kind in ("string", "bool", "u8", "u32", "u64"))
BYTES = ListType(U8)


@dataclass(frozen=True)
class Function:
    """A function by its WIT name; parameters in order. `result` is None when it returns nothing."""

    name: str
    parameters: tuple[tuple[str, Type], ...]
    result: Type | None = None


# -- values that Python has no word for --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ok:
    """The good case of a result that stands inside something else."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Err:
    """The other case of a result; `value` is the error, None where the type has no payload."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Some:
    """An option that is there, where its payload may be None."""

    value: Any


@dataclass(frozen=True, slots=True)
class Case:
    """A case of a variant that has no class."""

    name: str
    value: Any = None


def may_be_none(kind: Type | None) -> bool:
    """Whether a value of the type may be None, so that an option of it needs `Some`."""
    return kind is None or isinstance(kind, OptionType)
