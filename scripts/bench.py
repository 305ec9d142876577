"""Benchmarks of a real host, each with a peer measured in the same run. Units and peers are named in the output.

Figures come from inside: start times from the supervisor's own record of each start, round trips from a component's
clock (`examples/bench/meter`), memory from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests" / "support"))

from live_host import Host, temporary_host, wait_until  # noqa: E402

METER = HERE / "examples" / "bench" / "meter"


class Figure(NamedTuple):
    """One line of the result."""

    ours: float
    peer: float | None
    unit: str
    peer_name: str

    def as_json(self) -> dict[str, Any]:
        """The form scripts rely on."""
        ratio = None if not self.peer else round(self.ours / self.peer, 3)
        return {
            "ours": round(self.ours, 3),
            "peer": None if self.peer is None else round(self.peer, 3),
            "ratio": ratio,
            "unit": self.unit,
            "peer_name": self.peer_name,
        }


def _install(host: Host) -> None:
    data = host.out / "data"
    data.mkdir()
    (data / "4k").write_bytes(b"x" * 4096)
    data.chmod(0o755)
    package = host.package(METER)
    for instance in ("0", "1"):
        host.install(package, "--bind", f"/data={data}", "--instance", instance)


def start(host: Host, rounds: int) -> Figure:
    """Request to READY, every wall on and checked from outside, against bubblewrap until /bin/true is reaped."""
    ours, peers = [], []
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "/bin/true"]
    with host.api() as client:
        for _ in range(rounds):
            client.post("/v1/components/bench/meter/0/restart")
            with client.lines("/v1/audit", component="bench/meter/0", limit=8) as lines:
                records = [json.loads(line) for line in lines]
            micros = [r["detail"]["micros"] for r in records if r["event"] == "worker.started"]
            ours.append(micros[-1] / 1000)
            began = time.perf_counter()
            subprocess.run(command, check=True)
            peers.append((time.perf_counter() - began) * 1000)
            time.sleep(0.006)  # teardown of the last namespaces is the kernel's and not measured
    return Figure(statistics.median(ours), statistics.median(peers), "ms p50", "bwrap --unshare-all ... /bin/true")


def memory(host: Host, _rounds: int) -> Figure:
    """Private memory of an idle worker that has answered, against a lone process with the same engine and component."""
    count = 20
    package = host.out / "meter"
    names = [f"m{number}" for number in range(count)]
    for name in names:
        host.install(package, "--bind", f"/data={host.out / 'data'}", "--instance", name)
        for _ in range(3):
            host.ask(f"bench/meter/{name}", "echo x")
    pids = {c["id"]: c["pid"] for c in host.status()["components"]}
    ours = statistics.median(_private(pids[f"bench/meter/{name}"]) for name in names)
    for name in names:
        host.cli("uninstall", f"bench/meter/{name}")
    code = (
        "import sys, wasmtime\nfrom wasmtime import component\nfrom sandbox.engine import make_engine\n"
        "e = make_engine(); c = component.Component(e, open(sys.argv[1], 'rb').read())\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(METER / "component.wasm")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=HERE,
    ) as lone:
        assert lone.stdout is not None and lone.stdin is not None
        lone.stdout.readline()
        peer = _private(lone.pid)
        lone.stdin.close()
    return Figure(ours, peer, "KiB private", "a lone Python process with the engine and the component compiled")


def _private(pid: int) -> int:
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


def request(host: Host, rounds: int) -> Figure:
    """Component to component and back, 16 bytes, against a bare pyzmq ROUTER between two Python processes."""
    count = rounds * 20
    ours = []
    for _ in range(3):
        host.ask("bench/meter/0", f"ping {count}")
        result = wait_until("the pings", lambda: _told(host, "result", count), seconds=120)
        ours.append(result["nanos"] / count / 1000)
    return Figure(min(ours), _bare_router(count), "us mean", "bare pyzmq DEALER - ROUTER - DEALER, no cage, no guest")


def _told(host: Host, command: str, count: int) -> dict[str, Any] | None:
    answer = json.loads(host.ask("bench/meter/0", command, seconds=60))
    if answer["failed"]:
        raise SystemExit(f"the meter failed {answer['failed']} times")
    return dict(answer) if answer["count"] == count else None


_ROUTER = """
import sys, zmq
c = zmq.Context(); r = c.socket(zmq.ROUTER); r.bind(sys.argv[1])
print("ready", flush=True)
while True:
    who, body = r.recv_multipart()
    r.send_multipart([b"b" if who == b"a" else b"a", body])
"""
_ECHO = """
import sys, zmq
c = zmq.Context(); d = c.socket(zmq.DEALER); d.setsockopt(zmq.IDENTITY, b"b"); d.connect(sys.argv[1])
print("ready", flush=True)
while True:
    d.send(d.recv())
