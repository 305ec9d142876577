"""Components of standard toolchains on a real host: what they print, how they end, what the operator tells them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from live_host import GUESTS, LIFECYCLE, Host, wait_until

pytestmark = pytest.mark.block1_runtime
LIBC = "test/wasi-libc"


@pytest.fixture(scope="module")
def package(shared: Host) -> Path:
    """A signed copy of the guest in C with its library."""
    return shared.package(GUESTS / "wasi-libc")


@pytest.fixture(scope="module")
def libc(shared: Host, package: Path) -> Host:
    """It runs, told two variables and two arguments."""
    shared.install(package, "--env", "MODE=a b", "--env", "EMPTY=", "--arg", "--verbose", "--arg", "x")
    return shared


def lines(host: Host, component: str = LIBC) -> list[tuple[str, str]]:
    """What is in a component's log: (level, message)."""
    done = host.cli("logs", component, "--output", "json", "--limit", "1000")
    return [(line["level"], line["message"]) for line in map(json.loads, done.stdout.splitlines())]


def info(host: Host, component: str = LIBC) -> dict[str, Any]:
    """What `airssys info` knows."""
    return dict(json.loads(host.cli("info", component, "--output", "json").stdout))


def test_output_goes_to_the_log(libc: Host) -> None:
    """stdout and stderr are lines of the component's log, and `airssys logs` shows them."""
    libc.ask(LIBC, "print from stdout")
    libc.ask(LIBC, "eprint from stderr")
    libc.ask(LIBC, "part no end")
    wait_until("the log", lambda: ("info", "no end") in lines(libc))
    found = lines(libc)
    assert ("info", "initialized with 2 variables") == found[0]
    assert [("info", "from stdout"), ("warn", "from stderr"), ("info", "no end")] == found[-3:]


def test_environment_and_arguments(libc: Host, package: Path) -> None:
    """What the operator gives reaches the component; an update keeps it, replaces it, or drops it."""
    assert "MODE=a b|EMPTY=" == libc.ask(LIBC, "environ")
    assert "test/wasi-libc|--verbose|x" == libc.ask(LIBC, "args")
    assert ({"MODE": "a b", "EMPTY": ""}, ["--verbose", "x"]) == (info(libc)["env"], info(libc)["args"])
    libc.install(package)
    assert "MODE=a b|EMPTY=" == libc.ask(LIBC, "environ"), "kept"
    libc.install(package, "--env", "OTHER=1", "--no-args")
    assert ("OTHER=1", "test/wasi-libc") == (libc.ask(LIBC, "environ"), libc.ask(LIBC, "args"))
    libc.cli("restart", LIBC)
    assert "OTHER=1" == libc.ask(LIBC, "environ"), "kept in the registry"
    libc.install(package, "--no-env")
    assert "" == libc.ask(LIBC, "environ")
    records = [r for r in libc.audit(f"{LIBC}/0") if r["event"] == "package.install"]
    assert "EMPTY MODE" == records[0]["detail"]["env"], "names are recorded, values are not"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--env", "no-value"),
        ("--env", "=x"),
        ("--env", "1x=y"),
        ("--env", "A=1", "--env", "A=2"),
        ("--env", "A=1", "--no-env"),
        ("--env", "A=" + "x" * 20_000),
        ("--arg", "x" * 20_000),
        tuple(part for number in range(65) for part in ("--env", f"A{number}=1")),
    ],
    ids=["no value", "no name", "no name of a variable", "twice", "both", "large", "large argument", "many"],
)
def test_environments_that_are_refused(libc: Host, package: Path, arguments: tuple[str, ...]) -> None:
    """Malformed, doubled and large ones change nothing."""
    before = info(libc)["env"]
    done = libc.cli("install", str(package), "--yes", *arguments, check=False)
    assert done.returncode in (2, 7), done.stderr
    assert before == info(libc)["env"]


def test_sleeping(libc: Host) -> None:
    """A sleep takes its time; one past the deadline ends there with its cause; the next message is served."""
    before = time.monotonic()
    assert int(libc.ask(LIBC, "sleep 300")) >= 300
    assert time.monotonic() - before < 2.5
    error = libc.fail(LIBC, "sleep 60000", seconds=20)
    assert "E_TARGET_ENDED" == error.code
    assert "deadline" in error.message
    wait_until("another worker", lambda: libc.component(f"{LIBC}/0")["state"] == "running")
    assert "deadline" == libc.component(f"{LIBC}/0")["outcome"]
    assert "0" == libc.ask(LIBC, "sleep 0")


@pytest.mark.parametrize(
    ("command", "outcome", "told"),
    [
        ("exit 0", "exited", "exit status 0"),
        ("exit 7", "trap", "exit status 1"),
        ("abort", "trap", "unreachable"),
        ("assert", "trap", "unreachable"),
    ],
)
def test_ends_are_told_by_cause(libc: Host, command: str, outcome: str, told: str) -> None:
    """exit, abort and a failed assertion: the outcome, and the text that came before it in the log."""
    old = libc.component(f"{LIBC}/0")["pid"]
    error = libc.fail(LIBC, command)
    assert told in error.message
    wait_until("another worker", lambda: libc.component(f"{LIBC}/0")["pid"] not in (old, None))
    assert outcome == libc.component(f"{LIBC}/0")["outcome"]
    if command == "assert":
        assert any("a reason to end" in message for level, message in lines(libc) if level == "warn")


def test_a_flood_stays_bounded(libc: Host) -> None:
    """A guest that prints without end is answered, and what is dropped is counted in the log."""
    assert "ok" == libc.ask(LIBC, "flood 3000")
    marks = [message for _, message in lines(libc) if re.fullmatch(r"\d+ bytes more were printed .*", message)]
    assert marks


def test_info_and_install_show_wasi(libc: Host, package: Path) -> None:
    """What is imported of WASI is said at install and listed by info, under the version the guest names."""
    assert (
        b"uses WASI (cli, clocks, filesystem, io, random), which grants nothing here"
        in libc.cli("install", str(package), "--yes").stdout
    )
    imports = info(libc)["imports"]
    assert any(re.fullmatch(r"wasi:io/streams@0\.2\.\d+", name) for name in imports)


@pytest.mark.parametrize("name", ["wasi:http/types@0.2.10", "wasi:io/poll@0.3.0"])
def test_wasi_that_is_not_served_is_named_at_install(shared: Host, tmp_path: Path, name: str) -> None:
    """A component that imports it is refused before anything of it runs."""
    text = LIFECYCLE.read_text().replace("@NAME@", "test/http").replace("@SIZE@", "09")
    text = re.sub(r"^ *;; @imports@$", f'(import "{name}" (instance))', text, flags=re.MULTILINE)
    source = tmp_path / f"http-{name[-2:].strip('.')}"
    source.mkdir()
    (source / "component.wasm").write_bytes(wasmtime.wat2wasm(text))
    manifest = (GUESTS / "wasi-probe/component.toml").read_text().replace("test/wasi-probe", "test/http")
    (source / "component.toml").write_text(manifest)
    done = shared.cli("install", str(shared.package(source)), "--yes", check=False)
    assert done.returncode != 0
    assert b"E_IMPORTS" in done.stderr
    assert name.encode() in done.stderr
    assert b"of WASI it serves version 0.2" in done.stderr
