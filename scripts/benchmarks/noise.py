"""What a well-behaved component notices of a neighbour, and what reserved address space buys a computing one."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Iterator
from typing import Any

from live_host import Host, wait_until

from benchmarks.bench import NOISE, Bench, Figure, Figures, install, told, upload
from supervisor.cli.errors import RefusedError

COUNT = 300
"""Round trips of one measurement."""
TURNS = 6
"""Measurements with a neighbour, and as many without, by turns: what else the machine does meets both alike."""
KINDS = ("spin", "eat", "log", "flood")


def noise(bench: Bench) -> Figures:
    """p99 of round trips between two components beside one neighbour, against the same with none; medians of turns."""
    found: Figures = {}
    with bench.metered() as host:
        plan = upload(host, NOISE)
        for instance in ("0", "1"):
            install(host, plan, instance, binds=False)
        _round_trips(host)  # warm
        for kind in KINDS:
            quiet, beside = [], []
            for _ in range(TURNS):
                quiet.append(_round_trips(host))
                with _neighbour(host, kind):
                    beside.append(_round_trips(host))
            for share, name in (("p99", f"noise-{kind}"), ("p50", f"noise-{kind}-p50")):
                ours, peer = (statistics.median(turn[share] for turn in turns) / 1000 for turns in (beside, quiet))
                found[name] = Figure(ours, peer, f"us {share}", "by turns without a neighbour")
    return found


@contextlib.contextmanager
def _neighbour(host: Host, kind: str) -> Iterator[None]:
    done = threading.Event()

    def keep_at_it() -> None:
        while not done.is_set():
            with contextlib.suppress(RefusedError):  # ended for what it does: it is started again and goes on
                host.ask("bench/noise/0", f"{kind} 1000", seconds=30)

    thread = threading.Thread(target=keep_at_it)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _round_trips(host: Host) -> dict[str, Any]:
    host.ask("bench/meter/0", f"ping {COUNT}")

    def ended() -> bool:
        answer = told(host, "bench/meter/0", "result")
        if answer["failed"]:
            raise SystemExit(f"{answer['failed']} round trips failed")
        return bool(answer["count"] == COUNT)

    wait_until("the round trips", ended, seconds=120)
    return told(host, "bench/meter/0", "spread")


def standard(bench: Bench) -> Figures:
    """A sieve in a host with reserved address space and guard pages, against one with explicit checks; by turns."""
    with bench.host('[workers]\nprofile = "standard"\n') as ours, bench.host() as theirs:
        for host in (ours, theirs):
            install(host, upload(host, NOISE), "0", binds=False)
        times: dict[str, list[float]] = {"standard": [], "paranoid": []}
        for _ in range(12):
            for name, host in (("standard", ours), ("paranoid", theirs)):
                times[name].append(told(host, "bench/noise/0", "sieve 10")["nanos"] / 1e7)
    ratios = [a / b for a, b in zip(times["standard"], times["paranoid"], strict=True)]
    paranoid = statistics.median(times["paranoid"])
    name = 'profile = "paranoid"; paired median'
    return {"standard": Figure(statistics.median(ratios) * paranoid, paranoid, "ms a sieve", name)}
