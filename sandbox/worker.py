"""The worker: one process, one component. Cage first, then one message at a time until the channel hangs up.

`main` runs in the child the zygote cloned. Before the seal it takes its specification and the component's code from the
supervisor (fd 3), afterwards it knows two channels and nothing else. It ends with the exit status of its outcome.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, NoReturn

from sandbox import cage
from sandbox.errors import ProtocolViolation, SetupFailed
from sandbox.guest import Guest, GuestFailed
from sandbox.host import wasi
from sandbox.host.links import Bridge, ChannelClosed, Router, links
from sandbox.loader import deserialize
from sandbox.memories import ADDRESS_SPACE, memories
from sandbox.types import EXIT_CODES, START_MS, Outcome
from sandbox.wire import bridge_ops, packet, supervisor_frames
from sandbox.wire import router_frames as frames
from sandbox.wire.zmtp import Dealer

_EXIT_STATUS = {outcome: status for status, outcome in EXIT_CODES.items()}
SLACK = 96 << 20
"""Bytes beyond the guest's memory: engine, payloads, allocator."""


def main(engine: Any, linker: Any, blueprint: cage.Blueprint, uid: int, groups: list[int]) -> NoReturn:
    """Build the cage around this process, serve, and exit. Never returns."""
    status = _EXIT_STATUS[Outcome.INTERNAL_ERROR]
    try:
        status = _EXIT_STATUS[_run(engine, linker, blueprint, uid, groups)]
    finally:
        # No cleanup, no buffers, no handlers: the parent's state is in this process's memory.
        os._exit(status)
    raise AssertionError


class _Component:
    """What the supervisor sends on fd 3: the specification, and the code in a sealed memfd."""

    spec: supervisor_frames.WorkerSpec
    loaded: Any

    def __init__(self, engine: Any, sock: socket.socket) -> None:
        self._engine = engine
        self._sock = sock
        self._code = -1
        self.sealed = 0

    def receive(self) -> None:
        """Wait for it. Raises EOFError when the supervisor needs no worker any more, ProtocolViolation."""
        body, fds = supervisor_frames.recv_packet(self._sock)
        message = packet.Assembler().feed(body)
        if message is None or message[0] != bridge_ops.SPEC or len(fds) != 1:
            raise ProtocolViolation("expected a specification and its code")
        self.spec = supervisor_frames.to_spec.decode(message[1])
        self._code = fds[0]

    def load(self) -> list[tuple[int, int]]:
        """Deserialise it and lay out its memories; the spans of pages that hold its code, if they were found."""
        memories.limit = self.spec.limits.memory
        self.loaded, spans, images = deserialize(self._engine, self._code, self.spec.cwasm_size)
        memories.prepare(images, self._code)
        os.close(self._code)
        self.sealed = len(spans)
        return spans

    def memory(self, reservation: int) -> tuple[int, int]:
        """Bytes of data and of address space, where each linear memory reserves `reservation` bytes."""
        limits = self.spec.limits
        # A linear memory exists twice while it moves; an entry of a table has 8 bytes.
        tables = 8 * limits.tables * limits.table_elements
        data = 2 * limits.memory + limits.crossing(fast=bool(self.spec.fast)) + tables + SLACK
        # What linear memories have in reserve is address space, no data; nor is the native code.
        spare = (ADDRESS_SPACE - 2) * limits.memory + (limits.memories + 1) * reservation
        return data, data + spare + self.spec.cwasm_size


