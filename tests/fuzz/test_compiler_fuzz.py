"""Whatever bytes a component has, the compiler leaves a whole result or dies; it never leaves half of one.

Each example is compiled in a forked child, under a bound on memory, the way the compiler does it behind its walls.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import bombs
import pytest
import wasmtime
from forked import ends
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import compiler, contract
from sandbox.engine import make_engine
from sandbox.kernel import process
from sandbox.patch import names
from sandbox.types import CallPath
from sandbox.wire.compile_result import CompileResult, parse_header
from supervisor.control.compile import COMPILER_CODES

pytestmark = pytest.mark.block4_security
GUESTS = Path(__file__).resolve().parents[1] / "guests"
SEEDS = [(GUESTS / name / "component.wasm").read_bytes() for name in ("probe", "no-lifecycle", "wrong-type")] + [
    bombs.doubling_types(4),
    bombs.doubling_instances(3),
    bombs.nested_components(5),
    bombs.branch_tables(2),
    bombs.huge_table(10),
]


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """The compiler's engine, with everything loaded that its cage would hide."""
    contract.load()
    names.functions()
    return make_engine()


def compiled(engine: wasmtime.Engine, wasm: bytes, path: CallPath = "fast") -> CompileResult | None:
    """What the compiler leaves for these bytes; None when it died."""
    source, output = os.memfd_create("wasm"), os.memfd_create("compiled")
    os.write(source, wasm)

    def child() -> int:
        process.place_fds(source, output)
        resource.setrlimit(resource.RLIMIT_AS, (process.address_space() + (256 << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return compiler._work(engine, path)

    try:
        done = ends(child)
        if done.signal:
            return None
        assert (0, "") == (done.value, done.error)
        result, _ = parse_header(os.pread(output, os.fstat(output).st_size, 0))
        return result
    finally:
        os.close(source)
        os.close(output)


def test_the_seeds(engine: wasmtime.Engine) -> None:
    """Positive control: the probe compiles; the others are refused with the reason they were made for."""
    results = [compiled(engine, seed) for seed in SEEDS]
    codes = [result and result.error and result.error[0] for result in results]
    assert [None, "E_EXPORTS", "E_IMPORTS", *["E_EXPORTS"] * 5] == codes
    assert results[0] is not None
    assert results[0].cwasm_size > 0


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A component with bytes changed, cut out or put in."""
    body = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "truncate"]))
        if kind == "change" and body:
            body[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del body[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            body[at:at] = draw(st.binary(max_size=20))
        else:
            del body[at:]
    return bytes(body)


@given(wasm=st.one_of(damaged(), st.binary(max_size=200), st.builds(lambda tail: bombs.COMPONENT + tail, st.binary())))
@settings(max_examples=120, deadline=None)
def test_any_bytes(engine: wasmtime.Engine, wasm: bytes) -> None:
    """The result has either code or an error of the codes that control knows."""
    result = compiled(engine, wasm)
    if result is not None and result.error is not None:
        assert result.error[0] in COMPILER_CODES
