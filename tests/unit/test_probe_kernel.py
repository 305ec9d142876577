"""What `probe` says of this machine is true, and a machine that lacks a wall is refused by name, changing nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import walls
from sandbox.kernel import landlock, probe, seccomp

pytestmark = pytest.mark.block11_cli
CHECKOUT = Path(__file__).resolve().parents[2]
WALLS = [
    "machine", "namespaces", "seccomp", "libseccomp", "landlock", "mdwe", "mseal", "openat2", "grant mounts",
    "own uids", "cgroup",
]  # fmt: skip
MAY_BE_LOST = {"grant mounts", "own uids", "cgroup"}
"""Without root. Root of a user namespace misses them."""


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty root."""
    path = Path(tempfile.mkdtemp(prefix="pr-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _without_namespaces(*command: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a user namespace in which no further one can be made."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare (util-linux) is not installed")
    limit = "echo 0 > /proc/sys/user/max_user_namespaces && "
    if subprocess.run(
        [unshare, "--user", "--map-root-user", "sh", "-c", limit + "true"], capture_output=True
    ).returncode:
        pytest.skip("this user may not make a user namespace to limit")
    return subprocess.run(
        [unshare, "--user", "--map-root-user", "sh", "-c", limit + 'exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "AIRSSYS_ROOT": str(root)},
        timeout=60,
        check=False,
    )


def _airssys(*arguments: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisor.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "AIRSSYS_ROOT": str(root)},
        timeout=60,
        check=False,
    )


def _everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_every_wall_is_listed() -> None:
    """Each wall once, in the order of the documents, in one of three states, with a sentence."""
    found = probe.probe()
    assert WALLS == [wall.name for wall in found] == list(walls.WALLS)
    assert {wall.state for wall in found} <= {"on", "lost", "missing"}
    assert all(wall.detail for wall in found)
    assert {wall.name for wall in found if wall.state == "lost"} <= (MAY_BE_LOST if os.geteuid() else set())


def test_probing_leaves_nothing() -> None:
    """No descriptor, no child, no other namespace afterwards."""

    def state() -> list[object]:
        return [
            sorted(os.listdir("/proc/self/fd")),
            Path("/proc/self/task", str(os.getpid()), "children").read_text(),
            [os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))],
            os.listdir("/tmp") != [],
        ]

    before = state()
    probe.probe()
    assert before == state()


@pytest.mark.parametrize(
    ("patch", "wall"),
    [
        ((landlock, "abi", lambda: 5), "landlock"),
        ((seccomp, "available", lambda: False), "seccomp"),
        ((seccomp, "library_available", lambda: False), "libseccomp"),
        ((probe.platform, "machine", lambda: "riscv64"), "machine"),
        ((probe, "_mdwe", lambda: os.close(-1)), "mdwe"),
        ((probe, "_mseal", lambda: os.close(-1)), "mseal"),
        ((probe, "_openat2", lambda: os.close(-1)), "openat2"),
        ((probe, "_namespaces", lambda: os.close(-1)), "namespaces"),
        ((probe, "_namespaces", lambda: os.kill(os.getpid(), 9)), "namespaces"),
    ],
    ids=[
        "landlock",
        "seccomp",
        "libseccomp",
        "machine",
        "mdwe",
        "mseal",
        "openat2",
        "namespaces",
        "namespaces (crash)",
    ],
)
def test_what_fails_is_missing(monkeypatch: pytest.MonkeyPatch, patch: tuple[object, str, object], wall: str) -> None:
    """Each probe alone failing makes exactly its wall missing, and says what failed."""
    before = {w.name: w.state for w in probe.probe()}
    monkeypatch.setattr(*patch)  # type: ignore[call-overload]
    after = {w.name: w for w in probe.probe()}
    assert "missing" == after[wall].state
    assert after[wall].detail
    assert walls.WALLS[wall].remedy
    assert {n: s for n, s in before.items() if n != wall} == {n: w.state for n, w in after.items() if n != wall}


def test_without_user_namespaces(root: Path) -> None:
    """Where no user namespace can be made, `probe` says so of that wall, and of others that root alone has."""
    script = "import json; from sandbox.kernel.probe import probe; print(json.dumps([list(wall) for wall in probe()]))"
    done = _without_namespaces(sys.executable, "-c", script, root=root)
    assert 0 == done.returncode, done.stderr
    found = {name: (state, detail) for name, state, detail in json.loads(done.stdout)}
    assert "missing" == found["namespaces"][0]
    assert "unshare" in found["namespaces"][1]
    here = {wall.name for wall in probe.probe() if wall.state == "missing"}
    missing = {name for name, (state, _) in found.items() if state == "missing"}
    assert missing >= {"namespaces"} | here
    assert missing <= {"namespaces"} | here | MAY_BE_LOST


@pytest.mark.parametrize("detach", [True, False])
def test_up_refuses(root: Path, detach: bool) -> None:
    """`airssys up` there ends with E_KERNEL naming the wall and what to do, and the root stays empty."""
    arguments = ["up", "--detach"] if detach else ["up"]
    done = _without_namespaces(sys.executable, "-m", "supervisor.cli", *arguments, root=root)
    assert 0 != done.returncode
    assert "E_KERNEL" in done.stderr
    assert "namespaces" in done.stderr
    assert "airssys doctor" in done.stderr
    assert [] == _everything(root)


def test_doctor_there(root: Path) -> None:
    """`airssys doctor` there lists every wall, names the missing one, and fails."""
    done = _without_namespaces(sys.executable, "-m", "supervisor.cli", "doctor", "--output", "json", root=root)
    assert 1 == done.returncode
    found = json.loads(done.stdout)
    assert WALLS == [wall["name"] for wall in found["kernel"]]
    assert "namespaces" in found["missing"]
    assert [] == _everything(root)


def test_doctor_here(root: Path) -> None:
    """`airssys doctor` on this machine says what `probe` says, in words and as JSON, and makes nothing."""
    here = probe.probe()
    missing = [wall.name for wall in here if wall.state == "missing"]
    done = _airssys("doctor", "--output", "json", root=root)
    found = json.loads(done.stdout)
    assert [[w.name, w.state, w.detail] for w in here] == [
        [w["name"], w["state"], w["detail"]] for w in found["kernel"]
    ]
    assert (missing, None) == (found["missing"], found["running"])
    assert bool(missing) == (done.returncode != 0)
    text = _airssys("doctor", root=root).stdout
    assert all(wall.name in text for wall in here)
    assert "no host is running" in text
    assert [] == _everything(root)
