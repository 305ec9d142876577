"""Values across the wasm boundary: the worker's own calls in one process, by turns with Extism and stock wasmtime-py.

Ours is everything between a frame of the router and the reply's bytes: fuel, the whole record, the guest, the copies.
Extism's is its echo call without a record and without fuel. All of it runs in this process; stock wasmtime-py in one of
its own, because the host's conversions must not help it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import paths

from benchmarks.bench import HERE, METER, Bench, Figure, Figures
from sandbox.guest import Guest
from sandbox.host.links import Bridge, links
from sandbox.wire import packet
from sandbox.wire.bridge_ops import ANSWER, Op

SIZES = {"16": 16, "4k": 4096, "64k": 65_536, "1m": 1 << 20}
KINDS: dict[str, bytes] = {"text": b"The quick brown fox jumps over the lazy dog.\n", "binary": bytes(range(256))}
TURNS = 9
"""Measurements of each, by turns: what else the machine does meets all alike. Their median counts."""
SECONDS = 0.02
"""About how long one measurement takes."""


def values(_bench: Bench) -> Figures:
    """Messages, an import, instantiation. It needs no host."""
    return {**_echo(), **_languages(), **_storage_get(), **_instantiate()}


# -- measuring --------------------------------------------------------------------------------------------------------


def _each(action: Callable[[], object], seconds: float = SECONDS) -> float:
    """Microseconds of one of as many as fit into `seconds`."""
    began = time.perf_counter()
    action()
    count = max(3, int(seconds / max(time.perf_counter() - began, 1e-6)))
    began = time.perf_counter()
    for _ in range(count):
        action()
    return (time.perf_counter() - began) / count * 1e6


def _by_turns(**actions: Callable[[], object]) -> dict[str, float]:
    """The median of each; collecting garbage is nobody's."""
    for action in actions.values():
        action()
    gc.collect()
    gc.disable()
    try:
        times: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(TURNS):
            for name, action in actions.items():
                times[name].append(_each(action))
    finally:
        gc.enable()
    return {name: statistics.median(each) for name, each in times.items()}


