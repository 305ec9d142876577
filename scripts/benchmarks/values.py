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
from typing import Any, cast

import paths

from benchmarks.bench import HERE, METER, Bench, Figure, Figures
from sandbox import compiler
from sandbox.guest import Guest
from sandbox.host.links import Bridge, links
from sandbox.loader import deserialize
from sandbox.memories import memories
from sandbox.types import CallPath, Limits
from sandbox.wire import compile_result, packet
from sandbox.wire.bridge_ops import ANSWER, Op

SIZES = {"16": 16, "4k": 4096, "64k": 65_536, "1m": 1 << 20}
KINDS: dict[str, bytes] = {"text": b"The quick brown fox jumps over the lazy dog.\n", "binary": bytes(range(256))}
LIMITS = Limits(memory=64 << 20, fuel=2_000_000_000)
TURNS = 9
"""Measurements of each, by turns: what else the machine does meets all alike. Their median counts."""
SECONDS, BATCHES = 0.024, 8
"""About how long one measurement takes, and in how many parts."""


def values(_bench: Bench) -> Figures:
    """Messages, an import, instantiation. It needs no host."""
    return {**_echo(), **_languages(), **_storage_get(), **_instantiate()}


# -- measuring --------------------------------------------------------------------------------------------------------


def _each(action: Callable[[], object]) -> float:
    """Microseconds of one: the best of several batches, so that what else runs on the machine is left out."""
    began = time.perf_counter()
    action()
    count = max(1, int(SECONDS / BATCHES / max(time.perf_counter() - began, 1e-6)))
    best = float("inf")
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(count):
            action()
        best = min(best, time.perf_counter() - began)
    return best / count * 1e6


def _by_turns(**prepared: Callable[[], Callable[[], object]]) -> dict[str, list[float]]:
    """What each took, turn by turn, by what prepares it for a turn; collecting garbage is nobody's."""
    gc.collect()
    gc.disable()
    try:
        times: dict[str, list[float]] = {name: [] for name in prepared}
        for _ in range(TURNS):
            for name, prepare in prepared.items():
                action = prepare()
                action()  # finds what it needs warm
                times[name].append(_each(action))
    finally:
        gc.enable()
    return times


def _figure(ours: list[float], peers: list[float], name: str) -> Figure:
    """Medians; ours so that the ratio is the median of the turns' own."""
    peer = statistics.median(peers)
    ratio = statistics.median(one / other for one, other in zip(ours, peers, strict=True))
    return Figure(ratio * peer, peer, "us", name)


def _more(one: Callable[[], object], other: Callable[[], object], count: int) -> tuple[float, float]:
    """By how many microseconds one of `count` in `one` takes longer than in `other`, and what it takes there.

    Medians over pairs that follow each other closely: a round trip of two processes changes with the weather.
    """
    differences, others = [], []
    for _ in range(60):
        times = []
        for action in (one, other):
            began = time.perf_counter()
            action()
            times.append((time.perf_counter() - began) / count * 1e6)
        differences.append(times[0] - times[1])
        others.append(times[1])
    return statistics.median(differences), statistics.median(others)


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


def _handler(guest: paths.Running, payload: bytes) -> Callable[[], Callable[[], object]]:
    frame = paths.deliver(**FIELDS)

    def prepare() -> Callable[[], object]:
        handle = guest.use().handle_message
        assert handle(frame, payload) == (payload, "", False)
        return lambda: handle(frame, payload)

    return prepare


# -- echoes -----------------------------------------------------------------------------------------------------------


def _extism() -> Callable[[bytes], Callable[[], Callable[[], object]]]:
    import extism
    from airssys.cc import compile_core

    plugin = extism.Plugin(compile_core(Path(__file__).with_name("extism_echo.c")))
    return lambda payload: lambda: lambda: plugin.call("echo", payload)


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
                times = _by_turns(extism=theirs(payload), **actions)
                for path in guests:
                    label = f"values-{name}-{kind}" + ("" if path == fastest else f"-{path}")
                    figures[label] = _figure(times[path], times["extism"], "an echo of Extism, same process")
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
                times = _by_turns(ours=_handler(guest, payload), extism=theirs(payload))
                label = f"values-{size}-{name.removeprefix('echo-')}"
                figures[label] = _figure(times["ours"], times["extism"], f"Extism's echo in C; ours in {language}")
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
    frame = paths.deliver(**FIELDS)
    with _bridge() as bridge:
        for path in paths.PATHS:
            with paths.running(METER / "component.wasm", path) as guest:
                handle, many = guest.use().handle_message, f"get {count}".encode()

                def gets(asked: object, message: bytes = many, handle: Any = handle) -> Callable[[], object]:
                    def action() -> None:
                        links.bridge = cast(Bridge, asked)
                        assert handle(frame, message)[1] == ""

                    return action

                def bare(asked: Any) -> Callable[[], object]:
                    return lambda: [asked.ask(Op.STORAGE_GET, "k") for _ in range(count)]

                more, round_trip = _more(gets(bridge), bare(bridge), count)
                alone, _ = _more(gets(_Nobody()), bare(_Nobody()), count)
            suffix = "" if path == paths.PATHS[-1] else f"-{path}"
            peer = "the round trip itself, asked from Python; bound: 3 us"
            figures[f"values-get{suffix}"] = Figure(more, round_trip, "us more", peer)
            figures[f"values-get-alone{suffix}"] = Figure(alone, more, "us more", "what it adds; here with no bridge")
    return figures


# -- instantiation ----------------------------------------------------------------------------------------------------


def _instantiate() -> Figures:
    """Store, limits, instance and the lookup of its calls: again and again in one process, and as a worker does it."""
    times = {}
    for path in paths.PATHS:
        with paths.running("echo", path) as guest:
            times[path] = _by_turns(one=lambda guest=guest: guest.instantiate)["one"]
    figures: Figures = {
        "values-instantiate-c": _figure(times["fast"], times["general"], "on the general path; bound: 150 us")
    }
    heavy = _heavy()
    wanted = {"c": GUEST}
    for name in ("echo-qjs", "echo-python"):
        with contextlib.suppress(heavy.ToolchainMissing):
            wanted[name.removeprefix("echo-")] = heavy.built(name)
    for name, wasm in wanted.items():
        fast, general = _first(wasm, "fast"), _first(wasm, "general")
        bound = "; bound: 3000 us" if name == "python" else ""
        figures[f"values-first-{name}"] = Figure(fast, general, "us", f"on the general path{bound}")
    return figures


def _first(wasm: Path, path: CallPath) -> float:
    """Microseconds of the one instantiation in a fork of a warm process, as in a worker; best of 15."""
    output = compiler._compile(paths.engine(), bytearray(wasm.read_bytes()), path)
    made, start = compile_result.parse_header(output)
    if made.error:
        raise SystemExit(f"{wasm}: {made.error}")
    with paths.running("echo", path) as guest:
        guest.use()
    code = os.memfd_create("code")
    os.write(code, memoryview(output)[start:])
    times = []
    gc.collect()
    gc.freeze()
    for _ in range(15):
        near, far = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            memories.limit = LIMITS.memory
            loaded = deserialize(paths.engine(), code, made.cwasm_size)
            memories.prepare(loaded.images, code)
            began = time.perf_counter()
            Guest(paths.engine(), paths.linker(), loaded.component, LIMITS, made.crossing.exports)
            far.send(str((time.perf_counter() - began) * 1e6).encode())
            os._exit(0)
        far.close()
        times.append(float(near.recv(64)))
        near.close()
        os.waitpid(pid, 0)
    gc.unfreeze()
    os.close(code)
    return min(times)
