"""A real host per test (or per module), under a root of its own, driven through the CLI and the API.

What this machine cannot do is skipped by name before anything starts.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_host import CHECKOUT, Host, temporary_host

from sandbox.kernel import probe


@pytest.fixture(scope="session")
def able() -> None:
    """Skip by name what this machine cannot do."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")


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


@pytest.fixture
def fresh(able: None, key: Path) -> Iterator[Host]:
    """A root with nothing in it; the test starts the host itself."""
    with temporary_host(key) as host:
        yield host


@pytest.fixture
def host(fresh: Host) -> Host:
    """A running host of the test's own."""
    fresh.up()
    return fresh


@pytest.fixture(scope="module")
def shared(able: None, key: Path) -> Iterator[Host]:
    """A running host that a module's tests share; they must not stop it."""
    with temporary_host(key) as host:
        host.up()
        host.trust("acme/*", "test/*")
        yield host


@pytest.fixture
def configured(able: None, key: Path) -> Iterator[Callable[[str], Host]]:
    """Make hosts with a configuration."""
    with contextlib.ExitStack() as stack:
        yield lambda text: stack.enter_context(temporary_host(key, text))
