"""The memory limit holds for all linear memories of a component together."""

from __future__ import annotations

import pytest
import wasmtime
from wasmtime import component as wasmtime_component

from sandbox.engine import make_engine
from sandbox.guest import Guest, GuestFailed
from sandbox.types import Limits, Outcome

pytestmark = pytest.mark.block1_runtime
PAGE = 65536


def _memories(count: int, pages: int) -> tuple[wasmtime.Engine, wasmtime_component.Component]:
    engine = make_engine()
    memories = " ".join(f"(memory {pages})" for _ in range(count))
    text = f"(component (core module $m {memories}) (core instance (instantiate $m)))"
    return engine, wasmtime_component.Component(engine, text)


def _instantiated(count: int, pages: int, limit_pages: int) -> str:
    """Why instantiation failed; "" when only the missing lifecycle came after it."""
    engine, component = _memories(count, pages)
    limits = Limits(memory=limit_pages * PAGE)
    guest = Guest.__new__(Guest)
    guest._limits = limits
    try:
        guest._instantiate(engine, wasmtime_component.Linker(engine), component)
    except wasmtime.WasmtimeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("count", "pages"), [(1, 8), (2, 4), (3, 2), (8, 1)])
def test_a_fair_share_fits(count: int, pages: int) -> None:
    """Positive control: what fits the shares is instantiated."""
    assert "" == _instantiated(count, pages, 8)


@pytest.mark.parametrize(("count", "pages"), [(1, 9), (2, 5), (3, 3), (8, 2), (9, 1)])
def test_more_than_the_limit_together_does_not(count: int, pages: int) -> None:
    """Memories that would exceed the limit together, or are too many, are refused."""
    assert "resource limit" in _instantiated(count, pages, 8) or "memory" in _instantiated(count, pages, 8)


def test_it_is_told_as_memory() -> None:
    """The end has the cause's name."""
    engine, component = _memories(2, 100)
    with pytest.raises(GuestFailed) as caught:
        Guest(engine, wasmtime_component.Linker(engine), component, Limits(memory=PAGE))
    assert Outcome.MEMORY == caught.value.outcome
