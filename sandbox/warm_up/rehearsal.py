"""Run the warm-up component through everything a worker does with a guest, over real channels with answers laid out.

Both channels are socketpairs within this process: an answer is written before the question is asked, so one thread is
enough. Nothing of it outlives `rehearse`.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from importlib import resources
from typing import Any

import msgspec
from wasmtime import component as wasmtime_component

from sandbox.guest import Guest, GuestFailed
from sandbox.host.links import Bridge, Router, links
from sandbox.patch.names import FAST_EXPORTS
from sandbox.types import ComponentId, FastExport, Limits
from sandbox.wire import packet, zmtp
from sandbox.wire import router_frames as frames
from sandbox.wire.bridge_ops import ANSWER, Op
from sandbox.wire.supervisor_frames import WorkerSpec, to_spec

LIVES, PLAIN_LIVES = 8, 2
ROUNDS, ASKS = 3, 2
"""Messages in a life, and questions to the router in each."""
_ME = ComponentId("warm", "up")


def rehearse(engine: Any, linker: Any) -> None:
    """Instantiate, initialise, handle messages, trap.

    Raises:
        RuntimeError: the warm-up component did not do what it must, so this engine cannot be trusted to run any.
    """
    patched, plain = (
        wasmtime_component.Component(engine, (resources.files("sandbox.warm_up") / name).read_bytes())
        for name in ("patched.wasm", "component.wasm")
    )
    with contextlib.ExitStack() as stack:
        bridge_near, bridge_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        router_near, router_far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for sock in (bridge_near, bridge_far, router_near, router_far):
            stack.enter_context(sock)
        links.bridge, links.router = Bridge(bridge_near), Router(zmtp.Dealer(router_near))
        links.self_id, links.message_size = _ME, 1 << 16
        for life in range(LIVES):
            # Both paths across the boundary, the general one first: what most workers run is to be the last that ran.
            component, fast = (plain, []) if life < PLAIN_LIVES else (patched, [*FAST_EXPORTS])
            _live(engine, linker, component, fast, bridge_far, router_far, life * ROUNDS * ASKS)
        guest = Guest(engine, linker, patched, Limits(memory=4 << 20), [*FAST_EXPORTS])
        try:
            guest.handle_message(frames.Deliver(0, _ME, 1, 2), b"trap")
        except GuestFailed as failure:
            str(failure)
        else:
            raise RuntimeError("the warm-up component's trap did not trap")
    del guest, patched, plain, component
    gc.collect()


def _live(
    engine: Any,
    linker: Any,
    component: Any,
    fast: list[FastExport],
    bridge: socket.socket,
    router: socket.socket,
    asked: int,
) -> None:
    """One worker's life, from its specification on; `asked` questions were put to the router before."""
    spec = WorkerSpec(_ME, Limits(memory=4 << 20), 1, fast)
    spec = to_spec.decode(msgspec.msgpack.encode(spec))
    initialize = zmtp.encode_message([msgspec.msgpack.encode(frames.Initialize([], Limits())), b""])
    router.sendall(initialize)
    first, _ = links.router.receive()
    guest = Guest(engine, linker, component, spec.limits, spec.fast)
    assert isinstance(first, frames.Initialize)
    guest.initialize(first, None)
    metadata = guest.metadata()
    links.router.send(frames.Ready(metadata, guest.health()))
    for number in range(asked + 1, asked + ASKS * ROUNDS + 1, ASKS):
        frame = frames.Deliver(number, _ME, 1, 2, "0" * 32, None, "text/plain")
        _lay_out(bridge, router, frame)
        links.router.receive()
        links.hand = frame
        reply, error, _ = guest.handle_message(frame, b"go")
        if reply != b"go" or error:
            raise RuntimeError(f"the warm-up component answered {reply!r} {error!r}")
        links.router.send(frames.Reply(number, True, "", guest.fuel_used()), reply)
        _drain(bridge, router)
    guest.handle_callback(frames.Callback(1, _ME, 1, 2), b"")
    guest.handle_topic(frames.Publication(1, _ME, 1, 2, "warm.up"), b"")
    links.hand = None
    guest.shutdown()


def _lay_out(bridge: socket.socket, router: socket.socket, frame: frames.Deliver) -> None:
    """Write what the worker will read: the message, and the answers to what its guest will ask, in that order."""
    for op, value in ((Op.LOG, None), (Op.STORAGE_GET, b"v"), (Op.STORAGE_SET, None), (Op.FS_READ, b"x" * 64)):
        packet.send_message(bridge, op | ANSWER, msgspec.msgpack.encode([0, value]))
    for message, payload in ((frame, b"go"), *((frames.Ack(frame.id + number, 0), b"") for number in range(ASKS))):
        router.sendall(zmtp.encode_message([msgspec.msgpack.encode(message), payload]))


def _drain(bridge: socket.socket, router: socket.socket) -> None:
    for sock in (bridge, router):
        with contextlib.suppress(BlockingIOError):
            while sock.recv(packet.PACKET, socket.MSG_DONTWAIT):
                continue
