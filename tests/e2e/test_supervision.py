"""Supervision on a real host: strategies, escalation, quarantine and release, orders, replicas, shutdown, health."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import probes
import pytest
from live_host import Host, temporary_host, wait_until

pytestmark = pytest.mark.block3_actors

TREE = """
[[supervisor]]
name = "every"
strategy = "one-for-all"
children = ["test/a1", "test/a2", "test/a3"]
max-restarts = 100
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "rest"
strategy = "rest-for-one"
children = ["test/r1", "test/r2", "test/r3"]
max-restarts = 100
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "outer"
strategy = "rest-for-one"
children = ["test/o1", "inner"]
max-restarts = 1
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "inner"
children = ["test/i1", "test/i2"]
max-restarts = 1
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "pool"
strategy = "simple-one-for-one"
template = "test/worker"
replicas = {replicas}
max-restarts = 100
"""
NO_FILES = {"filesystem": "[]"}


@pytest.fixture(scope="module")
def grove(able: None, key: Path) -> Iterator[Host]:
    """A running host with a tree, for the tests that leave it running."""
    with temporary_host(key, TREE.format(replicas=3)) as host:
        host.up()
        host.trust("test/*")
        yield host


def add(host: Host, *names: str, **values: str) -> None:
    for name in names:
        package = probes.pack(host, name, {**NO_FILES, **{k.replace("_", "-"): v for k, v in values.items()}})
        status = probes.install(host, package)
        assert "running" == status["state"], status


def pids(host: Host, *names: str) -> list[int | None]:
    return [host.component(f"test/{name}")["pid"] for name in names]


def running(host: Host, *names: str) -> list[dict[str, Any]]:
    def all_running() -> list[dict[str, Any]] | None:
        found = [host.component(f"test/{name}") for name in names]
        return found if all(each["state"] == "running" for each in found) else None

    return list(wait_until(f"{names} run", all_running))


def kill(host: Host, name: str) -> None:
    os.kill(host.component(f"test/{name}")["pid"], signal.SIGKILL)


def post(host: Host, path: str) -> dict[str, Any]:
    with host.api() as client:
        return dict(client.post(path, timeout=60.0))


def starts(host: Host) -> list[str]:
    """Components in the order in which their workers became ready."""
    return [r["component"].split("/")[1] for r in host.audit() if r["event"] == "worker.ready"]


def supervisor(host: Host, name: str) -> dict[str, Any]:
    return next(dict(s) for s in host.status()["supervisors"] if s["name"] == name)


@pytest.mark.parametrize(
    ("names", "victim", "replaced"),
    [(("a1/0", "a2/0", "a3/0"), "a2/0", (0, 1, 2)), (("r1/0", "r2/0", "r3/0"), "r2/0", (1, 2))],
    ids=["one-for-all", "rest-for-one"],
)
def test_strategies(grove: Host, names: tuple[str, ...], victim: str, replaced: tuple[int, ...]) -> None:
    """A killed worker takes down and brings back those its supervisor's strategy names; their mailboxes stay."""
    add(grove, *(name.split("/")[0] for name in names))
    before = pids(grove, *names)
    kill(grove, victim)
    wait_until("new workers", lambda: all(pids(grove, names[i])[0] not in (before[i], None) for i in replaced))
    running(grove, *names)
    after = pids(grove, *names)
    assert [index in replaced for index in range(3)] == [old != new for old, new in zip(before, after, strict=True)]
    for index in replaced:
        name = names[index]
        assert "on" == grove.ask(f"test/{name}", "echo on")
        assert 1 == grove.component(f"test/{name}")["restarts"]
        if name != victim:
            assert "exited" == grove.component(f"test/{name}")["outcome"], "a sibling is stopped, not killed"
            assert "1" == grove.ask(f"test/{name}", "get shutdown-ran")
    order = starts(grove)[-len(replaced) :]
    assert [names[index].split("/")[0] for index in replaced] == order


