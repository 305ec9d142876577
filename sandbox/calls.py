"""The six functions of `component-lifecycle`, of one instance, each as a call with typed values (`sandbox.bindings`).

`Calls` is what `sandbox.guest` uses; another way into the guest is another object with these functions.
"""

from __future__ import annotations

from typing import Any, Protocol

from wasmtime import WasmtimeError

from sandbox import marshal
from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit

LIFECYCLE = "airssys:core/component-lifecycle@1.0.0"


class Calls(Protocol):
    """Each raises what `marshal.Export` does."""

    def initialize(self, config: wit.ComponentConfig, /) -> Err | None:
        """Err of a `ComponentError`."""

    def handle_message(self, message: wit.ComponentMessage, /) -> bytes | Err | None:
        """Err of a `WasmError`."""

    def handle_callback(self, message: wit.ComponentMessage, /) -> Err | None:
        """Err of a `WasmError`."""

    def metadata(self) -> wit.ComponentMetadata:
        """Who it says it is."""

    def health(self) -> wit.HealthStatus:
        """How it says it is."""

    def shutdown(self) -> Err | None:
        """Err of a `ComponentError`."""


class GeneralCalls:
    """By marshalling each value."""

    __slots__ = ("handle_callback", "handle_message", "health", "initialize", "metadata", "shutdown")

    def __init__(self, store: Any, instance: Any) -> None:
        """
        Args:
            store: a `wasmtime.Store`.
            instance: of it, a `wasmtime.component.Instance` with the lifecycle; the compiler has compared the types
                (`sandbox.contract`).

        Raises:
            WasmtimeError: it has not.
        """
        lifecycle = instance.get_export_index(store, LIFECYCLE)

        def export(name: str) -> Any:
            index = None if lifecycle is None else instance.get_export_index(store, name, lifecycle)
            function = None if index is None else instance.get_func(store, index)
            if function is None:
                raise WasmtimeError(f"the component does not export {LIFECYCLE}#{name}")
            return marshal.Export(store, function, wit.FUNCTIONS[LIFECYCLE][name])

        self.initialize = export("initialize")
        self.handle_message = export("handle-message")
        self.handle_callback = export("handle-callback")
        self.metadata = export("metadata")
        self.health = export("health")
        self.shutdown = export("shutdown")