"""


def _bare_router(count: int) -> float:
    import zmq

    with tempfile.TemporaryDirectory() as place:
        address = f"ipc://{place}/r"
        processes = []
        for code in (_ROUTER, _ECHO):
            process = subprocess.Popen([sys.executable, "-c", code, address], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            processes.append(process)
        context = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, b"a")
        dealer.connect(address)
        time.sleep(0.2)  # the echo's connection must be known to the router before the first message
        body = b"x" * 16
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(count):
                dealer.send(body)
                dealer.recv()
            best = min(best, (time.perf_counter() - began) / count * 1e6)
        dealer.close(0)
        context.term()
        for process in processes:
            process.kill()
            process.communicate()
    return best


def file_read(host: Host, rounds: int) -> Figure:
    """A guest reads a 4 KiB file: checked, opened beneath the grant, recorded; against open/read/close in Python."""
    count = rounds * 10
    ours = min(_told(host, f"read {count}", count)["nanos"] for _ in range(3)) / count / 1000  # type: ignore[index]
    path = host.out / "data" / "4k"
    began = time.perf_counter()
    for _ in range(count):
        with open(path, "rb") as file:
            file.read()
    return Figure(ours, (time.perf_counter() - began) / count * 1e6, "us mean", "open, read, close in Python")


def storage_get(host: Host, rounds: int) -> Figure:
    """A guest reads a stored value: bridge, LMDB, recorded; against a bare SEQPACKET round trip of two processes."""
    import socket

    count = rounds * 10
    ours = min(_told(host, f"get {count}", count)["nanos"] for _ in range(3)) / count / 1000  # type: ignore[index]
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        near.close()
        while body := far.recv(65536):
            far.send(body)
        os._exit(0)
    far.close()
    began = time.perf_counter()
    for _ in range(count):
        near.send(b"x" * 32)
        near.recv(65536)
    peer = (time.perf_counter() - began) / count * 1e6
    near.close()
    os.waitpid(pid, 0)
    return Figure(ours, peer, "us mean", "SEQPACKET echo between two Python processes")


def install(host: Host, _rounds: int) -> Figure:
    """Verify, compile in a cage and start, against the same component compiled in a fresh Python process."""
    ours, peers = [], []
    code = "import sys; from wasmtime import component as c; from sandbox.engine import make_engine as m\n"
    code += "c.Component(m(), open(sys.argv[1], 'rb').read()).serialize()"
    data = f"/data={host.out / 'data'}"
    for number in range(3):
        # A component that differs by one custom section is compiled anew.
        source = host.out / f"changed-{number}"
        source.mkdir()
        body = (METER / "component.wasm").read_bytes() + bytes([0, 4, 1, 0x78, number, os.getpid() & 0xFF])
        (source / "component.wasm").write_bytes(body)
        text = (METER / "component.toml").read_text().replace("release = 1", f"release = {number + 2}")
        (source / "component.toml").write_text(text.replace('"bench/meter"', '"bench/other"'))
        host.cli("sign", str(source), "--key", str(host.key))
        began = time.perf_counter()
        host.install(source, "--bind", data, "--instance", f"i{number}")
        ours.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, str(source / "component.wasm")], check=True, cwd=HERE)
        peers.append((time.perf_counter() - began) * 1000)
    return Figure(min(ours), min(peers), "ms best", "compiled alone in a fresh Python process")


BENCHMARKS: dict[str, Callable[[Host, int], Figure]] = {
    "start": start,
    "memory": memory,
    "request": request,
    "file-read": file_read,
    "storage-get": storage_get,
    "install": install,
}


def main() -> None:
    """Run what was asked for and print a table, or JSON into a file."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as keys:
        key = Path(keys) / "key"
        subprocess.run(
            [sys.executable, "-m", "supervisor.cli", "keygen", "--out", str(key)],
            check=True,
            capture_output=True,
            cwd=HERE,
        )
        with temporary_host(key) as host:
            host.up()
            host.trust("bench/*")
            _install(host)
            for name in options.names or BENCHMARKS:
                print(f"{name} ...", file=sys.stderr, flush=True)
                results[name] = BENCHMARKS[name](host, options.rounds).as_json()
    width = max(map(len, results))
    for name, figure in results.items():
        peer = "-" if figure["peer"] is None else f"{figure['peer']:g}"
        ratio = "-" if figure["ratio"] is None else f"{figure['ratio']:g}x"
        print(f"{name:{width}}  {figure['ours']:>9g} {figure['unit']:12} {ratio:>8} of {peer} ({figure['peer_name']})")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
