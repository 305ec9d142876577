"""Splicing a core module into a template: what fits goes in, what does not is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import wasmtime
from airssys import componentize as c
from airssys.cc import CompileError, compile_core
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import component as wt

from sandbox import contract

pytestmark = pytest.mark.block10_sdk

ROOT = Path(__file__).resolve().parents[2]
READER = ROOT / "examples/logclean/reader"
TEMPLATE = (READER / "template.wasm").read_bytes()
FULL = (ROOT / "sdk/c/templates/osl-host.wasm").read_bytes()
FULLER = (ROOT / "sdk/c/templates/topic-host.wasm").read_bytes()
COMPONENT = (READER / "component.wasm").read_bytes()


CORE = c.template_core(COMPONENT)


def refused(template: bytes, core: bytes) -> tuple[str, str]:
    with pytest.raises(c.ComponentizeError) as caught:
        c.componentize(template, core)
    return caught.value.code, str(caught.value)


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def test_the_spliced_component_is_the_committed_one() -> None:
    """Template and core module give the component; the engine accepts it."""
    assert COMPONENT == c.componentize(TEMPLATE, CORE)
    wt.Component(wasmtime.Engine(), c.componentize(TEMPLATE, CORE))


def test_the_dummy_fits_its_own_template() -> None:
    """The template's own module is a guest that fits, and splicing it changes nothing."""
    assert TEMPLATE == c.componentize(TEMPLATE, c.template_core(TEMPLATE))


@pytest.mark.parametrize(
    ("core", "message"),
    [
        ('(module (import "env" "puts" (func)))', "imports env puts, which this template lacks"),
        (
            '(module (import "airssys:osl/filesystem@0.1.0" "write" (func)))',
            "imports airssys:osl/filesystem@0.1.0 write, which",
        ),
        (
            '(module (import "airssys:osl/filesystem@0.1.0" "list" (func (param i32))))',
            "is (i32) -> (), should be (i32, i32, i32) -> ()",
        ),
        ("(module)", "does not export cabi_realloc"),
    ],
)
def test_what_does_not_fit_is_named(core: str, message: str) -> None:
    """A foreign import, another type, a missing export."""
    code, text = refused(TEMPLATE, wat(core))
    assert "E_MISMATCH" == code
    assert message in text


def test_an_export_of_another_kind_or_type() -> None:
    """`memory` must be a memory, a lifecycle function must have its type."""
    wanted = c.core_interface(CORE)
    for name, wrong in (("memory", "global"), ("cabi_realloc", "() -> ()")):
        given_interface = c.CoreInterface(wanted.imports, wanted.exports | {name: wrong})
        with pytest.raises(c.ComponentizeError, match=f"export {name} is"):
            c.check_fit(wanted, given_interface)
    c.check_fit(wanted, wanted)


@pytest.mark.parametrize(
    ("core", "message"),
    [
        (b"", "not a core"),
        (COMPONENT, "not a core"),
        (CORE[:100], "unexpected end"),
        (wat('(module (import "a" "b" (memory 1)))'), "imports the memory a b"),
        (wat('(module (import "a" "b" (global i32)))'), "imports the global a b"),
        (c.CORE_HEADER + b"\x01\x02\x01\x00", "not a plain function type"),
        (c.CORE_HEADER + b"\x03\x02\x01\x05", "index 5 out of 0"),
        (c.CORE_HEADER + b"\x01\xff\xff\xff\xff\xff\x01", "longer than 32 bits"),
        (c.CORE_HEADER + b"\x01\xff\xff\xff\xff\x1f", "longer than 32 bits"),
        (c.CORE_HEADER + b"\x02\x04\x01\x01\xff\x00", "not UTF-8"),
    ],
)
def test_what_is_no_core_module(core: bytes, message: str) -> None:
    """Malformed modules and modules that want more than functions."""
    code, text = refused(TEMPLATE, core)
    assert "E_CORE" == code
    assert message in text


def test_what_is_no_template() -> None:
    """A core module, nothing, and a component without code are no templates."""
    for template in (b"", CORE, c.COMPONENT_HEADER, TEMPLATE[:50]):
        assert "E_TEMPLATE" == refused(template, CORE)[0]


def test_the_c_header_has_every_import() -> None:
    """The full templates list all that is the host's own, one of them without messaging, and the headers declare each
    function with its types."""
    offered, fuller = (c.core_interface(c.template_core(template)).imports for template in (FULL, FULLER))
    served = {name: found for name, found in contract.load().imports.items() if not name.startswith("wasi:")}
    every = {(name, each) for name, found in served.items() for each in found.functions}
    assert every == set(fuller)
    assert {(name, each) for name, each in every if not name.startswith("airssys:messaging/")} == set(offered)
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    engine = wasmtime.Engine()
    for name, template, imports in (("osl-host", FULL, offered), ("topic-host", FULLER, fuller)):
        core = compile_core(ROOT / f"sdk/c/templates/{name}.c")
        assert imports == c.core_interface(core).imports
        contract.check_component(wt.Component(engine, c.componentize(template, core)).type, engine)


def test_a_source_that_does_not_compile(tmp_path: Path) -> None:
    """The compiler's own words come back."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed")
    (tmp_path / "bad.c").write_text("int x = ;")
    with pytest.raises(CompileError, match="expected expression"):
        compile_core(tmp_path / "bad.c")


@given(st.integers(0, 2**32 - 1))
def test_numbers_survive(number: int) -> None:
    """LEB128 both ways."""
    assert number == c._Reader(c.leb128(number), "E_CORE").number()


@given(st.sampled_from([TEMPLATE, CORE]), st.data())
def test_mutated_bytes_never_crash(original: bytes, data: st.DataObject) -> None:
    """Whatever the bytes, the answer is a component or a ComponentizeError."""
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(mutated) - 1, 3000)))
        cut = data.draw(st.sampled_from([0, 1, 1, 2, 50]))
        mutated[at : at + cut] = data.draw(st.binary(max_size=3))
    for template, core in ((bytes(mutated), CORE), (TEMPLATE, bytes(mutated))):
        try:
            c.componentize(template, core)
        except c.ComponentizeError as error:
            assert error.code in ("E_TEMPLATE", "E_CORE", "E_MISMATCH")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`TEMPLATE CORE OUT` writes the component and ends with 0; a failure ends with 8, says why and writes nothing."""
    core, out = tmp_path / "core.wasm", tmp_path / "out.wasm"
    core.write_bytes(CORE)
    assert 0 == c.main([str(READER / "template.wasm"), str(core), str(out)])
    assert COMPONENT == out.read_bytes()
    missing = tmp_path / "missing.wasm"
    assert 8 == c.main([str(core), str(core), str(missing)])
    assert "E_TEMPLATE: not a WebAssembly component" in capsys.readouterr().err
    assert not missing.exists()
