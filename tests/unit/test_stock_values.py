"""wasmtime-py's own conversion agrees: what it hands a guest, and takes from one, is what the host's paths do.

Where it is right, that is: it cannot return an error where the good case is an option (`storage.get`), so good answers
alone are compared there. Expectations are those of test_paths.py, so three ways stand behind each.
"""

from __future__ import annotations

from typing import Any

import kitchen
import paths
import pytest
import wasmtime
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wasmtime import component as wt

from sandbox.abi.layout import members_of
from sandbox.abi.types import (
    BYTES,
    Case,
    EnumType,
    Err,
    ListType,
    Ok,
    OptionType,
    RecordType,
    ResultType,
    Type,
    VariantType,
)
from sandbox.engine import make_engine
from sandbox.types import ComponentId

pytestmark = pytest.mark.block1_runtime
SMALL = 3000
"""Bytes of a message at most: the stock conversion takes a microsecond for each."""


class Stock:
    """The kitchen, linked and called by wasmtime-py alone. `answer` is what every host function returns."""

    def __init__(self) -> None:
        engine = make_engine()
        component = wt.Component(engine, (paths.GUESTS / "kitchen" / "component.wasm").read_bytes())
        linker = wt.Linker(engine)
        self.asked: list[tuple[Any, ...]] = []
        self.answer: Any = None
        with linker.root() as root:
            for interface, extern in component.type.imports(engine).items():
                assert isinstance(extern.ty, wt.ComponentInstanceType)
                with root.add_instance(interface) as served:
                    for name, item in extern.ty.exports(engine).items():
                        if isinstance(item.ty, wt.FuncType):
                            served.add_func(name, self._serve)
        self._store = wasmtime.Store(engine)
        self._store.set_fuel(1 << 60)
        instance = linker.instantiate(self._store, component)
        lifecycle = instance.get_export_index(self._store, "airssys:core/component-lifecycle@1.0.0")
        index = instance.get_export_index(self._store, "handle-message", lifecycle)
        assert index is not None
        handle = instance.get_func(self._store, index)
        assert handle is not None
        self._handle = handle

    def _serve(self, _store: Any, *arguments: Any) -> Any:
        self.asked.append(arguments)
        return self.answer

    def message(self, record: tuple[Any, ...]) -> Any:
        """The reply to a `component-message`."""
        reply = self._handle(self._store, stock(kitchen.types()["component-message"], record))
        self._handle.post_return(self._store)
        return reply


def stock(kind: Type | None, value: Any) -> Any:
    """A value as wasmtime-py wants it."""
    if kind is None or kind == BYTES or value is None:
        return value
    members = members_of(kind)
    if members is not None:
        parts = [stock(member, each) for member, each in zip(members, value, strict=True)]
        if not isinstance(kind, RecordType):
            return tuple(parts)
        record = wt.Record()
        for (name, _), part in zip(kind.fields, parts, strict=True):
            setattr(record, name, part)
        return record
    if isinstance(kind, OptionType):
        return stock(kind.payload, value)
    if isinstance(kind, ListType):
        return [stock(kind.element, each) for each in value]
    if isinstance(kind, ResultType):
        return stock(kind.ok if isinstance(value, Ok) else kind.err, value.value)
    if isinstance(kind, VariantType):
        return wt.Variant(value.name, stock(dict(kind.cases)[value.name], value.value))
    return value


def of_stock(kind: Type, value: Any) -> Any:
    """The other way round, for what a host function is given."""
    if value is None or kind == BYTES:
        return value if value is None else bytes(value)
    members = members_of(kind)
    if isinstance(kind, RecordType):
        value = [getattr(value, name) for name, _ in kind.fields]
    if members is not None:
        return tuple(of_stock(member, each) for member, each in zip(members, value, strict=True))
    if isinstance(kind, ListType):
        return [of_stock(kind.element, each) for each in value]
    if isinstance(kind, OptionType):
        return of_stock(kind.payload, value)
    assert not isinstance(kind, EnumType) or value in kind.cases
    return value


@pytest.fixture(scope="module")
def guest() -> Stock:
    """One instance for all messages of this module."""
    return Stock()


ME = ("test", "asker", "0")
ABOUT = (None, None, (1, 2), None)
ID = st.tuples(kitchen.TEXT, kitchen.TEXT, kitchen.TEXT)
METADATA = st.tuples(
    st.none() | kitchen.TEXT,
    st.none() | ID,
    st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1)),
    st.none() | kitchen.TEXT,
)


@given(ID, METADATA)
@settings(max_examples=50)
def test_messages(guest: Stock, sender: tuple[str, str, str], about: tuple[Any, ...]) -> None:
    """The guest finds the same fields, whoever wrote them into its memory."""
    payload = bytes([kitchen.MESSAGE])
    fields = {
        "correlation": about[0],
        "reply_to": None if about[1] is None else ComponentId(*about[1]),
        "seconds": about[2][0],
        "nanoseconds": about[2][1],
        "content_type": about[3],
    }
    expected = kitchen.message(ComponentId(*sender), payload, fields)
    assert expected == guest.message((sender, payload, about))


@pytest.mark.parametrize("name", [*kitchen.BRIDGED, *kitchen.ROUTED])
@given(st.data())
@settings(max_examples=15)
def test_functions_of_the_host(guest: Stock, name: str, data: st.DataObject) -> None:
    """They are given the same arguments, and the guest is given the same results."""
    function = kitchen.functions()[name]
    arguments = tuple(data.draw(kitchen.values(kind)) for _, kind in function.parameters)
    result = data.draw(kitchen.values(function.result))
    if name == "storage.get" and isinstance(result, Err):
        result = Ok(None)
    message, expected = kitchen.call(name, *arguments), kitchen.written(function.result, result)
    assume(len(message) + len(expected) < SMALL)
    guest.answer = stock(function.result, result)
    guest.asked.clear()
    assert expected == guest.message((ME, message, ABOUT))
    kinds = [kind for _, kind in function.parameters]
    assert [arguments] == [
        tuple(of_stock(kind, each) for kind, each in zip(kinds, given, strict=True)) for given in guest.asked
    ]


def test_what_it_gets_wrong(guest: Stock) -> None:
    """Positive control: an error of storage.get does not come through wasmtime-py, which is why it is not compared."""
    kind = kitchen.functions()["storage.get"].result
    guest.answer = stock(kind, Err(Case("io-error", "an error")))
    with pytest.raises(ValueError, match="not valid for this variant"):
        Stock.message(guest, (ME, kitchen.call("storage.get", "k"), ABOUT))
