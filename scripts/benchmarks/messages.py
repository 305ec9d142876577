"""Round trips of messages, files and stored values; installing. Each against the bare mechanism beneath it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from live_host import Host, wait_until

from benchmarks.bench import HERE, METER, Bench, Figure, Figures, data, install, told, upload

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
_COMPILE = (
    "import sys; from wasmtime import component as c; from sandbox.engine import make_engine as m\n"
    "c.Component(m(), open(sys.argv[1], 'rb').read()).serialize()"
)


def request(bench: Bench) -> Figures:
    """Component to component and back, 16 bytes, against a bare pyzmq ROUTER between two Python processes."""
    count = bench.rounds * 20
    ours = []
    with bench.metered() as host:
        for _ in range(3):
            host.ask("bench/meter/0", f"ping {count}")
            result = wait_until("the pings", lambda: _timed(host, "result", count), seconds=120)
            ours.append(result["nanos"] / count / 1000)
    name = "bare pyzmq DEALER - ROUTER - DEALER, no cage, no guest"
    return {"request": Figure(min(ours), _bare_router(count), "us mean", name)}


def _timed(host: Host, command: str, count: int) -> dict[str, Any] | None:
    answer = told(host, "bench/meter/0", command)
    if answer["failed"]:
        raise SystemExit(f"the meter failed {answer['failed']} times")
    return answer if answer["count"] == count else None


def _best(host: Host, command: str, count: int) -> float:
    """Microseconds of one of `count`, in the best of three runs."""
    results = [_timed(host, f"{command} {count}", count) for _ in range(3)]
    return min(float(result["nanos"]) for result in results if result is not None) / count / 1000


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


def file_read(bench: Bench) -> Figures:
    """A guest reads a 4 KiB file: checked, opened beneath the grant, recorded; against open/read/close in Python."""
    count = bench.rounds * 10
    with bench.metered() as host:
        ours = _best(host, "read", count)
        path = data(host) / "4k"
        began = time.perf_counter()
        for _ in range(count):
            with open(path, "rb") as file:
                file.read()
        peer = (time.perf_counter() - began) / count * 1e6
    return {"file-read": Figure(ours, peer, "us mean", "open, read, close in Python")}


def storage_get(bench: Bench) -> Figures:
    """A guest reads a stored value: bridge, LMDB, recorded; against a bare SEQPACKET round trip of two processes."""
    count = bench.rounds * 10
    with bench.metered() as host:
        ours = _best(host, "get", count)
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
    return {"storage-get": Figure(ours, peer, "us mean", "SEQPACKET echo between two Python processes")}


def install_new(bench: Bench) -> Figures:
    """Verify, compile in a cage and start, against the same component compiled in a fresh Python process."""
    ours, peers = [], []
    with bench.host() as host:
        for number in range(3):
            # A component that differs by one custom section is compiled anew.
            suffix = bytes([0, 4, 1, 0x78, number, os.getpid() & 0xFF])

            def other(text: str, number: int = number) -> str:
                return text.replace("release = 1", f"release = {number + 1}")

            began = time.perf_counter()
            install(host, upload(host, METER, other, suffix), f"i{number}")
            ours.append((time.perf_counter() - began) * 1000)
            body = host.out / f"changed-{number}.wasm"
            body.write_bytes((METER / "component.wasm").read_bytes() + suffix)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", _COMPILE, str(body)], check=True, cwd=HERE)
            peers.append((time.perf_counter() - began) * 1000)
    return {"install": Figure(min(ours), min(peers), "ms best", "compiled alone in a fresh Python process")}
