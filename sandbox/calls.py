"""What the host calls of one instance: the six functions of `component-lifecycle` and, where it has one, its handler of
topics, each as a call with typed values (`sandbox.bindings`).

`Calls` is what `sandbox.guest` uses; another way into the guest is another object with these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from wasmtime import WasmtimeError

from sandbox import marshal
from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit
from sandbox.bindings import airssys_messaging
from sandbox.fast.exports import Codec, Oversized, bind
from sandbox.fast.scratch import scratch
from sandbox.fuel import fuel
from sandbox.marshal.reentrance import gate
from sandbox.patch.names import FAST_EXPORTS, LIFECYCLE, TOPIC_HANDLER
from sandbox.types import FastExport

_PLANS = {name.replace("-", "_"): marshal.plan_of(each) for name, each in wit.FUNCTIONS[LIFECYCLE].items()}
"""By the name of the method."""
_FUNCTIONS = wit.FUNCTIONS[LIFECYCLE] | airssys_messaging.FUNCTIONS[TOPIC_HANDLER]
_TOPIC_PLAN = marshal.plan_of(_FUNCTIONS["handle-topic"])


# Made once, in the zygote: to look either up by its type would be to walk the type in every worker.
_CODECS: dict[FastExport, Codec] = {name: Codec(_FUNCTIONS[name]) for name in FAST_EXPORTS}


class Calls(Protocol):
    """Each raises what `marshal.Export` does."""

    def initialize(self, config: wit.ComponentConfig, /) -> Err | None:
        """Err of a `ComponentError`."""

    def handle_message(self, message: wit.ComponentMessage, /) -> bytes | Err | Oversized | None:
        """Err of a `WasmError`."""

    def handle_callback(self, message: wit.ComponentMessage, /) -> Err | None:
        """Err of a `WasmError`."""

    handle_topic: Callable[[str, wit.ComponentMessage], Err | None] | None
    """Err of a `WasmError`; None where the component has no such function."""

    def metadata(self) -> wit.ComponentMetadata:
        """Who it says it is."""

    def health(self) -> wit.HealthStatus:
        """How it says it is."""

    def shutdown(self) -> Err | None:
        """Err of a `ComponentError`."""


class GeneralCalls:
    """By marshalling each value."""

    initialize: Callable[..., Any]
    handle_message: Callable[..., Any]
    handle_callback: Callable[..., Any]
    handle_topic: Callable[..., Any] | None
    metadata: Callable[..., Any]
    health: Callable[..., Any]
    shutdown: Callable[..., Any]

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
            setattr(self, name, _fuelled(function))
        topic = instance.export(_TOPIC_PLAN, TOPIC_HANDLER)
        self.handle_topic = None if topic is None else _fuelled(topic)


def _fuelled(call: Callable[..., Any]) -> Callable[..., Any]:
    def with_fuel(*arguments: Any) -> Any:
        if not gate.busy:  # the call is about to be refused, and the fuel is that of the one in hand
            fuel.begin()
        answer = call(*arguments)
        scratch.settle()  # the guest may have asked the host for something large
        fuel.finish()
        return answer

    return with_fuel


class FastCalls(GeneralCalls):
    """Through the adapter of a patched component, as far as it has one."""

    def __init__(self, instance: marshal.Instance, names: Sequence[FastExport], message_size: int) -> None:
        """
        Args:
            instance: as above.
            names: the functions that are fast.
            message_size: bytes of the largest message.

        Raises:
            WasmtimeError: as above.
            NoScratch: the component is not what it is said to be.
        """
        super().__init__(instance)
        fuel.begin()
        for export in bind(instance, [_CODECS[name] for name in names], message_size):
            setattr(self, export.name.replace("-", "_"), export)
