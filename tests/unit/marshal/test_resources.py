"""Handles across the boundary: the host's resources by representation, a guest's own by handle; none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import wasmtime
from wasmtime import component as wt

from sandbox import marshal
from sandbox.abi.types import U32, Function, HandleType, ListType, OptionType, ResultType, TupleType, Type
from sandbox.marshal import resources

pytestmark = pytest.mark.block1_runtime
THING = "test:things/things.thing"
NUMBER = 900
OWN, BORROW = HandleType(THING, borrowed=False), HandleType(THING, borrowed=True)
OURS: dict[str, tuple[tuple[Type, ...], Type | None]] = {
    "make": ((U32,), OWN),
    "value": ((BORROW,), U32),
    "sum": ((ListType(BORROW),), U32),
    "eat": ((OWN,), U32),
}
HOST = """
(component
  (import "test:things/things" (instance $i
    (export "thing" (type $thing (sub resource)))
    (export "make" (func (param "a0" u32) (result (own $thing))))
    (export "value" (func (param "a0" (borrow $thing)) (result u32)))
    (export "sum" (func (param "a0" (list (borrow $thing))) (result u32)))
    (export "eat" (func (param "a0" (own $thing)) (result u32)))))
  (alias export $i "thing" (type $thing))
  (core module $memory (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $mem (instantiate $memory))
  (alias core export $mem "memory" (core memory $m))
  (core func $make (canon lower (func $i "make")))
  (core func $value (canon lower (func $i "value")))
  (core func $sum (canon lower (func $i "sum") (memory $m)))
  (core func $eat (canon lower (func $i "eat")))
  (core func $drop (canon resource.drop $thing))
  (core module $code
    (import "" "memory" (memory 1))
    (import "" "make" (func $make (param i32) (result i32)))
    (import "" "value" (func $value (param i32) (result i32)))
    (import "" "sum" (func $sum (param i32 i32) (result i32)))
    (import "" "eat" (func $eat (param i32) (result i32)))
    (import "" "drop" (func $drop (param i32)))
    (func (export "cycle") (param i32) (result i32) (local $h i32) (local $v i32)
      (local.set $h (call $make (local.get 0)))
      (local.set $v (call $value (local.get $h)))
      (call $drop (local.get $h))
      (local.get $v))
    (func (export "total") (param i32) (result i32) (local $v i32)
      (i32.store (i32.const 0) (call $make (local.get 0)))
      (i32.store (i32.const 4) (call $make (i32.add (local.get 0) (i32.const 1))))
      (i32.store (i32.const 8) (call $make (i32.add (local.get 0) (i32.const 2))))
      (local.set $v (call $sum (i32.const 0) (i32.const 3)))
      (call $drop (i32.load (i32.const 0)))
      (call $drop (i32.load (i32.const 4)))
      (call $drop (i32.load (i32.const 8)))
      (local.get $v))
    (func (export "feed") (param i32) (result i32) (call $eat (call $make (local.get 0))))
    (func (export "back") (param i32) (result i32) (local.get 0))
    (func (export "lend") (param i32) (result i32) (local $v i32)
      (local.set $v (call $value (local.get 0)))
      (call $drop (local.get 0))
      (local.get $v)))
  (core instance $run (instantiate $code (with "" (instance
    (export "memory" (memory $m)) (export "make" (func $make)) (export "value" (func $value))
    (export "sum" (func $sum)) (export "eat" (func $eat)) (export "drop" (func $drop))))))
  (func (export "cycle") (param "a0" u32) (result u32) (canon lift (core func $run "cycle")))
  (func (export "total") (param "a0" u32) (result u32) (canon lift (core func $run "total")))
  (func (export "feed") (param "a0" u32) (result u32) (canon lift (core func $run "feed")))
  (func (export "back") (param "a0" (own $thing)) (result (own $thing)) (canon lift (core func $run "back")))
  (func (export "lend") (param "a0" (borrow $thing)) (result u32) (canon lift (core func $run "lend"))))
"""
GUEST = """
(component
  (core module $state
    (global $dropped (mut i32) (i32.const 0))
    (func (export "drop") (param i32) (global.set $dropped (i32.add (global.get $dropped) (local.get 0))))
    (func (export "dropped") (result i32) (global.get $dropped)))
  (core instance $s (instantiate $state))
  (type $counter' (resource (rep i32) (dtor (core func $s "drop"))))
  (core func $new (canon resource.new $counter'))
  (core func $rep (canon resource.rep $counter'))
  (core func $drop (canon resource.drop $counter'))
  (core module $code
    (import "" "new" (func $new (param i32) (result i32)))
    (import "" "rep" (func $rep (param i32) (result i32)))
    (import "" "drop" (func $drop (param i32)))
    (func (export "make") (param i32) (result i32) (call $new (local.get 0)))
    (func (export "read") (param i32) (result i32) (local.get 0))
    (func (export "close") (param i32) (result i32) (local $v i32)
      (local.set $v (call $rep (local.get 0))) (call $drop (local.get 0)) (local.get $v)))
  (core instance $run (instantiate $code (with "" (instance
    (export "new" (func $new)) (export "rep" (func $rep)) (export "drop" (func $drop))))))
  (export $counter "counter" (type $counter'))
  (func (export "make") (param "a0" u32) (result (own $counter)) (canon lift (core func $run "make")))
  (func (export "read") (param "a0" (borrow $counter)) (result u32) (canon lift (core func $run "read")))
  (func (export "close") (param "a0" (own $counter)) (result u32) (canon lift (core func $run "close")))
  (func (export "dropped") (result u32) (canon lift (core func $s "dropped"))))
"""


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """With the worker's setting for lists of borrows."""
    from sandbox.engine import make_engine

    return make_engine()


def function(name: str, parameters: tuple[Type, ...], result: Type | None) -> Function:
    return Function(name, tuple((f"a{number}", kind) for number, kind in enumerate(parameters)), result)


class Things:
    """A host of things: numbers by representation."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self.live: dict[int, int] = {}
        self.dropped: list[int] = []
        self.last = 0
        self.wrong: Any = 0
        marshal.check_engine()
        marshal.name_resource(THING, NUMBER)
        self.linker = wt.Linker(engine)
        with self.linker.root() as root, root.add_instance("test:things/things") as instance:
            marshal.define_resource(instance, "thing", THING, NUMBER, self._drop)
            for name, implementation in {
                "make": self.make,
                "value": self.live.__getitem__,
                "sum": lambda these: sum(self.live[each] for each in these),
                "eat": self._eat,
            }.items():
                marshal.define(instance, name, function(name, *OURS[name]), implementation)
        self.store = marshal.Store(engine)
        self.store.set_fuel(1 << 60)
        self.instance = marshal.Instance(self.linker, self.store, wt.Component(engine, HOST))

    def make(self, value: int) -> int:
        if self.wrong != 0:
            return self.wrong  # type: ignore[no-any-return]
        self.last += 1
        self.live[self.last] = value
        return self.last

    def _eat(self, representation: int) -> int:
        return self.live.pop(representation)

    def _drop(self, representation: int) -> None:
        self.dropped.append(self.live.pop(representation))

    def call(self, name: str, kinds: tuple[Type, ...], result: Type, *arguments: Any) -> Any:
        export = self.instance.export(function(name, kinds, result))
        assert export is not None
        return export(*arguments)


@pytest.fixture
def things(engine: wasmtime.Engine) -> Iterator[Things]:
    """A fresh host and guest."""
    yield Things(engine)


def test_own_and_borrow_of_the_host(things: Things) -> None:
    """Made, lent alone and in a list, dropped, given back for good: each exactly once, by its representation."""
    assert 7 == things.call("cycle", (U32,), U32, 7)
    assert ([7], {}) == (things.dropped, things.live)
    assert 3 * 10 + 3 == things.call("total", (U32,), U32, 10)
    assert ([7, 10, 11, 12], {}) == (things.dropped, things.live)
    assert 5 == things.call("feed", (U32,), U32, 5)
    assert ([7, 10, 11, 12], {}) == (things.dropped, things.live), "what was given away is not dropped"


def test_handles_as_arguments_of_an_export(things: Things) -> None:
    """The host gives a guest a resource and gets it back, and lends one for a call."""
    mine = things.make(70)
    assert mine == things.call("back", (OWN,), OWN, mine)
    assert 70 == things.call("lend", (BORROW,), U32, mine)
    assert {mine: 70} == things.live


@pytest.mark.parametrize("wrong", [-1, 1 << 32, "1", True, None, 1.0])
def test_what_is_no_representation_is_refused(things: Things, wrong: Any) -> None:
    """As an argument, and as a host function's result."""
    with pytest.raises(marshal.BadValue, match=r"representation of a test:things/things\.thing"):
        things.call("back", (OWN,), OWN, wrong)
    things.wrong = wrong
    with pytest.raises(marshal.BadValue, match="the result is not the representation"):
        things.call("feed", (U32,), U32, 5)


def test_a_destructor_that_raises_ends_the_call(engine: wasmtime.Engine) -> None:
    """Its exception is the call's; the instance cannot go on."""
    things = Things(engine)
    things.dropped = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        things.call("cycle", (U32,), U32, 7)
    with pytest.raises(wasmtime.WasmtimeError, match="cannot enter"):
        things.call("cycle", (U32,), U32, 7)


def test_many_handles_leave_nothing(things: Things) -> None:
    """Thousands of handles come and go; neither table grows."""
    for number in range(3000):
        assert number == things.call("cycle", (U32,), U32, number)
    assert {} == things.live
    assert list(range(3000)) == things.dropped


def test_a_number_belongs_to_one_resource() -> None:
    """A second number for a known resource is refused: plans were made with the first."""
    marshal.name_resource(THING, NUMBER)
    with pytest.raises(ValueError, match="has the number 900"):
        marshal.name_resource(THING, NUMBER + 1)
    assert NUMBER == resources.host_types[THING]


COUNTER = "test:counter"
MINE, LENT = HandleType(COUNTER, borrowed=False), HandleType(COUNTER, borrowed=True)


class Counters:
    """A guest that has resources of its own."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        marshal.check_engine()
        self.store = marshal.Store(engine)
        self.store.set_fuel(1 << 60)
        self.linker = wt.Linker(engine)
        self.instance = marshal.Instance(self.linker, self.store, wt.Component(engine, GUEST))
        self.make = self._export("make", (U32,), MINE)
        self.read = self._export("read", (LENT,), U32)
        self.close = self._export("close", (MINE,), U32)
        self.dropped = self._export("dropped", (), U32)

    def _export(self, name: str, kinds: tuple[Type, ...], result: Type) -> marshal.Export:
        found = self.instance.export(function(name, kinds, result))
        assert found is not None
        return found


def test_a_guests_own_resource(engine: wasmtime.Engine) -> None:
    """Made by the guest, lent to it again, given back or dropped; its destructor runs once."""
    guest = Counters(engine)
    one, two = guest.make(5), guest.make(7)
    assert isinstance(one, marshal.GuestResource)
    assert (5, 7, 5) == (guest.read(one), guest.read(two), guest.read(one))
    assert (5, 5) == (guest.close(one), guest.dropped())
    two.drop()
    assert 12 == guest.dropped()
    with pytest.raises(ValueError, match="was dropped"):
        two.drop()
    with pytest.raises(marshal.BadValue, match="of a guest"):
        guest.read(5)
    with pytest.raises(wasmtime.WasmtimeError, match="unknown handle"):
        guest.read(one)


def test_a_guests_resource_without_drop(engine: wasmtime.Engine) -> None:
    """Without `drop` a resource is the store's until it closes; the handle itself is freed with its object."""
    guest = Counters(engine)
    for number in range(2000):
        assert number == guest.read(guest.make(number))
    assert 0 == guest.dropped()


def test_types_inside_types(engine: wasmtime.Engine) -> None:
    """A plan of handles within lists, options and results knows whose they are."""
    marshal.name_resource(THING, NUMBER)
    inside = Function("f", (("x", ListType(OptionType(TupleType((OWN, MINE))))),), ResultType(OWN, MINE))
    plan = marshal.plan_of(inside)
    assert plan is marshal.plan_of(inside)
    with pytest.raises(marshal.BadValue, match=r"x\[0\]\[1\] is not a test:counter of a guest"):
        plan.write_arguments.write(Things(engine).store.context, [], ([(1, 1)],))
