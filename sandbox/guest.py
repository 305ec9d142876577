"""One instantiated component: its store, limits and the six calls of `component-lifecycle`.

A trap or an exception while the guest runs ends the process; `classify` says which `Outcome` that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import wasmtime

from sandbox import marshal
from sandbox.abi.types import Err
from sandbox.bindings import airssys_core as wit
from sandbox.calls import Calls, FastCalls, GeneralCalls
from sandbox.errors import ProtocolViolation
from sandbox.fast.exports import Oversized
from sandbox.fast.reading import Misformed
from sandbox.fast.scratch import FIRST, NoScratch
from sandbox.fuel import OutOfFuel, fuel
from sandbox.host import wasi
from sandbox.host.links import ChannelClosed, GuestStopped, links
from sandbox.host.messaging import from_id
from sandbox.marshal.failures import TooLong
from sandbox.memories import is_refusal, memories
from sandbox.types import FastExport, Limits, Outcome
from sandbox.wire import router_frames as frames

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
NO_TOPICS = "the component exports no topic-handler"
_NO_FUEL = "all fuel of one message consumed"
_WHOLE_MEMORY = 1 << 32
"""All that a 32-bit memory can be."""
_T = TypeVar("_T")


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
    if isinstance(error, OutOfFuel):
        return GuestFailed(Outcome.FUEL, _NO_FUEL)
    if isinstance(error, Misformed | NoScratch | TooLong):
        return GuestFailed(Outcome.TRAP, str(error))
    if isinstance(error, MemoryError):
        return GuestFailed(Outcome.MEMORY, "the worker's address space is used up")
    if isinstance(error, wasmtime.WasmtimeError | wasmtime.Trap):
        text = str(error)
        if "all fuel consumed" in text:
            return GuestFailed(Outcome.FUEL, _NO_FUEL)
        if is_refusal(text) or any(words in text for words in _ENGINE_LIMITS):
            return GuestFailed(Outcome.MEMORY, _cause_first(text))
        return GuestFailed(Outcome.TRAP, _cause_first(text))
    return GuestFailed(Outcome.INTERNAL_ERROR, f"{type(error).__name__}: {error}")


def _cause_first(text: str) -> str:
    """The engine tells the backtrace first and the cause last; people read the first line."""
    _, found, causes = text.partition("Caused by:")
    last = [line.strip() for line in causes.splitlines() if line.strip()][-1:]
    return f"{last[0].removeprefix('0: ')}\n{text}" if found and last else text


def component_message(
    frame: frames.Deliver | frames.Publication | frames.Callback, payload: bytes
) -> wit.ComponentMessage:
    """The record `component-message`."""
    return wit.ComponentMessage(
        from_id(frame.sender),
        payload,
        _about(frame),
    )


def _about(frame: frames.Deliver | frames.Publication | frames.Callback) -> wit.MessageMetadata:
    time = wit.Timestamp(frame.seconds, frame.nanoseconds)
    if isinstance(frame, frames.Publication):
        return wit.MessageMetadata(None, None, time, frame.content_type)
    reply_to = None if frame.reply_to is None else from_id(frame.reply_to)
    return wit.MessageMetadata(frame.correlation, reply_to, time, frame.content_type)


_CASES = {
    cls: name
    for kind in ("wasm-error", "component-error")
    for name, cls in cast("dict[str, type]", wit.CLASSES[f"airssys:core/errors@1.0.0#{kind}"]).items()
}
"""The WIT name of each case of the two errors that a component returns."""


def error_text(answer: object) -> str:
    """`case: text` of an error that a guest returned, at most `MAX_ERROR` characters; "" of anything else."""
    if not isinstance(answer, Err):
        return ""
    case = _CASES[type(answer.value)]
    text = getattr(answer.value, "value", None)
    return case if text is None else f"{case}: {text}"[:MAX_ERROR]


def too_large(size: int, limits: Limits) -> str:
    """What is answered in place of a reply that is larger than a message may be."""
    return f"reply of {size} bytes is over the limit of {limits.message_size}"


class Guest:
    """A live instance. Every method raises `GuestFailed` when the guest traps, runs out, or a channel breaks."""

    def __init__(
        self, engine: Any, linker: Any, component: Any, limits: Limits, fast: Sequence[FastExport] = ()
    ) -> None:
        """
        Args:
            engine: that the linker was made for.
            linker: with the host functions (`sandbox.host.define`).
            component: loaded into the engine.
            limits: what it may use.
            fast: its functions that are called through the adapter it was patched with; none when it was not.
        """
        self._limits = limits
        try:
            self._instantiate(engine, linker, component, patched=bool(fast))
            self._calls: Calls
            if fast:
                self._calls = FastCalls(self._instance, fast, limits.message_size)
                self._scratch_does_not_count()
            else:
                self._calls = GeneralCalls(self._instance)
            links.topics = self._calls.handle_topic is not None
        except (ChannelClosed, ProtocolViolation):
            raise
        except Exception as error:
            raise self._told(classify(error)) from error
        finally:
            wasi.end_of_call()

    def _instantiate(self, engine: Any, linker: Any, component: Any, *, patched: bool = False) -> None:
        """Instantiate under every limit of the engine's; a patched component with room for the adapter."""
        limits = self._limits
        if not memories.installed:
            raise GuestFailed(Outcome.INTERNAL_ERROR, "the engine's memories are not counted")
        memories.limit = limits.memory + patched * FIRST
        self._store = marshal.Store(engine)
        # A single memory, too, is bounded by `sandbox.memories`: what the engine's limiter refuses leaves no record.
        self._store.set_limits(
            memory=_WHOLE_MEMORY,
            table_elements=limits.table_elements,
            instances=limits.instances + patched,
            tables=limits.tables,
            memories=limits.memories + patched,
        )
        fuel.context, fuel.budget, fuel.patched = self._store.context, limits.fuel, patched
        fuel.begin()
        self._instance = marshal.Instance(linker, self._store, component)

    def _scratch_does_not_count(self) -> None:
        """From now on the memory limit is the guest's alone."""
        memories.limit = self._limits.memory
        if memories.used > memories.limit:
            raise GuestFailed(
                Outcome.MEMORY, f"{memories.used} bytes over all memories at the start, {memories.limit} are allowed"
            )

    def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        try:
            return function(*arguments)
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
        return fuel.used

    def initialize(self, frame: frames.Initialize, config: bytes | None) -> str:
        """Call `initialize`; "" or the component-error it returned."""
        limits = frame.limits
        allowed = wit.ResourceLimits(limits.memory, limits.deadline_ms, limits.fuel)
        told = wit.ComponentConfig([(key, value) for key, value in frame.env], config, allowed)
        return error_text(self._call(self._calls.initialize, told))

    def metadata(self) -> frames.Metadata:
        """Call `metadata`; texts are cut to 1 KiB and the list to 64 entries."""
        record = self._call(self._calls.metadata)
        return frames.Metadata(
            name=record.name[:1024],
            version=record.version[:1024],
            description=record.description[:1024],
            author=record.author[:1024],
            license=record.license[:1024],
            operations=[text[:256] for text in record.supported_operations[:64]],
            stateful=record.stateful,
        )

    def health(self) -> str:
        """Call `health`: healthy, degraded, unhealthy or unknown."""
        return str(self._call(self._calls.health).value)

    def handle_message(self, frame: frames.Deliver, payload: bytes) -> tuple[bytes | None, str, bool]:
        """Call `handle-message`: the reply, or the error; and whether that error is a reply over the message size."""
        answer = self._call(self._calls.handle_message, component_message(frame, payload))
        if isinstance(answer, Oversized):
            return None, too_large(answer.size, self._limits), True
        if isinstance(answer, Err):
            return None, error_text(answer), False
        if answer is not None and len(answer) > self._limits.message_size:
            return None, too_large(len(answer), self._limits), True
        return answer, "", False

    def handle_callback(self, frame: frames.Callback, payload: bytes) -> str:
        """Call `handle-callback`: "" or the error it returned."""
        return error_text(self._call(self._calls.handle_callback, component_message(frame, payload)))

    def handle_topic(self, frame: frames.Publication, payload: bytes) -> str:
        """Call `handle-topic`: "" or the error it returned, which is `NO_TOPICS` where there is no such function."""
        if self._calls.handle_topic is None:
            return NO_TOPICS
        return error_text(self._call(self._calls.handle_topic, frame.topic, component_message(frame, payload)))

    def shutdown(self) -> str:
        """Call `shutdown`: "" or the component-error it returned."""
        return error_text(self._call(self._calls.shutdown))
