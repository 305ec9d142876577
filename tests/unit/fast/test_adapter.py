"""The adapter and the packing of values, in the real engine, against the canonical ABI written a second time.

A core module stands for the guest: an allocator, a function that returns its parameters' image, and one that calls what
is in the table with the core values that lie in its memory.
"""

from __future__ import annotations

import functools
import gc
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import wasmtime
from canonical import Memory, flatten, load, made, types, values
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sandbox.abi.layout import cases_of, flat_parameters, flat_result, members_of
from sandbox.abi.types import (
    BYTES,
    STRING,
    U8,
    U64,
    EnumType,
    Err,
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
from sandbox.bindings import FUNCTIONS
from sandbox.engine import make_engine
from sandbox.fast import exports
from sandbox.fast.exports import Codec, Export
from sandbox.fast.imports import HostFunction
from sandbox.fast.protocol import INLINE, SCRATCH_PAGES
from sandbox.fast.reading import Misformed
from sandbox.fast.scratch import scratch
from sandbox.fuel import OutOfFuel, fuel
from sandbox.marshal import capi
from sandbox.marshal.failures import raise_of
from sandbox.memories import memories
from sandbox.patch.adapter import AdapterExport, AdapterImport, adapter, suits_export, suits_import
from sandbox.patch.names import FAST_IMPORTS

pytestmark = [pytest.mark.block1_runtime]

PADS = tuple((f"p{number}", U64) for number in range(17))
"""Parameters after the one that matters, so that all go through memory."""
BUDGET = 1 << 40
MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FLATS, RETURNED = 64, 1024

_GUEST = """(module
  (import "shim" "table" (table 1 funcref))
  (memory (export "memory") 512)
  (global $top (mut i32) (i32.const 65536))
  (func (export "realloc-0") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    {realloc}
    (local.set $at (i32.and (i32.add (global.get $top) (i32.sub (local.get 2) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get 2))))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "call-f") (param i32) (result i32) {called})
  (func (export "post-f") (param i32) (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1))))
  (type $imported (func {parameters}))
  (func (export "run") {arguments} (call_indirect (type $imported) (i32.const 0)))
)"""


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """Leave the process's memories to the next test as they were."""
    before = memories.limit
    yield
    gc.collect()
    memories.limit = before


@functools.cache
def _engine() -> wasmtime.Engine:
    return make_engine(counted=True)


class Guest(Memory):
    """The module, with an adapter put to it."""

    def __init__(
        self,
        exported: Function | None = None,
        imported: Function | None = None,
        implementation: Callable[..., Any] = lambda: None,
        realloc: str = "",
        called: str = "(local.get 0)",
        bound: bool = True,
    ) -> None:
        engine = _engine()
        memories.limit = 1 << 40  # guests of earlier examples live until they are collected
        self.store = wasmtime.Store(engine)
        self.store.set_fuel(BUDGET)
        fuel.context, fuel.budget = capi.context_of(self.store), BUDGET
        cores = flat_parameters(imported) if imported else ()
        returns = imported is not None and len(flat_result(imported)) > 1
        loads = "".join(f"({core}.load (i32.const {FLATS + 8 * n}))" for n, core in enumerate(cores))
        text = _GUEST.format(
            parameters="".join(f"(param {core})" for core in cores) + "(param i32)" * returns,
            arguments=loads + f"(i32.const {RETURNED})" * returns,
            realloc=realloc,
            called=called,
        )
        table = wasmtime.Table(
            self.store, wasmtime.TableType(wasmtime.ValType.funcref(), wasmtime.Limits(1, None)), None
        )
        self._guest = wasmtime.Instance(self.store, wasmtime.Module(engine, text), [table]).exports(self.store)
        exports = [AdapterExport("f", exported, 0, True)] if exported else []
        imports = [AdapterImport("test", "g", imported, 0, 0)] if imported else []
        module = wasmtime.Module(engine, adapter(exports, imports, 1))
        given: dict[tuple[str, str], Any] = {("shim", "table"): table}
        if imported:
            self._host = HostFunction(imported, implementation)
            nothing = wasmtime.FuncType([], [])
            given["host", "test#g"] = wasmtime.Func(self.store, nothing, functools.partial(_call, self._host))
            kinds = [getattr(wasmtime.ValType, core)() for core in (*cores, *["i32"] * returns)]
            self.before: list[tuple[Any, ...]] = []
            before = wasmtime.FuncType(kinds, [])
            given["general", "test#g"] = wasmtime.Func(self.store, before, functools.partial(_note, self.before))
        for name in ("memory", "realloc-0", "call-f", "post-f"):
            given["guest", name] = self._guest[name]
        linked = [given[each.module, str(each.name)] for each in module.imports]
        self.adapter = wasmtime.Instance(self.store, module, linked).exports(self.store)
        if bound:
            scratch.find(lambda nonce, count: self.adapter["reserve"](self.store, nonce, count), 16 << 20)
        self.memory = self._guest["memory"]

    def write(self, at: int, data: bytes) -> None:
        """See Memory."""
        self.memory.write(self.store, data, at)

    def read(self, at: int, count: int) -> bytes:
        """See Memory."""
        return bytes(self.memory.read(self.store, at, at + count))

    def allocate(self, count: int, align: int) -> int:
        """See Memory."""
        return int(self._guest["realloc-0"](self.store, 0, 0, align, count))

    def run(self, function: Function, arguments: tuple[Any, ...]) -> Any:
        """Call the import with arguments laid out by the book; what it returned, read by the book."""
        self.lay_out(function, arguments)
        self._guest["run"](self.store)
        return None if function.result is None else load(function.result, self, RETURNED)

    def lay_out(self, function: Function, arguments: tuple[Any, ...]) -> None:
        """Have the arguments' core values where `run` takes them from."""
        cores = [core for (_, kind), each in zip(function.parameters, arguments, strict=True)
                 for core in flatten(kind, each, self)]  # fmt: skip
        for number, (core, form) in enumerate(zip(cores, flat_parameters(function), strict=True)):
            code = {"i32": "<i" if core < 0 else "<I", "i64": "<q" if core < 0 else "<Q", "f32": "<f", "f64": "<d"}[
                form
            ]
            self.write(FLATS + 8 * number, struct.pack(code, core))


def _call(host: HostFunction) -> None:
    # No method of Guest: the engine keeps what it calls, and with it the store would live for ever.
    error = host.called()
    if error:
        raise_of(error)


def _note(noted: list[tuple[Any, ...]], *cores: Any) -> None:
    noted.append(cores)


class Core:
    """The exported function of an adapter as `Export` calls one: no component is around it."""

    def __init__(self, guest: Guest, function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
        parts = {name: bytearray(8) for name in ("f", "take")}
        names = {capi.address_of(part): name for name, part in parts.items()}
        monkeypatch.setattr(exports, "enter", lambda address: guest.adapter[names[address]](guest.store))
        reserve = guest.adapter["reserve"]
        self.call = Export(
            Codec(function), parts["f"], lambda nonce, count: int(reserve(guest.store, nonce, count)), parts["take"]
        )


def exported(kind: Type) -> Function:
    """A function whose result is its first parameter."""
    return Function("f", (("value", kind), *PADS), kind)


def test_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of every type that an exported function may return comes back as it went."""

    @MANY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        kind = data.draw(types().filter(lambda kind: suits_export(exported(kind))))
        value = data.draw(values(kind))
        with monkeypatch.context() as patch:
            guest = Guest(exported=exported(kind))
            call = Core(guest, exported(kind), patch).call
            for _ in range(2):
                back = call(value, *[0] * 17)
                if isinstance(kind, ResultType) and not isinstance(kind.ok, ResultType) and type(back) is not Err:
                    back = Ok(back)
                assert value == back
            assert guest.read(16, 4) == struct.pack("<I", 2)  # post-return, once for each

    check()


def test_import() -> None:
    """Every argument reaches the host function, and every result the guest, as the canonical ABI has them."""

    @MANY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        kinds = data.draw(st.lists(types(4), min_size=1, max_size=4))
        result = data.draw(types())
        function = Function("g", tuple((f"p{n}", kind) for n, kind in enumerate(kinds)), result)
        assume(suits_import(function))
        given_, answer = tuple(data.draw(values(kind)) for kind in kinds), data.draw(values(result))
        seen = []

        def implementation(*arguments: Any) -> Any:
            seen.append(arguments)
            plain = isinstance(result, ResultType) and not isinstance(result.ok, ResultType) and isinstance(answer, Ok)
            return answer.value if plain else answer

        guest = Guest(imported=function, implementation=implementation)
        for _ in range(2):
            assert answer == guest.run(function, given_)
        assert seen == [given_, given_]

    check()


# -- large values ------------------------------------------------------------------------------------------------------

LARGE = (INLINE - 1, INLINE, INLINE + 1, SCRATCH_PAGES << 16, 3 << 20)


@pytest.mark.parametrize("count", LARGE)
def test_large_export(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value larger than the scratch memory makes it grow and comes back; the guest pays none of it."""
    function = exported(TupleType((BYTES, U64)))
    guest = Guest(exported=function)
    call = Core(guest, function, monkeypatch).call
    value = bytes(range(256)) * (count // 256 + 1)
    for _ in range(3):
        assert (value[:count], 7) == call((value[:count], 7), *[0] * 17)
        assert fuel.used < 1000


@pytest.mark.parametrize("count", LARGE)
def test_large_import(count: int) -> None:
    """The same for arguments and results of a host function."""
    function = Function("g", (("key", STRING), ("value", BYTES)), ResultType(OptionType(BYTES), STRING))
    value = b"ab" * (count // 2 + 1)
    guest = Guest(imported=function, implementation=lambda key, data: data + key.encode())
    for _ in range(3):
        fuel.budget = 10_000
        fuel.begin()
        assert Ok(value[:count] + b"key") == guest.run(function, ("key", value[:count]))
        fuel.finish()
        assert fuel.used < 3000


def test_scratch_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that a large value needed are zeros after it; a second one keeps them, the next small one does not."""
    function = exported(TupleType((BYTES, U64)))
    guest = Guest(exported=function)
    call = Core(guest, function, monkeypatch).call
    last = (1 << 20) - 1
    for large, kept in ((True, False), (True, True), (True, True), (False, False), (False, False), (True, False)):
        value = b"x" * (2 << 20 if large else 5)
        assert (value, 0) == call((value, 0), *[0] * 17)
        assert kept == (scratch.view[last] != 0)


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scratch memory may never hold ends the guest, and not this process."""
    function = exported(TupleType((BYTES, U64)))
    guest = Guest(exported=function)
    call = Core(guest, function, monkeypatch).call
    with pytest.raises(wasmtime.Trap):
        call((bytes(48 << 20), 0), *[0] * 17)


# -- a guest that wants something else --------------------------------------------------------------------------------

_AT = "(i32.const 2048)"
_BAD = {
    "a result pointer beyond the memory": "(i32.const 0x7ffffff0)",
    "a result pointer at the very end": "(i32.const 0xfffffff0)",
    "a result pointer that is not aligned": "(i32.const 2049)",
    "a pointer beyond the memory": f"(i32.store8 {_AT} (i32.const 0)) (i32.store offset=4 {_AT} (i32.const -64))"
    f"(i32.store offset=8 {_AT} (i32.const 64)) {_AT}",
    "a length of 2^32 - 1": f"(i32.store offset=8 {_AT} (i32.const -1)) {_AT}",
    "a length of 40 MB": f"(i32.store offset=8 {_AT} (i32.const 40000000)) {_AT}",
    "a length of 100 MB": f"(i32.store offset=8 {_AT} (i32.const 100000000)) {_AT}",
    "a case there is not": f"(i32.store8 {_AT} (i32.const 2)) {_AT}",
    "a string that is not UTF-8": f"(i32.store8 {_AT} (i32.const 1)) (i32.store offset=4 {_AT} (i32.const 3000))"
    f"(i32.store offset=8 {_AT} (i32.const 1)) (i32.store8 (i32.const 3000) (i32.const 0xff)) {_AT}",
    "no end": "(loop $on (br $on)) (unreachable)",
    "a trap": "(unreachable)",
}


@pytest.mark.parametrize("called", _BAD.values(), ids=_BAD)
def test_bad_result(called: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that returns what is no result is found out: a trap, or `Misformed`."""
    kind = ResultType(BYTES, STRING)
    function = Function("f", (("value", BYTES), *PADS), kind)
    guest = Guest(exported=function, called=called)
    call = Core(guest, function, monkeypatch).call
    fuel.budget = 100_000
    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError, Misformed)):
        call(b"hello", *[0] * 17)


def test_good_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: such a guest with a right result is heard."""
    function = Function("f", (("value", BYTES), *PADS), ResultType(BYTES, STRING))
    good = f"(i32.store8 {_AT} (i32.const 1)) (i32.store offset=4 {_AT} (i32.const 3000))" + (
        f"(i32.store offset=8 {_AT} (i32.const 1)) (i32.store8 (i32.const 3000) (i32.const 0x41)) {_AT}"
    )
    guest = Guest(exported=function, called=good)
    assert Err("A") == Core(guest, function, monkeypatch).call(b"hello", *[0] * 17)


@pytest.mark.parametrize(("budget", "heard"), [(5_000, 0), (200_000, 1)])
def test_over_its_budget(budget: int, heard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that spins on the fuel meant for the adapter is stopped when it asks the host; with enough of its own it
    is heard."""
    asked: list[Any] = []
    importing = Function("g", (("value", U8),), TupleType((U8, U8)))
    function = exported(TupleType((BYTES, U64)))
    spin = (
        "(local $n i32) (loop $on (br_if $on (i32.ne (i32.const 5000) "
        "(local.tee $n (i32.add (local.get $n) (i32.const 1))))))"
        f"(call_indirect (type $imported) (i32.const 7) (i32.const {RETURNED}) (i32.const 0)) (local.get 0)"
    )

    def implementation(value: int) -> tuple[int, int]:
        asked.append(value)
        return 1, 2

    guest = Guest(exported=function, imported=importing, implementation=implementation, called=spin)
    call = Core(guest, function, monkeypatch).call
    fuel.budget, fuel.patched = budget, True
    if heard:
        assert (b"hello", 0) == call((b"hello", 0), *[0] * 17)
        assert 20_000 < fuel.used < budget
    else:
        with pytest.raises(OutOfFuel):
            call((b"hello", 0), *[0] * 17)
    assert [7] * heard == asked


def test_before_it_is_taken_into_use() -> None:
    """Until the worker has bound an adapter, and for ever in one that it never binds, calls go the general way."""
    asked: list[Any] = []
    function = Function("g", (("key", STRING), ("number", U64)), ResultType(BYTES, STRING))
    guest = Guest(imported=function, implementation=asked.append, bound=False)
    for number, core in enumerate((70_000, 3, 1 << 40)):
        guest.write(FLATS + 8 * number, struct.pack("<Q", core))
    guest._guest["run"](guest.store)
    assert [(70_000, 3, 1 << 40, RETURNED)] == guest.before
    assert [] == asked


_REALLOCS = {
    "beyond the memory": "(return (i32.const 0x7ffffff8))",
    "at the end of all addresses": "(return (i32.const -8))",
    "not aligned": "(return (i32.const 65537))",
    "a trap": "(unreachable)",
}


@pytest.mark.parametrize("realloc", _REALLOCS.values(), ids=_REALLOCS)
def test_bad_realloc(realloc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocator that gives what cannot be written to traps."""
    function = exported(TupleType((BYTES, U64)))
    guest = Guest(exported=function, realloc=realloc)
    with pytest.raises(wasmtime.Trap):
        Core(guest, function, monkeypatch).call((b"hello", 0), *[0] * 17)


def test_import_from_within_realloc(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocator that calls an import traps, and the host function does not hear of it."""
    asked: list[Any] = []
    importing = Function("g", (("key", STRING),), ResultType(BYTES, STRING))
    function = exported(TupleType((BYTES, U64)))
    call_out = f"(call_indirect (type $imported) (i32.const 8) (i32.const 4) (i32.const {RETURNED}) (i32.const 0))"
    guest = Guest(exported=function, imported=importing, implementation=asked.append, realloc=call_out)
    with pytest.raises(wasmtime.Trap):
        Core(guest, function, monkeypatch).call((b"hello", 0), *[0] * 17)
    assert asked == []


_ARGUMENTS = {
    "a string that is not UTF-8": (STRING, [70000, 1], b"\xff", Misformed),
    "a pointer beyond the memory": (STRING, [1 << 30, 8], b"", wasmtime.Trap),
    "a length beyond the memory": (STRING, [0, 1 << 30], b"", wasmtime.Trap),
    "an announced length beyond the memory": (BYTES, [512 * 65536 - 4096, 8192], b"", wasmtime.Trap),
    "an array that is not aligned": (ListType(U64), [70001, 1], b"", wasmtime.Trap),
    "an array of 2^29 elements": (ListType(U64), [70000, 1 << 29], b"", wasmtime.Trap),
    "an option that is neither": (OptionType(U8), [2, 0], b"", Misformed),
}


@pytest.mark.parametrize(("kind", "cores", "data", "ends"), _ARGUMENTS.values(), ids=_ARGUMENTS)
def test_bad_argument(kind: Type, cores: list[int], data: bytes, ends: type[Exception]) -> None:
    """A guest that passes what is no value of the type traps, and the host function does not hear of it."""
    asked: list[Any] = []
    function = Function("g", (("value", kind),), STRING)
    guest = Guest(imported=function, implementation=asked.append)
    guest.write(70000, data)
    for number, core in enumerate(cores):
        guest.write(FLATS + 8 * number, struct.pack("<I", core))
    with pytest.raises(ends):
        guest._guest["run"](guest.store)
    assert asked == []


def test_exception_of_a_host_function() -> None:
    """What a host function raises comes out where the guest was called."""

    def fails(_: Any) -> Any:
        raise KeyError("mine")

    function = Function("g", (("value", U8),), STRING)
    guest = Guest(imported=function, implementation=fails)
    with pytest.raises(KeyError):
        guest.run(function, (1,))


def test_result_of_another_type() -> None:
    """A host function that returns what is not of its type is an error of the host's, told before the guest goes on."""
    function = Function("g", (("value", U8),), TupleType((U8, U8)))
    guest = Guest(imported=function, implementation=lambda _: (1, 256))
    with pytest.raises(struct.error):
        guest.run(function, (1,))


# -- fuel -----------------------------------------------------------------------------------------------------------


def _smallest(kind: Type, count: int = 0) -> Any:
    """A value that costs as little as one can; lists but of bytes have `count` elements."""
    if kind == BYTES:
        return b""
    if isinstance(kind, ListType):
        return [_smallest(kind.element)] * count
    if isinstance(kind, Primitive):
        return "" if kind.kind == "string" else 0
    members, cases = members_of(kind), cases_of(kind)
    if members is not None:
        return tuple(_smallest(each, count) for each in members)
    if isinstance(kind, OptionType):
        return _smallest(kind.payload, count) if count else None
    payload = (cases or (None,))[0]
    return made(kind, 0, None if payload is None else _smallest(payload, count))


def _nameless(kind: Type) -> Any:
    """The type without names, so that its values have no classes."""
    if isinstance(kind, ListType):
        return ListType(_nameless(kind.element))
    if isinstance(kind, OptionType):
        return OptionType(_nameless(kind.payload))
    if isinstance(kind, RecordType):
        return RecordType(tuple((name, _nameless(each)) for name, each in kind.fields))
    if isinstance(kind, TupleType):
        return TupleType(tuple(_nameless(each) for each in kind.elements))
    if isinstance(kind, VariantType):
        return VariantType(tuple((name, each and _nameless(each)) for name, each in kind.cases))
    if isinstance(kind, ResultType):
        return ResultType(kind.ok and _nameless(kind.ok), kind.err and _nameless(kind.err))
    return EnumType(kind.cases) if isinstance(kind, EnumType) else kind


@pytest.mark.parametrize("count", [0, 200])
@pytest.mark.parametrize(
    ("interface", "name"), [(interface, name) for interface, names in FAST_IMPORTS.items() for name in names]
)
def test_fuel_of_a_call_of_the_host(interface: str, name: str, count: int) -> None:
    """Whatever a guest asks for, it pays at least what it would pay without the adapter, and not much more: no fuel is
    to be had by asking, over and over."""
    real = FUNCTIONS[interface][name]
    parameters = tuple((each, _nameless(kind)) for each, kind in real.parameters)
    function = Function(name, parameters, real.result and _nameless(real.result))
    arguments = tuple(_smallest(kind, count) for _, kind in parameters)
    answers: list[Any] = [None]
    if isinstance(function.result, ResultType):
        answers = [function.result.ok and _smallest(function.result.ok), Err(_smallest(function.result.err or U8))]
    elif function.result is not None:
        answers = [_smallest(function.result)]
    for answer in answers:
        used = []
        for bound in (False, True):
            guest = Guest(imported=function, implementation=lambda *_, answer=answer: answer, bound=bound)
            guest.lay_out(function, arguments)
            fuel.budget, fuel.patched = BUDGET, True
            fuel.begin()
            guest._guest["run"](guest.store)
            fuel.finish()
            used.append(fuel.used)
        assert 0 <= used[1] - used[0] < 150 + 30 * count, used
