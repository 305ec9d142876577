"""Benchmarks of a real host, each with a peer measured in the same run. Units and peers are named in the output.

Figures come from inside: start times from the supervisor's own record of each start, round trips from a component's
clock (`examples/bench/meter`), memory from /proc. What is measured is in `scripts/benchmarks`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import actors, large, memory, messages, noise, starts, values
from benchmarks.bench import Bench, Figures, publisher

BENCHMARKS: dict[str, Callable[[Bench], Figures]] = {
    "start": starts.start,
    "start-pool": starts.start_pool,
    "crash": starts.crash,
    "memory": memory.memory,
    "request": messages.request,
    "file-read": messages.file_read,
    "storage-get": messages.storage_get,
    "install": messages.install_new,
    "values": values.values,
    "actors": actors.actors,
    "noise": noise.noise,
    "standard": noise.standard,
}
"""Those that run when none is named."""
PARTS: dict[str, Callable[[Bench], Figures]] = {
    "actors-request": actors.request,
    "actors-routed": actors.routed,
    "actors-fan-out": actors.fan_out,
    "actors-timeout": actors.timeouts,
    "actors-idle": actors.idle,
}
"""Parts of those, by name."""
LONG: dict[str, Callable[[Bench], Figures]] = {
    "large": large.large,
    "workers-1000": memory.workers_1000,
    "workers-2000": memory.workers_2000,
}
"""Those that take minutes: by name, or all of them with --long."""


def main() -> None:
    """Run what was asked for and print a table, or JSON into a file."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, *PARTS, *LONG, []], metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--long", action="store_true", help=f"also {', '.join(LONG)}")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with publisher() as key:
        bench = Bench(key, options.rounds)
        for name in [*(options.names or BENCHMARKS), *(LONG if options.long else ())]:
            print(f"{name} ...", file=sys.stderr, flush=True)
            for label, figure in {**BENCHMARKS, **PARTS, **LONG}[name](bench).items():
                results[label] = figure.as_json()
    width = max(map(len, results))
    for label, shown in results.items():
        peer = "-" if shown["peer"] is None else f"{shown['peer']:g}"
        ratio = "-" if shown["ratio"] is None else f"{shown['ratio']:g}x"
        print(f"{label:{width}}  {shown['ours']:>9g} {shown['unit']:12} {ratio:>8} of {peer} ({shown['peer_name']})")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
