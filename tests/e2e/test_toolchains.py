"""Components of Go, Rust, Python and two JavaScript engines, built without stubs, on a real host in the unchanged cage.

They are large and their toolchains are not everywhere: `tests/guests/heavy.py` builds them once into a cache; what is
neither built nor can be is skipped by name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from live_host import GUESTS, Host, wait_until

pytestmark = [pytest.mark.block10_sdk, pytest.mark.long]

PRINTS = ("wasi-go", "wasi-python", "wasi-rust", "wasi-starlingmonkey")
WHOLE = ("wasi-go", "wasi-python", "wasi-rust")
"""Languages whose library has all of it: sleep, environment, exit, files."""
NO_FILE = {
    "wasi-go": "Bad file number",
    "wasi-python": "No such file or directory",
    "wasi-rust": "failed to find a pre-opened file descriptor",
}


@pytest.fixture(scope="module")
def heavy() -> ModuleType:
    """tests/guests/heavy.py as a module."""
    spec = importlib.util.spec_from_file_location("guests_heavy", GUESTS / "heavy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def running(shared: Host, heavy: ModuleType) -> Callable[[str], str]:
    """Install a guest of a toolchain, once; its name."""
    installed: dict[str, str] = {}

    def install(name: str) -> str:
        if name not in installed:
            try:
                component: Path = heavy.built(name)
            except heavy.ToolchainMissing as missing:
                pytest.skip(f"{name} is not built and cannot be: {missing}")
            source = shared.out / f"{name}-source"
            source.mkdir()
            shutil.copy(component, source / "component.wasm")
            manifest = (GUESTS / name / "component.toml").read_text()
            (source / "component.toml").write_text(manifest)
            shared.install(shared.package(source, name=name), "--env", "MODE=fast", "--arg", "x")
            installed[name] = f"test/{name}"
        return installed[name]

    return install


def log(host: Host, component: str) -> list[tuple[str, str]]:
    done = host.cli("logs", component, "--output", "json", "--limit", "1000")
    return [(line["level"], line["message"]) for line in map(json.loads, done.stdout.splitlines())]


def ended(host: Host, component: str, command: str) -> tuple[str, str]:
    """How a message ended its worker: (outcome, what the asker was told); another runs afterwards."""
    old = host.component(f"{component}/0")["pid"]
    error = host.fail(component, command, seconds=20)
    wait_until(
        "another worker",
        lambda: (now := host.component(f"{component}/0"))["state"] == "running" and now["pid"] != old,
    )
    return host.component(f"{component}/0")["outcome"], error.message


@pytest.mark.parametrize("name", PRINTS)
def test_print(shared: Host, running: Callable[[str], str], name: str) -> None:
    """Standard output and error are lines of the log."""
    component = running(name)
    assert "ok" == shared.ask(component, "print to stdout", seconds=20)
    assert "ok" == shared.ask(component, "eprint to stderr")
    assert [("info", "to stdout"), ("warn", "to stderr")] == log(shared, component)[-2:]


@pytest.mark.parametrize("name", [*PRINTS, "wasi-qjs"])
def test_clock_and_random(shared: Host, running: Callable[[str], str], name: str) -> None:
    """The time is now, and random numbers differ."""
    component = running(name)
    assert abs(int(shared.ask(component, "time", seconds=20)) - time.time()) < 10
    assert shared.ask(component, "random 8") != shared.ask(component, "random 8")


@pytest.mark.parametrize("name", WHOLE)
def test_sleep_environment_files(shared: Host, running: Callable[[str], str], name: str) -> None:
    """Sleep takes its time, the environment is the operator's, files are not there."""
    component = running(name)
    assert 40 <= int(shared.ask(component, "sleep 40", seconds=20)) < 2000
    assert ("fast", "(none)") == (shared.ask(component, "env MODE"), shared.ask(component, "env HOME"))
    assert NO_FILE[name] in shared.ask(component, "open /etc/passwd")
    assert "deadline" == ended(shared, component, "sleep 60000")[0]


@pytest.mark.parametrize("name", [*PRINTS, "wasi-qjs"])
def test_the_text_of_an_uncaught_error(shared: Host, running: Callable[[str], str], name: str) -> None:
    """A panic or an exception nobody catches is a trap, and its words are in the log."""
    component = running(name)
    outcome, _ = ended(shared, component, "fail a reason in words")
    assert "trap" == outcome
    assert any("a reason in words" in message for level, message in log(shared, component) if level == "warn")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(("status", "outcome", "told"), [(0, "exited", "exit status 0"), (3, "trap", "exit status 1")])
def test_exit(shared: Host, running: Callable[[str], str], name: str, status: int, outcome: str, told: str) -> None:
    """exit is an end by the component's own wish."""
    found, text = ended(shared, running(name), f"exit {status}")
    assert outcome == found
    assert told in text


def test_two_sleepers_of_go(shared: Host, running: Callable[[str], str]) -> None:
    """Two goroutines asleep at once wake in their order; a connection is refused by WASI's own error."""
    component = running("wasi-go")
    assert "20" == shared.ask(component, "poll 20").split()[0]
    assert "refused" in shared.ask(component, "connect")
    assert "test/wasi-go|x" == shared.ask(component, "args")


@pytest.mark.parametrize("name", [*PRINTS, "wasi-qjs"])
def test_the_cage_is_unchanged(shared: Host, running: Callable[[str], str], name: str) -> None:
    """Two descriptors and one thread, whatever the language's runtime is used to."""
    component = running(name)
    shared.ask(component, "time", seconds=20)
    pid = shared.component(f"{component}/0")["pid"]
    assert {"3", "4"} == set(os.listdir(f"/proc/{pid}/fd"))
    assert [str(pid)] == os.listdir(f"/proc/{pid}/task")
