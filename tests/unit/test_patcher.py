"""The patch: components of every toolchain are patched, what comes out is valid, and nothing but additions changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import heavy_guests
import lifted
import pytest
import wasmtime
from lifted import USUAL
from wasmtime import component as wt

from sandbox import compiler, contract
from sandbox.abi.types import BYTES, Function, ResultType
from sandbox.engine import make_engine
from sandbox.patch import binary, core, names, patcher
from sandbox.patch.binary import Budget, Unreadable
from sandbox.patch.component import TYPE, Component, InstanceType, Module, parse
from sandbox.patch.patcher import Declined, Patched, patch
from sandbox.types import PATHS, CallPath
from sandbox.wire.compile_result import CompileResult, Crossing, parse_header

pytestmark = pytest.mark.block1_runtime
ROOT = Path(__file__).resolve().parents[2]
STORAGE = lifted.STORAGE


def committed(path: str) -> bytes:
    """A component of the checkout."""
    return (ROOT / path).read_bytes()


READER = committed("examples/logclean/reader/component.wasm")
ALL_IMPORTS = committed("sdk/c/templates/topic-host.wasm")
LIFECYCLE_ALONE = ("handle-message", "handle-callback")
"""What is fast of a component without a handler of topics."""
WITH_LIBC = committed("tests/guests/wasi-libc/component.wasm")
FITTING = {
    "reader": READER,
    "redactor": committed("examples/logclean/redactor/component.wasm"),
    "probe": committed("tests/guests/probe/component.wasm"),
    "libc": WITH_LIBC,
    "extra-export": committed("tests/guests/extra-export/component.wasm"),
    "text": lifted.component(),
    "text-storage": lifted.component(storage=True),
    "text-nested": lifted.component(storage=True, levels=3),
}
"""Components that keep to the contract."""


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """The compiler's engine."""
    return make_engine()


def facts(engine: wasmtime.Engine, wasm: bytes, added: contract.Added | None = None) -> contract.ComponentFacts:
    return contract.check_component(wt.Component(engine, wasm).type, engine, added)


def added_by(patched: Patched) -> contract.Added:
    return contract.Added(
        frozenset((names.RESERVE, names.TAKE, *map(names.fast, patched.exports))),
        {interface: frozenset(map(names.fast, each)) for interface, each in patched.imports.items()},
    )


def signatures(engine: wasmtime.Engine, wasm: bytes) -> dict[str, str]:
    """Every function that a component imports or exports, with its type written out; reserved names left out."""
    kind = wt.Component(engine, wasm).type
    found = {}
    for way, items in (("import", kind.imports(engine)), ("export", kind.exports(engine))):
        for name, extern in items.items():
            inside = extern.ty.exports(engine) if isinstance(extern.ty, wt.ComponentInstanceType) else {"": extern}
            for item, each in inside.items():
                if not names.reserved(item) and not names.reserved(name):
                    found[f"{way} {name}#{item}"] = contract.item_text(each.ty)
    return found


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_the_fast_functions_are_the_interfaces_own() -> None:
    """Every name in the list is a function of the WIT packages; of these interfaces only host-services has others."""
    served = contract.load().imports
    for interface, functions in names.FAST_IMPORTS.items():
        own = list(served[interface].functions)
        assert (["log"] if "host-services" in interface else own) == list(functions)
    exported = contract.load().exports
    assert all(name in exported[interface].functions for name, interface in names.FAST_EXPORTS.items())
    exports = {names.LIFECYCLE: LIFECYCLE_ALONE, names.TOPIC_HANDLER: ("handle-topic",)}
    assert {interface: list(functions) for interface, functions in names.functions().items()} == {
        interface: list(functions) for interface, functions in {**exports, **names.FAST_IMPORTS}.items()
    }