def test_escalation_quarantine_release(grove: Host) -> None:
    """Crashes climb from the inner supervisor to the outer and end in quarantine with the cause; release starts it."""
    add(grove, "o1", "i1", "i2")
    every = ("o1/0", "i1/0", "i2/0")
    first = pids(grove, *every)
    grove.fail("test/i1", "trap")
    wait_until("inner's restart", lambda: grove.component("test/i1/0")["restarts"] == 1)
    running(grove, *every)
    assert first[0::2] == pids(grove, "o1/0", "i2/0")
    grove.fail("test/i1", "trap")
    wait_until("outer's restart", lambda: pids(grove, "i2/0")[0] not in (first[2], None))
    running(grove, *every)
    assert first[:1] == pids(grove, "o1/0"), "rest-for-one leaves alone what comes before"
    assert 1 == supervisor(grove, "inner")["gave-up"]
    grove.fail("test/i1", "trap")
    wait_until("one more", lambda: grove.component("test/i1/0")["restarts"] == 3)
    running(grove, *every)
    grove.fail("test/i1", "trap")
    wait_until("quarantine", lambda: {grove.component(f"test/{n}")["state"] for n in every} == {"quarantined"})
    assert [None] * 3 == pids(grove, *every)
    for name in every:
        cause = grove.component(f"test/{name}")["quarantine"]
        assert cause.startswith("supervisor outer gave up: test/i1/0 ended: trap")
    assert "quarantined" == supervisor(grove, "outer")["state"]
    shown = grove.cli("status").stdout.decode() + grove.cli("status").stderr.decode()
    assert "  inner (one-for-one)" in shown
    assert "    test/i1/0" in shown
    assert "quarantined: test/i2/0: supervisor outer gave up" in shown
    events = [r["event"] for r in grove.audit()]
    assert {"supervisor.gave-up", "supervisor.quarantined"} <= set(events)
    done = grove.cli("release", "outer", "--output", "json")
    assert "running" == json.loads(done.stdout)["state"]
    assert ["o1", "i1", "i2"] == starts(grove)[-3:]
    assert "back" == grove.ask("test/i1", "echo back")
    assert 0 != grove.cli("release", "outer", check=False).returncode
    assert 0 != grove.cli("release", "test/i1", check=False).returncode


def test_replicas(grove: Host) -> None:
    """Instance 0 brings the others, each a process with a mailbox of its own; each is restarted alone."""
    add(grove, "worker")
    names = ("worker/0", "worker/1", "worker/2")
    running(grove, *names)
    before = pids(grove, *names)
    assert 3 == len(set(before))
    for index, name in enumerate(names):
        grove.ask(f"test/{name}", f"set me {index}")
    assert ["0", "1", "2"] == [grove.ask(f"test/{name}", "get me") for name in names]
    kill(grove, "worker/1")
    wait_until("a new one", lambda: pids(grove, "worker/1")[0] not in (before[1], None))
    running(grove, *names)
    assert [before[0], before[2]] == pids(grove, "worker/0", "worker/2")


def test_control_killed(grove: Host) -> None:
    """Control comes back to its tree: nothing is started twice, and the strategies hold."""
    add(grove, "k1")  # in no supervisor
    names = [c["id"].removeprefix("test/") for c in grove.status()["components"] if c["state"] == "running"]
    before = pids(grove, *names)
    os.kill(grove.processes()["control"], signal.SIGKILL)

    def back() -> bool:
        try:
            return pids(grove, *names) == before
        except Exception:  # whatever a client meets while control is away
            return False

    wait_until("control is back", back)
    running(grove, *names)
    time.sleep(0.3)  # what would be started twice would be by now
    assert before == pids(grove, *names)
    group = [name for name in names if name.startswith("a")]
    if group:  # the tests of a module may be spread over several processes
        kill(grove, group[0])
        wait_until("all of its group", lambda: not set(pids(grove, *group)) & set(before))
        running(grove, *group)


@pytest.mark.parametrize(
    ("shutdown", "least", "most", "ran"),
    [("immediate", 0.0, 1.5, "-"), ("300ms", 0.3, 2.0, "1"), ("graceful", 0.9, 6.0, "1")],
)
def test_shutdown_kinds(grove: Host, shutdown: str, least: float, most: float, ran: str) -> None:
    """A guest that hangs in shutdown is not asked, or gets its own time, or its deadline; then it is killed."""
    name = f"down-{shutdown}"
    add(grove, name, deadline='"1s"', health_interval=f'"30s"\nshutdown = "{shutdown}"')
    grove.ask(f"test/{name}", "set on-shutdown sleep")
    began = time.monotonic()
    stopped = post(grove, f"/v1/components/test/{name}/0/stop")
    took = time.monotonic() - began
    assert ("stopped", None) == (stopped["state"], stopped["pid"])
    assert least <= took <= most
    assert "running" == post(grove, f"/v1/components/test/{name}/0/start")["state"]
    assert ran == grove.ask(f"test/{name}", "get shutdown-ran")
    grove.ask(f"test/{name}", "del on-shutdown")


