"""Calls in both directions beyond their values: exceptions, re-entrance, plans that do not fit, and memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import forked
import pytest
import wasmtime
from echo_component import PAD, Running
from wasmtime import component as wt

from sandbox import marshal
from sandbox.abi.types import (
    BYTES,
    STRING,
    U8,
    U32,
    U64,
    Case,
    Err,
    FlagsType,
    Function,
    ListType,
    Ok,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    Type,
    VariantType,
)
from sandbox.kernel import heap
from sandbox.marshal import failures, imports

pytestmark = pytest.mark.block1_runtime
MIXED = TupleType(
    (
        STRING,
        BYTES,
        ListType(TupleType((STRING, OptionType(U32)))),
        VariantType((("a", None), ("b", STRING), ("c", RecordType((("x", BYTES), ("y", U64)))))),
        FlagsType(("r", "w", "x")),
        ResultType(ListType(U32), STRING),
        OptionType(STRING),
    )
)
"""Something of everything that is allocated."""
VALUES = [
    ("text", b"bytes", [("a", 1), ("b", None)], Case("a"), frozenset("r"), Ok([1, 2, 3]), None),
    ("", b"", [], Case("b", "payload"), frozenset(), Err("why"), "some"),
    ("\u00e9" * 100, bytes(3000), [("k" * 50, 7)] * 20, Case("c", (b"x" * 99, 1)), frozenset("rwx"), Ok([]), ""),
]


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """One engine for all but the forked."""
    return alone()


def alone() -> wasmtime.Engine:
    """An engine without threads of its own, which a fork would miss."""
    config = wasmtime.Config()
    config.parallel_compilation = False
    return wasmtime.Engine(config)


class Odd(Exception):
    """Of nobody's."""


@pytest.mark.parametrize("error", [Odd("why"), wasmtime.WasmtimeError("own"), MemoryError(), KeyboardInterrupt()])
def test_exceptions_of_host_functions_travel(engine: wasmtime.Engine, error: BaseException) -> None:
    """What a host function raises is what the call raises, the very object; the next guest is none the worse."""
    running = Running(engine, U32)

    def fail(_values: Any) -> Any:
        raise error

    running.give = fail  # type: ignore[method-assign]
    with pytest.raises(type(error)) as caught:
        running.call("relay", [1])
    assert error is caught.value
    with pytest.raises(wasmtime.WasmtimeError, match="cannot enter component instance"):
        running.call("echo", [1])
    assert [1] == Running(engine, U32).call("relay", [1])


def test_a_trap_is_the_engines(engine: wasmtime.Engine) -> None:
    """A trap is raised with the engine's words, also after an exception has travelled."""
    trap = '(component (core module $m (func (export "f") unreachable)) (core instance $i (instantiate $m))'
    text = trap + ' (func (export "f") (canon lift (core func $i "f"))))'
    for _ in range(2):
        store = marshal.Store(engine)
        export = marshal.Instance(wt.Linker(engine), store, wt.Component(engine, text)).export(Function("f", ()))
        assert export is not None
        with pytest.raises(wasmtime.WasmtimeError, match="unreachable"):
            export()


def test_exceptions_in_start_functions_travel(engine: wasmtime.Engine) -> None:
    """A host function called while a component is instantiated raises out of the instantiation."""
    text = """
    (component (import "h" (func $h)) (core func $l (canon lower (func $h)))
      (core module $m (import "" "h" (func $h)) (start $h))
      (core instance (instantiate $m (with "" (instance (export "h" (func $l)))))))
    """

    def fail() -> None:
        raise Odd

    linker = wt.Linker(engine)
    with linker.root() as root:
        marshal.define(root, "h", Function("h", ()), fail)
    with pytest.raises(Odd):
        marshal.Instance(linker, marshal.Store(engine), wt.Component(engine, text))


def test_a_function_that_traps_always(engine: wasmtime.Engine) -> None:
    """`define_trap` takes any arguments and looks at none."""
    running = Running(engine, STRING)

    def fail() -> None:
        raise Odd

    linker = wt.Linker(engine)
    with linker.root() as root:
        for name in running.made.imports:
            marshal.define_trap(root, name, fail)
    instance = marshal.Instance(linker, marshal.Store(engine), running.component)
    relay = instance.export(running.made.exports["relay"])
    assert relay is not None
    with pytest.raises(Odd):
        relay(["x"])


def test_a_guest_is_not_entered_twice(engine: wasmtime.Engine) -> None:
    """A host function that calls a guest is refused, whichever guest; the engine hears nothing of it."""
    running, other = Running(engine, U32), Running(engine, U32)
    refusals: list[str] = []

    def again(values: Any) -> Any:
        for guest in (running, other):
            with pytest.raises(marshal.Reentered) as caught:
                guest.call("echo", values)
            refusals.append(caught.value.code)
        with pytest.raises(marshal.Reentered):
            marshal.Instance(running.linker, marshal.Store(engine), running.component)
        return values

    running.give = again  # type: ignore[method-assign]
    assert [3] == running.call("relay", [3])
    assert ["E_REENTERED", "E_REENTERED"] == refusals
    assert not marshal.gate.busy
    assert [3] == other.call("relay", [3])


def test_the_engine_lets_a_guest_be_entered_twice(engine: wasmtime.Engine) -> None:
    """Positive control: by wasmtime-py alone the same call comes through, so the refusal is ours to make."""
    running = Running(engine, U32)
    store = wasmtime.Store(engine)
    entered: list[Any] = []
    linker = wt.Linker(engine)

    def again(_store: Any, values: Any, *_: Any) -> Any:
        echo = instance.get_func(store, "echo")
        assert echo is not None
        entered.append(echo(store, values))
        return values

    with linker.root() as root:
        for name in running.made.imports:
            root.add_func(name, again)
    instance = linker.instantiate(store, running.component)
    relay = instance.get_func(store, "relay")
    assert relay is not None
    assert [3] == relay(store, [3])
    assert [[3]] == entered