@pytest.mark.parametrize("name", FITTING)
def test_types_are_the_originals_but_for_reserved_names(engine: wasmtime.Engine, name: str) -> None:
    """Patched, it compiles, keeps to the contract, and imports and exports what it did, with the same types."""
    wasm = FITTING[name]
    patched = patch(wasm)
    assert LIFECYCLE_ALONE == patched.exports
    assert facts(engine, wasm) == facts(engine, patched.wasm, added_by(patched))
    assert signatures(engine, wasm) == signatures(engine, patched.wasm)
    exports = wt.Component(engine, patched.wasm).type.exports(engine)
    assert added_by(patched).exports == {each for each in exports if names.reserved(each)}


def test_which_imports_are_intercepted() -> None:
    """All that the template for C calls through its table; of a real component what it imports; none where there is
    nothing to intercept."""
    assert {interface: tuple(each) for interface, each in names.FAST_IMPORTS.items()} == patch(ALL_IMPORTS).imports
    assert tuple(names.FAST_EXPORTS) == patch(ALL_IMPORTS).exports
    imports = patch(READER).imports
    used = {"airssys:core/host-messaging@1.0.0": ("request",), "airssys:osl/filesystem@0.1.0": ("read-range", "list")}
    assert used == imports
    assert {} == patch(WITH_LIBC).imports


@pytest.mark.parametrize("name", FITTING)
def test_what_was_there_stays_byte_for_byte(name: str) -> None:
    """Each section of the original is there again, in order, but for instance types that have been extended and nested
    components that have been patched; new sections come last."""

    def check(old: Component, new: Component) -> None:
        before = [bytes(old.data[each.body : each.end]) for each in old.sections]
        after = [bytes(new.data[each.body : each.end]) for each in new.sections]
        assert [each.number for each in old.sections] == [each.number for each in new.sections][: len(before)]
        changed = [at for at, body in enumerate(before) if body != after[at]]
        for at in changed:
            number = old.sections[at].number
            if number == 4:
                nested = next(index for index, section in old.nested.items() if section == at)
                inner, outer = old.spaces["component"][nested], new.spaces["component"][nested]
                assert isinstance(inner, Component)
                assert isinstance(outer, Component)
                check(inner, outer)
            else:
                assert TYPE == number
        for before_type, after_type in zip(old.spaces["type"], new.spaces["type"], strict=False):
            assert type(before_type) is type(after_type)
            if isinstance(before_type, InstanceType) and isinstance(after_type, InstanceType):
                kept = bytes(old.data[before_type.first : before_type.end])
                assert bytes(new.data[after_type.first : after_type.end]).startswith(kept)

    original = FITTING[name]
    check(parse(original), _parse_patched(patch(original).wasm))


def _parse_patched(wasm: bytes) -> Component:
    """Read it with the reserved names allowed."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("sandbox.patch.component.reserved", lambda name: False)
        return parse(wasm)


def test_the_same_bytes_become_the_same_bytes() -> None:
    """Patching is deterministic, whatever kind of buffer the bytes come in."""
    for wasm in FITTING.values():
        assert patch(wasm) == patch(bytearray(wasm))


def test_a_component_without_lifecycle_is_declined() -> None:
    """There is nothing to make fast."""
    with pytest.raises(Declined, match="lifecycle"):
        patch(committed("tests/guests/no-lifecycle/component.wasm"))


@pytest.mark.parametrize("name", heavy_guests.NAMES)
def test_components_of_large_toolchains(name: str) -> None:
    """Those that were built on this machine are patched, nested as they are, with all imports they can call."""
    patched = patch(heavy_guests.cached(name))
    assert LIFECYCLE_ALONE == patched.exports
    if not name.startswith(("wasi-rust", "wasi-go")):  # these import nothing but WASI
        assert {"airssys:core/storage@1.0.0", "airssys:core/host-messaging@1.0.0"} <= set(patched.imports)


# -- what is followed and what is not ----------------------------------------------------------------------------------


def test_imports_are_found_by_what_is_in_the_table() -> None:
    """Slots are what element segments fill, later ones over earlier ones; not what anything is called."""
    slots = lifted.component(storage=True)
    assert {STORAGE: ("get", "exists")} == patch(slots).imports
    only = lifted.component(storage=True, elements="(elem (i32.const 3) func $x)")
    assert {STORAGE: ("get",)} == patch(only).imports
    over = "(elem (i32.const 3) func $x) (func $own (param i32 i32 i32)) (elem (i32.const 3) func $own)"
    assert {} == patch(lifted.component(storage=True, elements=over)).imports
    as_expressions = "(elem (i32.const 3) funcref (ref.func $x)) (elem (i32.const 2) funcref (ref.null func))"
    assert {STORAGE: ("get",)} == patch(lifted.component(storage=True, elements=as_expressions)).imports
    passive = "(elem func $x) (elem declare func $y)"
    assert {} == patch(lifted.component(storage=True, elements=passive)).imports


OTHER_MEMORY = '(core module $more (memory (export "m") 1)) (core instance $more (instantiate $more))'


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (USUAL, ("get", "exists")),
        (f"{USUAL} string-encoding=utf8", ("get", "exists")),
        (f"{USUAL} string-encoding=utf16", ("exists",)),
        (f"{USUAL} string-encoding=latin1+utf16", ("exists",)),
        ('(memory (core memory $more "m")) (realloc $realloc)', ("exists",)),
    ],
)
def test_an_import_with_other_options_stays(engine: wasmtime.Engine, options: str, kept: tuple[str, ...]) -> None:
    """Another encoding or another memory than the message's: that function takes the general path, the rest do not."""
    code = {'(alias core export $code "memory"': OTHER_MEMORY + '(alias core export $code "memory"'}
    wasm = lifted.component(code, storage=True, get_options=options)
    patched = patch(wasm)
    assert {STORAGE: kept} == patched.imports
    assert facts(engine, wasm) == facts(engine, patched.wasm, added_by(patched))