def test_health_threshold_and_readiness(grove: Host) -> None:
    """unhealthy takes readiness at the first answer and the worker at the last of a row; degraded takes neither."""
    add(grove, "sick", max_restarts="100", health_interval='"300ms"\nhealth-threshold = 4')
    (worker,) = pids(grove, "sick/0")
    grove.ask("test/sick", "set on-health unhealthy")
    unready = wait_until("unready", lambda: (c := grove.component("test/sick/0"))["health"] == "unhealthy" and c)
    assert (worker, False, "running") == (unready["pid"], unready["ready"], unready["state"])
    grove.ask("test/sick", "set on-health degraded")
    shown = wait_until("degraded", lambda: (c := grove.component("test/sick/0"))["health"] == "degraded" and c)
    assert (worker, True) == (shown["pid"], shown["ready"])
    grove.ask("test/sick", "set on-health unhealthy")
    wait_until("a new worker", lambda: pids(grove, "sick/0")[0] not in (worker, None))
    ended = grove.component("test/sick/0")
    assert ("killed", "it called itself unhealthy 4 times in a row") == (ended["outcome"], ended["detail"])
    grove.ask("test/sick", "del on-health")


def test_health_that_hangs(grove: Host) -> None:
    """A health check that does not return within its timeout ends the worker, long before its deadline."""
    add(grove, "hung", max_restarts="100", deadline='"60s"', health_interval='"200ms"\nhealth-timeout = "300ms"')
    (worker,) = pids(grove, "hung/0")
    grove.ask("test/hung", "set on-health sleep")
    wait_until("its end", lambda: pids(grove, "hung/0")[0] != worker, seconds=10)
    ended = wait_until("its outcome", lambda: (c := grove.component("test/hung/0"))["outcome"] and c)
    assert ("deadline", "health not told within 300 ms") == (ended["outcome"], ended["detail"])
    post(grove, "/v1/components/test/hung/0/stop")


def test_a_hang_in_initialize(grove: Host) -> None:
    """A guest that hangs in initialize is ended when a start may last no longer, given up, and holds nobody up."""
    add(grove, "stuck", "beside", max_restarts="0")
    grove.ask("test/stuck", "set on-initialize sleep")
    began = time.monotonic()
    kill(grove, "stuck/0")
    wait_until("no second start", lambda: grove.component("test/stuck/0")["state"] == "quarantined")
    assert "running" == post(grove, "/v1/components/test/beside/0/restart")["state"]
    with grove.api() as client:
        status = client.post("/v1/components/test/stuck/0/release", timeout=60.0)
    assert ("quarantined", "deadline") == (status["state"], status["outcome"])
    assert 10 <= time.monotonic() - began < 30


def test_up_and_down(fresh: Host) -> None:
    """up starts in declared order, past a child that is given up; down stops in reverse; fewer replicas stay away."""
    config = fresh.root / "etc" / "airssys.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(TREE.format(replicas=3))
    fresh.up()
    fresh.trust("test/*")
    # Installed in another order than declared.
    add(fresh, "i2", "free", "a3", "i1", "a1", "o1", "a2", "worker")
    running(fresh, "worker/2")
    fresh.ask("test/a2", "set on-initialize trap")
    fresh.down()
    records = [json.loads(line) for line in (fresh.root / "lib" / "audit" / "audit.jsonl").read_text().splitlines()]
    ended = [r["component"].removeprefix("test/") for r in records if r["event"] == "worker.ended"]
    declared = ["i2/0", "i1/0", "o1/0", "a3/0", "a2/0", "a1/0"]
    assert declared == [name for name in ended if name in declared]
    assert "free/0" == ended[-len(declared) - 4], "what stands in no supervisor started last and stops first"
    before = len(starts_in(records))
    config.write_text(TREE.replace("max-restarts = 100", "max-restarts = 1").format(replicas=2))
    fresh.up()
    running(fresh, "o1/0", "i1/0", "i2/0", "worker/0", "worker/1", "free/0")
    wait_until("quarantine", lambda: fresh.component("test/a3/0")["state"] == "quarantined")
    assert "test/worker/2" not in {c["id"] for c in fresh.status()["components"]}
    records = [json.loads(line) for line in (fresh.root / "lib" / "audit" / "audit.jsonl").read_text().splitlines()]
    order = starts_in(records)[before:]
    assert ["a1", "a1", "o1", "i1", "i2", "worker", "worker", "free"] == order, "a1 again with its group; a3 never"
    cause = fresh.component("test/a1/0")["quarantine"]
    assert "test/a2/0 ended: trap" in cause


def starts_in(records: list[dict[str, Any]]) -> list[str]:
    return [r["component"].split("/")[1] for r in records if r["event"] == "worker.ready"]
