"""The zygote's warm-up component and its patched form, which is kept beside it."""

from __future__ import annotations

from importlib import resources

import pytest

from sandbox.patch.names import FAST_EXPORTS
from sandbox.patch.patcher import patch

pytestmark = pytest.mark.block1_runtime


def test_the_patched_form_is_in_step() -> None:
    """It is what the patcher of this version makes: a worker rehearses with the adapter that it will meet."""
    directory = resources.files("sandbox.warm_up")
    patched = patch((directory / "component.wasm").read_bytes())
    assert patched.exports == tuple(FAST_EXPORTS)
    assert patched.wasm == (directory / "patched.wasm").read_bytes(), "run scripts/build-guests warm_up"