def test_an_import_without_allocator(engine: wasmtime.Engine) -> None:
    """The engine allows none where the result holds a text."""
    wasm = lifted.component(storage=True)
    assert {STORAGE: ("get", "exists")} == patch(wasm).imports
    with pytest.raises(wasmtime.WasmtimeError, match="realloc"):
        wt.Component(engine, lifted.component(storage=True, exists_options="(memory $memory)"))


LIFT = """(canon lift (core func $code "handle-message") (memory $memory) (realloc $realloc)"""
CALLBACK = """(canon lift (core func $code "handle-callback") (memory $memory) (realloc $realloc)"""


def test_a_lift_that_is_not_utf8_is_declined() -> None:
    """handle-message with another encoding: all is general. handle-callback alone: that one is."""
    for encoding in ("utf16", "latin1+utf16"):
        with pytest.raises(Declined, match="UTF-8"):
            patch(lifted.component({LIFT: f"{LIFT} string-encoding={encoding}"}))
    only = patch(lifted.component({CALLBACK: f"{CALLBACK} string-encoding=utf16"}))
    assert ("handle-message",) == only.exports


def test_two_memories(engine: wasmtime.Engine) -> None:
    """handle-callback with a memory of its own takes the general path; the same memory by another index does not."""
    more = '(alias core export $code "realloc" (core func $realloc))'
    other = {more: more + OTHER_MEMORY, CALLBACK: CALLBACK.replace("$memory", '(core memory $more "m")')}
    other[CALLBACK] = CALLBACK.replace("(memory $memory)", '(memory (core memory $more "m"))')
    wasm = lifted.component(other)
    assert ("handle-message",) == patch(wasm).exports
    again = {more: more + '(alias core export $code "memory" (core memory $again))'}
    again[CALLBACK] = CALLBACK.replace("(memory $memory)", "(memory $again)")
    patched = patch(lifted.component(again))
    assert LIFECYCLE_ALONE == patched.exports
    wt.Component(engine, patched.wasm)


def test_an_instance_put_together_by_hand(engine: wasmtime.Engine) -> None:
    """The lifecycle may be exported as an instance of functions taken out of another."""
    functions = ("initialize", "handle-message", "handle-callback", "metadata", "health", "shutdown")
    aliases = " ".join(f'(alias export $lifecycle "{name}" (func $f-{name}))' for name in functions)
    exports = " ".join(f'(export "{name}" (func $f-{name}))' for name in functions)
    export = '(export "airssys:core/component-lifecycle@1.0.0" (instance $lifecycle))'
    text = lifted.text(
        {export: f"{aliases} (instance $again {exports}) {export.replace('$lifecycle', '$again')}"}, storage=True
    )
    patched = patch(bytes(wasmtime.wat2wasm(text)))
    assert LIFECYCLE_ALONE == patched.exports
    assert {STORAGE: ("get", "exists")} == patched.imports


