"""A guest in this process with the worker's own engine settings and host functions, on either path across the boundary.

Bridge and router are objects that note what they were asked and answer what the test says; whatever lies between them
and the guest is the worker's own. What real ones make of the same guests is shown by the end-to-end tests.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from wasmtime import component as wt

from sandbox import host
from sandbox.engine import make_engine
from sandbox.guest import Guest, GuestFailed
from sandbox.host import wasi
from sandbox.host.links import Bridge, Router, links
from sandbox.patch.patcher import patch
from sandbox.types import ComponentId, FastExport, Limits
from sandbox.wire import router_frames as frames
from sandbox.wire.bridge_ops import Op

PATHS = ("general", "fast")
LARGEST = {"general": 2_790_000, "fast": 8 << 20}
"""Bytes of the largest list<u8> that a path carries. The engine bounds the general one: 128 MiB of its own values in a
call, 48 bytes for each byte of a list, what else the call carries included."""
GUESTS = Path(__file__).resolve().parents[1] / "guests"
ASKER = ComponentId("test", "asker")
SELF = ComponentId("test", "guest", "7")
_T = TypeVar("_T")
WIDE = Limits(memory=256 << 20, fuel=1 << 40, message_size=16 << 20)


class Peers:
    """Bridge and router at once. What they were asked stands in `asked`, as (what, arguments...)."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer: tuple[int, Any] = (0, None)
        """What the bridge answers: a case and its value."""
        self.ack: dict[str, Any] = {"case": 0}
        """What the router acknowledges with, beside the number of the question."""
        self.store: dict[str, bytes] | None = None
        """When set, storage.get and storage.set are a dictionary's."""
        self._asks = 0

    def ask(self, op: Op, *arguments: Any) -> tuple[int, Any]:
        """As `links.Bridge.ask`."""
        self.asked.append((op, *arguments))
        if self.store is not None and op is Op.STORAGE_GET:
            return 0, self.store.get(arguments[0])
        if self.store is not None and op is Op.STORAGE_SET:
            self.store[arguments[0]] = arguments[1]
            return 0, None
        return self.answer

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> None:
        """As `links.Router.send`."""
        fields = msgspec.structs.astuple(frame)
        self.asked.append((type(frame).__name__, *fields[1:], payload))

    def next_ask(self) -> int:
        """As `links.Router.next_ask`."""
        self._asks += 1
        return self._asks

    def acknowledged(self, ask: int) -> frames.Ack:
        """As `links.Router.acknowledged`."""
        return frames.Ack(ask, **self.ack)

    def take(self) -> list[tuple[Any, ...]]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


class Running:
    """One live guest; where it fails, the next call finds another.

    A process has one guest: fuel, scratch memory and the count of memory are the process's. So there is only ever the
    one that was called last; another is made anew before its next call.
    """

    _last: Running | None = None

    def __init__(self, wasm: Path, path: str, limits: Limits) -> None:
        self._code, self._fast = compiled(wasm, path)
        self.path, self.limits, self.peers = path, limits, Peers()
        self.too_large = False
        """Of the last message: whether its reply was over the message size."""
        self.guest: Guest | None = None
        self.use()

    def instantiate(self) -> Guest:
        """Another instance of the same component, not initialised, instead of the one there is."""
        Running.forget()
        return Guest(engine(), linker(), self._code, self.limits, self._fast)

    @staticmethod
    def forget() -> None:
        """Let the guest of this process go."""
        if Running._last is not None:
            Running._last.guest = Running._last = None

    def use(self) -> Guest:
        """The guest, ready to be called; `links` leads to its peers."""
        links.bridge, links.router = cast(Bridge, self.peers), cast(Router, self.peers)
        links.self_id, links.message_size = SELF, self.limits.message_size
        if Running._last is not self:
            links.allow(60_000)
            wasi.begin([], ["test/guest"])
            guest = self.instantiate()
            self.guest, Running._last = guest, self
            error = guest.initialize(frames.Initialize([], self.limits), None)
            assert error == "", error
        links.allow(self.limits.deadline_ms)
        assert self.guest is not None
        return self.guest

    def message(self, payload: bytes, **fields: Any) -> tuple[bytes | None, str]:
        """`handle-message`: (reply, error). Raises GuestFailed."""
        reply, error, self.too_large = self._alive(self.use().handle_message, deliver(**fields), payload)
        return reply, error

    def callback(self, payload: bytes, **fields: Any) -> str:
        """`handle-callback`: the error, "" without one. Raises GuestFailed."""
        frame = frames.Callback(*msgspec.structs.astuple(deliver(**fields))[:7])
        return self._alive(self.use().handle_callback, frame, payload)

    def topic(self, topic: str, payload: bytes, **fields: Any) -> str:
        """`handle-topic`: the error, "" without one. Raises GuestFailed."""
        told = deliver(**fields)
        frame = frames.Publication(
            told.id, told.sender, told.seconds, told.nanoseconds, topic, told.content_type, told.deliveries
        )
        return self._alive(self.use().handle_topic, frame, payload)

    def _alive(self, call: Callable[..., _T], *arguments: Any) -> _T:
        try:
            return call(*arguments)
        except GuestFailed:
            Running.forget()
            raise


def deliver(
    sender: ComponentId = ASKER,
    seconds: int = 1,
    nanoseconds: int = 2,
    correlation: str | None = None,
    reply_to: ComponentId | None = None,
    content_type: str | None = None,
) -> frames.Deliver:
    """The frame of a message."""
    return frames.Deliver(1, sender, seconds, nanoseconds, correlation, reply_to, content_type)


@functools.cache
def engine() -> Any:
    """The worker's engine."""
    return make_engine(counted=True)


@functools.cache
def linker() -> Any:
    """The worker's linker."""
    made = wt.Linker(engine())
    host.define(made)
    return made


@functools.cache
def compiled(wasm: Path, path: str) -> tuple[Any, Sequence[FastExport]]:
    """A component, compiled as the compiler does for this path, and its fast functions."""
    body = wasm.read_bytes()
    if path == "general":
        return wt.Component(engine(), body), ()
    patched = patch(body)
    return wt.Component(engine(), patched.wasm), patched.exports


@contextlib.contextmanager
def running(component: str | Path, path: str, limits: Limits = WIDE) -> Iterator[Running]:
    """A guest of tests/guests by name, or any by its file; `links` is as it was afterwards."""
    before = dict(links.__dict__)
    try:
        wasm = GUESTS / component / "component.wasm" if isinstance(component, str) else component
        yield Running(wasm, path, limits)
    finally:
        Running.forget()
        links.__dict__.clear()
        links.__dict__.update(before)
