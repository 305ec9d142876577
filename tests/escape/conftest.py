"""A live host for the escape tests: one for all of a module, with two components in their cages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_host import CHECKOUT, GUESTS, Host, temporary_host
from own_code import OWN_CODE

from sandbox.kernel import libc, probe
from supervisor.selftest.host import HostileHost
from supervisor.selftest.lifecycle import CONFIGURATION

COMPONENTS = ("test/probe/0", "test/probe/1")


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A publisher's key."""
    path = tmp_path_factory.mktemp("keys") / "tester.key"
    subprocess.run(
        [sys.executable, "-m", "supervisor.cli", "keygen", "--out", str(path)],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="module")
def caged(key: Path) -> Iterator[Host]:
    """A running host with two instances of the probe; skipped by name where a wall is missing."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")
    with temporary_host(key) as host:
        host.environment["AIRSSYS_TEST_SECRET"] = "a secret of who started the host"
        host.up()
        host.trust("test/*")
        data = host.out / "data"
        data.mkdir()
        package = host.package(GUESTS / "probe")
        for component in COMPONENTS:
            instance = component.rsplit("/", 1)[1]
            host.install(package, "--instance", instance, "--bind", f"/data={data}", "--bind", f"/ro={data}")
        yield host


@pytest.fixture(scope="session")
def hostile_host() -> Iterator[HostileHost]:
    """The self-test's throw-away host, one for each process that runs tests."""
    if libc.MACHINE != "x86_64":
        pytest.skip("the attacks are x86-64 machine code")
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")
    with HostileHost(extra=OWN_CODE, configuration=CONFIGURATION) as host:
        yield host
