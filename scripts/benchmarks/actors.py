"""Actors: a request's round trip, messages through the router, a thousand who idle, timeouts of ten thousand requests.

The peer of the first two is the least that ZeroMQ in Python can be: a `ROUTER` socket in an unconfined process, without
rights, mailboxes and cages. `examples/bench/post` posts, takes and keeps time.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from live_host import Host, wait_until

from benchmarks.bench import HERE, Bench, Figure, Figures, install, private, told, upload
from sandbox.kernel.clock import cpu_seconds

POST = HERE / "examples" / "bench" / "post"
TOPIC = HERE / "examples" / "bench" / "topic"
SUBSCRIBERS = 100
PUBLICATIONS = 100
ACTORS = 1000
PAIRS = 4
"""Senders, and receivers, of the routed messages."""
MESSAGES = 10_000
"""Of each sender."""
PENDING = 10_000
REQUESTERS = 10
IDLE_SECONDS = 10.0
_TURNS = 3

# All of these: no bound on what waits, so that nothing is dropped; the first word on standard output is "ready".
_SERVER = """
import sys, zmq
c = zmq.Context(); r = c.socket(zmq.ROUTER); r.bind(sys.argv[1])
print("ready", flush=True)
while True:
    r.send_multipart(r.recv_multipart())
"""
_ROUTER = """
import sys, zmq
c = zmq.Context(); r = c.socket(zmq.ROUTER); r.setsockopt(zmq.SNDHWM, 0); r.setsockopt(zmq.RCVHWM, 0)
r.bind(sys.argv[1])
print("ready", flush=True)
while True:
    who, to, body = r.recv_multipart()
    r.send_multipart([to, body])
"""
_ACKNOWLEDGING = """
import sys, zmq
c = zmq.Context(); r = c.socket(zmq.ROUTER); r.bind(sys.argv[1])
print("ready", flush=True)
while True:
    who, to, body = r.recv_multipart()
    r.send_multipart([to, body])
    r.send_multipart([who, b"ok"])
"""
_RECEIVER = """
import sys, time, zmq
c = zmq.Context(); d = c.socket(zmq.DEALER)
d.setsockopt(zmq.RCVHWM, 0); d.setsockopt(zmq.IDENTITY, sys.argv[2].encode())
d.connect(sys.argv[1])
d.send_multipart([sys.argv[2].encode(), b"hello"]); d.recv()
if len(sys.argv) > 4: d.recv()
print("ready", flush=True)
for _ in range(int(sys.argv[3])):
    d.recv()
print(time.time_ns(), flush=True)
sys.stdin.read()
"""
_SENDER = """
import sys, time, zmq
c = zmq.Context(); d = c.socket(zmq.DEALER); d.setsockopt(zmq.SNDHWM, 0); d.connect(sys.argv[1])
to, wait = [name.encode() for name in sys.argv[4:]], sys.argv[3] == "wait"
print("ready", flush=True)
sys.stdin.readline()
print(time.time_ns(), flush=True)
body = b"x" * 64
for i in range(int(sys.argv[2])):
    d.send_multipart([to[i % len(to)], body])
    if wait: d.recv()
