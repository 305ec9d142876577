"""The engine's limits: memory over all memories together, counts, stack; each alone, the others wide open."""

from __future__ import annotations

import gc
import resource

import pytest
import wasmtime
from forked import returns
from wasmtime import component as wasmtime_component

from sandbox.engine import MAX_WASM_STACK, make_engine
from sandbox.guest import Guest, GuestFailed
from sandbox.kernel import heap
from sandbox.memories import memories
from sandbox.types import Limits, Outcome

pytestmark = pytest.mark.block1_runtime
PAGE = 65536
WIDE = Limits(memory=1 << 30, memories=100, tables=10_000, table_elements=10_000_000, instances=100_000, fuel=10**12)


@pytest.fixture(params=["paranoid", "standard"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> wasmtime.Engine:
    """An engine of each layout of linear memory."""
    monkeypatch.setattr(memories, "limit", 1 << 30)
    gc.collect()  # another test's store would still be counted
    # What is counted is what lives, whatever an earlier test did to the counters.
    memories.used = sum(memory.size for memory in memories._live.values())
    memories._spare = sum(memory.spare for memory in memories._live.values())
    return make_engine(request.param, counted=True)


def _instantiated(engine: wasmtime.Engine, core: str, limits: Limits) -> str:
    """Why instantiation of a component around these core modules failed; "" when it did not."""
    component = wasmtime_component.Component(engine, f"(component {core})")
    guest = Guest.__new__(Guest)
    guest._limits = limits
    try:
        guest._instantiate(engine, wasmtime_component.Linker(engine), component)
    except wasmtime.WasmtimeError as error:
        return str(error)
    return ""


def _module(fields: str, times: int = 1) -> str:
    return f"(core module $m {fields})" + "(core instance (instantiate $m))" * times


def _memories(count: int, pages: int) -> str:
    return _module(" ".join(f"(memory {pages})" for _ in range(count)))


@pytest.mark.parametrize(("count", "pages"), [(1, 8), (2, 4), (3, 2), (7, 1), (8, 1)])
def test_memories_within_the_limit(engine: wasmtime.Engine, count: int, pages: int) -> None:
    """Positive control: what fits is instantiated."""
    assert "" == _instantiated(engine, _memories(count, pages), Limits(memory=8 * PAGE))


@pytest.mark.parametrize(("count", "pages"), [(1, 9), (2, 5), (3, 3), (8, 2), (9, 1)])
def test_memories_over_the_limit_together(engine: wasmtime.Engine, count: int, pages: int) -> None:
    """Memories that would exceed the limit together, or are too many, are refused."""
    error = _instantiated(engine, _memories(count, pages), Limits(memory=8 * PAGE))
    assert "resource limit" in error or "memory" in error


def test_it_is_told_as_memory(engine: wasmtime.Engine) -> None:
    """The end has the cause's name."""
    component = wasmtime_component.Component(engine, f"(component {_memories(2, 100)})")
    with pytest.raises(GuestFailed) as caught:
        Guest(engine, wasmtime_component.Linker(engine), component, Limits(memory=PAGE))
    assert Outcome.MEMORY == caught.value.outcome


@pytest.mark.parametrize(
    ("core", "enough", "short"),
    [
        (_memories(3, 1), {"memories": 3}, {"memories": 2}),
        (_module("(table 10 funcref) (table 10 funcref)"), {"tables": 2}, {"tables": 1}),
        (_module("(table 500 funcref)"), {"table_elements": 500}, {"table_elements": 499}),
        (_module("", times=5), {"instances": 5}, {"instances": 4}),
    ],
    ids=["memories", "tables", "table-elements", "instances"],
)
def test_each_count_alone(engine: wasmtime.Engine, core: str, enough: dict[str, int], short: dict[str, int]) -> None:
    """With every other limit wide open, the one limit lets exactly so much through."""
    base = {name: getattr(WIDE, name) for name in WIDE.__struct_fields__}
    assert "" == _instantiated(engine, core, Limits(**(base | enough)))
    assert _instantiated(engine, core, Limits(**(base | short)))


def _core(engine: wasmtime.Engine, text: str) -> tuple[wasmtime.Store, wasmtime.InstanceExports]:
    store = wasmtime.Store(engine)
    store.set_fuel(10**9)
    module = wasmtime.Module(engine, wasmtime.wat2wasm(f"(module {text})"))
    return store, wasmtime.Instance(store, module, []).exports(store)


def test_stack(engine: wasmtime.Engine) -> None:
    """Recursion ends in a trap at the engine's stack size; a depth that fits it comes back."""
    store, exports = _core(
        engine,
        """(func $down (export "down") (param i32) (result i32)
             (if (result i32) (local.get 0)
               (then (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))
               (else (i32.const 0))))""",
    )
    assert 500 == exports["down"](store, 500)
    with pytest.raises(wasmtime.Trap, match="call stack exhausted"):
        exports["down"](store, MAX_WASM_STACK)


@pytest.mark.parametrize(
    "core",
    [
        _module("(global i64 (i64.const 1))" * 20_000, times=60),
        "(core module $m (table $t 1 funcref) (func $f (drop (table.grow $t (ref.null func) (i32.const 9999999))))"
        " (start $f)) (core instance (instantiate $m))",
    ],
    ids=["instances", "table.grow"],
)
def test_memory_of_the_engines_own(core: str) -> None:
    """What the engine needs beside linear memory is held by RLIMIT_DATA, and its end told as memory, not as a crash."""
    engine = make_engine(counted=True)
    component = wasmtime_component.Component(engine, f"(component {core})")

    def child(room: int) -> str:
        # What this process has freed would be used first.
        heap.fill_holes()
        heap.handle.malloc_trim(0)
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
        try:
            Guest(engine, wasmtime_component.Linker(engine), component, WIDE)
        except GuestFailed as failure:
            return f"{failure.outcome}: {failure.detail.splitlines()[0]}"
        return "instantiated"

    assert returns(lambda: child(8 << 20)).startswith("memory: out of memory")
    # Positive control: with room it comes as far as the missing lifecycle.
    assert "memory" not in returns(lambda: child(1 << 30))