def test_wrong_numbers_of_arguments(engine: wasmtime.Engine) -> None:
    """Too few and too many are refused; a function that is not there is None."""
    running = Running(engine, U32)
    echo = running.instance.export(running.made.exports["echo"])
    assert echo is not None
    for wrong in ((), ([1], [2])):
        with pytest.raises(marshal.BadValue, match=f"{len(wrong)} values where there are 1"):
            echo(*wrong)
    assert [1] == echo([1])
    assert running.instance.export(Function("nothing", ())) is None
    assert running.instance.export(Function("echo", ()), "no:interface/x") is None


KINDS: list[Type] = [
    U8,
    U64,
    STRING,
    BYTES,
    ListType(STRING),
    ListType(TupleType((STRING, U32))),
    TupleType((STRING, U32)),
    RecordType((("a", STRING), ("b", U32))),
    OptionType(STRING),
    ResultType(STRING, U32),
    VariantType((("a", STRING), ("b", None))),
    FlagsType(("a", "b")),
    Primitive("f64"),
]


@pytest.mark.parametrize("truth", range(len(KINDS)))
def test_a_plan_of_another_type_reads_nothing(engine: wasmtime.Engine, truth: int) -> None:
    """An export or import defined with a wrong type: an error that says so, never a number taken for an address."""
    value = [5, 5, "s", b"b", ["s"], [("s", 1)], ("s", 1), ("s", 1), "s", Ok("s"), Case("a", "s"), frozenset("a"), 0.5]
    for wrong, kind in enumerate(KINDS):
        if wrong == truth:
            continue
        running = Running(engine, KINDS[truth])
        listed = running.made.exports["listed"]
        result = marshal.plan_of(Function("listed", listed.parameters, ListType(kind)))
        export = running.instance.export(result)
        assert export is not None
        with pytest.raises(marshal.TypesDiffer):
            export(value[truth], *PAD)
        linker = wt.Linker(engine)
        with linker.root() as root:
            for name, function in running.made.imports.items():
                given = (("x", ListType(kind)), *function.parameters[1:])
                marshal.define(root, name, Function(name, given, function.result), lambda *_: value[truth])
        relay = marshal.Instance(linker, marshal.Store(engine), running.component).export(running.made.exports["relay"])
        assert relay is not None
        with pytest.raises(marshal.TypesDiffer):
            relay([value[truth]] if truth else b"\5")


def test_host_functions_are_forgotten_with_their_linker(engine: wasmtime.Engine) -> None:
    """What a linker was given goes when it goes."""
    gc.collect()
    before = len(imports._served)
    linker = wt.Linker(engine)
    with linker.root() as root:
        marshal.define(root, "f", Function("f", ()), lambda: None)
    assert before + 1 == len(imports._served)
    linker.close()
    assert before == len(imports._served)


def _in_use() -> int:
    """Bytes in use in the C library's heap, the engine's among them, and in mappings of its own."""
    info = heap.handle.mallinfo2
    info.restype = heap._Info
    found = info()
    return int(found.uordblks + found.hblkhd)


def _mixed(count: int) -> Callable[[], tuple[int, int]]:
    """Growth of the process, bytes, and of its objects, over `count` calls of every kind, good and bad."""

    def run() -> tuple[int, int]:
        running = Running(alone(), MIXED)
        wrong = (*VALUES[0][:-1], "\ud800")

        def turn(number: int) -> None:
            value = VALUES[number % 3]
            assert [value] == running.call("echo", [value])
            assert [value] == running.call("relay", [value])
            assert value == running.call("pass", value)
            running.give = lambda _: Err(value)  # type: ignore[method-assign]
            assert Err(value) == running.call("ask", [])
            del running.give  # type: ignore[method-assign]
            try:
                running.call("echo", [value, wrong])
            except marshal.BadValue:
                return
            raise AssertionError

        for number in range(2000):
            turn(number)
        gc.collect()
        objects = len(gc.get_objects())  # a list of all of them: first, so that it does not count as growth
        before = _in_use()
        for number in range(count // 5):
            turn(number)
        gc.collect()
        after = _in_use()
        return after - before, len(gc.get_objects()) - objects

    return run


def test_memory_stays_flat() -> None:
    """Ten thousand calls with values of every kind, errors and refused values: the process does not grow."""
    grown, objects = forked.returns(_mixed(10_000))
    assert grown < 20_000
    assert objects < 50


@pytest.mark.long
def test_memory_stays_flat_over_a_million() -> None:
    """A million calls: not a byte each."""
    grown, objects = forked.returns(_mixed(1_000_000))
    assert grown < 20_000
    assert objects < 50


def test_wasmtime_pys_own_conversion_grows() -> None:
    """Positive control: the measure sees what wasmtime-py's conversion loses in a few thousand calls."""

    def run() -> int:
        running = Running(alone(), OptionType(STRING))
        store = wasmtime.Store(running.engine)
        echo = running.linker.instantiate(store, running.component).get_func(store, "echo")
        assert echo is not None
        for _ in range(300):
            echo(store, ["x"] * 20)
        before = _in_use()
        for _ in range(1500):
            echo(store, ["x"] * 20)
        return _in_use() - before

    assert forked.returns(run) > 300_000


def test_errors_without_memory() -> None:
    """Where no error object can be made any more, the engine is given one that was made before."""
    assert failures._spare != 0
