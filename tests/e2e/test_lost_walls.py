"""A host on a machine that lacks a wall: refused by name, or run by consent with the loss named everywhere.

The machine is this one; what it lacks is taken away in front of the unmodified program (`lesser_kernel`). The positive
control of each loss is the same start on the machine as it is: `test_profiles`, and every other test of a host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live_host import CHECKOUT, Host
from private_mounts import namespace
from probes import add, install, pack

from sandbox.kernel import libc
from sandbox.walls import NEED_ROOT

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0
OWN_LOSSES = set() if ROOT else set(NEED_ROOT)
"""What an ordinary user's host runs without on any machine."""


def _on_lesser(host: Host, walls: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`airssys ...` on a kernel without these walls."""
    lesser = [sys.executable, "-m", "supervisor.selftest.lesser_kernel", *walls, "--"]
    return subprocess.run(
        [*lesser, sys.executable, "-m", "supervisor.cli", *arguments],
        env={**host.environment, "PYTHONPATH": str(CHECKOUT)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _degraded(*accepted: str) -> str:
    return f'[workers]\nprofile = "degraded"\naccept-lost = {json.dumps(accepted)}\n'


@pytest.mark.parametrize("configuration", ["", _degraded("landlock", "mseal")], ids=["paranoid", "degraded"])
def test_missing_walls_are_refused_by_name(configured: Callable[[str], Host], configuration: str) -> None:
    """`up` ends with E_KERNEL naming each wall that is missing and not agreed to, and leaves nothing behind.

    Each wall alone, for each profile: `test_consent.py`.
    """
    host = configured(configuration)
    before = sorted(host.root.rglob("*"))
    done = _on_lesser(host, ["landlock", "mdwe"], "up", "--detach")
    assert 0 != done.returncode
    assert done.stderr.startswith("error: landlock: " if not configuration else "error: mdwe: ")
    assert "(E_KERNEL)" in done.stderr
    assert ("; mdwe: " in done.stderr) == (not configuration)
    assert "airssys doctor" in done.stderr
    assert before == sorted(host.root.rglob("*"))


def test_a_degraded_host_names_its_losses_everywhere(configured: Callable[[str], Host]) -> None:
    """Without Landlock, MDWE and mseal a consenting host works; start, log, status, doctor and each record say so."""
    losses = ["landlock", "mdwe", "mseal", *(["grant mounts"] if ROOT else [])]
    host = configured(_degraded(*losses))
    up = _on_lesser(host, losses, "up", "--detach")
    assert 0 == up.returncode, (up.stderr, host.log())
    status = host.status()["host"]
    assert "degraded" == status["profile"]
    assert {*losses, *OWN_LOSSES} == set(status["walls-lost"])
    host.trust("test/*")
    data = host.out / "data"
    data.mkdir()
    (data / "there.txt").write_text("hello")
    data.chmod(0o755)
    install(host, pack(host, "probe"), {"/data": data, "/ro": data})
    assert "hello" == host.ask("test/probe", "echo hello")
    assert "hello" in host.ask("test/probe", "read /data/there.txt")
    shown = host.cli("status").stdout.decode()
    for wall in losses:
        assert f"wall lost: {wall}: " in up.stdout
        assert f"wall lost: {wall}: " in host.log()
        assert f"wall lost: {wall}: " in shown
    records = host.audit()
    assert records
    assert all(sorted({*losses, *OWN_LOSSES}) == record["lost"] for record in records)
    assert "without " in host.cli("audit", "tail").stdout.decode()
    assert "lines are whole" in host.cli("audit", "verify").stdout.decode()
    # The walls that are left are all there.
    pid = host.component("test/probe/0")["pid"]
    state = _state(pid)
    assert ("2", "1", "0" * 16) == (state["Seccomp"], state["NoNewPrivs"], state["CapBnd"])
    doctor = json.loads(_on_lesser(host, losses, "doctor", "--output", "json").stdout)
    assert set(losses) <= {wall["name"] for wall in doctor["kernel"] if wall["state"] == "lost"}
    assert all(doctor["running"][wall] != "on" for wall in losses)
    assert [] == doctor["missing"]


@pytest.mark.skipif(not ROOT, reason="an ordinary user has no control group to lose")
def test_without_control_groups(configured: Callable[[str], Host]) -> None:
    """As root, where no controller can be written, the host refuses by name; by either consent it runs and says so."""
    consents = [_degraded("cgroup"), '[workers]\ncgroups = "off"\n']
    refusing, *hosts = (configured(text) for text in ("", *consents))
    with namespace():
        libc.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, "size=64k")
        done = refusing.cli("up", "--detach", check=False)
        assert done.stderr.decode().startswith("error: cgroup: ")
        assert 'accept-lost = ["cgroup"]' in done.stderr.decode()
        for host in hosts:
            host.up()
            assert {"cgroup"} == set(host.status()["host"]["walls-lost"])
            assert all(["cgroup"] == record["lost"] for record in host.audit())
    host = hosts[0]
    host.trust("test/*")
    add(host, "probe")
    assert "hello" == host.ask("test/probe", "echo hello")


def test_a_wall_that_stands_is_not_lost(configured: Callable[[str], Host]) -> None:
    """Consent takes nothing down: where every wall stands, a `degraded` host loses none and records none."""
    host = configured(_degraded("landlock", "mdwe", "mseal"))
    host.up()
    assert OWN_LOSSES == set(host.status()["host"]["walls-lost"])
    assert all(sorted(OWN_LOSSES) == record.get("lost", []) for record in host.audit())


def test_doctor_measures_the_processes(configured: Callable[[str], Host]) -> None:
    """`doctor` beside a host shows each process as the kernel has it: none but the supervisor has a capability outside.

    The words of the host itself are the walls and who holds which limit.
    """
    host = configured(
        '[workers]\nspawn = "exec"\npool = 0\noverride = [ { component = "acme/*", spawn = "zygote" } ]\n'
    )
    host.up()
    found = json.loads(host.cli("doctor", "--output", "json").stdout)
    assert ("paranoid", "exec", 0) == tuple(found["config"][key] for key in ("profile", "spawn", "pool"))
    assert [{"component": "acme/*", "spawn": "zygote", "path": None}] == found["config"]["overrides"]
    assert set(host.processes()) == {process["name"] for process in found["processes"]}
    for process in found["processes"]:
        state = _state(process["pid"])
        assert int(state["Uid"].split()[1]) == process["uid"]
        assert ("1" == state["NoNewPrivs"]) == process["no-new-privileges"]
        if not process["own-user-namespace"] and process["name"] != "supervisor":
            assert [] == process["capabilities"], process
    caged = {process["name"] for process in found["processes"] if process["own-user-namespace"]}
    assert {"zygote", "bridge", "auditor"} == caged
    (supervisor,) = [process for process in found["processes"] if process["name"] == "supervisor"]
    held = ["dac_read_search", "kill", "setgid", "setuid", "sys_admin"] if ROOT else []
    assert held == supervisor["capabilities"]
    assert found["limits-held-by"]
    text = host.cli("doctor").stdout.decode()
    for word in ("profile paranoid, spawn exec, pool 0", "acme/*: spawn zygote", "AS IT RUNS", "COULD GET", "HELD BY"):
        assert word in text


def _state(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
