"""What components of large toolchains cost: Python, Go, Rust, two JavaScript engines, out of tests/guests/heavy.py.

Each is installed on a real host, several instances of it, and has answered. Memory is that of its workers, where they
share what they can; instantiation is measured in processes of their own, cloned before each, out of the host's own
cache, for only the first one in a process is like a worker's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from live_host import GUESTS, Host

from benchmarks.bench import HERE, Bench, Figure, Figures, install, private, upload
from supervisor.control.cache import entry_parts

LARGE = ("wasi-python", "counter-python", "wasi-qjs", "counter-qjs", "wasi-starlingmonkey", "wasi-go", "wasi-rust")
INSTANCES = 4
ROUNDS = 9
MIB = 1024
_INSTANTIATE = """
import gc, json, os, sys, time
import wasmtime
from wasmtime import component
from sandbox import host, loader
from sandbox.engine import make_engine
from sandbox.guest import Guest
from sandbox.kernel import libc, process
from sandbox.memories import memories
from sandbox.types import Limits
libc.keep_heap_in_brk()
process.no_huge_pages()
engine = make_engine(counted=True)
linker = component.Linker(engine)
host.define(linker)
fd, size = os.open(sys.argv[1], os.O_RDONLY), os.path.getsize(sys.argv[1])
limits = Limits(memory=256 << 20, fuel=1 << 40)
Guest(engine, linker, component.Component(engine, open(sys.argv[2], "rb").read()), limits)
gc.collect()
gc.freeze()
told = []
for _ in range(int(sys.argv[3])):
    near, far = os.pipe()
    if os.fork() == 0:
        memories.limit = limits.memory
        begin = time.perf_counter()
        loaded = loader.deserialize(engine, fd, size)
        memories.prepare(loaded.images, fd)
        middle = time.perf_counter()
        Guest(engine, linker, loaded.component, limits)
        os.write(far, json.dumps([middle - begin, time.perf_counter() - middle]).encode())
        os._exit(0)
    os.wait()
    told.append(json.loads(os.read(near, 100)))
print(json.dumps(told))
"""


def large(bench: Bench) -> Figures:
    """Every guest that is built, or can be."""
    figures: Figures = {}
    guests = _guests()
    for name in LARGE:
        try:
            wasm = guests.built(name)
        except guests.ToolchainMissing as missing:
            print(f"  without {name}: {missing}", file=sys.stderr)
            continue
        figures |= _one(bench, name, wasm)
    return figures


def _one(bench: Bench, name: str, wasm: Path) -> Figures:
    with bench.host("[workers]\npool = 0\n") as host, tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        shutil.copy(wasm, source / "component.wasm")
        (source / "component.toml").write_text((GUESTS / name / "component.toml").read_text())
        plan = upload(host, source, lambda text: text.replace('name = "test/', 'name = "bench/'))
        firsts = []
        for number in range(INSTANCES):
            install(host, plan, str(number), binds=False)
            began = time.perf_counter()
            _asked(host, f"bench/{name}/{number}")
            firsts.append((time.perf_counter() - began) * 1000)
            for _ in range(3):
                _asked(host, f"bench/{name}/{number}")
        workers = [c["pid"] for c in host.status()["components"]]
        own = [private(pid) for pid in workers]
        started = [r["detail"]["micros"] / 1000 for r in host.audit() if r["event"] == "worker.ready"]
        (entry,) = (host.root / "lib" / "control" / "cache").glob("*.cwasm")
        code = source / "code"
        code.write_bytes(entry_parts(entry.read_bytes())[3])
        loading, instantiating = _instantiate(code)
        size = code.stat().st_size / 1024
    return {
        f"{name}-private": Figure(statistics.median(own), size, "KiB private", "all that was compiled"),
        f"{name}-instantiate": Figure(instantiating, loading, "ms", "loading its code"),
        f"{name}-start": Figure(statistics.median(started), None, "ms", "from control's request until it is ready"),
        f"{name}-first": Figure(statistics.median(firsts), None, "ms", "its first answer, asked by the API"),
    }


def _asked(host: Host, target: str) -> None:
    """Any message: a guest that refuses it has read it, too."""
    with contextlib.suppress(Exception):
        host.ask(target, "time", seconds=20)


def _instantiate(code: Path) -> tuple[float, float]:
    """Milliseconds of loading and of instantiating, medians."""
    command = [sys.executable, "-c", _INSTANTIATE, str(code), str(GUESTS / "probe" / "component.wasm"), str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=HERE, env=dict(os.environ))
    times = json.loads(done.stdout)
    return statistics.median(t[0] for t in times) * 1000, statistics.median(t[1] for t in times) * 1000


def _guests() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guests_heavy", GUESTS / "heavy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
