"""Linear memories made by the host: counted together, refused by name, safe against hostile sizes."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator

import pytest
import wasmtime
from forked import returns
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import memories as memories_module
from sandbox.engine import RESERVED, make_engine
from sandbox.engine import settings as engine_settings
from sandbox.memories import ADDRESS_SPACE, Memories, Refused, install, is_refusal, memories

pytestmark = pytest.mark.block1_runtime
PAGE = 65536
TEXT = """(module
  (memory (export "a") 1 100) (memory (export "b") 1)
  (func (export "grow-a") (param i32) (result i32) (memory.grow 0 (local.get 0)))
  (func (export "grow-b") (param i32) (result i32) (memory.grow 1 (local.get 0)))
  (func (export "size-b") (result i32) (memory.size 1))
  (func (export "poke-b") (param i32 i32) (i32.store 1 (local.get 0) (local.get 1)))
  (func (export "peek-b") (param i32) (result i32) (i32.load 1 (local.get 0))))"""


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[wasmtime.Store, wasmtime.InstanceExports]]:
    """Two memories, 16 pages allowed together."""
    memories.take_refused()  # an earlier test's
    gc.collect()
    monkeypatch.setattr(memories, "used", 0)  # whatever a traceback of another test still holds
    monkeypatch.setattr(memories, "limit", 16 * PAGE)
    engine = make_engine(counted=True)
    store = wasmtime.Store(engine)
    store.set_fuel(10**9)
    exports = wasmtime.Instance(store, wasmtime.Module(engine, wasmtime.wat2wasm(TEXT)), []).exports(store)
    yield store, exports
    memories.take_refused()


def test_the_sum_is_what_is_limited(guest: tuple[wasmtime.Store, wasmtime.InstanceExports]) -> None:
    """Either memory may have all that the other leaves; one page more answers -1 and leaves a record."""
    store, exports = guest
    assert 1 == exports["grow-a"](store, 9)
    assert 0 == memories.take_refused()
    assert -1 == exports["grow-b"](store, 6)
    assert 17 * PAGE == memories.take_refused()
    assert 1 == exports["grow-b"](store, 5)
    assert -1 == exports["grow-a"](store, 1)
    assert 16 * PAGE == memories.used


@given(st.lists(st.tuples(st.integers(0, 64), st.integers(0, 40)), min_size=1, max_size=12))
def test_no_mapping_is_shorter_than_its_memory(steps: list[tuple[int, int]]) -> None:
    """Whatever the limit becomes while older memories live: what is made usable lies within what was mapped."""
    table, live = Memories(0), []
    try:
        for limit, minimum in steps:
            table.limit = limit * PAGE
            try:
                live.append(table.create(minimum * PAGE, 1 << 32))
            except Refused:
                continue
            memory = table.find(live[-1])
            assert memory.size <= memory.reserved
            assert memory.spare >= 0
    finally:
        for number in live:
            table.drop(number)


def test_what_was_written_survives_growth(guest: tuple[wasmtime.Store, wasmtime.InstanceExports]) -> None:
    """Growing keeps the content, gives zeroes, and does not open what lies behind the end."""
    store, exports = guest
    exports["poke-b"](store, PAGE - 4, 77)
    exports["grow-b"](store, 3)
    assert (77, 0) == (exports["peek-b"](store, PAGE - 4), exports["peek-b"](store, 4 * PAGE - 4))
    with pytest.raises(wasmtime.Trap, match="out of bounds"):
        exports["peek-b"](store, 4 * PAGE - 3)


@pytest.mark.parametrize("pages", [0x7FFFFFFF, -1, 65536, 65535, -65536])
def test_hostile_sizes(guest: tuple[wasmtime.Store, wasmtime.InstanceExports], pages: int) -> None:
    """No number of pages does more than be refused."""
    store, exports = guest
    assert -1 == exports["grow-b"](store, pages)
    assert 1 == exports["size-b"](store)


def test_everything_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is gone has left nothing behind."""
    monkeypatch.setattr(memories, "limit", 1 << 30)
    gc.collect()  # another test's store
    before = memories.used
    engine = make_engine(counted=True)
    store = wasmtime.Store(engine)
    instance = wasmtime.Instance(store, wasmtime.Module(engine, wasmtime.wat2wasm(TEXT)), [])
    assert before + 2 * PAGE == memories.used
    del instance, store
    gc.collect()
    assert before == memories.used


@pytest.mark.parametrize("address", [16 * PAGE, (1 << 31) - 8, (1 << 32) - 8, (1 << 32) - 1])
def test_what_the_engine_expects_is_there(monkeypatch: pytest.MonkeyPatch, address: int) -> None:
    """In the profile `standard` code leaves checks out: what lies behind a memory is reserved, guarded, and faults."""
    gc.collect()  # another test's store; one that a traceback holds is allowed for
    monkeypatch.setattr(memories, "limit", memories.used + 16 * PAGE)
    engine = make_engine("standard", counted=True)
    store = wasmtime.Store(engine)
    store.set_fuel(10**9)
    exports = wasmtime.Instance(store, wasmtime.Module(engine, wasmtime.wat2wasm(TEXT)), []).exports(store)
    assert (1, -1) == (exports["grow-b"](store, 14), exports["grow-b"](store, 1))
    exports["poke-b"](store, 15 * PAGE - 4, 77)
    assert 77 == exports["peek-b"](store, 15 * PAGE - 4)
    with pytest.raises(wasmtime.Trap, match="out of bounds"):
        exports["peek-b"](store, address - (1 << 32) if address >= 1 << 31 else address)
    memories.take_refused()


