"""One instantiated component: its store, limits and the six calls of `component-lifecycle`.

A trap or an exception while the guest runs ends the process; `classify` says which `Outcome` that is.
"""

from __future__ import annotations

from typing import Any

import wasmtime
from wasmtime import component as wasmtime_component

from sandbox.host import wasi
from sandbox.host.links import ChannelClosed, GuestStopped
from sandbox.host.messaging import from_id
from sandbox.memories import is_refusal, memories
from sandbox.types import Limits, Outcome
from sandbox.values import GuestRecord, Variant, set_type
from sandbox.wire import router_frames as frames

LIFECYCLE = "airssys:core/component-lifecycle@1.0.0"
_EXPORTS = ("initialize", "handle-message", "handle-callback", "metadata", "health", "shutdown")
MAX_ERROR = 16 * 1024
"""Characters of an error's text that are passed on."""
_ENGINE_LIMITS = (
    "memory minimum size",
    "exceeds memory limits",
    "table minimum size",
    "resource limit",
    "out of memory",
)
"""What the engine's own limiter says, and the engine where the kernel gives it no more."""
_WHOLE_MEMORY = 1 << 32
"""All that a 32-bit memory can be."""


class GuestFailed(Exception):
    """The guest cannot go on; carries the outcome and what is known of it."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail[:8192]


def classify(error: BaseException) -> GuestFailed:
    """What an exception out of a guest call means."""
    if isinstance(error, GuestFailed):
        return error
    if isinstance(error, GuestStopped):
        return GuestFailed(error.outcome, str(error))
    if isinstance(error, MemoryError):
        return GuestFailed(Outcome.MEMORY, "the worker's address space is used up")
    if isinstance(error, wasmtime.WasmtimeError | wasmtime.Trap):
        text = str(error)
        if "all fuel consumed" in text:
            return GuestFailed(Outcome.FUEL, "all fuel of one message consumed")
        if is_refusal(text) or any(words in text for words in _ENGINE_LIMITS):
            return GuestFailed(Outcome.MEMORY, _cause_first(text))
        return GuestFailed(Outcome.TRAP, _cause_first(text))
    return GuestFailed(Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")


def _cause_first(text: str) -> str:
    """The engine tells the backtrace first and the cause last; people read the first line."""
    _, found, causes = text.partition("Caused by:")
    last = [line.strip() for line in causes.splitlines() if line.strip()][-1:]
    return f"{last[0].removeprefix('0: ')}\n{text}" if found and last else text


def message_record(frame: frames.Deliver | frames.Callback, payload: bytes) -> GuestRecord:
    """The record `component-message`."""
    return GuestRecord(
        sender=from_id(frame.sender),
        payload=payload,
        metadata=GuestRecord(
            correlation_id=frame.correlation,
            reply_to=None if frame.reply_to is None else from_id(frame.reply_to),
            timestamp=GuestRecord(seconds=frame.seconds, nanoseconds=frame.nanoseconds),
            content_type=frame.content_type,
        ),
    )


def error_text(error: Any) -> str:
    """`case: text` of an error variant a guest returned, at most `MAX_ERROR` characters."""
    if isinstance(error, Variant):
        return error.tag if error.payload is None else f"{error.tag}: {error.payload}"[:MAX_ERROR]
    return str(error)[:MAX_ERROR]


_types: dict[str, Any] = {}
"""Types of the six calls, walked once (`remember_types`)."""


def remember_types(guest: Guest) -> None:
    """Take the types of this guest's calls, as they are walked by now, for those of every guest to come.

    They are the same for all: the compiler lets no component pass whose lifecycle differs from the WIT package
    (`sandbox.contract`), and the engine checks every value once more. A worker saves the walk, and the memory of it.
    """
    for name, function in guest._functions.items():
        _types[name] = function.type(guest._store)


class Guest:
    """A live instance. Every method raises `GuestFailed` when the guest traps, runs out, or a channel breaks."""

    def __init__(self, engine: Any, linker: Any, component: Any, limits: Limits) -> None:
        self._limits = limits
        try:
            self._instantiate(engine, linker, component)
            lifecycle = self._instance.get_export_index(self._store, LIFECYCLE)
            self._functions: dict[str, Any] = {}
            for name in _EXPORTS:
                index = self._instance.get_export_index(self._store, name, lifecycle)
                self._functions[name] = self._instance.get_func(self._store, index or name)
                if name in _types:
                    set_type(self._functions[name], _types[name])
        except (wasmtime.WasmtimeError, GuestStopped, MemoryError) as error:
            raise self._told(classify(error)) from error
        finally:
            wasi.end_of_call()

    def _instantiate(self, engine: Any, linker: Any, component: Any) -> None:
        """Instantiate under every limit of the engine's."""
        limits = self._limits
        if not memories.installed:
            raise GuestFailed(Outcome.INTERNAL_ERROR, "the engine's memories are not counted")
        memories.limit = limits.memory
        self._store = wasmtime.Store(engine)
        # A single memory, too, is bounded by `sandbox.memories`: what the engine's limiter refuses leaves no record.
        self._store.set_limits(
            memory_size=_WHOLE_MEMORY,
            table_elements=limits.table_elements,
            instances=limits.instances,
            tables=limits.tables,
            memories=limits.memories,
        )
        self._store.set_fuel(limits.fuel)
        self._instance: wasmtime_component.Instance = linker.instantiate(self._store, component)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            self._store.set_fuel(self._limits.fuel)
            return self._functions[name](self._store, *arguments)
        except ChannelClosed:
            raise
        except Exception as error:
            raise self._told(classify(error)) from error
        finally:
            wasi.end_of_call()

    def _told(self, failure: GuestFailed) -> GuestFailed:
        """With what was refused to the guest before it failed: most that are refused memory trap because of it."""
        refused = memories.take_refused()
        if not refused:
            return failure
        first, newline, rest = failure.detail.partition("\n")
        note = f"memory.grow was refused before: {refused} bytes, {self._limits.memory} are allowed"
        return GuestFailed(failure.outcome, f"{first}\n{note}{newline}{rest}")

    def memory_refused(self) -> int:
        """The most memory that was asked for and refused since the last call, bytes; 0 when nothing was."""
        return memories.take_refused()

    def fuel_used(self) -> int:
        """Fuel the last call consumed."""
        return self._limits.fuel - int(self._store.get_fuel())

    def initialize(self, frame: frames.Initialize, config: bytes | None) -> str:
        """Call `initialize`; "" or the component-error it returned."""
        limits = frame.limits
        answer = self._call(
            "initialize",
            GuestRecord(
                env_vars=[(key, value) for key, value in frame.env],
                config_data=config,
                resource_limits=GuestRecord(
                    max_memory_bytes=limits.memory,
                    max_execution_time_ms=limits.deadline_ms,
                    max_fuel=limits.fuel,
                ),
            ),
        )
        return "" if answer is None else error_text(answer)

    def metadata(self) -> frames.Metadata:
        """Call `metadata`; texts are cut to 1 KiB and the list to 64 entries."""
        record = self._call("metadata")
        return frames.Metadata(
            name=record.name[:1024],
            version=record.version[:1024],
            description=record.description[:1024],
            author=record.author[:1024],
            license=record.license[:1024],
            operations=[text[:256] for text in getattr(record, "supported-operations")[:64]],
            stateful=bool(record.stateful),
        )

    def health(self) -> str:
        """Call `health`: healthy, degraded, unhealthy or unknown."""
        return str(self._call("health"))

    def handle_message(self, frame: frames.Deliver, payload: bytes) -> tuple[bytes | None, str]:
        """Call `handle-message`: `(reply, "")` or `(None, error)`."""
        answer = self._call("handle-message", message_record(frame, payload))
        if isinstance(answer, Variant):
            return None, error_text(answer)
        return answer, ""

    def handle_callback(self, frame: frames.Callback, payload: bytes) -> str:
        """Call `handle-callback`: "" or the error it returned."""
        answer = self._call("handle-callback", message_record(frame, payload))
        return "" if answer is None else error_text(answer)

    def shutdown(self) -> str:
        """Call `shutdown`: "" or the component-error it returned."""
        answer = self._call("shutdown")
        return "" if answer is None else error_text(answer)
