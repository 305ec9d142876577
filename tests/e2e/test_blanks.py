"""Blanks and private zygotes: workers that wait caged for a component, and workers with a layout of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from live_host import GUESTS, Host, temporary_host, wait_until

pytestmark = pytest.mark.block4_security


@pytest.fixture(scope="module")
def pooled(key: Path) -> Iterator[Host]:
    """A host that keeps two blanks, with one package trusted and installed."""
    with temporary_host(key, "[workers]\npool = 2\n") as host:
        host.up()
        host.trust("test/*")
        host.install(_package(host))
        yield host


def _package(host: Host) -> Path:
    """The guest of the tests, asking for no directory."""
    return host.package(GUESTS / "probe", edit=lambda text: text.split("[capabilities]")[0])


def _status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _clones(host: Host) -> set[int]:
    """Every child of the supervisor that was cloned by a zygote: the first process of a pid namespace of its own."""
    found = set()
    for child in psutil.Process(host.processes()["supervisor"]).children():
        try:
            if len(_status(child.pid)["NSpid"].split()) == 2:
                found.add(child.pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _blanks(host: Host) -> set[int]:
    live = {component["pid"] for component in host.status()["components"]}
    return _clones(host) - live


def _waiting(host: Host, count: int) -> set[int]:
    """The blanks, once there are `count` and each waits under its first filter."""

    def ready() -> set[int]:
        found = _blanks(host)
        try:
            # Looked at each time: a new zygote has its own filter only when it is ready.
            zygote = int(_status(host.processes()["zygote"])["Seccomp_filters"])
            filters = {int(_status(pid)["Seccomp_filters"]) for pid in found}
        except (FileNotFoundError, ProcessLookupError):
            return set()
        return found if len(found) == count and filters == {zygote + 1} else set()

    return set(wait_until(f"{count} blanks", ready))


def test_a_blank_is_caged(pooled: Host) -> None:
    """It waits with every wall that needs no component: no capability, no new privileges, limits, uid of its own."""
    uids = []
    for pid in _waiting(pooled, 2):
        status = _status(pid)
        assert {"0000000000000000"} == {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        assert ("1", "2", "1") == (status["NoNewPrivs"], status["Seccomp"], status["Threads"])
        limits = Path(f"/proc/{pid}/limits").read_text()
        for name in ("Max core file size", "Max file size", "Max processes", "Max locked memory"):
            (line,) = (text for text in limits.splitlines() if text.startswith(name))
            assert ["0", "0"] == line[26:].split()[:2]
        if os.geteuid() == 0:
            assert {"3", "4"} == set(os.listdir(f"/proc/{pid}/fd"))
        uids.append(status["Uid"])
    if os.geteuid() == 0:
        assert 2 == len(set(uids))


def test_a_start_takes_a_blank(pooled: Host) -> None:
    """The new worker is a process that waited before; afterwards there are two blanks again."""
    before = _waiting(pooled, 2)
    pooled.cli("restart", "test/probe")
    assert pooled.component("test/probe/0")["pid"] in before
    after = _waiting(pooled, 2)
    assert 1 == len(after & before)


def test_a_killed_blank_is_replaced(pooled: Host) -> None:
    """Nothing is lost with it: another takes its place, and components go on."""
    before = _waiting(pooled, 2)
    running = pooled.component("test/probe/0")["pid"]
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_until("the victim's end", lambda: victim not in _clones(pooled))
    assert victim not in _waiting(pooled, 2)
    assert running == pooled.component("test/probe/0")["pid"]


def test_a_new_zygote_has_blanks_of_its_own(pooled: Host) -> None:
    """A zygote's blanks end with it; workers live on, and the next start takes a blank of the new zygote."""
    before = _waiting(pooled, 2)
    running = pooled.component("test/probe/0")["pid"]
    zygote = pooled.processes()["zygote"]
    os.kill(zygote, signal.SIGKILL)
    wait_until("another zygote", lambda: pooled.processes()["zygote"] not in (zygote, 0))
    after = wait_until("blanks of it", lambda: _waiting(pooled, 2) - before and _waiting(pooled, 2))
    assert not after & before
    assert running == pooled.component("test/probe/0")["pid"]
    pooled.cli("restart", "test/probe")
    assert pooled.component("test/probe/0")["pid"] in after


def _layout(pid: int) -> int:
    """Where the interpreter's library lies: the same in every clone of one zygote."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "_libwasmtime.so" in line:
            return int(line.split("-")[0], 16)
    raise AssertionError("no engine in this process")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: /proc/PID/maps of a worker is closed to its own user")
def test_exec_gives_a_layout_of_its_own(key: Path) -> None:
    """Workers of one zygote share its layout (the control); with spawn = "exec" no two are alike."""
    override = "[workers]\npool = 0\n"
    for name in "xy":
        override += f'[[workers.override]]\ncomponent = "test/probe/{name}"\nspawn = "exec"\n'
    with temporary_host(key, override) as host:
        host.up()
        host.trust("test/*")
        package = _package(host)
        for instance in ("0", "1", "x", "y"):
            host.install(package, "--instance", instance)
        pids = {component["id"]: component["pid"] for component in host.status()["components"]}
        layouts = {name: _layout(pid) for name, pid in pids.items()}
        assert layouts["test/probe/0"] == layouts["test/probe/1"] == _layout(host.processes()["zygote"])
        own = {layouts["test/probe/0"], layouts["test/probe/x"], layouts["test/probe/y"]}
        assert 3 == len(own)
        # Their zygotes ended with their one clone.
        supervisor = psutil.Process(host.processes()["supervisor"])
        names = wait_until("the private zygotes' end", lambda: _only_one_zygote(supervisor, set(pids.values())))
        assert names == [host.processes()["zygote"]]
        os.kill(pids["test/probe/x"], signal.SIGKILL)
        again = wait_until(
            "its restart",
            lambda: (
                (host.component("test/probe/x")["pid"] or 0) not in (0, pids["test/probe/x"])
                and host.component("test/probe/x")["pid"]
            ),
        )
        assert _layout(again) not in own


def _only_one_zygote(supervisor: psutil.Process, workers: set[int]) -> list[int]:
    found = [
        child.pid for child in supervisor.children() if child.name() == "airssys-zygote" and child.pid not in workers
    ]
    return found if len(found) == 1 else []