def test_address_space_used_up_is_a_refusal() -> None:
    """Where the kernel gives no more, growing answers -1; the process lives, and the refusal is on record."""

    def child() -> list[int]:
        memories.limit = 1 << 30
        engine = make_engine(counted=True)
        store = wasmtime.Store(engine)
        store.set_fuel(10**9)
        exports = wasmtime.Instance(store, wasmtime.Module(engine, wasmtime.wat2wasm(TEXT)), []).exports(store)
        grown = exports["grow-b"](store, 100)
        used = 64 << 20
        resource.setrlimit(resource.RLIMIT_DATA, (used, used))
        return [grown, exports["grow-b"](store, 10_000), int(memories.take_refused() > 10_000 * PAGE)]

    assert [1, -1, 1] == returns(child)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["create", "grow", "drop"]), st.integers(0, 5), st.integers(0, 12)), max_size=40)
)
def test_the_counts_agree_with_a_model(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is made, grown and dropped: the sum is right, the limit holds, address space stays within its bound."""
    limit = 10 * PAGE
    box = Memories(limit)
    model: dict[int, int] = {}
    try:
        for what, which, pages in steps:
            number = sorted(model)[which % len(model)] if model else 0
            if what == "create":
                try:
                    model[box.create(pages * PAGE, which * 4 * PAGE)] = pages * PAGE
                except Refused:
                    assert sum(model.values()) + pages * PAGE > limit
            elif what == "grow" and model:
                try:
                    box.grow(number, model[number] + pages * PAGE)
                    model[number] += pages * PAGE
                except Refused:
                    assert sum(model.values()) + pages * PAGE > limit
            elif model:
                box.drop(number)
                del model[number]
            assert sum(model.values()) == box.used <= limit
            assert all(box.find(n).size == size <= box.find(n).reserved for n, size in model.items())
            # An empty memory still has one page of the machine's.
            assert sum(box.find(n).reserved for n in model) <= (ADDRESS_SPACE - 1) * limit + 4096 * len(model)
    finally:
        for number in list(model):
            box.drop(number)
    assert 0 == box.used


@pytest.mark.parametrize(("reserved", "guard"), [(0, 0), (4 << 30, 0), (0, 32 << 20), (8 << 30, 32 << 20)])
def test_an_engine_that_expects_other_memories_gets_none(reserved: int, guard: int) -> None:
    """Where reservation or guard pages are not what the settings say, no memory is made: code could rely on checks that
    it left out. With the settings' own numbers it is (the control)."""

    def child(reserved: int, guard: int) -> list[str]:
        config = wasmtime.Config()
        for name, value in engine_settings("standard").items():
            setattr(config, name, value)
        install(config, reserved, guard)
        engine = wasmtime.Engine(config)
        store = wasmtime.Store(engine)
        store.set_fuel(10**9)
        before = memories._last
        try:
            wasmtime.Instance(store, wasmtime.Module(engine, wasmtime.wat2wasm(TEXT)), [])
        except wasmtime.WasmtimeError as error:
            return [str(error), str(is_refusal(str(error))), str(memories._last - before)]
        return []

    told, refusal, made = returns(lambda: child(reserved, guard))
    assert "the engine expects 4294967296 bytes" in told
    assert ("False", "0") == (refusal, made)
    assert [] == returns(lambda: child(RESERVED["memory_reservation"], RESERVED["memory_guard_size"]))


def test_what_is_reserved_is_not_promised() -> None:
    """Under vm.overcommit_memory = 2 the kernel ignores MAP_NORESERVE and counts what could be written. Without the
    flag here: the part of a memory that is usable is accounted ("ac" in VmFlags, proc(5)), what is in reserve is not.
    """

    def child() -> list[list[bool]]:
        memories_module._MAP &= ~0x4000
        table = Memories(64 << 20)
        memory = table.find(table.create(PAGE, 32 << 20))
        table.grow(table._last, 3 * PAGE)
        found = []
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
            start, end = 0, 0
            for line in file:
                first, *rest = line.split()
                if not first.endswith(":"):
                    start, end = (int(part, 16) for part in first.split("-"))
                elif first == "VmFlags:" and memory.base <= start < memory.base + memory.reserved:
                    found.append([start < memory.base + memory.size, "ac" in rest])
                    assert end > start
        return found

    found = returns(child)
    assert [True, True] in found
    assert [False, False] in found
    assert all(usable == accounted for usable, accounted in found)


def test_a_growth_the_kernel_cannot_promise_is_refused() -> None:
    """mprotect that is refused for want of memory, as it is where the kernel is strict, is a refused growth: the memory
    stays as it was, and the refusal is on record."""

    def child() -> list[object]:
        table = Memories(1 << 30)
        number = table.create(PAGE, 1 << 30)
        resource.setrlimit(resource.RLIMIT_DATA, (64 << 20, 64 << 20))
        try:
            table.grow(number, 512 << 20)
        except Refused as refused:
            return [is_refusal(str(refused)), table.find(number).size, table.used, table.take_refused()]
        return []

    assert [True, PAGE, PAGE, 512 << 20] == returns(child)
