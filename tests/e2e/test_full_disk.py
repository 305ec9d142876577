"""The disk under the host's own files is full: nothing is done unrecorded, it is told, and with room all goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import private_mounts
import probes
import pytest
from live_host import Host, temporary_host, wait_until

from supervisor.cli.errors import RefusedError

pytestmark = [
    pytest.mark.block9_monitoring,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk for the test needs root"),
]


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A disk of 48 MiB that goes away with this test's processes at the latest."""
    with private_mounts.namespace(), private_mounts.small_disk("48m") as disk:
        yield disk


@pytest.fixture
def full(disk: Path, able: None, key: Path) -> Iterator[Host]:
    """A host on the small disk with test/one, and a package of test/two; nothing is full yet."""
    with temporary_host(key, within=disk) as host:
        host.up()
        host.trust("test/*")
        probes.add(host, "one", {"deadline": '"1s"'})
        probes.pack(host, "two", {"filesystem": "[]"})
        try:
            yield host
        finally:
            (disk / "filler").unlink(missing_ok=True)


def _failing(host: Host) -> str:
    return str(host.status()["host"]["walls-lost"].get("audit", ""))


def _unanswered(host: Host, seconds: float = 0.5) -> str:
    """Ask until an answer fails to come, and how: the last page of the log has room for a few records."""
    for _ in range(30):
        try:
            host.ask("test/one", "get before", seconds=seconds)
        except RefusedError as error:
            return error.code
    pytest.fail("everything was answered on a full disk")


def _registry(host: Host) -> tuple[list[str], list[str]]:
    packages = sorted(os.listdir(host.root / "lib" / "control" / "packages"))
    return packages, [component["id"] for component in host.status()["components"]]


def test_full_disk(full: Host, disk: Path) -> None:
    """Nothing is answered unrecorded, status says why, an install fails by name and changes nothing; room mends it."""
    log = full.root / "lib" / "audit" / "audit.jsonl"
    assert "ok" == full.ask("test/one", "set before 1")
    before = _registry(full)
    filler = private_mounts.fill(disk)
    assert "E_TIMEOUT" == _unanswered(full)
    written = log.read_bytes()
    wait_until("the status to tell", lambda: _failing(full).startswith("failing"))
    assert "ENOSPC" in _failing(full)
    assert b"ENOSPC" in full.cli("status").stdout
    done = full.cli("install", str(full.out / "two"), "--yes", check=False)
    assert 1 == done.returncode
    assert b"E_AUDIT" in done.stderr or b"E_NO_SPACE" in done.stderr, done.stderr
    assert before == _registry(full)
    assert written == log.read_bytes()

    filler.unlink()
    wait_until("the log to go on", lambda: not _failing(full))
    wait_until("an answer", lambda: full.component("test/one/0")["state"] == "running")
    assert "1" == full.ask("test/one", "get before")
    assert "storage.get" in [r["event"] for r in full.audit("test/one/0")]
    assert "running" == probes.install(full, full.out / "two")["state"]
    full.cli("audit", "verify")


def test_death_on_a_full_disk(full: Host, disk: Path) -> None:
    """A worker that dies meanwhile is started again when there is room; the host itself lives through it all."""
    processes, old = full.processes(), full.component("test/one/0")["pid"]
    filler = private_mounts.fill(disk)
    os.kill(old, signal.SIGKILL)
    wait_until("its end to be known", lambda: full.component("test/one/0")["pid"] != old)
    assert "ready" == full.status()["host"]["state"]
    filler.unlink()
    wait_until("a new worker", lambda: full.component("test/one/0")["state"] == "running")
    assert "back" == full.ask("test/one", "echo back")
    assert processes == full.processes()
    full.cli("audit", "verify")


def test_stored_values_on_a_full_disk(full: Host, disk: Path) -> None:
    """What was stored stays as it was, and nothing is half stored."""
    assert "ok" == full.ask("test/one", "set kept old")
    filler = private_mounts.fill(disk)
    _unanswered(full)  # from now on every answer waits, an error's too
    full.fail("test/one", "set kept " + "new" * 10_000, seconds=0.5)
    filler.unlink()
    wait_until("the log to go on", lambda: not _failing(full))
    wait_until("a worker", lambda: full.component("test/one/0")["state"] == "running")
    assert full.ask("test/one", "get kept") in ("old", "new" * 10_000)
    assert "ok" == full.ask("test/one", "set kept newer")
    assert "newer" == full.ask("test/one", "get kept")


def test_stopping_on_a_full_disk(full: Host, disk: Path) -> None:
    """The host can be stopped with a full disk, and started again with room; its log is whole."""
    pids = full.processes()
    filler = private_mounts.fill(disk)
    _unanswered(full)
    full.cli("down")
    wait_until("the end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()))
    filler.unlink()
    full.up()
    wait_until("the component", lambda: full.component("test/one/0")["state"] == "running")
    assert "on" == full.ask("test/one", "echo on")
    full.cli("audit", "verify")