def test_an_import_that_is_not_handed_on_as_it_is(engine: wasmtime.Engine) -> None:
    """The nested component gets an instance that was put together outside: nothing could be added to that."""
    given = f'(with "{STORAGE}" (instance $storage))'
    text = lifted.text(storage=True)
    made = f"""(alias export $storage "get" (func $g)) (alias export $storage "exists" (func $e))
      (alias export $storage "storage-error" (type $se)) (alias export $storage "storage-value" (type $sv))
      (instance $made (export "get" (func $g)) (export "exists" (func $e)) (export "storage-error" (type $se))
        (export "storage-value" (type $sv)))
      (instance $lifecycle (instantiate $guest (with "{STORAGE}" (instance $made))))"""
    old = f"(instance $lifecycle (instantiate $guest {given}))"
    assert old in text
    wasm = bytes(wasmtime.wat2wasm(text.replace(old, made)))
    patched = patch(wasm)
    assert ({}, LIFECYCLE_ALONE) == (patched.imports, patched.exports)
    assert facts(engine, wasm) == facts(engine, patched.wasm, added_by(patched))


CALLS_STORAGE = {
    "(core module $code": '(core module $code (import "shim" "a" (func $get (param i32 i32 i32)))'
    ' (import "shim" "b" (func $exists (param i32 i32 i32)))',
    "(instantiate $code)": '(instantiate $code (with "shim" (instance $shim)))',
    '(func (export "health") (result i32) (i32.const 0))': """(func (export "health") (result i32)
      (call $get (i32.const 0) (i32.const 0) (i32.const 512))
      (call $exists (i32.const 0) (i32.const 0) (i32.const 512)) (i32.const 0))""",
    '(func $health (result $health-status) (canon lift (core func $code "health"))': "(func $health (result"
    ' $health-status) (canon lift (core func $code "health") (memory $memory) (realloc $realloc))',
}
"""The guest asks for a value and whether there is one when it is asked for its health."""


def called(engine: wasmtime.Engine, wasm: bytes, *, bound: bool = True) -> list[str]:
    """The host functions that arrive when the guest is asked for its health, through the engine's stock classes; the
    adapter, if there is one, is taken into use before or not."""
    arrived: list[str] = []
    linker = wt.Linker(engine)
    with linker.root() as root, root.add_instance(STORAGE) as storage:
        for name, answer in (("get", b""), ("exists", True), ("x-airssys-get", None), ("x-airssys-exists", None)):
            storage.add_func(name, lambda _, *key, name=name, answer=answer: arrived.append(name) or answer)
    store = wasmtime.Store(engine)
    store.set_fuel(1_000_000)
    instance = linker.instantiate(store, wt.Component(engine, wasm))
    reserve = instance.get_func(store, names.RESERVE)
    if reserve is not None and bound:
        reserve(store, 1, 0)
    lifecycle = instance.get_export_index(store, names.LIFECYCLE)
    health = instance.get_func(store, instance.get_export_index(store, "health", lifecycle))
    assert health is not None
    assert "healthy" == health(store)
    return arrived


@pytest.mark.parametrize("levels", [1, 3])
def test_the_guests_calls_take_the_new_functions(engine: wasmtime.Engine, levels: int) -> None:
    """Patched, the guest's calls of storage arrive at the added host functions, through as many components as there
    are; as it came, they arrive at storage's own."""
    wasm = lifted.component(CALLS_STORAGE, storage=True, levels=levels)
    assert ["get", "exists"] == called(engine, wasm)
    assert ["x-airssys-get", "x-airssys-exists"] == called(engine, patch(wasm).wasm)
    assert ["get", "exists"] == called(engine, patch(wasm).wasm, bound=False)  # the second of two instances, say


