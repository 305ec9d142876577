"""Values across the boundary and back: every type, both ways, as what they were; and as wasmtime-py has them."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
import wasmtime
from canonical import types, values
from echo_component import PAD, Running, at_top
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from stock_values import Unlike, same, to_stock
from wasmtime import component as wt

from sandbox import marshal
from sandbox.abi.types import (
    BOOL,
    BYTES,
    INTEGERS,
    STRING,
    U8,
    U32,
    Case,
    EnumType,
    Err,
    FlagsType,
    Function,
    ListType,
    Ok,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    Some,
    TupleType,
    Type,
    VariantType,
)
from sandbox.marshal.engine_types import of_engine
from sandbox.marshal.lowering import TypeTooLarge
from sandbox.marshal.shapes import INTEGERS as RANGES

pytestmark = pytest.mark.block1_runtime
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """One engine with the worker's settings of values."""
    config = wasmtime.Config()
    config.cranelift_nan_canonicalization = True
    return wasmtime.Engine(config)


def everywhere(running: Running, value: Any) -> None:
    """A value goes each way there is, alone and in lists, and is the same afterwards."""
    several = [value, value, value]
    for found in (running.call("echo", several), running.call("relay", several), running.call("ask", several)):
        assert (several, type(several)) == (found, type(found))
    assert several == running.seen
    assert [value] == running.call("listed", value)
    if "first" in running.made.exports:
        top = at_top(running.kind, value)
        assert top == running.call("first", [value])
        assert top == running.call("pass", value)
        assert value == running.seen
    running.give = lambda _values: Err(value)  # type: ignore[method-assign]
    assert Err(value) == running.call("ask", several)
    del running.give  # type: ignore[method-assign]


@SLOW
@given(st.data())
def test_any_value_of_any_type(engine: wasmtime.Engine, data: st.DataObject) -> None:
    """Whatever the type and the value: through exports and host functions, as parameter, result, element and error."""
    kind = data.draw(types())
    assume(kind != U8)  # a list of these is bytes
    running = Running(engine, kind)
    for _ in range(3):
        everywhere(running, data.draw(values(kind)))


@SLOW
@given(st.data())
def test_as_wasmtime_py_has_them(engine: wasmtime.Engine, data: st.DataObject) -> None:
    """The same call by wasmtime-py, wherever it can say the value, gives the same value; nothing is read otherwise."""
    kind = data.draw(types(leaves=5))
    assume(kind != U8)
    running = Running(engine, kind)
    store = wasmtime.Store(engine)
    linker = wt.Linker(engine)
    with linker.root() as root:
        for name in running.made.imports:
            root.add_func(name, lambda _store, given, *_: given)
    instance = linker.instantiate(store, running.component)
    echo = instance.get_func(store, "echo")
    assert echo is not None
    (_, many), *_ = echo.type(store).params
    for _ in range(3):
        several = data.draw(st.lists(values(kind), max_size=3))
        try:
            theirs = echo(store, to_stock(many, several))
        except Unlike:
            continue
        ours = running.call("echo", several)
        assert several == ours
        assert same(many, ours, theirs)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_at_their_ends(engine: wasmtime.Engine, kind: str) -> None:
    """The least and the largest go through; one beyond either is refused before the guest hears of it."""
    low, high = RANGES[kind]
    running = Running(engine, TupleType((Primitive(kind), Primitive(kind))))
    everywhere(running, (low, high))
    for wrong in ((low - 1, 0), (0, high + 1), (1.0, 0), ("1", 0), (None, 0)):
        refused(engine, TupleType((Primitive(kind), Primitive(kind))), wrong)
    many = Running(engine, OptionType(ListType(Primitive(kind))))
    if kind != "u8":
        everywhere(many, [low, high, 0])
        for wrong in ([low - 1], [high + 1], [0, 1.0], ["1"], (1,), b""):
            refused(engine, OptionType(ListType(Primitive(kind))), wrong)


def refused(engine: wasmtime.Engine, kind: Type, value: Any) -> str:
    """A value that is not of the type: an argument of no call, and no result of a host function; the two texts."""
    running = Running(engine, kind)
    running.seen = "nothing"
    with pytest.raises(marshal.BadValue) as argument:
        running.call("listed", value)
    assert "nothing" == running.seen
    good = running.call("echo", [])
    assert [] == good, "the next call is none the worse"
    running.give = lambda _values: [value]  # type: ignore[method-assign]
    with pytest.raises(marshal.BadValue) as result:
        running.call("relay", [])
    assert argument.value.subject == "listed"
    assert result.value.subject == "many"
    return f"{argument.value.message} | {result.value.message}"


