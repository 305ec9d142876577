"""What workers cost in memory, one and a thousand."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from live_host import Host

from benchmarks.bench import HERE, METER, Bench, Figure, Figures, install, private, upload

_LONE = (
    "import sys, wasmtime\nfrom wasmtime import component\nfrom sandbox.engine import make_engine\n"
    "e = make_engine(); c = component.Component(e, open(sys.argv[1], 'rb').read())\n"
    "print('ready', flush=True); sys.stdin.read()\n"
)


def memory(bench: Bench) -> Figures:
    """Private memory of an idle worker that has answered, against a lone process with the same engine and component."""
    count = 20
    with bench.metered("[workers]\npool = 0\n", tuple(str(number) for number in range(count))) as host:
        for number in range(count):
            for _ in range(3):
                host.ask(f"bench/meter/{number}", "echo x")
        ours = statistics.median(private(c["pid"]) for c in host.status()["components"])
    command = [sys.executable, "-c", _LONE, str(METER / "component.wasm")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE) as lone:
        assert lone.stdout is not None
        assert lone.stdin is not None
        lone.stdout.readline()
        peer = private(lone.pid)
        lone.stdin.close()
    name = "a lone Python process with the engine and the component compiled"
    return {"memory": Figure(ours, peer, "KiB private", name)}


def workers_1000(bench: Bench) -> Figures:
    """A thousand live workers, each of which answers."""
    return _workers(bench, 1000)


def workers_2000(bench: Bench) -> Figures:
    """Two thousand."""
    return _workers(bench, 2000)


def _workers(bench: Bench, count: int) -> Figures:
    name = f"workers-{count}"
    with bench.metered("[workers]\npool = 0\n", ()) as host:
        plan = upload(host, METER)
        free, began = _available(), time.perf_counter()
        times: list[float] = []

        def one(number: int) -> None:
            asked = time.perf_counter()
            install(host, plan, str(number))
            times.append(time.perf_counter() - asked)
            if len(times) % 100 == 0:
                print(f"  {len(times)} after {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, range(count)))
        started = time.perf_counter() - began
        began = time.perf_counter()
        answers = _answers(host, count)
        asked = time.perf_counter() - began
        used = free - _available()
        components = [c for c in host.status()["components"] if c["state"] == "running"]
        if len(components) != count or answers != 2 * count:
            raise SystemExit(f"{len(components)} of {count} run, {answers} of {2 * count} requests were answered")
        own = statistics.median(private(c["pid"]) for c in components)
        processes = {p["name"]: private(p["pid"]) for p in host.status()["host"]["processes"]}
        print("  " + ", ".join(f"{who} {size} KiB" for who, size in processes.items()), file=sys.stderr)
        began = time.perf_counter()
        host.down()
        ended = time.perf_counter() - began
    last = statistics.median(times[-50:]) * 1000
    return {
        name: Figure(started / count * 1000, None, "ms each", "install to running, two at a time, all of them"),
        f"{name}-last": Figure(
            last, statistics.median(times[:50]) * 1000, "ms p50", "the first 50 against the last 50"
        ),
        f"{name}-private": Figure(own, None, "KiB private", "median of all"),
        f"{name}-available": Figure(used / count, own, "KiB each", "what MemAvailable lost, to private memory"),
        f"{name}-asked": Figure(asked / (2 * count) * 1000, None, "ms each", "a request to each, twice, all answered"),
        f"{name}-down": Figure(ended, None, "s", "until the host has ended"),
    }


def _answers(host: Host, count: int) -> int:
    answered = 0
    with host.api() as client:
        for _ in range(2):
            for number in range(count):
                answered += client.message(f"bench/meter/{number}", "request", b"echo x", 5000, "text/plain") == b"x"
    return answered


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    raise SystemExit("no MemAvailable in /proc/meminfo")
