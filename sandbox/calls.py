"""The six functions of `component-lifecycle`, of one instance, each as a call with typed values (`sandbox.bindings`).

`Calls` is what `sandbox.guest` uses; another way into the guest is another object with these functions.
"""

from __future__ import annotations

from typing import Protocol

from wasmtime import WasmtimeError

from sandbox import marshal
from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit

LIFECYCLE = "airssys:core/component-lifecycle@1.0.0"


_PLANS = {name.replace("-", "_"): marshal.plan_of(each) for name, each in wit.FUNCTIONS[LIFECYCLE].items()}
"""By the name of the method."""


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

    initialize: marshal.Export
    handle_message: marshal.Export
    handle_callback: marshal.Export
    metadata: marshal.Export
    health: marshal.Export
    shutdown: marshal.Export

    def __init__(self, instance: marshal.Instance) -> None:
        """
        Args:
            instance: of a component with the lifecycle; the compiler has compared the types (`sandbox.contract`).

        Raises:
            WasmtimeError: it has not.
        """
        for name, plan in _PLANS.items():
            function = instance.export(plan, LIFECYCLE)
            if function is None:
                raise WasmtimeError(f"the component does not export {LIFECYCLE}#{plan.function.name}")
            setattr(self, name, function)