def _run(engine: Any, linker: Any, blueprint: cage.Blueprint, uid: int, groups: list[int]) -> Outcome:
    # Made now: wrapping a descriptor asks the kernel about it, which the seal forbids.
    bridge_socket = socket.socket(fileno=cage.BRIDGE_FD)
    router_socket = socket.socket(fileno=cage.ROUTER_FD)
    component = _Component(engine, bridge_socket)
    try:
        cage.enter(blueprint, uid, groups, component)
    except EOFError:
        return Outcome.KILLED  # a blank that nobody needs any more
    except (SetupFailed, ProtocolViolation, OSError, MemoryError) as error:
        _tell(bridge_socket, bridge_ops.SETUP_ERROR, str(error).encode(errors="replace")[: packet.CHUNK])
        # Here, while the traceback still holds them: closing sockets and freeing code takes calls a filter may forbid.
        os._exit(_EXIT_STATUS[Outcome.SETUP_ERROR])
    if not _tell(bridge_socket, bridge_ops.SEALED, bytes([component.sealed])):
        return Outcome.KILLED
    spec = component.spec
    links.bridge = Bridge(bridge_socket)
    links.router = Router(Dealer(router_socket))
    links.self_id = spec.component
    links.message_size = spec.limits.message_size
    return _serve(engine, linker, component.loaded, spec)


def _tell(sock: socket.socket, kind: int, body: bytes) -> bool:
    try:
        packet.send_message(sock, kind, body)
    except OSError:
        return False  # the supervisor is gone, or has given up on this worker: nobody is left to tell
    return True


def _serve(engine: Any, linker: Any, component: Any, spec: supervisor_frames.WorkerSpec) -> Outcome:
    try:
        return _loop(engine, linker, component, spec)
    except ChannelClosed:
        return Outcome.KILLED  # router or bridge hung up: the host ended it, whatever its own state was
    except GuestFailed as failure:
        try:
            links.router.send(frames.Ended(failure.outcome.value, failure.detail))
        except ChannelClosed:
            return failure.outcome
        return failure.outcome
    except ProtocolViolation:
        return Outcome.POLICY
    except MemoryError:
        return Outcome.MEMORY


def _loop(engine: Any, linker: Any, component: Any, spec: supervisor_frames.WorkerSpec) -> Outcome:
    router, limits = links.router, spec.limits
    frame, payload = router.receive()
    if not isinstance(frame, frames.Initialize):
        raise ProtocolViolation("the first frame must be Initialize", subject=type(frame).__name__)
    links.allow(max(limits.deadline_ms, START_MS))
    wasi.begin(frame.env, [links.self_id.package, *frame.args])
    guest = Guest(engine, linker, component, limits, spec.fast)
    error = guest.initialize(frame, payload if frame.has_config else None)
    if error:
        router.send(frames.Ready(None, "unknown", error))
        return Outcome.EXITED
    metadata = guest.metadata()
    health = guest.health()
    router.send(frames.Ready(metadata, health, "", guest.memory_refused()))
    while True:
        frame, payload = router.receive()
        links.allow(limits.deadline_ms)
        links.hand = None
        if isinstance(frame, frames.Deliver):
            links.hand = frame
            answer, error, over = guest.handle_message(frame, payload)
            reply = frames.Reply(frame.id, answer is not None, error, guest.fuel_used(), guest.memory_refused(), over)
            router.send(reply, answer or b"")
        elif isinstance(frame, frames.Callback):
            links.hand, links.payload = frame, payload if frame.failure else b""
            error = guest.handle_callback(frame, payload)
            router.send(frames.Reply(frame.id, False, error, guest.fuel_used(), guest.memory_refused()))
        elif isinstance(frame, frames.Publication):
            links.hand = frame
            error = guest.handle_topic(frame, payload)
            router.send(frames.Reply(frame.id, False, error, guest.fuel_used(), guest.memory_refused()))
        elif isinstance(frame, frames.Health):
            router.send(frames.HealthReply(frame.id, guest.health()))
        elif isinstance(frame, frames.Shutdown):
            router.send(frames.Ended(Outcome.EXITED.value, guest.shutdown()))
            return Outcome.EXITED
        else:
            raise ProtocolViolation("frame out of order", subject=type(frame).__name__)


def preload() -> None:
    """Import and touch everything a worker needs, in the zygote: behind the cage there is no file to import from."""
    import encodings.idna
    import linecache
    import traceback

    for module in (encodings.idna, linecache, traceback):
        assert module.__name__ in sys.modules
    b"warm".decode("utf-8", "replace")
    str(OSError(2, "warm"))