@pytest.mark.parametrize(
    ("kind", "wrong", "text"),
    [
        (BOOL, 1, "x is not a bool: 1 (int)"),
        (BOOL, None, "x is not a bool: None (NoneType)"),
        (Primitive("char"), "ab", "x is not one Unicode character"),
        (Primitive("char"), "", "x is not one Unicode character"),
        (Primitive("char"), "\ud800", "x is not one Unicode character"),
        (Primitive("char"), "\udfff", "x is not one Unicode character"),
        (Primitive("char"), b"a", "x is not one Unicode character"),
        (STRING, "a\udc80", "x is not a string of Unicode without surrogates"),
        (STRING, b"a", "x is not a string"),
        (Primitive("f64"), 1, "x is not an f64: 1 (int)"),
        (Primitive("f32"), "1", "x is not an f32"),
        (BYTES, "abc", "x is not bytes"),
        (BYTES, [1, 2], "x is not bytes"),
        (ListType(STRING), ["a", "\ud800"], "x[1] is not a string"),
        (ListType(STRING), ("a",), "x is not a list"),
        (ListType(BOOL), [True, 1], "x[1] is not a bool"),
        (ListType(Primitive("char")), ["a", "\ud800"], "x[1] is not one Unicode character"),
        (ListType(Primitive("f64")), [1.0, 1], "x[1] is not an f64"),
        (ListType(TupleType((STRING, U32))), [("a", 1), ("b", -1)], "x[1][1] is not a u32: -1 (int)"),
        (TupleType((STRING, U32)), ("a",), "x is not a tuple of 2"),
        (TupleType((STRING, U32)), ["a", 1], "x is not a tuple of 2"),
        (RecordType((("f", U32),)), (1 << 32,), "x[0] is not a u32"),
        (OptionType(U32), "", "x is not a u32"),
        (OptionType(OptionType(U32)), 5, "x is not None or Some"),
        (OptionType(OptionType(U32)), Some("5"), "x is not a u32"),
        (ResultType(U32, STRING), 5, "x is not Ok or Err"),
        (ResultType(U32, STRING), Ok("5"), "x.value is not a u32"),
        (ResultType(None, STRING), Ok(5), "x.value is not None"),
        (ResultType(U32, None), Err(5), "x.value is not None"),
        (VariantType((("a", None), ("b", U32))), "a", "x is not a Case of a, b"),
        (VariantType((("a", None), ("b", U32))), Case("c"), "x is not a Case of a, b"),
        (VariantType((("a", None), ("b", U32))), Case("a", 1), "x, a is not None"),
        (VariantType((("a", None), ("b", U32))), Case("b"), "x, b is not a u32"),
        (EnumType(("a", "b")), "c", "x is not one of a, b"),
        (EnumType(("a", "b")), [], "x is not one of a, b"),
        (FlagsType(("a", "b")), {"c"}, "x is not a set of a, b"),
        (FlagsType(("a", "b")), ["a"], "x is not a set of a, b"),
    ],
)
def test_what_is_not_of_its_type_is_refused(engine: wasmtime.Engine, kind: Type, wrong: Any, text: str) -> None:
    """As an argument and as a host function's result, with the name of the part that is wrong."""
    argument, result = refused(engine, kind, wrong).split(" | ")
    assert argument.startswith(text)
    assert "the result[0]" in result


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_floats(engine: wasmtime.Engine, kind: str) -> None:
    """Zeros keep their sign, infinities come back, an f32 is rounded; a NaN is a NaN, and always the same one."""
    running = Running(engine, TupleType((Primitive(kind), ListType(Primitive(kind)))))

    def through(value: float) -> tuple[float, list[float]]:
        found = running.call("pass", (value, [value]))
        assert isinstance(found, tuple)
        return found

    for value in (0.0, -0.0, math.inf, -math.inf, 5e-324 if kind == "f64" else 1e-45):
        rounded = struct.unpack("f", struct.pack("f", value))[0] if kind == "f32" else value
        one, (other,) = through(value)
        assert (repr(rounded), repr(rounded)) == (repr(one), repr(other))
    one, (other,) = through(1e300)
    assert (one, other) == ((math.inf, math.inf) if kind == "f32" else (1e300, 1e300))
    for bits in (0x7FF8 << 48 | 7, 0xFFF8 << 48, 0x7FF4 << 48):
        (nan,) = struct.unpack("<d", struct.pack("<Q", bits))
        one, (other,) = through(nan)
        assert struct.pack("<d", math.nan) == struct.pack("<d", one) == struct.pack("<d", other)


def test_bytes_of_any_kind(engine: wasmtime.Engine) -> None:
    """bytes, bytearray and memoryview are bytes; what comes is bytes; a megabyte is no trouble."""
    running = Running(engine, TupleType((BYTES, U32)))
    for value in (b"", b"\0\xff" * 9, bytearray(b"ab"), memoryview(b"abc")):
        assert (bytes(value), 1) == running.call("pass", (value, 1))
    large = bytes(range(256)) * 4096
    assert (large, 1) == running.call("pass", (large, 1))
    refused(engine, TupleType((BYTES, U32)), (memoryview(b"abcdefgh").cast("I"), 1))


@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 31, 32])
def test_flags_of_any_number(engine: wasmtime.Engine, count: int) -> None:
    """None, each by itself, all together, of one flag and of as many as there can be."""
    names = tuple(f"f{number}" for number in range(count))
    running = Running(engine, FlagsType(names))
    several = [frozenset(), frozenset(names), *(frozenset([name]) for name in names)]
    assert several == running.call("echo", several)
    assert several == running.call("relay", several)


