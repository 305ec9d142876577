"""Data images: memory begins byte for byte as it would have, every refusal and trap stays, workers share the pages."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
from pathlib import Path
from typing import Any

import heavy_guests
import pytest
import wasmtime
import wasmtime.component as wasmtime_component
from forked import returns
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox import loader, memories
from sandbox.engine import make_engine
from sandbox.patch import binary, images
from sandbox.wire import code_file
from sandbox.wire.code_file import GRAIN, Image
from supervisor.control import memfd

pytestmark = pytest.mark.block1_runtime
GUESTS = Path(__file__).resolve().parents[1] / "guests"
PAGE = 65536
WHOLE = 1 << 32


def component(*modules: str, rest: str = "") -> bytes:
    """A component of core modules, each instantiated once, in order."""
    text = "".join(f"(core module $m{n} {body})" for n, body in enumerate(modules))
    text += "".join(f"(core instance $i{n} (instantiate $m{n}))" for n in range(len(modules)))
    return bytes(wasmtime.wat2wasm(f"(component {text} {rest})"))


def quoted(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:02x}" for byte in data) + '"'


LARGE = quoted(bytes(range(256)) * 300)
"""76,800 bytes as text: enough for an image."""


# -- what is taken out ------------------------------------------------------------------------------------------------


def test_the_data_leave_the_component() -> None:
    """The module has as many segments, empty, and a maximum that marks its memory; the image has the data."""
    wasm = component(f'(memory 3 40) (data (i32.const 65540) {LARGE}) (data "passive")')
    out = images.extract(wasm)
    ((image, content),) = out.images
    assert (65535 * PAGE, 3 * PAGE, 40 * PAGE) == (image.mark, image.minimum, image.maximum)
    assert (PAGE, 2 * PAGE) == (image.start, len(content))
    assert bytes(4) + bytes(range(256)) * 300 == content[:76804]
    assert not any(content[76804:])
    assert len(out.wasm) < 200
    assert b"passive" in out.wasm


@pytest.mark.parametrize(
    "module",
    [
        '(memory 3) (data (i32.const 0) "little")',
        f'(memory 3) (data (i32.const 0) {LARGE}) (global i32 (i32.const 7)) (data (offset (global.get 0)) "x")',
        f"(memory 1) (data (i32.const 0) {LARGE})",
        f'(memory 3) (data (i32.const 0) {LARGE}) (data (i32.const 196607) "xy")',
        f'(memory 3) (data (i32.const 0) {LARGE}) (data (i32.const -1) "")',
        f"(memory 3) (memory 3) (data (i32.const 0) {LARGE})",
        f'(import "a" "b" (memory 3)) (memory 1) (data (memory 1) (i32.const 0) {LARGE})',
        f'(memory 3) (data (i32.const 0) {LARGE}) (data (offset (i32.add (i32.const 0) (i32.const 1))) "x")',
        f'(memory 400) (data (i32.const 0) {LARGE}) (data (i32.const 26000000) "far away")',
        f"(memory i64 3) (data (i64.const 0) {LARGE})",
    ],
    ids=[
        "little",
        "not constant",
        "out of bounds",
        "over the end",
        "empty and out of bounds",
        "two memories",
        "imported",
        "computed",
        "strewn",
        "64 bits",
    ],
)
def test_left_alone(module: str) -> None:
    """A module of any other kind stays as it is, byte for byte."""
    core = bytes(wasmtime.wat2wasm(f"(module {module})"))
    wasm = b"\0asm\x0d\0\x01\0" + images.section(1, core)
    assert wasm == images.extract(wasm).wasm
    assert [] == images.extract(wasm).images


def test_marks_are_nobody_elses() -> None:
    """A maximum that a module of the component declares itself marks nothing; a memory that may become larger than
    its mark would allow is left alone."""
    data = f"(data (i32.const 0) {LARGE})"
    out = images.extract(component("(memory 1 65535)", f"(memory 3) {data}", f"(memory 3 65536) {data}"))
    assert [65534 * PAGE, 65533 * PAGE] == [image.mark for image, _ in out.images]
    assert [] == images.extract(component(f"(memory 3 65535) {data}")).images


def test_segments_keep_their_numbers_where_they_have_any() -> None:
    """With a data count section, or a passive segment, there are as many segments as before; else there are none."""

    def segments(module: str) -> int | None:
        out = images.extract(component(module))
        assert 1 == len(out.images)
        (core,) = modules_of(out.wasm)
        for each in binary.sections(core, binary.CORE_HEADER, binary.Budget(100)):
            if each.number == 11:
                return core[each.body]
        return None

    data = f'(memory 3) (data (i32.const 4) {LARGE}) (data (i32.const 9) "x")'
    assert segments(data) is None
    assert 3 == segments(data + '(data "passive")')
    assert 2 == segments(data + "(func (data.drop 1))")


def test_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images of a component together are bounded; what would be too much stays where it is."""
    monkeypatch.setattr(images, "MOST", 5 * PAGE)
    modules = [f"(memory 3) (data (i32.const 0) {LARGE})"] * 4
    assert [2 * PAGE, 2 * PAGE] == [len(content) for _, content in images.extract(component(*modules)).images]


