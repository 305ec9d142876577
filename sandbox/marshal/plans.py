"""A function's plan: how its values are written and read, made once per type and kept for the process.

The zygote makes the plans of everything that a worker calls or serves; a worker only uses them. Trees of arguments and
results lie in one place that all plans share: a call writes its template there, then its values, and the engine has
copied them before anything else is written. One process has one guest and one thread (`sandbox.marshal.reentrance`).
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Function, Type
from sandbox.marshal.capi import WORD, address_of
from sandbox.marshal.explain import RESULT, refusal
from sandbox.marshal.lifting import Lifting
from sandbox.marshal.lowering import Lowered, Lowering
from sandbox.marshal.resources import host_types
from sandbox.marshal.shapes import handles_in

TREE_WORDS = 512
"""Words of the place that plans share; a plan of larger values has a place of its own."""


class _Place:
    """Where a tree is written: the same memory as words, numbers with a sign, and floats."""

    __slots__ = ("address", "raw", "views")

    def __init__(self, words: int) -> None:
        memory = array("Q", bytes(words * WORD))
        self.raw = memoryview(memory).cast("B")
        self.address = address_of(memory)
        self.views = (memory, self.raw.cast("q"), self.raw.cast("d"), self.raw.cast("f"), self.address)


_shared = _Place(TREE_WORDS)


class Writer:
    """Writes values of a function's parameters, or its result, where the engine can read them."""

    __slots__ = ("_named", "_raw", "_size", "_template", "_title", "_views", "_write", "address")

    def __init__(self, title: str, named: list[tuple[str, Type]], lowered: Lowered) -> None:
        place = _shared if len(lowered.words) <= TREE_WORDS else _Place(len(lowered.words))
        self._title, self._named = title, named
        self._raw, self._views, self._write = place.raw, place.views, lowered.write
        self._template = lowered.template(place.address)
        self._size = len(self._template)
        self.address = place.address
        """Of the first value."""

    def write(self, context: int, keep: list[Any], values: tuple[Any, ...]) -> None:
        """Write them. What they point to is in `keep`, which must live until the engine has copied them.

        Raises:
            BadValue: one of them is not of its type.
        """
        self._raw[: self._size] = self._template
        try:
            self._write(*self._views, keep, context, *values)
        # Whatever refuses a value: the source's own tests, an array, an encoder, or a handle the engine does not know.
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            raise refusal(self._title, self._named, values, error) from error


Reader = Callable[[Any, int, int], Any]
"""Reads values: buffer, offset of the first cell, context -> the result, or a tuple of parameters."""


class Plan:
    """Of one function. Each half is made when it is first asked for: an export needs one, an import the other."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._numbers = _numbers(function)
        self.count = len(function.parameters)
        self._made: dict[str, Any] = {}

    @functools.cached_property
    def for_export(self) -> tuple[int, Writer, Reader | None]:
        """All that a call of the guest's needs: how many parameters, what writes them, what reads the result."""
        return self.count, self.write_arguments, self.read_result

    @property
    def write_arguments(self) -> Writer:
        """For a call of the guest's."""
        return self._writer("arguments", list(self.function.parameters), result=False)

    @property
    def read_arguments(self) -> Reader:
        """For a call of the host's."""
        return self._reader("arguments", tuple(kind for _, kind in self.function.parameters), result=False)

    @property
    def write_result(self) -> Writer | None:
        """Of the host's; None when it gives nothing."""
        kind = self.function.result
        return None if kind is None else self._writer("result", [(RESULT, kind)], result=True)

    @property
    def read_result(self) -> Reader | None:
        """Of the guest's; None when it gives nothing."""
        kind = self.function.result
        return None if kind is None else self._reader("result", (kind,), result=True)

    def _writer(self, what: str, named: list[tuple[str, Type]], *, result: bool) -> Writer:
        key = f"write {what}"
        if key not in self._made:
            kinds = tuple(kind for _, kind in named)
            shared = (kinds, result, self._numbers)
            if shared not in _lowered:
                _lowered[shared] = Lowering().plan(kinds, f"{self.function.name} {key}", result)
            self._made[key] = Writer(self.function.name, named, _lowered[shared])
        return self._made[key]  # type: ignore[no-any-return]

    def _reader(self, what: str, kinds: tuple[Type, ...], *, result: bool) -> Reader:
        key = f"read {what}"
        if key not in self._made:
            shared = (kinds, result, self._numbers)
            if shared not in _lifted:
                _lifted[shared] = Lifting().plan(kinds, f"{self.function.name} {key}", result)
            self._made[key] = _lifted[shared]
        return self._made[key]  # type: ignore[no-any-return]


def _numbers(function: Function) -> tuple[int | None, ...]:
    """Which of the resources it mentions are the host's, and as what: a part of what its plan is made of."""
    return tuple(host_types.get(resource) for resource in handles_in(function))


_Shape = tuple[tuple[Type, ...], bool, tuple[int | None, ...]]
_lowered: dict[_Shape, Lowered] = {}
_lifted: dict[_Shape, Reader] = {}
"""The code of functions with the same types is the same; the first one's name is in its tracebacks."""
_plans: dict[tuple[Function, tuple[int | None, ...]], Plan] = {}


def plan_of(function: Function) -> Plan:
    """The function's plan: one for all functions of its name and type."""
    key = (function, _numbers(function))
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = Plan(function)
    return plan
