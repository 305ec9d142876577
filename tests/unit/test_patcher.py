"""The patch: components of every toolchain are patched, what comes out is valid, and nothing but additions changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime
from wasmtime import component as wt

from sandbox import contract
from sandbox.engine import make_engine
from sandbox.patch import names
from sandbox.patch.patcher import Declined, patch

pytestmark = pytest.mark.block1_runtime
ROOT = Path(__file__).resolve().parents[2]
READER = (ROOT / "examples/logclean/reader/component.wasm").read_bytes()
ALL_IMPORTS = (ROOT / "sdk/c/templates/osl-host.wasm").read_bytes()
NO_IMPORTS = (ROOT / "tests/guests/extra-export/component.wasm").read_bytes()
STORAGE = "airssys:core/storage@1.0.0"


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """The compiler's engine."""
    return make_engine()


def test_the_fast_functions_are_the_interfaces_own() -> None:
    """Every name in the list is a function of the WIT packages; of these interfaces only host-services has others."""
    served = contract.load().imports
    for interface, functions in names.FAST_IMPORTS.items():
        own = list(served[interface].functions)
        assert (["log"] if "host-services" in interface else own) == list(functions)
    assert set(names.FAST_EXPORTS) <= set(contract.load().exports[names.LIFECYCLE].functions)
    assert {interface: set(functions) for interface, functions in names.functions().items()} == {
        interface: set(functions)
        for interface, functions in {names.LIFECYCLE: names.FAST_EXPORTS, **names.FAST_IMPORTS}.items()
    }


@pytest.mark.parametrize("wasm", [READER, ALL_IMPORTS, NO_IMPORTS], ids=["some-imports", "all-imports", "no-imports"])
def test_what_comes_out_is_valid(engine: wasmtime.Engine, wasm: bytes) -> None:
    """The engine compiles the patched component, and it has the fast exports at its root."""
    patched = patch(wasm)
    assert names.FAST_EXPORTS == patched.exports
    exports = wt.Component(engine, patched.wasm).type.exports(engine)
    added = {names.RESERVE, names.TAKE, *(names.fast(name) for name in patched.exports)}
    assert added <= set(exports)


def test_the_same_bytes_become_the_same_bytes() -> None:
    """Patching is deterministic."""
    assert patch(ALL_IMPORTS) == patch(bytearray(ALL_IMPORTS))


def test_a_patched_component_is_not_patched_again() -> None:
    """It uses the host's names, and is refused for them."""
    with pytest.raises(names.ReservedName):
        patch(patch(READER).wasm)


def test_a_component_without_lifecycle_is_declined() -> None:
    """There is nothing to make fast."""
    with pytest.raises(Declined, match="lifecycle"):
        patch((ROOT / "tests/guests/no-lifecycle/component.wasm").read_bytes())