@pytest.mark.parametrize("count", [0, 33])
def test_flags_the_engine_does_not_take(engine: wasmtime.Engine, count: int) -> None:
    """No flags at all, and more than 32: no component has such a type, so nothing of it need be marshalled."""
    with pytest.raises(wasmtime.WasmtimeError, match="flags"):
        Running(engine, FlagsType(tuple(f"f{number}" for number in range(count))))


def test_long_and_deep(engine: wasmtime.Engine) -> None:
    """A hundred thousand elements, and types thirty deep, of every kind of type."""
    running = Running(engine, TupleType((STRING, OptionType(U32))))
    long = [(str(number), None if number % 2 else number) for number in range(100_000)]
    assert long == running.call("echo", long)
    deep: Type = U32
    value: Any = 7
    for level in range(30):
        deep, value = (
            (OptionType(deep), Some(value) if isinstance(deep, OptionType) else value),
            (ListType(deep), [value, value] if level < 8 else [value]),
            (TupleType((deep, STRING)), (value, "x")),
            (ResultType(STRING, deep), Err(value)),
            (VariantType((("a", None), ("b", deep))), Case("b", value)),
            (RecordType((("f", deep),)), (value,)),
        )[level % 6]
    everywhere(Running(engine, deep), value)
    options: Type = STRING
    value = "x"
    for level in range(30):
        options, value = OptionType(options), Some(value) if level else value
    everywhere(Running(engine, options), value)
    everywhere(Running(engine, TupleType((options, options))), (None, value))


def test_a_tree_larger_than_the_shared_place(engine: wasmtime.Engine) -> None:
    """A type of many parts has a place of its own; one of more than a host bears is refused by name."""
    wide = TupleType(tuple(TupleType((U32,) * 30) for _ in range(30)))
    value = tuple(tuple(range(at, at + 30)) for at in range(30))
    running = Running(engine, wide)
    assert [value] == running.call("listed", value)
    assert [value] == running.call("relay", [value])
    double: Type = U32
    for _ in range(16):
        double = TupleType((double, double))
    with pytest.raises(TypeTooLarge):
        marshal.plan_of(Function("huge", (("x", double),))).for_export  # noqa: B018


def test_types_as_the_engine_tells_them(engine: wasmtime.Engine) -> None:
    """`of_engine` reads back the types a component was written with, and calls by them."""
    kind = TupleType(
        (
            RecordType((("a-b", STRING), ("c", BYTES))),
            VariantType((("x", None), ("y", ListType(OptionType(U32))))),
            EnumType(("one", "two")),
            FlagsType(("r", "w")),
            ResultType(Primitive("s8"), Primitive("char")),
            TupleType((BOOL, Primitive("f32"), Primitive("f64"))),
        )
    )
    running = Running(engine, kind)
    store = wasmtime.Store(engine)
    instance = running.linker.instantiate(store, running.component)
    function = instance.get_func(store, "pass")
    assert function is not None
    found = of_engine("pass", function.type(store))
    assert running.made.exports["pass"] == found
    value = (("k", b"v"), Case("y", [1, None]), "two", frozenset("w"), Err("c"), (True, 0.5, 0.25))
    assert value == marshal.Export(store, function, found)(value, *PAD)


Pairs = Callable[[Type], tuple[Running, Callable[[Any], Any]]]


@pytest.fixture(scope="module")
def pairs(engine: wasmtime.Engine) -> Pairs:
    """`listed` of a type by us and by wasmtime-py, made once per type."""

    @functools.cache
    def pair(kind: Type) -> tuple[Running, Callable[[Any], Any]]:
        running = Running(engine, kind)
        store = wasmtime.Store(engine)
        function = running.linker.instantiate(store, running.component).get_func(store, "listed")
        assert function is not None
        return running, lambda value: function(store, value, *PAD)

    return pair


NUMBERS = st.integers() | st.floats(allow_nan=False)
ANYTHING = st.none() | st.booleans() | NUMBERS | st.text(max_size=3) | st.binary(max_size=3)


@given(value=ANYTHING)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("kind", ["bool", "u8", "s32", "u64", "f32", "f64", "char", "string", "bytes"])
def test_refused_as_by_wasmtime_py(pairs: Pairs, kind: str, value: Any) -> None:
    """What wasmtime-py refuses is refused here; what is taken here comes back as from there. More is refused: integers
    out of range, which wasmtime-py cuts, and surrogates."""
    of = BYTES if kind == "bytes" else Primitive(kind)
    running, stock = pairs(of)
    try:
        theirs: Any = stock(value)
    except (TypeError, ValueError, OverflowError):
        with pytest.raises(marshal.BadValue):
            running.call("listed", value)
        return
    try:
        ours = running.call("listed", value)
    except marshal.BadValue:
        assert kind in RANGES or isinstance(value, str)
        assert not isinstance(value, int) or not RANGES[kind][0] <= value <= RANGES[kind][1]
    else:
        assert theirs == ours or kind == "u8"