def test_nested_components() -> None:
    """Modules of nested components, too."""
    module = f"(core module (memory 3) (data (i32.const 0) {LARGE}))"
    wasm = bytes(wasmtime.wat2wasm(f"(component (component {module}) {module})"))
    out = images.extract(wasm)
    assert 2 == len(out.images)
    wasmtime_component.Component(make_engine(), out.wasm)


@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    """Whatever bytes come: an answer, and no error; what does not read as a component stays as it is."""
    wasm = bytearray(component(f"(memory 3) (data (i32.const 9) {LARGE})", "(memory 1 7)"))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.one_of(st.integers(0, 60), st.integers(len(wasm) - 60, len(wasm) - 1)))
        wasm[at] = data.draw(st.integers(0, 255))
    cut = bytes(wasm[: data.draw(st.integers(0, len(wasm)))] if data.draw(st.booleans()) else wasm)
    out = images.extract(cut)
    assert bool(out.images) == (out.wasm != cut)


@given(st.binary(max_size=300))
def test_any_other_bytes(data: bytes) -> None:
    """Bytes that are no component are what comes out."""
    assert data == images.extract(data).wasm


# -- memory begins as it would have -----------------------------------------------------------------------------------


class Begun:
    """A component of `component` instantiated in this process, the way a worker does it."""

    def __init__(self, wasm: bytes, *, extracted: bool, limit: int = 64 << 20, profile: str = "paranoid") -> None:
        self.table = memories.memories
        self.table.limit = limit
        self.table.take_refused()
        engine = make_engine(profile, counted=True)
        out = images.extract(wasm) if extracted else images.Extracted(wasm, [])
        native = bytes(wasmtime_component.Component(engine, out.wasm).serialize())
        parts = code_file.pack(native, out.images)
        fd = memfd.sealed("code", b"".join(parts))
        found = loader.deserialize(engine, fd, sum(map(len, parts)))
        self.table.prepare(found.images, fd)
        os.close(fd)
        self.store = wasmtime.Store(engine)
        self.store.set_fuel(10**9)
        self.instance = wasmtime_component.Linker(engine).instantiate(self.store, found.component)

    def call(self, name: str, *arguments: int) -> int:
        return int(self.instance.get_func(self.store, name)(self.store, *arguments) or 0)

    def contents(self) -> list[bytes]:
        """All live memories."""
        live = [self.table.find(number) for number in sorted(self.table._live)]
        return [ctypes.string_at(each.base, each.size) for each in live]


FUNCTIONS = """(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "size") (result i32) (memory.size))
  (func (export "peek") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "poke") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
  (func (export "init") (param i32 i32) (result i32)
    (memory.init 0 (i32.const 8) (local.get 0) (local.get 1)) (i32.const 0))"""
