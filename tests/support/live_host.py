"""A live host for tests: its root, its command line, its API, signed packages.

Nothing is faked: real keys, caged workers, ZeroMQ, LMDB.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.client import Client
from supervisor.cli.errors import RefusedError

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = CHECKOUT / "examples" / "logclean"
GUESTS = CHECKOUT / "tests" / "guests"
LIFECYCLE = CHECKOUT / "supervisor" / "selftest" / "guest" / "lifecycle.wat"
"""The least component there can be, as text with places for more."""
WAIT_SECONDS = 20.0
"""Longest wait for an event that must come; reached only when the test fails."""


def wait_until(what: str, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Poll until `condition` is true; its value. Fails naming `what`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds} s for: {what}")
        time.sleep(0.01)


class Host:
    """One host under its own root."""

    def __init__(self, root: Path, key: Path) -> None:
        self.root = root
        self.key = key
        self.environment = {**os.environ, "AIRSSYS_ROOT": str(root)}
        # Beside the root: a directory that holds anything else is refused as one.
        self.out = root.with_name(f"{root.name}-user")
        self.out.mkdir(exist_ok=True)
        self.out.chmod(0o755)

    # -- the command line -----------------------------------------------------------------------------------------

    def cli(self, *arguments: str, check: bool = True, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run `airssys ...` against this host."""
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.cli", *arguments],
            env=self.environment,
            cwd=CHECKOUT,
            capture_output=True,
            input=data,
            check=False,
            timeout=120,
        )
        if check:
            assert done.returncode == 0, (arguments, done.stdout, done.stderr, self.log()[-3000:])
        return done

    def cli_with(self, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run `airssys ...` with other variables ("" removes one); its status is the caller's to judge."""
        changed = {key: value for key, value in {**self.environment, **environment}.items() if value}
        return subprocess.run(
            [sys.executable, "-m", "supervisor.cli", *arguments],
            env=changed,
            cwd=CHECKOUT,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def up(self) -> None:
        """Start it in the background."""
        self.cli("up", "--detach")

    def down(self) -> None:
        """Stop it; fine when it does not run."""
        self.cli("down", check=False)

    def log(self) -> str:
        """The host's own log."""
        path = self.root / "run" / "host.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- the API ----------------------------------------------------------------------------------------------------

    def api(self) -> Client:
        """A client of the API (a context manager)."""
        return Client(str(self.root / "run" / "api.sock"))

    def status(self) -> dict[str, Any]:
        """What `airssys status --output json` prints."""
        with self.api() as client:
            return dict(client.get("/v1/status"))

    def component(self, name: str) -> dict[str, Any]:
        """One component's line of the status."""
        found = [c for c in self.status()["components"] if c["id"] == name]
        assert found, f"{name} is not installed"
        return found[0]

    def processes(self) -> dict[str, int]:
        """Name and pid of the host's processes."""
        return {p["name"]: p["pid"] for p in self.status()["host"]["processes"]}

    def audit(self, component: str = "") -> list[dict[str, Any]]:
        """The audit records of a component (or all), oldest first."""
        filter_ = ["--component", component] if component else []
        done = self.cli("audit", "tail", "--output", "json", "--limit", "1000", *filter_)
        return [json.loads(line) for line in done.stdout.splitlines()]

    # -- packages -----------------------------------------------------------------------------------------------------

    def package(self, source: Path, *, name: str = "", edit: Callable[[str], str] | None = None) -> Path:
        """A signed copy of a package directory; `edit` may change its manifest first."""
        target = self.out / (name or source.name)
        target.mkdir()
        shutil.copy(source / "component.wasm", target)
        text = (source / "component.toml").read_text()
        (target / "component.toml").write_text(edit(text) if edit else text)
        self.cli("sign", str(target), "--key", str(self.key))
        return target

    def trust(self, *scopes: str) -> None:
        """Believe the test key for these scopes."""
        arguments = [part for scope in scopes for part in ("--scope", scope)]
        self.cli("trust", "add", "tester", "--key", f"{self.key}.pub", *arguments, "--level", "trusted")

    def install(self, package: Path, *arguments: str) -> None:
        """Install without questions."""
        self.cli("install", str(package), "--yes", *arguments)

    def ask(self, target: str, text: str | bytes, *, seconds: float = 10.0) -> str:
        """A request's reply as text. Raises RefusedError."""
        payload = text.encode() if isinstance(text, str) else text
        with self.api() as client:
            return client.message(target, "request", payload, int(seconds * 1000), "text/plain").decode()

    def fail(self, target: str, text: str, *, seconds: float = 10.0) -> RefusedError:
        """A request that must fail; how it did."""
        with pytest.raises(RefusedError) as caught:
            self.ask(target, text, seconds=seconds)
        return caught.value


@contextlib.contextmanager
def temporary_host(key: Path, configuration: str = "", within: Path | None = None) -> Iterator[Host]:
    """A root of its own (in the directory `within`), removed with whatever runs on it at the end.

    `scripts/test --path PATH` has components take that path across the wasm boundary where nothing else is said.
    """
    # Not below pytest's directories: they are closed to other uids, and a socket's path has 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="as-", dir=within))
    root.chmod(0o755)
    host = Host(root, key)
    configuration = _on_path(configuration, os.environ.get("AIRSSYS_TEST_PATH", ""))
    if configuration:
        (root / "etc").mkdir()
        (root / "etc" / "airssys.toml").write_text(configuration)
    try:
        yield host
    finally:
        host.down()
        pid = root / "run" / "host.lock"
        if pid.exists():
            with contextlib.suppress(ValueError, ProcessLookupError):
                number = int(pid.read_text().strip() or "0")
                if number and _is_host(number):
                    os.kill(number, signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(host.out, ignore_errors=True)


def _on_path(configuration: str, path: str) -> str:
    if not path:
        return configuration
    table, line = "[workers]\n", f'path = "{path}"\n'
    if table in configuration:
        return configuration.replace(table, table + line, 1)
    return table + line + configuration


def _is_host(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "airssys-host"
    except OSError:
        return False
