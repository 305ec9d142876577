"""A tree whose workers, and whose own process, die at random moments: nobody is left over, nobody runs twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import probes
import pytest
import traffic
from live_host import Host, wait_until

from sandbox.errors import AirssysError

pytestmark = pytest.mark.block3_actors

TREE = """
[workers]
pool = 0
[[supervisor]]
name = "shop"
strategy = "rest-for-one"
children = ["test/db", "every", "test/web"]
max-restarts = 1000
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "every"
strategy = "one-for-all"
children = ["test/a", "test/b"]
max-restarts = 1000
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "outer"
children = ["inner"]
max-restarts = 2
backoff = ["10ms", "50ms"]
[[supervisor]]
name = "inner"
strategy = "one-for-all"
children = ["test/bad", "test/good"]
max-restarts = 2
backoff = ["10ms", "50ms"]
"""
NAMES = ("db", "a", "b", "web", "lone")


def _add(host: Host, *names: str) -> None:
    for name in names:
        probes.add(host, name)


def _descendants(pid: int) -> set[int]:
    """All processes below this one (proc(5): children)."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue  # it has just ended
        for child in map(int, children):
            found |= {child} | (_descendants(child) if Path(f"/proc/{child}").exists() else set())
    return found


def _workers(host: Host) -> set[int]:
    """The worker processes there are, whether anybody knows of them or not."""
    services = host.processes()
    return _descendants(services["supervisor"]) - set(services.values())


def _settled(host: Host) -> dict[str, int] | None:
    """Each component's process when all of them run and there are no others."""
    try:
        status = host.status()
        pids = {c["id"]: c["pid"] for c in status["components"] if c["state"] == "running"}
        if len(pids) != len(status["components"]) or not all(p["ready"] for p in status["host"]["processes"]):
            return None
        return pids if _workers(host) == set(pids.values()) else None
    except (AirssysError, OSError):
        return None


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_control_dies_while_its_tree_restarts(configured: Callable[[str], Host], rounds: int) -> None:
    """Whenever control dies, its tree is whole again afterwards: each component has one process and no more.

    Positive control: while nothing dies, the processes that are found are those of the status.
    """
    host = configured(TREE)
    host.up()
    host.trust("test/*")
    _add(host, *NAMES)
    chance = random.Random(7)
    before = wait_until("a whole tree", lambda: _settled(host))
    for _ in range(rounds):
        services = host.processes()
        for name in chance.sample(NAMES, chance.randint(1, 3)):
            traffic.kill(host, f"test/{name}/0", before[f"test/{name}/0"])
        time.sleep(chance.uniform(0, 0.08))  # any moment will do
        os.kill(services["control"], signal.SIGKILL)
        wait_until("a new control", lambda old=services["control"]: _control(host) not in (None, old))
        before = wait_until("a whole tree", lambda: _settled(host))
        for name in NAMES:
            assert "here" == host.ask(f"test/{name}", "echo here")
    assert services["supervisor"] == host.processes()["supervisor"]


def _control(host: Host) -> int | None:
    try:
        return host.processes()["control"]
    except AirssysError:
        return None


def test_a_storm_climbs_and_ends(configured: Callable[[str], Host]) -> None:
    """A child that cannot start is tried as often as the supervisors above it allow, together with its sibling.

    The rest of the host keeps its workers and answers meanwhile.
    """
    host = configured(TREE)
    host.up()
    host.trust("test/*")
    _add(host, "bad", "good", "lone")
    host.ask("test/bad", "set on-initialize trap")
    lone = host.component("test/lone/0")["pid"]
    traffic.kill(host, "test/bad/0", host.component("test/bad/0")["pid"])
    answers = traffic.ask_all(host, "test/lone", range(50), text="echo {}")
    for name in ("bad", "good"):
        wait_until("it is given up", lambda name=name: host.component(f"test/{name}/0")["state"] == "quarantined")
        started = [r for r in host.audit(f"test/{name}/0") if r["event"] == "worker.started"]
        # The first life, and what two supervisors with two restarts each come to.
        assert 1 + 3 * 3 >= len(started), name
    assert 50 == answers.count("ok")
    assert lone == host.component("test/lone/0")["pid"]
    wait_until("nobody else", lambda: _workers(host) == {lone})
