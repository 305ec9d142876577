"""Bridges and routers that believe what they are told: the controls of frames that attack.

Each is a forked child with one attacker's channel and a neighbour's. The bytes that the real bridge or router refuses
are sent to it; then the neighbour asks for something ordinary. A frame does harm when the naive one dies of it, no
longer answers its neighbour, or acts on it. What it does is what the obvious code does: it takes lengths, numbers and
names from the message, waits for what is announced, and keeps what comes with it.
"""

from __future__ import annotations

import array
import contextlib
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sandbox.kernel import process
from sandbox.wire.bridge_ops import ANSWER, Op
from sandbox.wire.packet import CHUNK, HEADER
from sandbox.wire.zmtp import encode_message
from supervisor.selftest.native import fork, signal_name

PATIENCE_SECONDS = 0.2
"""How long its neighbour waits for an answer."""
_ROOM = 256 << 20
"""Address space that it may take beyond what it has."""
_DESCRIPTORS = 128
_ANCILLARY = 253 * 4 + 64
Serve = Callable[[socket.socket, socket.socket], None]


class _Peer:
    """Both channels of one naive server, and what it did."""

    def __init__(self, serve: Serve, kind: socket.SocketKind) -> None:
        self.attacker, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.neighbour, other = socket.socketpair(socket.AF_UNIX, kind)
        reader, writer = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            try:
                for sock in (self.attacker, self.neighbour):
                    sock.close()
                os.close(reader)
                _live(serve, theirs, other, writer)
            finally:
                os._exit(0)
        os.close(writer)
        self._reader = reader
        theirs.close()
        other.close()
        self.attacker.setblocking(False)

    def end(self) -> str:
        """Kill it; what it said of its own death, if it died before."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        said = os.read(self._reader, 200).decode()
        os.close(self._reader)
        for sock in (self.attacker, self.neighbour):
            sock.close()
        if said:
            return f"died of {said}"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
            return f"died of {signal_name(os.WTERMSIG(status))}"
        return ""


def _live(serve: Serve, attacker: socket.socket, neighbour: socket.socket, writer: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = process.address_space() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    try:
        serve(attacker, neighbour)
    except Exception as error:
        # Whatever it was: that it dies of it is what is to be shown.
        os.write(writer, type(error).__name__.encode())


def harm(serve: Serve, packets: Sequence[bytes], descriptors: int = 0, *, reads: bool = True) -> str:
    """What the packets do to a naive server; "" when nothing.

    Args:
        serve: one of this module's.
        descriptors: sent along with each packet.
        reads: whether the attacker takes answers off the channel.
    """
    stream = serve in (router, generous)
    peer = _Peer(serve, socket.SOCK_STREAM if stream else socket.SOCK_SEQPACKET)
    null = os.open("/dev/null", os.O_RDONLY)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * descriptors))] if descriptors else []
    try:
        acted = False
        for packet in packets:
            acted |= _send(peer.attacker, packet, ancillary, reads)
        good = _GOOD_ROUTER if stream else _GOOD_BRIDGE
        with contextlib.suppress(OSError):  # it may be dead by now
            peer.neighbour.send(good)
        served = bool(select.select([peer.neighbour], [], [], PATIENCE_SECONDS)[0])
        answer = b""
        with contextlib.suppress(OSError):
            answer = peer.neighbour.recv(64) if served else b""
        with contextlib.suppress(OSError):
            acted |= bool(peer.attacker.recv(1 << 16))
    finally:
        os.close(null)
        death = peer.end()
    if death or not answer:
        return death or "no longer answers its neighbour"
    kept = struct.unpack("<I", answer[-4:])[0]
    if kept:
        return f"keeps {kept} descriptors"
    return "acts on it" if acted else ""


def _send(sock: socket.socket, packet: bytes, ancillary: list[Any], reads: bool) -> bool:
    """Send as much of it as is taken; whether an answer to something came meanwhile."""
    answered = False
    view = memoryview(packet)
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            view = view[sock.sendmsg([view], ancillary) :]
        except BlockingIOError:
            for _ in select.select([sock] if reads else [], [sock], [], 0.02)[0]:
                with contextlib.suppress(OSError):
                    answered |= bool(sock.recv(1 << 16))
        except OSError:
            return answered  # dead of an earlier one
        if not view:
            break
    return answered


# -- the bridge -------------------------------------------------------------------------------------------------------


def _path(path: str, *more: bytes) -> int:
    return len(path.encode()) + sum(map(len, more))


def _range(path: str, offset: int, length: int) -> int:
    return len(bytearray(length)) + len(path.encode()) + len(os.pread(_null(), 1, offset))


def _null() -> int:
    return os.open("/dev/null", os.O_RDONLY)  # and never closed


def _log(level: int, message: str, context: list[tuple[str, str]] | None) -> str:
    pairs = " ".join(f"{key}={value}" for key, value in context or ())
    return ("trace", "debug", "info", "warn", "error")[level] + message + pairs


def _sleep(until: int, deadline: int) -> None:
    time.sleep((min(until, deadline) - time.monotonic_ns()) / 1e9)


_OPERATIONS: dict[int, Callable[..., Any]] = {
    Op.FS_READ: lambda path: _path(path) + _null(),
    Op.FS_READ_RANGE: _range,
    Op.FS_WRITE: lambda path, data: _path(path, data),
    Op.FS_RENAME: lambda path, to: _path(path) + _path(to),
    Op.STORAGE_GET: lambda key: _path(key),
    Op.STORAGE_SET: lambda key, value: _path(key, value),
    Op.STORAGE_USAGE: lambda: 0,
    Op.LOG: _log,
    Op.SLEEP: _sleep,
}
_GOOD_BRIDGE = HEADER.pack(Op.STORAGE_USAGE, 0, 1) + b"\x90"


def bridge(attacker: socket.socket, neighbour: socket.socket) -> None:
    """Serves both until it dies."""
    kept = 0
    while True:
        for channel in select.select([attacker, neighbour], [], [])[0]:
            packet, ancillary, _, _ = channel.recvmsg(1 << 20, _ANCILLARY)
            kept += sum(len(data) // 4 for _, _, data in ancillary)
            kind, number, total = HEADER.unpack_from(packet)
            body, have = bytearray(total), 0
            while True:
                part = packet[HEADER.size :]
                body[number * CHUNK : number * CHUNK + len(part)] = part
                have += len(part)
                if have >= total:
                    break
                packet = channel.recv(1 << 20)
                _, number, _ = HEADER.unpack_from(packet)
            _OPERATIONS[kind](*msgspec.msgpack.decode(bytes(body)))
            channel.send(HEADER.pack(kind | ANSWER, 0, 4) + struct.pack("<I", kept))


# -- the router -------------------------------------------------------------------------------------------------------


def _component(component: Sequence[str]) -> str:
    namespace, name, instance = component
    return "/".join((namespace, name, instance))


_HEALTH = ("unknown", "unhealthy", "degraded", "healthy")
_OUTCOMES = ("exited", "trap", "fuel", "memory")
_GOOD_ROUTER = encode_message([msgspec.msgpack.encode(("ListComponents", 1)), b""])


def _frames(waiting: dict[int, str]) -> dict[str, Callable[..., Any]]:
    return {
        "Ready": lambda _metadata, health, *_: _HEALTH.index(health),
        "Reply": lambda number, _some, *_: waiting.pop(number),
        "HealthReply": lambda _number, health: _HEALTH.index(health),
        "Send": lambda _ask, target: _component(target),
        "Request": lambda _ask, target, timeout_ms: bytes(timeout_ms) + _component(target).encode(),
        "Cancel": lambda _ask, _correlation: waiting.popitem(),
        "Broadcast": lambda _ask, targets: [_component(target) for target in targets],
        "ListComponents": lambda _ask: "",
        "GetMetadata": lambda _ask, component: _component(component),
        "Ended": lambda outcome, _detail="": _OUTCOMES.index(outcome),
        "Shutdown": lambda: os._exit(0),
    }


def router(attacker: socket.socket, neighbour: socket.socket) -> None:
    """Serves both until it dies."""
    kept = 0
    frames = _frames(dict.fromkeys((1, 2), "a neighbour's message"))
    while True:
        for channel in select.select([attacker, neighbour], [], [])[0]:
            parts, more = [], True
            while more:
                first, ancillary, _, _ = channel.recvmsg(1, _ANCILLARY)
                kept += sum(len(data) // 4 for _, _, data in ancillary)
                flags = first[0]
                size = int.from_bytes(channel.recv(8 if flags & 2 else 1, socket.MSG_WAITALL), "big")
                body = bytearray(size)
                view = memoryview(body)
                while view:
                    view = view[channel.recv_into(view) :]
                parts.append(body)
                more = bool(flags & 1)
            head, _payload = parts
            tag, *fields = msgspec.msgpack.decode(head)
            frames[tag](*fields)
            channel.send(b"done" + struct.pack("<I", kept))


def generous(attacker: socket.socket, neighbour: socket.socket) -> None:
    """A router that waits until what it has to say is taken."""
    while True:
        for channel in select.select([attacker, neighbour], [], [])[0]:
            channel.recv(1 << 10)
            channel.sendall(bytes(1 << 20))


def one_by_one(attacker: socket.socket, neighbour: socket.socket) -> None:
    """A bridge that serves one peer until it hangs up, and then the next."""
    for channel in (attacker, neighbour):
        while packet := channel.recv(1 << 20):
            kind, _, _ = HEADER.unpack_from(packet)
            channel.send(HEADER.pack(kind | ANSWER, 0, 4) + bytes(4))
