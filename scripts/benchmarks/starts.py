"""How long a worker takes to be there: cloned now, out of the pool, after a crash.

Times of starts are the host's own, out of the audit log, each from control's request for the worker: until every wall
is up (`sealed`), until the check from outside has passed (`checked`), both by the supervisor; until the component has
said that it is initialised (READY), by control. The router's end of the worker's channel is made within all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import time

from live_host import Host

from benchmarks.bench import BWRAP_NAME, METER, Bench, Figure, Figures, bwrap, install, percentile, upload
from supervisor.cli.errors import RefusedError


def start(bench: Bench) -> Figures:
    """A worker cloned on request, strictly alternating with bubblewrap."""
    with bench.metered("[workers]\npool = 0\n", ("0",)) as host:
        return _starts(host, "start", max(bench.rounds, 20), 0.006)


def start_pool(bench: Bench) -> Figures:
    """A worker out of the pool of blanks."""
    with bench.metered("[workers]\npool = 4\n", ("0",)) as host:
        return _starts(host, "start-pool", max(bench.rounds, 20), 0.15)  # time for the pool to be full again


def _starts(host: Host, name: str, rounds: int, pause: float) -> Figures:
    ready, sealed, checked, peers = [], [], [], []
    with host.api() as client:
        for number in range(rounds + 5):
            client.post("/v1/components/bench/meter/0/restart")
            time.sleep(pause)  # teardown of the last namespaces is the kernel's and not measured
            peer = bwrap()
            with client.lines("/v1/audit", component="bench/meter/0", limit=12) as lines:
                records = {record["event"]: record["detail"] for record in map(json.loads, lines)}  # the last of each
            if number >= 5:  # the first few find cold caches
                ready.append(records["worker.ready"]["micros"] / 1000)
                sealed.append(records["worker.started"]["sealed"] / 1000)
                checked.append(records["worker.started"]["micros"] / 1000)
                peers.append(peer)
            time.sleep(pause)
    middle, peer = statistics.median(ready), statistics.median(peers)
    check = statistics.median(c - s for c, s in zip(checked, sealed, strict=True))
    return {
        name: Figure(middle, peer, "ms p50", BWRAP_NAME),
        f"{name}-p99": Figure(percentile(ready, 0.99), middle, "ms p99", "its own p50"),
        f"{name}-sealed": Figure(statistics.median(sealed), peer, "ms p50", f"{BWRAP_NAME}; until the last wall"),
        f"{name}-checked": Figure(statistics.median(checked), peer, "ms p50", f"{BWRAP_NAME}; until the check"),
        f"{name}-check": Figure(check, None, "ms p50", "the check from outside alone"),
    }


def crash(bench: Bench) -> Figures:
    """SIGKILL of a worker until its next one has answered a request; the first restart of each, which is at once."""
    names = tuple(f"c{number}" for number in range(20))
    times = []
    with bench.metered("", ()) as host:
        plan = upload(host, METER)
        for name in names:
            install(host, plan, name)
        pids = {c["id"]: c["pid"] for c in host.status()["components"]}
        with host.api() as client:
            for name in names:
                target = f"bench/meter/{name}"
                client.message(target, "request", b"echo x", 5000, "text/plain")
                time.sleep(0.1)
                began = time.perf_counter()
                os.kill(pids[target], signal.SIGKILL)
                while True:
                    # What was in the dead one's hand fails; what is in the mailbox waits for the next.
                    with contextlib.suppress(RefusedError):
                        client.message(target, "request", b"echo x", 5000, "text/plain")
                        break
                times.append((time.perf_counter() - began) * 1000)
        changed = {c["id"]: c["pid"] for c in host.status()["components"]}
        assert all(changed[f"bench/meter/{name}"] != pids[f"bench/meter/{name}"] for name in names)
    return {
        "crash": Figure(statistics.median(times), None, "ms p50", "bound: 25 ms"),
        "crash-p99": Figure(percentile(times, 0.99), statistics.median(times), "ms p99", "its own p50"),
    }