sys.stdin.read()
"""


def actors(bench: Bench) -> Figures:
    """All of them."""
    return {**request(bench), **routed(bench), **fan_out(bench), **timeouts(bench), **idle(bench)}


# -- a request and its answer ---------------------------------------------------------------------------------------


def request(bench: Bench) -> Figures:
    """A guest asks another and has its callback, 16 bytes; against a DEALER and a ROUTER in two Python processes."""
    count = bench.rounds * 50
    ours, peers = [], []
    with bench.metered() as host:
        for _ in range(_TURNS):
            host.ask("bench/meter/0", f"ping {count}")
            wait_until("the pings", lambda: told(host, "bench/meter/0", "result")["count"] == count, seconds=120)
            if failed := told(host, "bench/meter/0", "result")["failed"]:
                raise SystemExit(f"{failed} of {count} requests failed")
            ours.append(told(host, "bench/meter/0", "spread")["p50"] / 1000)
            peers.append(_bare_round_trip(count))
    return {"actors": Figure(min(ours), min(peers), "us p50", "pyzmq DEALER - ROUTER, two Python processes")}


def _bare_round_trip(count: int) -> float:
    import zmq

    times = []
    with (
        tempfile.TemporaryDirectory() as place,
        _python(_SERVER, address := f"ipc://{place}/r"),
        zmq.Context() as context,
    ):
        with context.socket(zmq.DEALER) as dealer:
            dealer.connect(address)
            body = b"x" * 16
            for _ in range(count):
                began = time.perf_counter_ns()
                dealer.send(body)
                dealer.recv()
                times.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(times)


@contextlib.contextmanager
def _python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has said that it is ready; it is killed at the end."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "a peer did not start"
            yield process
        finally:
            process.kill()


# -- through the router ---------------------------------------------------------------------------------------------


def routed(bench: Bench) -> Figures:
    """Messages of 64 bytes a second from several guests to several others; against a bare ROUTER between as many."""
    ours, peers, answering = [], [], []
    with bench.host("[workers]\npool = 0\n") as host:
        plan = upload(host, POST)
        for number in range(2 * PAIRS):
            install(host, plan, str(number), binds=False)
        for _ in range(_TURNS):
            ours.append(_routed(host))
            peers.append(_bare_routed(acknowledged=False))
            answering.append(_bare_routed(acknowledged=True))
    name = f"pyzmq DEALER - ROUTER - DEALER, {PAIRS} senders, {PAIRS} receivers"
    return {
        "actors-routed": Figure(max(ours), max(peers), "messages/s", f"{name}; senders do not wait"),
        "actors-routed-told": Figure(
            max(ours), max(answering), "messages/s", f"{name}; senders wait for the router's word, as ours do"
        ),
    }


def _routed(host: Host) -> float:
    senders, receivers = range(PAIRS), range(PAIRS, 2 * PAIRS)
    for number in receivers:
        told(host, f"bench/post/{number}", "counted")
    with ThreadPoolExecutor(PAIRS) as pool:
        command = f"blast {MESSAGES} {PAIRS} {PAIRS}"
        sent = list(pool.map(lambda number: told(host, f"bench/post/{number}", command), senders))
    if refused := sum(answer["failed"] for answer in sent):
        raise SystemExit(f"{refused} messages were refused")
    got = [told(host, f"bench/post/{number}", "counted") for number in receivers]  # waits behind the last message
    total = sum(answer["count"] for answer in got)
    if total != PAIRS * MESSAGES:
        raise SystemExit(f"{total} of {PAIRS * MESSAGES} messages came")
    took = max(answer["last"] for answer in got) - min(answer["began"] for answer in sent)
    return total / took * 1e9


def _bare_routed(*, acknowledged: bool) -> float:
    names = [f"r{number}" for number in range(PAIRS)]
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        address = f"ipc://{place}/r"
        stack.enter_context(_python(_ACKNOWLEDGING if acknowledged else _ROUTER, address))
        how = ["wait"] if acknowledged else []
        receivers = [stack.enter_context(_python(_RECEIVER, address, name, str(MESSAGES), *how)) for name in names]
        how = how or ["go on"]
        senders = [stack.enter_context(_python(_SENDER, address, str(MESSAGES), *how, *names)) for _ in names]
        for sender in senders:
            assert sender.stdin is not None
            sender.stdin.write("go\n")
            sender.stdin.flush()
        began, ended = ([int(p.stdout.readline()) for p in some if p.stdout] for some in (senders, receivers))
    return PAIRS * MESSAGES / (max(ended) - min(began)) * 1e9


def fan_out(bench: Bench) -> Figures:
    """Publications that reach a hundred subscribers each: how many come a second, all of them together."""
    rates = []
    with bench.host("[workers]\npool = 0\n") as host:
        plan = upload(host, TOPIC)
        names = [f"bench/topic/{number}" for number in range(SUBSCRIBERS)]
        for number in range(SUBSCRIBERS):
            install(host, plan, str(number), binds=False)
        for _ in range(_TURNS):
            for name in names:
                told(host, name, "counted")
            sent = told(host, names[0], f"publish {PUBLICATIONS}")
            if sent["failed"] or sent["reached"] != PUBLICATIONS * SUBSCRIBERS:
                raise SystemExit(f"of {PUBLICATIONS} publications to {SUBSCRIBERS}: {sent}")
            got = [told(host, name, "counted") for name in names]  # waits behind the last publication
            if {answer["count"] for answer in got} != {PUBLICATIONS}:
                raise SystemExit(f"publications were lost: {[answer['count'] for answer in got]}")
            rates.append(PUBLICATIONS * SUBSCRIBERS / (max(answer["last"] for answer in got) - sent["began"]) * 1e9)
    return {
        "actors-fan-out": Figure(max(rates), None, "messages/s", f"publications handled by {SUBSCRIBERS} subscribers"),
    }


# -- timeouts -------------------------------------------------------------------------------------------------------


def timeouts(bench: Bench) -> Figures:
    """How late the failures of requests that time out reach the guests who asked, ten thousand of them pending.

    The clock starts before the request is made, so it includes the way to the router and the callback's way back. They
    run out one after the other over twenty seconds; the first when all have been made.
    """
    each = PENDING // REQUESTERS
    with bench.host("[workers]\npool = 0\n") as host:
        plan = upload(host, POST)
        for number in range(REQUESTERS + 1):
            install(host, plan, str(number), binds=False)
        with ThreadPoolExecutor(REQUESTERS + 1) as pool:
            holding = pool.submit(host.ask, f"bench/post/{REQUESTERS}", "hold 40000", seconds=60)
            wait_until("it sleeps", lambda: host.component(f"bench/post/{REQUESTERS}")["delivered"])
            command = f"open {each} {REQUESTERS} {{}} 20000"
            list(pool.map(lambda n: told(host, f"bench/post/{n}", command.format(8000 + 2 * n)), range(REQUESTERS)))
            pending = host.component(f"bench/post/{REQUESTERS}")["mailbox"]
            holding.result()
        late = [told(host, f"bench/post/{number}", "late") for number in range(REQUESTERS)]
    if pending != PENDING or sum(answer["count"] for answer in late) != PENDING:
        raise SystemExit(f"{pending} were pending; {[answer['count'] for answer in late]} failures came")
    return {
        "actors-timeout": Figure(max(a["p99"] for a in late) / 1e6, None, "ms p99", "late; bound: 5 ms"),
        "actors-timeout-p50": Figure(statistics.median(a["p50"] for a in late) / 1e6, None, "ms p50", "late"),
        "actors-timeout-max": Figure(max(a["max"] for a in late) / 1e6, None, "ms", "late, the latest of all"),
        "actors-timeout-early": Figure(
            max(a["early"] for a in late) / 1e6, None, "ms", "before its time, the earliest"
        ),
    }


# -- a thousand -----------------------------------------------------------------------------------------------------


def idle(bench: Bench) -> Figures:
    """A thousand workers that have nothing to do: what each costs the router, and what CPU all of them cost."""
    with bench.host("[workers]\npool = 0\n") as host:
        plan = upload(host, POST)
        for number in range(10):
            install(host, plan, str(number), binds=False)
        before = _private(host, "router")
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda number: install(host, plan, str(number), binds=False), range(10, ACTORS + 10)))
        print(f"  {ACTORS} after {time.perf_counter() - began:.1f} s", file=sys.stderr)
        memory = (_private(host, "router") - before) / ACTORS
        pids = {c["id"]: c["pid"] for c in host.status()["components"] if c["state"] == "running"}
        if len(pids) != ACTORS + 10:
            raise SystemExit(f"{len(pids)} of {ACTORS + 10} run")
        services = host.processes()
        used = {name: _cpu(pid) for name, pid in services.items()}
        workers = sum(_cpu(pid) for pid in pids.values())
        time.sleep(IDLE_SECONDS)
        used = {name: (_cpu(pid) - used[name]) / IDLE_SECONDS * 1000 for name, pid in services.items()}
        workers = (sum(_cpu(pid) for pid in pids.values()) - workers) / IDLE_SECONDS * 1000
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in used.items()), file=sys.stderr)
    return {
        "actors-memory": Figure(memory, None, "KiB private", f"of the router, for each of {ACTORS}; bound: 8 KiB"),
        "actors-idle": Figure(used["router"] + used["control"], None, "ms CPU a second", "router and control"),
        "actors-idle-all": Figure(sum(used.values()) + workers, None, "ms CPU a second", "all processes of the host"),
    }


def _private(host: Host, name: str) -> int:
    return private(host.processes()[name])


def _cpu(pid: int) -> float:
    """CPU time of a process, seconds, by its clock (clock_getcpuclockid(3)): the ticks of /proc miss short turns or
    take them for whole ones."""
    used = cpu_seconds(pid)
    if used is None:
        raise SystemExit(f"process {pid} is gone")
    return used
