"""The table of what the host serves, and the check of compiled components against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import component as wt

from sandbox import contract, host, resources
from sandbox.contract import LIFECYCLE, ContractError, check_component, item_text
from sandbox.wit import Type

pytestmark = pytest.mark.block2_wit

ROOT = Path(__file__).resolve().parents[2]
READER = (ROOT / "examples/logclean/reader/component.wasm").read_bytes()
STORAGE = "airssys:core/storage@1.0.0"


@pytest.fixture(scope="module")
def engine() -> Iterator[wasmtime.Engine]:
    """One engine for the module; types are compared through it."""
    yield wasmtime.Engine()


def checked(engine: wasmtime.Engine, wasm: bytes | str) -> contract.ComponentFacts:
    return check_component(wt.Component(engine, wasm).type, engine)


def importing(name: str, *declarations: str) -> str:
    """A component that imports an instance of these declarations, and exports nothing."""
    return f'(component (import "{name}" (instance {" ".join(declarations)})))'


def refused(engine: wasmtime.Engine, wasm: bytes | str) -> tuple[str, str]:
    with pytest.raises(ContractError) as caught:
        checked(engine, wasm)
    return caught.value.code, caught.value.subject


GET = '(export "exists" (func (param "key" string) (result (result bool (error {error})))))'
ERROR = (
    '(variant (case "not-found" string) (case "already-exists" string) (case "quota-exceeded")'
    ' (case "invalid-key" string) (case "io-error" string))'
)


def storage_with(function: str, error: str = ERROR) -> str:
    """A component importing one function of storage whose error type is written here."""
    return importing(
        STORAGE,
        f"(type $e' {error})",
        '(export "storage-error" (type $e (eq $e\')))',
        function.format(error="$e"),
    )


def test_the_table_of_served_functions() -> None:
    """The interfaces of the host's own packages, with canonical signatures."""
    served = contract.load().imports
    assert LIFECYCLE not in served
    assert [] == list(served["airssys:core/capabilities@1.0.0"].functions)
    functions = {
        name: list(interface.functions)
        for name, interface in served.items()
        if interface.functions and not name.startswith("wasi:")
    }
    assert {
        "airssys:core/host-messaging@1.0.0": ["send", "request", "cancel-request", "broadcast", "self-id"],
        "airssys:core/host-services@1.0.0": [
            "log",
            "current-time",
            "current-time-millis",
            "sleep-millis",
            "list-components",
            "get-component-metadata",
        ],
        STORAGE: ["get", "set", "delete", "exists", "list-keys", "usage"],
        "airssys:osl/filesystem@0.1.0": [
            "read",
            "read-range",
            "write",
            "append",
            "delete",
            "make-directory",
            "list",
            "stat",
            "rename",
        ],
        "airssys:messaging/messaging@0.1.0": [
            "send",
            "request",
            "publish",
            "subscribe",
            "unsubscribe",
            "defer",
            "reply",
            "fail",
            "current",
        ],
        "airssys:messaging/timers@0.1.0": ["send-after", "send-every", "cancel"],
    } == functions
    storage_error = (
        "variant{not-found(string), already-exists(string), quota-exceeded, invalid-key(string), io-error(string)}"
    )
    assert f"func(key: string) -> result<option<list<u8>>, {storage_error}>" == served[STORAGE].functions["get"]
    assert {LIFECYCLE, "airssys:messaging/topic-handler@0.1.0"} == set(contract.load().exports)


def test_the_worker_implements_what_is_served() -> None:
    """Every function of the table has an implementation in the worker, and no other is offered."""
    expected = {name: sorted(interface.functions) for name, interface in contract.load().imports.items()}
    assert expected == {name: sorted(functions) for name, functions in host.INTERFACES.items()}


