"""The supervisor is killed while it starts its processes: nothing outlives it, and the root can be used again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_host import CHECKOUT, Host, wait_until

pytestmark = pytest.mark.block3_actors


def _of_host(host: Host, supervisor: int) -> list[int]:
    """Every process that is the supervisor's, or was, by its session or by a path of this root."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            files = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
        except OSError:
            continue
        if fields[0] not in ("Z", "X") and any(f"{host.root}/" in file for file in files):
            found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()] + [supervisor] * Path(f"/proc/{supervisor}/task").exists()


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.05])
def test_nothing_outlives_it(fresh: Host, delay: float) -> None:
    """At whatever moment of the start: all are dead within a second, and the next start succeeds."""
    command = [sys.executable, "-m", "supervisor.cli", "up"]
    with subprocess.Popen(
        command, env=fresh.environment, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as up:
        wait_until("the first child", lambda: "auditor started" in fresh.log())
        time.sleep(delay)  # the moment is what is tested
        up.send_signal(signal.SIGKILL)
        began = time.monotonic()
        up.wait()
        wait_until("the death of all", lambda: not _of_host(fresh, up.pid), seconds=10)
        assert 1.0 > time.monotonic() - began
    fresh.up()
    assert "ready" == fresh.status()["host"]["state"]