LIFTED = "".join(
    f"""(func (export "{name}") {" ".join(f'(param "p{n}" u32)' for n in range(count))} {result}
    (canon lift (core func $i0 "{name}")))"""
    for name, count, result in [
        ("grow", 1, "(result s32)"),
        ("size", 0, "(result u32)"),
        ("peek", 1, "(result u32)"),
        ("poke", 2, ""),
        ("init", 2, "(result u32)"),
    ]
)

_segments = st.lists(
    st.one_of(
        st.tuples(st.just("active"), st.integers(0, 3 * PAGE), st.binary(max_size=40)),
        st.tuples(st.just("active"), st.integers(PAGE - 20, PAGE + 20), st.binary(max_size=40)),
        st.tuples(st.just("passive"), st.just(0), st.binary(max_size=40)),
        st.tuples(st.just("large"), st.integers(0, PAGE), st.binary(min_size=1, max_size=3)),
    ),
    max_size=12,
)


def text_of(segments: list[tuple[str, int, bytes]], at_the_end: list[tuple[str, int, bytes]]) -> str:
    """A module with these data segments; the start function writes what it finds at 5 to 6."""
    out = []
    for kind, offset, data in [*segments, *at_the_end]:
        body = quoted(data * (70_000 // len(data)) if kind == "large" else data)
        out.append(f"(data {body})" if kind == "passive" else f"(data (i32.const {offset}) {body})")
    start = "(func $start (i32.store8 (i32.const 6) (i32.load8_u (i32.const 5)))) (start $start)"
    return f"(memory 3 9) {' '.join(out)} {start}"


@settings(max_examples=15, deadline=None)
@given(_segments)
@example([("large", 0, b"a"), ("active", 3, b"over"), ("large", 100, b"b"), ("passive", 0, b"p")])
@example([("large", 1, b"ab"), ("active", 3 * PAGE - 1, b"xy")])
def test_memory_begins_byte_for_byte(segments: list[tuple[str, int, bytes]]) -> None:
    """Segments that overlap, in any order, empty or out of bounds; a start function that reads them; passive ones: with
    images and without memory holds the same after instantiation, or neither instantiates."""
    wasm = component(text_of(segments, [("large", 7, b"end")]))
    assert images.extract(wasm).images or max(offset + len(data) for _, offset, data in segments) > 3 * PAGE

    def child() -> list[Any]:
        found: list[Any] = []
        for extracted in (False, True):
            try:
                begun = Begun(wasm, extracted=extracted)
                found.append([content.hex() for content in begun.contents()])
                del begun
            except wasmtime.WasmtimeError as error:
                found.append("out of bounds" in str(error))
            gc.collect()
        return [found[0] == found[1], found[0] is True or len(found[0]), memories.memories.used]

    assert returns(child) in ([True, 1, 0], [True, True, 0])


@pytest.mark.parametrize("profile", ["paranoid", "standard"])
def test_what_the_module_can_do_afterwards(profile: str) -> None:
    """Growing, the declared maximum, bounds, and what `memory.init` says to a dropped segment: the same either way."""
    wasm = component(f"(memory 3 9) (data (i32.const 4) {LARGE}) {FUNCTIONS}", rest=LIFTED)
    assert images.extract(wasm).images

    def child() -> list[Any]:
        told: list[Any] = []
        for extracted in (False, True):
            begun = Begun(wasm, extracted=extracted, profile=profile)
            steps = [begun.call("size"), begun.call("peek", 5), begun.call("grow", 2), begun.call("size")]
            begun.call("poke", 4 * PAGE, 9)
            steps += [begun.call("peek", 4 * PAGE), begun.call("grow", 5), begun.call("grow", 4), begun.call("grow", 1)]
            steps += [begun.call("size"), begun.call("peek", 9 * PAGE - 1), begun.call("peek", 6)]
            steps.append(begun.call("init", 0, 0))
            try:
                begun.call("init", 0, 1)
            except wasmtime.WasmtimeError as error:
                steps.append("out of bounds" in str(error))
            told.append(steps)
            told.append(memories.memories.take_refused())
            del begun
            gc.collect()
        return told

    plain, refused, mapped, refused_mapped = returns(child)
    assert [3, 1, 3, 5, 9, -1, 5, -1, 9, 0, 2, 0, True] == plain
    assert plain == mapped
    assert (0, 0) == (refused, refused_mapped), "a declared maximum is no refusal of the host's"


def test_past_the_end_traps() -> None:
    """Beside the image, too, an access past the memory's end traps, at once and after growth."""
    wasm = component(f"(memory 2 9) (data (i32.const 4) {LARGE}) {FUNCTIONS}", rest=LIFTED)

    def child(grown: int, address: int) -> bool:
        begun = Begun(wasm, extracted=True)
        begun.call("grow", grown)
        begun.call("peek", address - 1)
        try:
            begun.call("peek", address)
        except wasmtime.WasmtimeError as error:
            return "out of bounds" in str(error)
        return False

    assert returns(lambda: child(0, 2 * PAGE))
    assert returns(lambda: child(3, 5 * PAGE))


def test_instantiated_twice() -> None:
    """A module that a component instantiates twice begins the same twice; one does not see what the other writes."""
    module = f"(memory 3 9) (data (i32.const 4) {LARGE}) {FUNCTIONS}"
    again = '(core instance $again (instantiate $m0)) (func (export "other") (param "p" u32) (result u32) '
    wasm = component(module, rest=LIFTED + again + '(canon lift (core func $again "peek")))')

    def child() -> list[int]:
        begun = Begun(wasm, extracted=True)
        one, other = begun.contents()
        begun.call("poke", 5, 77)
        return [one == other, begun.call("peek", 5), begun.call("other", 5)]

    assert [True, 77, 1] == returns(child)


def test_the_limit_holds() -> None:
    """A memory larger than the limit is refused by name as without an image, and nothing was mapped for it."""
    wasm = component(f"(memory 300) (data (i32.const 4) {LARGE}) {FUNCTIONS}", rest=LIFTED)

    def child(limit: int) -> list[Any]:
        try:
            begun = Begun(wasm, extracted=True, limit=limit)
        except wasmtime.WasmtimeError as error:
            prepared = [each.memory is not None for each in memories.memories._beginnings.values()]
            return [memories.is_refusal(str(error)), memories.memories.take_refused(), prepared]
        return [begun.call("size")]

    assert [True, 300 * PAGE, [False]] == returns(lambda: child(299 * PAGE))
    assert [300] == returns(lambda: child(300 * PAGE))


def test_one_that_needs_its_own_maximum() -> None:
    """Where another module imports the memory with the maximum its author declared, the marked one does not compile:
    the compiler takes the component as it came."""
    from sandbox import compiler

    text = f"""(component
      (core module $m (memory (export "memory") 3 9) (data (i32.const 4) {LARGE}))
      (core module $n (import "m" "memory" (memory 3 9)))
      (core instance $i (instantiate $m))
      (core instance (instantiate $n (with "m" (instance $i)))))"""
    wasm = bytes(wasmtime.wat2wasm(text))
    engine = make_engine()
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime_component.Component(engine, images.extract(wasm).wasm)
    assert [] == compiler._built(engine, wasm)[1]
    assert 1 == len(compiler._built(engine, component(f"(memory 3) (data (i32.const 4) {LARGE})"))[1])


# -- pages ------------------------------------------------------------------------------------------------------------


def test_only_written_pages_are_the_workers_own() -> None:
    """Of a large image a worker has the pages it writes to; copied by the engine it has all of them (the control)."""
    data = quoted(b"some data") + " " + " ".join(quoted(bytes([n or 1]) * 30_000) for n in range(100))
    wasm = component(f"(memory 60 90) (data (i32.const 0) {data}) {FUNCTIONS}", rest=LIFTED)

    def anonymous() -> int:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Anonymous"))

    def child(extracted: bool) -> list[int]:
        Begun(component("(memory 1)"), extracted=False)
        begun = Begun(wasm, extracted=extracted)
        memory = begun.table.find(max(begun.table._live))
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        found, inside = 0, False
        for line in lines:
            if "-" in line.split()[0] and not line.split()[0].endswith(":"):
                inside = memory.base <= int(line.split("-")[0], 16) < memory.base + memory.size
            elif inside and line.startswith("Anonymous"):
                found += int(line.split()[1])
        before = anonymous()
        for page in range(10):
            begun.call("poke", page * 4096, 1)
        return [found, anonymous() - before]

    first, written = returns(lambda: child(True))
    assert 0 == first
    assert written >= 40
    assert returns(lambda: child(False))[0] >= 2900


def test_the_image_is_not_written_back() -> None:
    """What an instance writes stays its own: another one out of the same file begins as the first did."""
    wasm = component(f"(memory 3 9) (data (i32.const 4) {LARGE}) {FUNCTIONS}", rest=LIFTED)
    out = images.extract(wasm)

    def child() -> list[int]:
        table, found = memories.Memories(1 << 24), []
        fd = memfd.sealed("image", out.images[0][1])
        image = Image(65535 * PAGE, 3 * PAGE, 9 * PAGE, 0, 0, len(out.images[0][1]))
        for _ in range(2):
            table.prepare([image], fd)
            memory = table.find(table.create(3 * PAGE, 65535 * PAGE))
            byte = ctypes.c_ubyte.from_address(memory.base + 5)
            found.append(byte.value)
            byte.value = 99
        return found

    assert [1, 1] == returns(child)


def test_another_memory_with_that_maximum() -> None:
    """A memory of another size that happens to have the mark's maximum begins with zeros."""

    def child() -> list[Any]:
        table = memories.Memories(1 << 24)
        fd = memfd.sealed("image", b"x" * GRAIN)
        table.prepare([Image(65535 * PAGE, 3 * PAGE, WHOLE, 0, 0, GRAIN)], fd)
        other = table.find(table.create(2 * PAGE, 65535 * PAGE))
        real = table.find(table.create(3 * PAGE, 65535 * PAGE))
        return [ctypes.string_at(each.base, 2).decode() for each in (other, real)]

    assert ["\0\0", "xx"] == returns(child)


# -- guests of toolchains ---------------------------------------------------------------------------------------------


def modules_of(wasm: bytes) -> list[bytes]:
    """All core modules, nested ones included."""
    found: list[bytes] = []
    for each in binary.sections(wasm, binary.COMPONENT_HEADER, binary.Budget(1 << 20)):
        body = wasm[each.body : each.end]
        found += [body] if each.number == 1 else modules_of(body) if each.number == 4 else []
    return found


def data_alone(module: bytes) -> bytes:
    """A component of one module that has this one's memory and data and nothing else, instantiated."""
    parts = [binary.CORE_HEADER]
    for each in binary.sections(module, binary.CORE_HEADER, binary.Budget(1 << 20)):
        if each.number in (5, 11):
            parts.append(module[each.start : each.end])
    return binary.COMPONENT_HEADER + binary.section(1, b"".join(parts)) + binary.section(2, b"\1\0\0\0")


SLOW = ("wasi-go", "wasi-starlingmonkey")
"""Of 10,000 segments and more, for each of which the engine compiles code."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in SLOW else ()) for name in heavy_guests.NAMES]
)
def test_guests_of_toolchains(name: str) -> None:
    """Laid out from the segments of a real guest, memory is byte for byte what the engine makes of them."""
    wasm = heavy_guests.cached(name)
    out = images.extract(wasm)
    marked = [module for module in modules_of(wasm) if images.extract(data_alone(module)).images]
    assert len(marked) == len(out.images)
    assert name == "wasi-rust" or marked

    def child(module: bytes) -> list[bool]:
        found = []
        for extracted in (False, True):
            begun = Begun(data_alone(module), extracted=extracted)
            (content,) = begun.contents()
            found.append(hashlib.sha256(content).hexdigest())
            del begun
            gc.collect()
        return [found[0] == found[1], len(content) > PAGE]

    for module in marked:
        assert [True, True] == returns(lambda module=module: child(module))