def test_wit_inside_a_wheel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sandbox/_wit` where it exists, else `wit` beside the package, else a sentence."""
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "sandbox")
    with pytest.raises(FileNotFoundError, match="install again"):
        resources.wit_directory()
    (tmp_path / "wit").mkdir()
    assert tmp_path / "wit" == resources.wit_directory()
    (tmp_path / "sandbox/_wit").mkdir(parents=True)
    assert tmp_path / "sandbox/_wit" == resources.wit_directory()


def test_a_component_that_fits(engine: wasmtime.Engine) -> None:
    """Positive control: part of an interface and types alone are fine; facts are sorted."""
    facts = checked(engine, READER)
    assert ["list", "read-range"] == facts.imports["airssys:osl/filesystem@0.1.0"]
    assert [] == facts.imports["airssys:core/types@1.0.0"]
    assert sorted(facts.imports) == list(facts.imports)


def test_unknown_imports_are_named(engine: wasmtime.Engine) -> None:
    """An interface, a version, a function, a type, or a kind of import the host lacks is refused by its name."""
    nothing = importing("wasi:http/types@0.2.0")
    assert ("E_IMPORTS", "wasi:http/types@0.2.0") == refused(engine, nothing)
    assert ("E_IMPORTS", "airssys:core/storage@1.0.1") == refused(engine, importing("airssys:core/storage@1.0.1"))
    unknown = importing(STORAGE, '(export "purge" (func))')
    assert ("E_IMPORTS", f"{STORAGE}#purge") == refused(engine, unknown)
    typed = importing(STORAGE, '(type $t\' (enum "a"))', '(export "extra" (type (eq $t\')))')
    assert ("E_IMPORTS", f"{STORAGE}#extra") == refused(engine, typed)
    resource = importing(STORAGE, '(export "storage-error" (type (sub resource)))')
    assert ("E_IMPORTS", f"{STORAGE}#storage-error") == refused(engine, resource)
    assert ("E_IMPORTS", "purge") == refused(engine, '(component (import "purge" (func)))')
    as_function = f'(component (import "{STORAGE}" (func)))'
    with pytest.raises((ContractError, wasmtime.WasmtimeError)):
        checked(engine, as_function)


def test_changed_types_are_named(engine: wasmtime.Engine) -> None:
    """Another result, parameter, parameter name, case order or missing case is refused; the right one passes that."""
    assert ("E_EXPORTS", LIFECYCLE) == refused(engine, storage_with(GET)), "positive control: only the export lacks"
    for function in (
        GET.replace("bool", "u32"),
        GET.replace("string)", "(list u8))"),
        GET.replace('"key"', '"name"'),
        '(export "exists" (func))',
    ):
        assert ("E_IMPORTS", f"{STORAGE}#exists") == refused(engine, storage_with(function))
    shorter = ERROR.replace(' (case "io-error" string)', "")
    assert ("E_IMPORTS", f"{STORAGE}#storage-error") == refused(engine, storage_with(GET, shorter))


def test_a_wrong_or_missing_lifecycle_is_named(engine: wasmtime.Engine) -> None:
    """No export, an export that is no instance, a missing function, a function of another type."""
    assert ("E_EXPORTS", LIFECYCLE) == refused(engine, "(component)")
    empty = f'(component (instance $i) (export "{LIFECYCLE}" (instance $i)))'
    assert ("E_EXPORTS", f"{LIFECYCLE}#initialize") == refused(engine, empty)
    module = (
        '(core module $m (func (export "f") (result i32) i32.const 0)) (core instance $c (instantiate $m))'
        ' (func $f (result u32) (canon lift (core func $c "f")))'
    )
    wrong = f'(component {module} (instance $i (export "initialize" (func $f))) (export "{LIFECYCLE}" (instance $i)))'
    assert ("E_EXPORTS", f"{LIFECYCLE}#initialize") == refused(engine, wrong)


def test_long_names_are_cut_in_messages(engine: wasmtime.Engine) -> None:
    """A stranger's name does not flood the log."""
    name = "a" + "b" * 5000
    code, subject = refused(engine, f'(component (import "{name}" (func)))')
    assert ("E_IMPORTS", 203) == (code, len(subject))


def test_types_that_double_do_not_take_the_memory(engine: wasmtime.Engine) -> None:
    """A function type of half a million parts is refused without being written out."""
    doubling = "".join(f"(type $t{n} (tuple $t{n - 1} $t{n - 1}))" for n in range(1, 17))
    function = '(export "exists" (func (param "key" $t16)))'
    text = importing(STORAGE, "(type $t0 (tuple u8))", doubling, function)
    with pytest.raises(ContractError, match="the component wants too long"):
        checked(engine, text)


primitives = st.sampled_from(
    ["u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f32", "f64", "bool", "char", "string"]
)
types = st.recursive(
    primitives.map(Type),
    lambda inner: st.one_of(
        st.builds(lambda a: Type("list", (a,)), inner),
        st.builds(lambda a: Type("option", (a,)), inner),
        st.builds(lambda some: Type("tuple", tuple(some)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda ok, error: Type("result", (ok, error)), st.none() | inner, st.none() | inner),
    ),
    max_leaves=8,
)


def as_wat(kind: Type) -> str:
    """The component text format of a type expression."""
    if kind.head == "result":
        ok, error = kind.arguments
        return f"(result {as_wat(ok) if ok else ''} {f'(error {as_wat(error)})' if error else ''})"
    inner = " ".join(as_wat(argument) for argument in kind.arguments if argument)
    return f"({kind.head} {inner})" if inner else kind.head


@given(types, types)
def test_wasmtime_and_wit_write_the_same_signature(parameter: Type, result: Type) -> None:
    """A type written in WIT and the same type told by wasmtime have one canonical text."""
    engine = wasmtime.Engine()
    text = f'(component (import "f" (func (param "a" {as_wat(parameter)}) (result {as_wat(result)}))))'
    found = wt.Component(engine, text).type.imports(engine)["f"].ty
    assert f"func(a: {parameter}) -> {result}" == item_text(found)


def test_named_structures_are_written_alike(engine: wasmtime.Engine) -> None:
    """Records, variants, enums and flags; what we have no word for is marked and equals nothing."""
    cases = {
        '(record (field "a-b" u8))': "record{a-b: u8}",
        '(variant (case "a" u8) (case "b"))': "variant{a(u8), b}",
        '(enum "x" "y")': "enum{x, y}",
        '(flags "x" "y")': "flags{x, y}",
    }
    for text, expected in cases.items():
        wat = f'(component (import "i" (instance (type $t\' {text}) (export "t" (type (eq $t\'))))))'
        instance = wt.Component(engine, wat).type.imports(engine)["i"].ty
        assert isinstance(instance, wt.ComponentInstanceType)
        assert expected == item_text(instance.exports(engine)["t"].ty)
    resource = wt.Component(engine, '(component (import "r" (type (sub resource))))').type.imports(engine)["r"].ty
    assert "unknown resource" == item_text(resource)
