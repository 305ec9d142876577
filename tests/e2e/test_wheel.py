"""The wheel, installed into an empty environment, runs a host and a component outside the checkout."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from live_host import CHECKOUT, EXAMPLES

pytestmark = pytest.mark.block11_cli


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from a copy of the checkout's sources."""
    source = tmp_path_factory.mktemp("source") / "airssys"
    ignore = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache", "tests", ".hypothesis")
    shutil.copytree(CHECKOUT, source, ignore=ignore, symlinks=True)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture
def elsewhere(wheel: Path, able: None) -> Iterator[tuple[Path, dict[str, str], Path]]:
    """An environment with the wheel alone, a root, and the command's path."""
    place = Path(tempfile.mkdtemp(prefix="aw-"))
    place.chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    subprocess.run(
        [place / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", str(wheel)],
        check=True,
        capture_output=True,
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(place), "AIRSSYS_ROOT": str(place / "root")}
    (place / "root").mkdir()
    try:
        yield place, environment, place / "venv" / "bin" / "airssys"
    finally:
        subprocess.run([place / "venv" / "bin" / "airssys", "down"], env=environment, capture_output=True, check=False)
        shutil.rmtree(place, ignore_errors=True)


def test_contents(wheel: Path) -> None:
    """WIT packages, policies, the self-test's guest and pytest's plugin are inside; tests and examples are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        points = configparser.ConfigParser()
        points.read_string(archive.read(entries).decode())
    assert {"airssys": "airssys.pytest_plugin"} == dict(points["pytest11"])
    assert {"airssys": "supervisor.cli:main"} == dict(points["console_scripts"])
    for wanted in (
        "sandbox/_wit/airssys-core/world.wit",
        "sandbox/_wit/airssys-osl/filesystem.wit",
        "sandbox/policy/worker.toml",
        "supervisor/policy/forbidden-paths.toml",
        "supervisor/selftest/guest/component.wasm",
        "supervisor/selftest/guest/component.toml",
        "supervisor/selftest/guest/lifecycle.wat",
        "airssys/__init__.py",
        "airssys/py.typed",
        "airssys/pytest_plugin.py",
        "airssys/testing/hostile.py",
    ):
        assert wanted in names
    assert [] == [name for name in names if name.startswith(("tests/", "examples/", "docs/"))]


def test_runs_outside_the_checkout(elsewhere: tuple[Path, dict[str, str], Path]) -> None:
    """keygen to down, the self-test and an attack suite with the installed command, from another directory."""
    place, environment, command = elsewhere

    def run(*arguments: str) -> bytes:
        done = subprocess.run(
            [command, *arguments], env=environment, cwd=place, capture_output=True, check=False, timeout=120
        )
        log = place / "root" / "run" / "host.log"
        assert 0 == done.returncode, (arguments, done.stderr, log.read_text()[-2000:] if log.exists() else "")
        return done.stdout

    package = place / "redactor"
    shutil.copytree(EXAMPLES / "redactor", package)
    (place / "out").mkdir()
    run("keygen", "--out", str(place / "key"))
    run("sign", str(package), "--key", str(place / "key"))
    run("up", "--detach")
    run("trust", "add", "acme", "--key", str(place / "key.pub"), "--scope", "acme/*")
    run("install", str(package), "--yes", "--bind", f"/out={place / 'out'}")
    assert b'"lines"' in run("request", "acme/redactor", "--data", "report")
    run("down")
    run("selftest", "escape", "--only", "T02,T25,T43", "--jobs", "2")
    suite = [str(CHECKOUT / "examples" / "attack-suite" / "test_files.py"), "-k", "test_read_a_file"]
    plugin = [] if entry_points(group="pytest11", name="airssys") else ["-p", "airssys.pytest_plugin"]
    attacked = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *suite, "--airssys-command", str(command)],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == attacked.returncode, attacked.stdout
    assert "1 passed" in attacked.stdout
    assert str(CHECKOUT) not in os.environ.get("PYTHONPATH", "")
