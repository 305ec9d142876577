"""The engine is looked at before anything is marshalled; one that differs is refused by the name of what differs."""

from __future__ import annotations

import importlib.metadata
import types
from typing import Any

import pytest
from wasmtime import _ffi as ffi

from sandbox import marshal
from sandbox.marshal import capi, check

pytestmark = pytest.mark.block1_runtime


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not looked yet."""
    monkeypatch.setattr(check, "_passed", False)


def refusal() -> marshal.EngineMismatch:
    """The error of the check."""
    with pytest.raises(marshal.EngineMismatch) as caught:
        marshal.check_engine()
    assert "E_ENGINE" == caught.value.code
    return caught.value


def test_this_engine_passes() -> None:
    """Positive control: with nothing changed the check passes, and a second time costs nothing."""
    marshal.check_engine()
    assert check._passed


@pytest.mark.parametrize("version", ["49.0.0", "51.0.0", "5.0.0", "500.0.1"])
def test_another_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Only the version this was written for."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: version)
    assert version == refusal().subject


def test_a_missing_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library without a function that is called is refused by its name, not by a crash in the first call."""
    monkeypatch.setitem(capi._SYMBOLS, "wasmtime_component_no_such_thing", (None, ()))
    monkeypatch.setattr(capi, "missing", [])
    assert capi._bound("wasmtime_component_no_such_thing") is None
    assert "wasmtime_component_no_such_thing" == refusal().subject


def test_another_number_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of value that the headers number otherwise."""
    monkeypatch.setattr(ffi, "WASMTIME_COMPONENT_FLAGS", types.SimpleNamespace(value=21))
    assert "flags" == refusal().subject


@pytest.mark.parametrize("name", sorted(check._SIZES))
def test_another_size(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A structure that the headers make larger."""
    stock: Any = getattr(ffi, name)
    larger = type("Larger", (stock,), {"_fields_": [("more", ffi.wasm_byte_vec_t)]})
    monkeypatch.setattr(ffi, name, larger)
    assert name == refusal().subject


@pytest.mark.parametrize(("structure", "field", "offset"), check._OFFSETS)
def test_another_offset(monkeypatch: pytest.MonkeyPatch, structure: str, field: str, offset: int) -> None:
    """A field that the headers put elsewhere."""
    moved = [each if each[:2] != (structure, field) else (structure, field, offset + 4) for each in check._OFFSETS]
    monkeypatch.setattr(check, "_OFFSETS", tuple(moved))
    assert f"{structure}.{field}" == refusal().subject


def test_a_value_that_comes_back_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial: the library copies a value of every kind, and what is read of the copy is what was written."""
    clone = capi.val_clone
    for wrong in (lambda *_: None, lambda source, target: clone(source + capi.CELL, target)):
        monkeypatch.setattr(capi, "val_clone", wrong)
        assert "a value does not come back as it went" == refusal().message


def test_another_layout_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter whose bytes objects begin elsewhere."""
    monkeypatch.setattr(check, "BYTES_HEADER", 24)
    assert "bytes objects are laid out differently" == refusal().message