def test_only_what_was_intercepted_changes(engine: wasmtime.Engine) -> None:
    """A function that stays general arrives where it did, beside one that does not."""
    wasm = lifted.component(CALLS_STORAGE, storage=True, get_options=f"{USUAL} string-encoding=utf16")
    assert ["get", "exists"] == called(engine, wasm)
    assert ["get", "x-airssys-exists"] == called(engine, patch(wasm).wasm)


# -- reserved names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '(component (import "x-airssys-a" (func)))',
        '(component (import "X-AIRSSYS-a" (func)))',
        '(component (import "a:b/x-airssys-c" (instance)))',
        '(component (import "a:b/c" (instance (export "x-airssys-get" (func)))))',
        '(component (component (import "x-airssys-get" (func))))',
        '(component (import "f" (func $f)) (instance (export "x-airssys-get" (func $f))))',
        '(component (import "f" (func $f)) (export "x-airssys-take" (func $f)))',
        '(component (type (instance (export "r" (type (sub resource))) (export "[static]r.x-airssys-a" (func)))))',
        '(component (type (func (param "x-airssys-a" u32))))',
        '(component (type (record (field "x-airssys-a" u32))))',
        '(component (type (variant (case "x-airssys-a"))))',
        '(component (type (enum "x-airssys-a")))',
        '(component (type (flags "x-airssys-a")))',
        '(component (type (component (import "x-airssys-a" (func)))))',
        '(component (type (instance (export "x-airssys-get" (func)))))',
    ],
)
def test_a_component_that_uses_the_prefix_is_refused(engine: wasmtime.Engine, text: str) -> None:
    """Wherever a name of a component's stands, on either path."""
    wasm = bytearray(wasmtime.wat2wasm(text))
    for refuse in (patch, patcher.check_names):
        with pytest.raises(names.ReservedName):
            refuse(wasm)
    for path in PATHS:
        result = compiled(engine, wasm, path)
        assert result.error is not None
        assert "E_RESERVED_NAME" == result.error[0]


def test_the_prefix_elsewhere_is_nobodys_business() -> None:
    """Positive control: inside core modules, in data, and in names that only look like it."""
    text = """(component
      (core module $m (memory 1) (data (i32.const 0) "x-airssys-get") (func (export "x-airssys-get")))
      (import "x-airssy-get" (func)) (import "airssys-x-get" (func)))"""
    patcher.check_names(wasmtime.wat2wasm(text))


def test_a_patched_component_is_not_patched_again() -> None:
    """It uses the host's names, and is refused for them."""
    with pytest.raises(names.ReservedName):
        patch(patch(READER).wasm)


def test_the_contract_sees_reserved_names_itself(engine: wasmtime.Engine) -> None:
    """Where nobody read the component before: another name than those added, or one with another type, is refused."""
    patched = patch(READER)
    added = added_by(patched)
    assert facts(engine, READER) == facts(engine, patched.wasm, added)
    fewer = dataclasses.replace(added, exports=added.exports - {names.TAKE})
    one_less = {interface: functions - {names.fast("read-range")} for interface, functions in added.imports.items()}
    for wrong in (None, fewer, dataclasses.replace(added, imports=one_less)):
        with pytest.raises(names.ReservedName):
            facts(engine, patched.wasm, wrong)
    core_ = '(core module $o (func (export "f") (param i32))) (core instance $o (instantiate $o))'
    func = '(func $odd (param "a" u32) (canon lift (core func $o "f"))) (export "x-airssys-take" (func $odd))'
    with pytest.raises(names.ReservedName):
        facts(engine, lifted.component(outside=core_ + func), contract.Added(frozenset({names.TAKE})))


# -- the compiler ------------------------------------------------------------------------------------------------------


def compiled(engine: wasmtime.Engine, wasm: bytes | bytearray, path: CallPath = "fast") -> CompileResult:
    """What the compiler says of it."""
    return parse_header(compiler._compile(engine, bytearray(wasm), path))[0]


