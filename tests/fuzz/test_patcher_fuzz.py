"""Whatever bytes a component has, the patcher returns or raises what it may; the engine judges what it returns.

Bytes are changed where they are read: in the sections of components, not inside core modules, which are the most of a
component and which the patcher passes over.
"""

from __future__ import annotations

from pathlib import Path

import heavy_guests
import lifted
import pytest
import wasmtime
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wasmtime import component as wt

from sandbox.engine import make_engine
from sandbox.patch import binary, core
from sandbox.patch.component import CORE_MODULE, Component, parse
from sandbox.patch.names import ReservedName
from sandbox.patch.patcher import Declined, Patched, patch

pytestmark = pytest.mark.block4_security
ROOT = Path(__file__).resolve().parents[2]
SEEDS = [
    (ROOT / "examples/logclean/reader/component.wasm").read_bytes(),
    (ROOT / "tests/guests/wasi-libc/component.wasm").read_bytes(),
    (ROOT / "sdk/c/templates/osl-host.wasm").read_bytes(),
    lifted.component(storage=True, levels=2),
]


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """The compiler's engine."""
    return make_engine()


def attempt(wasm: bytes) -> Patched | None:
    """The patched component, or None when it is declined; anything else that is raised is a defect."""
    try:
        return patch(wasm)
    except (Declined, ReservedName):
        return None


def judged(engine: wasmtime.Engine, wasm: bytes) -> bool:
    """Whether the engine accepts it."""
    try:
        wt.Component(engine, wasm)
    except wasmtime.WasmtimeError:
        return False
    return True


def readable(component: Component, base: int = 0) -> list[int]:
    """Offsets of the bytes outside of core modules."""
    nested = {section: component.spaces["component"][index] for index, section in component.nested.items()}
    places = list(range(base, base + 8))
    for number, section in enumerate(component.sections):
        inner = nested.get(number)
        places += range(base + section.start, base + section.body)
        if isinstance(inner, Component):
            places += readable(inner, base + section.body)
        elif section.number not in (CORE_MODULE, 0) or section.end - section.body < 300:
            places += range(base + section.body, base + section.end)
    return places


PLACES = [readable(parse(seed)) for seed in SEEDS]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A component with bytes changed, cut out, put in or moved elsewhere."""
    which = draw(st.integers(0, len(SEEDS) - 1))
    body = bytearray(SEEDS[which])
    for _ in range(draw(st.integers(1, 4))):
        at = min(draw(st.sampled_from(PLACES[which])), len(body) - 1)
        kind = draw(st.sampled_from(["change", "change", "flip", "cut", "insert", "move", "end"]))
        if kind == "change":
            body[at] = draw(st.integers(0, 255))
        elif kind == "flip":
            body[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del body[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            body[at:at] = draw(st.binary(max_size=12))
        elif kind == "move":
            source = min(draw(st.sampled_from(PLACES[which])), len(body))
            body[at:at] = body[source : source + draw(st.integers(1, 60))]
        elif draw(st.booleans()):
            del body[at:]
        if not body:
            break
    return bytes(body)


def test_the_seeds(engine: wasmtime.Engine) -> None:
    """Positive control: undamaged, each is patched, and the engine accepts it."""
    for seed in SEEDS:
        patched = attempt(seed)
        assert patched is not None
        assert judged(engine, patched.wasm)


@given(wasm=damaged())
@settings(max_examples=400, deadline=None)
def test_damaged_components(engine: wasmtime.Engine, wasm: bytes) -> None:
    """Declined, refused, or patched; and whatever is made of a valid component is valid, or the engine refuses it."""
    patched = attempt(wasm)
    if patched is not None:
        judged(engine, patched.wasm)
        assert patched == attempt(wasm)


@given(wasm=st.one_of(st.binary(max_size=300), st.builds(lambda tail: binary.COMPONENT_HEADER + tail, st.binary())))
@example(b"")
@settings(max_examples=300, deadline=None)
def test_any_bytes(wasm: bytes) -> None:
    """Nothing that is no component is patched."""
    assert attempt(wasm) is None


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    """Well-formed sections of bodies that are not."""
    parts = [binary.COMPONENT_HEADER]
    for _ in range(draw(st.integers(0, 8))):
        number = draw(st.integers(0, 12))
        items = draw(st.lists(st.binary(min_size=1, max_size=12), max_size=6))
        parts.append(binary.section(number, binary.vector(items)))
    return b"".join(parts)


@given(wasm=sections())
@settings(max_examples=300, deadline=None)
def test_any_sections(wasm: bytes) -> None:
    """As before, one level further in."""
    assert attempt(wasm) is None


def test_every_truncation() -> None:
    """A component that ends anywhere is declined, or ends where a section does."""
    wasm = SEEDS[-1]
    whole = {section.end for section in parse(wasm).sections}
    for end in range(len(wasm)):
        patched = attempt(wasm[:end])
        assert patched is None or end in whole


@given(body=st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_core_module(body: bytes) -> None:
    """Reading what a module fills never fails."""
    core.filled(binary.CORE_HEADER + body)


@pytest.mark.long
@pytest.mark.parametrize("name", heavy_guests.NAMES)
def test_damaged_components_of_large_toolchains(name: str) -> None:
    """The same for components of large toolchains, byte by byte where they are read."""
    seed = heavy_guests.cached(name)
    places = readable(parse(seed))
    for at in places[:: max(1, len(places) // 200)]:
        attempt(seed[:at] + bytes([seed[at] ^ 0x15]) + seed[at + 1 :])
