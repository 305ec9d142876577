"""Messages cost no memory that stays: tens of thousands of every kind through one guest, on each path.

A worker lives for as long as its host; what each message lost would add up. Each run is a process of its own, so that
what is measured is this and nothing else.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import kitchen
import paths
import pytest
from forked import returns

from sandbox.abi.types import Case, Err, Ok

pytestmark = pytest.mark.block1_runtime

KIB = 1024
MIB = 1024 * KIB


def private() -> int:
    """Bytes of memory that are this process's own, once what is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    total = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * KIB
    return total


def exchanges() -> list[tuple[bytes, dict[str, Any], dict[str, Any]]]:
    """Messages, their fields, and what the host answers meanwhile; mostly small ones, as in life."""
    fields = {"correlation": "0" * 32, "reply_to": paths.ASKER, "content_type": "text/plain"}
    target = ("test", "other", "0")
    made: list[tuple[bytes, dict[str, Any], dict[str, Any]]] = []

    def add(name: str, *arguments: Any, result: Any) -> None:
        if name in kitchen.ROUTED:
            answers = {"ack": kitchen.router_answer(name, arguments, result)[0]}
        else:
            answers = {"answer": kitchen.bridge_answer(name, result)}
        made.append((kitchen.call(name, *arguments), {}, answers))

    for size in (0, 5, 100, 4000, 70_000):
        add("storage.get", "k" * 20, result=Ok(b"v" * size))
        add("storage.set", "k", b"v" * size, result=Ok(None))
        add("filesystem.read", "/data/f", result=Ok(b"f" * size))
        add("filesystem.write", "/data/f", b"f" * size, result=Ok(None))
        add("host-messaging.send", target, b"m" * size, result=Ok(None))
    for _ in range(8):
        made.append((bytes([kitchen.MESSAGE]), fields, {}))
        made.append((bytes([kitchen.MESSAGE]) + bytes(300), {}, {}))
        made.append((bytes([kitchen.NONE]), {}, {}))
        made.append((bytes([kitchen.FAIL, 6, 5, 0, 0, 0]) + b"error", {}, {}))
        add("storage.get", "k", result=Ok(None))
        add("storage.get", "k", result=Err(Case("io-error", "an error")))
        add("storage.list-keys", "k", result=Ok([f"key-{n}" for n in range(20)]))
        add("storage.usage", result=Ok((1, 2, 3)))
        add("host-services.log", "info", "a line of it", [("name", "value")] * 3, result=None)
        add("host-messaging.request", target, b"question", 1000, result=Ok("0" * 32))
        add("host-messaging.broadcast", [target] * 5, b"all", result=Err(Case("queue-full")))
        add("filesystem.list", "/data", result=Ok([(f"n{n}", "file", n) for n in range(20)]))
        add("filesystem.stat", "/data/f", result=Err(Case("not-found", "/data/f")))
    return made


def grown(path: str, count: int) -> int:
    """Bytes more after at least `count` messages, and a tenth as many callbacks, than after the first two thousand."""
    paths.compiled(paths.GUESTS / "kitchen" / "component.wasm", path)
    mixed = exchanges()

    def run() -> int:
        with paths.running("kitchen", path) as guest:

            def send(times: int) -> None:
                # Whole rounds: what the last few messages keep until the next is then the same.
                for _ in range(-(-times // len(mixed))):
                    for number, (message, fields, answers) in enumerate(mixed):
                        guest.peers.__dict__.update(answers)
                        reply, error = guest.message(message, **fields)
                        assert reply is not None or error or message[0] == kitchen.NONE
                        if number % 10 == 0:
                            assert "" == guest.callback(message, **fields)
                        guest.peers.asked.clear()

            send(2000)
            before = private()
            send(count)
            return private() - before

    return int(returns(run))


@pytest.mark.parametrize("path", paths.PATHS)
def test_memory_is_flat(path: str) -> None:
    """After 20,000 messages nothing has been lost; wasmtime-py as it is loses 70 to 160 bytes of each."""
    assert grown(path, 20_000) < 512 * KIB


@pytest.mark.long
@pytest.mark.parametrize("path", paths.PATHS)
@pytest.mark.parametrize("count", [1_000_000, 10_000_000])
def test_memory_is_flat_for_long(path: str, count: int) -> None:
    """Nor after a million, nor after ten."""
    assert grown(path, count) < MIB


@pytest.mark.parametrize("path", paths.PATHS)
def test_what_large_messages_needed_is_given_back(path: str) -> None:
    """Only the guest's own memory stays as large as a message has made it."""
    size = 2 * MIB

    def run() -> int:
        with paths.running("echo", path) as guest:
            guest.message(b"x")
            before = private()
            for _ in range(3):
                assert (bytes(size), "") == guest.message(bytes(size))
            for _ in range(3):
                assert (b"x", "") == guest.message(b"x")
            return private() - before

    paths.compiled(paths.GUESTS / "echo" / "component.wasm", path)
    assert returns(run) < size + 2 * MIB