def test_the_compiler_says_what_became_of_it(engine: wasmtime.Engine) -> None:
    """Patched with the functions that are fast; or why not. Imports and exports are the original's either way."""
    fast, general = compiled(engine, READER), compiled(engine, READER, "general")
    imports = {interface: list(functions) for interface, functions in patch(READER).imports.items()}
    assert Crossing("fast", ["handle-message", "handle-callback"], imports) == fast.crossing
    assert Crossing(reason="the operator chose it") == general.crossing
    assert (fast.imports, fast.exports) == (general.imports, general.exports)
    declined = compiled(engine, lifted.component({LIFT: f"{LIFT} string-encoding=utf16"}))
    assert declined.error is None
    assert "UTF-8" in declined.crossing.reason


def test_what_does_not_compile_patched_is_compiled_as_it_came(
    engine: wasmtime.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patch fails its validation: the component is compiled unpatched, and the reason says so."""
    good = patch(READER)
    monkeypatch.setattr(patcher, "patch", lambda wasm: dataclasses.replace(good, wasm=good.wasm[:-3]))
    result = compiled(engine, READER)
    assert result.error is None
    assert "general" == result.crossing.path
    assert "patched, it does not compile" in result.crossing.reason


def test_an_adapter_of_other_types_is_not_valid(engine: wasmtime.Engine) -> None:
    """The engine compares what the adapter wants of the guest with what the guest has: a lifecycle of other types."""
    result = "(result (result (option (list u8)) (error $wasm-error)))"
    after = '      (func (export "handle-callback")'
    wasm = lifted.component(
        {
            f'$handle-message (param "msg" $component-message) {result}': '$handle-message (param "msg" u64)',
            '"handle-message") (param $message i32) (result i32)': '"handle-message") (param i64) (local $message i32)',
            f"(i32.const 0))\n{after}": f")\n{after}",
            '\n        (post-return (core func $code "reset"))': "",
        }
    )
    wt.Component(engine, wasm)
    with pytest.raises(wasmtime.WasmtimeError, match="handle-message"):
        wt.Component(engine, patch(wasm).wasm)
    result = compiled(engine, wasm)
    assert result.error is not None
    assert "E_EXPORTS" == result.error[0], "compiled as it came, and judged as it came"


def test_an_invalid_component_is_told_its_own_fault(engine: wasmtime.Engine) -> None:
    """An error of the patched bytes is not shown where the original has one."""
    broken = lifted.component().replace(b"\x08metadata", b"\x08metadatb", 1)
    patch(broken)
    result, general = compiled(engine, broken), compiled(engine, broken, "general")
    assert result.error is not None
    assert "E_INVALID_COMPONENT" == result.error[0]
    assert general.error == result.error


def test_unsuitable_functions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import no adapter can be made for is left alone; an export makes the component general."""
    usual = names.functions()
    odd = Function("get", (("key", BYTES),), ResultType(None, None))
    storage = usual[STORAGE] | {"get": odd}
    monkeypatch.setattr(names, "functions", lambda: usual | {STORAGE: storage})
    assert {STORAGE: ("exists",)} == patch(lifted.component(storage=True)).imports
    flat = usual[names.LIFECYCLE] | {"handle-message": Function("handle-message", (), None)}
    monkeypatch.setattr(names, "functions", lambda: usual | {names.LIFECYCLE: flat})
    with pytest.raises(Declined, match="no adapter"):
        patch(lifted.component())


# -- bounds ------------------------------------------------------------------------------------------------------------


def whole(*sections: tuple[int, bytes]) -> bytes:
    return binary.COMPONENT_HEADER + b"".join(binary.section(number, body) for number, body in sections)


def nested(depth: int) -> bytes:
    wasm = binary.COMPONENT_HEADER
    for _ in range(depth):
        wasm = whole((4, wasm))
    return wasm


def nested_types(depth: int) -> bytes:
    kind = b"\x42\x00"
    for _ in range(depth):
        kind = b"\x42\x01\x01" + kind
    return whole((7, b"\x01" + kind))


def aliases(count: int) -> bytes:
    """Instances, each taken out of the one before."""
    one = b"\x05\x00" + b"%s" + binary.name("i")
    body = b"".join(one.replace(b"%s", binary.u32(index)) for index in range(count))
    lifecycle = b"\x00" + binary.name(names.LIFECYCLE) + b"\x05" + binary.u32(count) + b"\x00"
    imported = (10, b"\x01\x00" + binary.name("a:b/c") + b"\x05\x00")
    return whole((7, b"\x01\x42\x00"), imported, (6, binary.u32(count) + body), (11, b"\x01" + lifecycle))


@pytest.mark.parametrize(
    ("make", "small", "large", "why"),
    [
        (nested, 20, 21, "nested more than 20"),
        (nested_types, 40, 41, "nested more than 40"),
        (aliases, 90, 102, "deep"),
        (lambda n: whole((7, binary.u32(n) + b"\x7f" * n)), 190_000, 200_001, "more than 200000 items"),
        (lambda n: whole(*[(0, b"\0")] * n), 190_000, 200_001, "more than 200000 items"),
    ],
)
def test_what_is_too_much_is_declined(make: Callable[[int], bytes], small: int, large: int, why: str) -> None:
    """Depth and number are bounded, and the bound is not met by accident: somewhat less is read."""
    with pytest.raises(Declined, match=r"it does not export the lifecycle|is not to be found"):
        patch(make(small))
    with pytest.raises(Declined, match=why):
        patch(make(large))


@pytest.mark.parametrize(
    "wasm",
    [
        b"",
        b"\0asm",
        binary.CORE_HEADER,
        whole((9, b"\0\0\0")),
        whole((12, b"\0")),
        whole((13, b"")),
        whole((7, b"\x01")),
        whole((7, b"\xff\xff\xff\xff\x0f")),
        whole((7, b"\xff\xff\xff\xff\x7f")),
        whole((7, b"\x80\x80\x80\x80\x80\x00")),
        whole((7, b"\x00\x00")),
        whole((8, b"\x01\x77")),
        whole((6, b"\x01\x05\x00\x00\x02\xff\xfe")),
        whole((11, b"\x01\x00" + binary.name(names.LIFECYCLE) + b"\x05\x07\x00")),
        whole((11, b"\x01\x00" + binary.name(names.LIFECYCLE) + b"\x05\x00\x00")),
        whole((11, b"\x01\x00" + binary.name(names.LIFECYCLE) + b"\x01\x00\x00")),
        binary.COMPONENT_HEADER + b"\x07\x7f\x00",
    ],
)
def test_damaged_bytes_are_declined(wasm: bytes) -> None:
    """Whatever is wrong with them; an export of itself ends, too."""
    with pytest.raises(Declined):
        patch(wasm)
    patcher.check_names(wasm)


def test_numbers() -> None:
    """LEB128 both ways, at its edges."""
    for number in (0, 1, 127, 128, 300, 1 << 31, (1 << 32) - 1):
        reader = binary.Reader(binary.u32(number), Budget())
        assert number == reader.u32()
        reader.finish()
    for body, bits, number in ((b"\x7f", 33, -1), (b"\x40", 33, -64), (b"\xff\xff\xff\xff\x0f", 33, (1 << 32) - 1)):
        assert number == binary.Reader(body, Budget()).signed(bits)
    for body in (b"\xff\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x5f", b"\x80"):
        with pytest.raises(Unreadable):
            binary.Reader(body, Budget()).signed(33)


def test_a_core_module_that_is_not_understood_fills_nothing() -> None:
    """Damaged modules, and those with tables of anything but functions, are left to the engine."""
    component = parse(lifted.component(storage=True))
    inner = component.spaces["component"][0]
    assert isinstance(inner, Component)
    fill = inner.spaces["core module"][-1]
    assert isinstance(fill, Module)
    body = bytes(inner.data[fill.start : fill.end])
    assert 2 == len(core.filled(body))
    for end in range(len(body)):
        core.filled(body[:end])
    odd = wasmtime.wat2wasm('(module (import "" "t" (table 1 externref)) (elem declare func))')
    assert {} == core.filled(odd)