def _payload(kind: str, size: int) -> bytes:
    pattern = KINDS[kind]
    return (pattern * (size // len(pattern) + 1))[:size]


FIELDS: dict[str, Any] = {
    "correlation": "0" * 32,
    "reply_to": paths.ASKER,
    "content_type": "text/plain",
    "seconds": 1_700_000_000,
    "nanoseconds": 1,
}
"""Every field of a message is there."""


def _handler(guest: paths.Running, payload: bytes) -> Callable[[], object]:
    frame = paths.deliver(**FIELDS)
    paths.connect(guest.peers, guest.limits)
    assert guest.message(payload, **FIELDS)[1] == ""
    handle = guest.guest.handle_message
    return lambda: handle(frame, payload)


# -- echoes -----------------------------------------------------------------------------------------------------------


def _extism() -> Callable[[bytes], bytes]:
    import extism
    from airssys.cc import compile_core

    plugin = extism.Plugin(compile_core(Path(__file__).with_name("extism_echo.c")))
    return lambda payload: bytes(plugin.call("echo", payload))


def _echo() -> Figures:
    """The C echo on both paths, by turns with Extism's, beside stock wasmtime-py."""
    figures: Figures = {}
    theirs = _extism()
    wanted = {name: size for name, size in SIZES.items() if size <= 65_536}  # 1 MiB would take a second and a half
    stock = _stock(GUEST, wanted)
    with contextlib.ExitStack() as stack:
        guests = {path: stack.enter_context(paths.running("echo", path)) for path in paths.PATHS}
        fastest = paths.PATHS[-1]
        for name, size in SIZES.items():
            for kind in KINDS:
                payload = _payload(kind, size)
                actions = {path: _handler(guest, payload) for path, guest in guests.items()}
                times = _by_turns(extism=lambda payload=payload: theirs(payload), **actions)
                for path in guests:
                    label = f"values-{name}-{kind}" + ("" if path == fastest else f"-{path}")
                    figures[label] = Figure(times[path], times["extism"], "us", "an echo of Extism, same process")
            if name in stock:
                figures[f"values-{name}-stock"] = Figure(
                    figures[f"values-{name}-binary"].ours, stock[name], "us", "the same by wasmtime-py as it is"
                )
    return figures


GUEST = paths.GUESTS / "echo" / "component.wasm"


def _stock(wasm: Path, sizes: dict[str, int]) -> dict[str, float]:
    argv = [sys.executable, str(Path(__file__).with_name("stock_echo.py")), str(wasm), json.dumps(sizes)]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    done = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def _languages() -> Figures:
    """Echoes in QuickJS and Python, where they were built (tests/guests/heavy.py)."""
    figures: Figures = {}
    heavy = _heavy()
    theirs = _extism()
    for name, language in (("echo-qjs", "QuickJS"), ("echo-python", "Python")):
        try:
            wasm = heavy.built(name)
        except heavy.ToolchainMissing as missing:
            print(f"  {name} is left out: {missing}", file=sys.stderr)
            continue
        with paths.running(wasm, paths.PATHS[-1]) as guest:
            for size in ("16", "64k"):
                payload = _payload("binary", SIZES[size])
                times = _by_turns(ours=_handler(guest, payload), extism=lambda payload=payload: theirs(payload))
                label = f"values-{size}-{name.removeprefix('echo-')}"
                figures[label] = Figure(times["ours"], times["extism"], "us", f"Extism's echo in C; ours in {language}")
    return figures


def _heavy() -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("guests_heavy", paths.GUESTS / "heavy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# -- an import --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bridge() -> Iterator[Bridge]:
    """A process that answers storage.get at once, over the packets of a bridge."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        near.close()
        assembler = packet.Assembler()
        with contextlib.suppress(EOFError, OSError):
            while True:
                packet.recv_message(far, assembler)
                packet.send_message(far, Op.STORAGE_GET | ANSWER, b"\x92\x00\xc4\x05value")
        os._exit(0)
    far.close()
    try:
        yield Bridge(near)
    finally:
        near.close()
        os.waitpid(pid, 0)


class _Nobody:
    """A bridge that costs nothing."""

    def ask(self, _op: Op, *_arguments: Any) -> tuple[int, Any]:
        """Answers at once."""
        return 0, b"value"


def _storage_get() -> Figures:
    """A guest's storage.get: what it adds to the round trip of the same question, and what it costs with no bridge."""
    count = 200
    figures: Figures = {}
    with contextlib.ExitStack() as stack:
        bridge = stack.enter_context(_bridge())
        for path in paths.PATHS:
            guest = stack.enter_context(paths.running(METER / "component.wasm", path))
            paths.connect(guest.peers, guest.limits)
            asked = {"one": f"get {count}".encode(), "none": b"get 0"}
            frame = paths.deliver(**FIELDS)

            def many(
                bridge: Any, what: str, guest: Guest = guest.guest, asked: Any = asked, frame: Any = frame
            ) -> None:
                links.bridge = bridge
                reply, error = guest.handle_message(frame, asked[what])
                assert reply is not None, error

            def bare() -> None:
                for _ in range(count):
                    bridge.ask(Op.STORAGE_GET, "k")

            times = _by_turns(
                whole=lambda many=many: many(bridge, "one"),
                bare=bare,
                alone=lambda many=many: many(_Nobody(), "one"),
                none=lambda many=many: many(_Nobody(), "none"),
            )
            whole, round_trip = (times["whole"] - times["none"]) / count, times["bare"] / count
            suffix = "" if path == paths.PATHS[-1] else f"-{path}"
            figures[f"values-get{suffix}"] = Figure(
                whole - round_trip, round_trip, "us more", "the round trip itself, asked from Python; bound: 3 us"
            )
            alone = (times["alone"] - times["none"]) / count
            figures[f"values-get-alone{suffix}"] = Figure(alone, whole, "us", "storage.get with the round trip")
    return figures


# -- instantiation ----------------------------------------------------------------------------------------------------


def _instantiate() -> Figures:
    """Store, limits, instance and the lookup of its calls."""
    figures: Figures = {}
    heavy = _heavy()
    wanted: dict[str, Path] = {"c": GUEST}
    for name in ("echo-qjs", "echo-python"):
        with contextlib.suppress(heavy.ToolchainMissing):
            wanted[name.removeprefix("echo-")] = heavy.built(name)
    for name, wasm in wanted.items():
        times = {}
        for path in paths.PATHS:
            with paths.running(wasm, path) as guest:
                times[path] = _by_turns(one=guest.instantiate)["one"]
        general = times["general"]
        bound = {"c": "; bound: 150 us", "python": "; bound: 3000 us"}.get(name, "")
        figures[f"values-instantiate-{name}"] = Figure(
            times[paths.PATHS[-1]], general, "us", f"on the general path{bound}"
        )
    return figures
