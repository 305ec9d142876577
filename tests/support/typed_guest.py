"""A component in this process, called and served through the host's own marshalling, without a worker around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wasmtime
from wasmtime import component as wt

from sandbox import marshal
from sandbox.abi.types import Err
from sandbox.bindings import CLASSES, FUNCTIONS
from sandbox.bindings import airssys_core as core
from sandbox.contract import LIFECYCLE

Find = Callable[[str, str], Callable[..., Any] | None]
"""The host function for an interface's full name and a function's, or None to leave it out."""


class TypedGuest:
    """One instance; `store` and `instance` are wasmtime's."""

    def __init__(self, store: wasmtime.Store, component: wt.Component, find: Find) -> None:
        marshal.check_engine()
        self.store = store
        linker = wt.Linker(store.engine)
        with linker.root() as root:
            for interface, extern in component.type.imports(store.engine).items():
                assert isinstance(extern.ty, wt.ComponentInstanceType)
                with root.add_instance(interface) as instance:
                    for item, kind in extern.ty.exports(store.engine).items():
                        function = find(interface, item) if isinstance(kind.ty, wt.FuncType) else None
                        if function is not None:
                            marshal.define(instance, item, FUNCTIONS[interface][item], function)
        self.instance = linker.instantiate(store, component)
        self._linker = linker

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the lifecycle."""
        lifecycle = self.instance.get_export_index(self.store, LIFECYCLE)
        found = self.instance.get_func(self.store, self.instance.get_export_index(self.store, function, lifecycle))
        return marshal.Export(self.store, found, FUNCTIONS[LIFECYCLE][function])(*arguments)


def component_message(
    sender: core.ComponentId, payload: bytes, correlation: str | None = None, kind: str | None = None
) -> core.ComponentMessage:
    """A message sent at second 1."""
    return core.ComponentMessage(sender, payload, core.MessageMetadata(correlation, None, core.Timestamp(1, 2), kind))


def config(memory: int) -> core.ComponentConfig:
    """A configuration with one variable."""
    return core.ComponentConfig([("a", "b")], b"c", core.ResourceLimits(memory, 1000, None))


def error(variant: str, case: str, payload: object = None) -> Err:
    """The error `case` of a variant by its full name, as `airssys:core/errors@1.0.0#storage-error`."""
    cases = CLASSES[variant]
    assert isinstance(cases, dict)
    return Err(cases[case]() if payload is None else cases[case](payload))


def case_of(answer: object) -> tuple[str, object]:
    """(case, payload) of an error of the lifecycle that a guest returned."""
    assert isinstance(answer, Err), answer
    for kind in ("wasm-error", "component-error"):
        cases = CLASSES[f"airssys:core/errors@1.0.0#{kind}"]
        assert isinstance(cases, dict)
        for name, cls in cases.items():
            if type(answer.value) is cls:
                return name, getattr(answer.value, "value", None)
    raise AssertionError(answer)
