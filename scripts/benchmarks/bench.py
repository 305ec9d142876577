"""What every benchmark needs: hosts with a configuration, the packages of examples/bench, figures with a peer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from live_host import Host, temporary_host

from supervisor.cli.packages import parts_of
from supervisor.packages import envelope
from supervisor.packages.keys import load_private
from supervisor.packages.package import read_package

HERE = Path(__file__).resolve().parents[2]
METER = HERE / "examples" / "bench" / "meter"
NOISE = HERE / "examples" / "bench" / "noise"
BWRAP = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "/bin/true"]
BWRAP_NAME = "bwrap --unshare-all ... /bin/true"


class Figure(NamedTuple):
    """One line of the result."""

    ours: float
    peer: float | None
    unit: str
    peer_name: str

    def as_json(self) -> dict[str, Any]:
        """The form scripts rely on."""
        ratio = None if not self.peer else round(self.ours / self.peer, 3)
        return {
            "ours": round(self.ours, 3),
            "peer": None if self.peer is None else round(self.peer, 3),
            "ratio": ratio,
            "unit": self.unit,
            "peer_name": self.peer_name,
        }


Figures = dict[str, Figure]


class Bench:
    """Makes hosts.

    Args:
        key: the publisher's key.
        rounds: how often a thing is done at least.
    """

    def __init__(self, key: Path, rounds: int) -> None:
        self.key = key
        self.rounds = rounds

    @contextlib.contextmanager
    def host(self, configuration: str = "") -> Iterator[Host]:
        """A running host of one's own that believes bench/*."""
        with temporary_host(self.key, configuration) as host:
            host.up()
            host.trust("bench/*")
            yield host

    @contextlib.contextmanager
    def metered(self, configuration: str = "", instances: tuple[str, ...] = ("0", "1")) -> Iterator[Host]:
        """The same, with meters in it."""
        with self.host(configuration) as host:
            plan = upload(host, METER)
            for instance in instances:
                install(host, plan, instance)
            yield host


def data(host: Host) -> Path:
    """The meters' directory, with its one file."""
    directory = host.out / "data"
    if not directory.exists():
        directory.mkdir()
        (directory / "4k").write_bytes(b"x" * 4096)
        directory.chmod(0o755)
    return directory


def upload(host: Host, source: Path, edit: Callable[[str], str] | None = None, suffix: bytes = b"") -> str:
    """Sign a copy of a package (with another manifest, or a section more) and upload it; the plan's name."""
    target = Path(tempfile.mkdtemp(dir=host.out))
    (target / "component.wasm").write_bytes((source / "component.wasm").read_bytes() + suffix)
    text = (source / "component.toml").read_text()
    (target / "component.toml").write_text(edit(text) if edit else text)
    envelope.sign(str(target), load_private(str(host.key)))
    with host.api() as client:
        return str(client.upload(parts_of(read_package(str(target))))["plan"])


def install(host: Host, plan: str, instance: str, *, binds: bool = True) -> dict[str, Any]:
    """Install an uploaded package under an instance's name and have it running; its status."""
    bindings = {"/data": str(data(host))} if binds else {}
    body = {"plan": plan, "bindings": bindings, "instance": instance, "consent": True, "start": True}
    with host.api() as client:
        status = dict(client.post("/v1/install", body, timeout=60.0))
    if status["state"] != "running":
        raise SystemExit(f"an instance does not run: {status}")
    return status


def told(host: Host, target: str, command: str) -> dict[str, Any]:
    """What a component answers, as JSON."""
    return dict(json.loads(host.ask(target, command, seconds=60)))


def private(pid: int) -> int:
    """Private memory of a process, KiB."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


def percentile(values: list[float], share: float) -> float:
    """The value below which this share (0 to 1) of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def bwrap() -> float:
    """Milliseconds until bubblewrap has built a sandbox, run /bin/true in it, and been reaped."""
    began = time.perf_counter()
    subprocess.run(BWRAP, check=True)
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def publisher() -> Iterator[Path]:
    """A new key."""
    with tempfile.TemporaryDirectory() as keys:
        key = Path(keys) / "key"
        command = [sys.executable, "-m", "supervisor.cli", "keygen", "--out", str(key)]
        subprocess.run(command, check=True, capture_output=True, cwd=HERE, env=dict(os.environ))
        yield key
