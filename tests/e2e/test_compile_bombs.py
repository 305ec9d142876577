"""Compile bombs end their compiler and nothing else: the installer hears why, others are answered, nothing is left.

Each bomb has a positive control: a small one of the same shape compiles, and is refused only afterwards, because it
does not export the lifecycle (`E_EXPORTS`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import bombs
import pytest
from live_host import GUESTS, Host, temporary_host, wait_until
from probes import install, manifest, upload

from supervisor.cli.errors import RefusedError
from supervisor.packages import envelope
from supervisor.packages.keys import load_private

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0
CONFIGURATION = '[compile]\nmemory = "256MiB"\ntimeout = "1s"\n'
LIMIT, INVALID, COMPILES = "E_COMPILE_LIMIT", "E_INVALID_COMPONENT", "E_EXPORTS"
NEIGHBOUR = "test/neighbour/0"


@pytest.fixture(scope="module")
def bombed(able: None, key: Path) -> Iterator[Host]:
    """A host whose compiler may use little, with a component that must go on answering."""
    with temporary_host(key, CONFIGURATION) as host:
        host.up()
        host.trust("test/*")
        install(host, pack(host, "neighbour", (GUESTS / "probe" / "component.wasm").read_bytes()))
        yield host


def pack(host: Host, label: str, body: bytes) -> Path:
    """A signed package of these bytes that is called test/`label`."""
    target = host.out / label
    target.mkdir()
    (target / "component.wasm").write_bytes(body)
    text = (GUESTS / "probe" / "component.toml").read_text()
    (target / "component.toml").write_text(manifest(text, {"name": f'"test/{label}"', "filesystem": "[]"}))
    envelope.sign(str(target), load_private(str(host.key)))
    return target


def code_of(host: Host, package: Path) -> str:
    """With which code the host refuses a package, while a neighbour is asked again and again."""
    done = threading.Event()
    answers: list[str] = []

    def ask() -> None:
        answers.append(host.ask(NEIGHBOUR, "echo here"))
        while not done.wait(0.1):
            answers.append(host.ask(NEIGHBOUR, "echo here"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        with pytest.raises(RefusedError) as caught:
            upload(host, package)
    finally:
        done.set()
        asking.join()
    assert answers
    assert {"here"} == set(answers)
    return str(caught.value.code)


def compilers(host: Host) -> list[int]:
    """Processes of compilers below this host's supervisor."""
    supervisor = host.processes()["supervisor"]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # gone meanwhile
            name, _, rest = stat.partition("(")[2].rpartition(")")
            if name == "airssys-compile" and int(rest.split()[1]) == supervisor:
                found.append(int(entry.name))
    return found


def groups(host: Host) -> list[str]:
    """Control groups of compilers of this host: beside the neighbour's."""
    pid = host.component(NEIGHBOUR)["pid"]
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        place = Path(f"/sys/fs/cgroup/{controllers}{path}").parent
        if "airssys-" in path:
            found += [str(entry) for entry in place.glob("c*[0-9]")]
    return found


def kept(host: Host) -> dict[str, object]:
    """What a compilation could leave behind."""
    pids = host.processes()
    descriptors = {
        # As an ordinary user they are closed to us: no process of the host is dumpable.
        name: len(os.listdir(f"/proc/{pids[name]}/fd"))
        for name in (("supervisor", "control") if ROOT else ())
    }
    files = sorted(str(path) for path in (host.root / "lib" / "control").rglob("*"))
    assert files
    return {
        "pids": pids,
        "descriptors": descriptors,
        "files": files,
        "compilers": compilers(host),
        "groups": groups(host),
    }


@pytest.mark.parametrize(
    ("shape", "small", "big", "code"),
    [
        ("straight_line", 10, 760_000, LIMIT),
        ("many_branch_tables", 2, 1000, LIMIT),
        ("live_values", 10, 600_000, LIMIT),
        ("branch_table", 10, 2_000_000, INVALID),
        ("branch_tables", 2, 7_000, LIMIT),
        ("nested_blocks", 100_000, 1_000_000, LIMIT),
        ("nested_loops", 10, 100_000, LIMIT),
        ("functions", 10, 999_000, LIMIT),
        ("types", 10, 1_000_001, INVALID),
        ("imports", 1, 1_000_000, INVALID),
        ("exports", 10, 800_000, INVALID),
        ("memories", 100, 5_000, INVALID),
        ("tables", 100, 5_000, INVALID),
        ("huge_table", 10, 4_000_000_000, LIMIT),
        ("global_values", 10, 1_000_001, INVALID),
        pytest.param("data", 10, 60 << 20, (LIMIT, COMPILES), marks=pytest.mark.long),
        ("far_data", 10, 2_000_000_000, COMPILES),
        ("long_names", 99_000, 1_000_000, INVALID),
        ("nested_components", 99, 10_000, INVALID),
        ("doubling_instances", 3, 28, LIMIT),
        ("doubling_types", 3, 60, INVALID),
        ("modules", 900, 50_000, INVALID),
        ("core_instances", 900, 100_000, INVALID),
    ],
)
def test_a_bomb(bombed: Host, shape: str, small: int, big: int, code: str | tuple[str, ...]) -> None:
    """A small one compiles; a big one is refused with a clear code; a neighbour answers all the while; no traces."""
    make = getattr(bombs, shape)
    label = shape.replace("_", "-")
    assert COMPILES == code_of(bombed, pack(bombed, f"small-{label}", make(small)))
    before = kept(bombed)
    assert code_of(bombed, pack(bombed, label, make(big))) in code
    wait_until("nothing is left", lambda: kept(bombed) == before)


def test_a_file_of_100_megabytes(bombed: Host) -> None:
    """More than 64 MiB is refused before anybody compiles it, while signing and again by the host."""
    target = bombed.out / "hundred"
    target.mkdir()
    (target / "component.wasm").write_bytes(bombs.data(100 << 20))
    text = (GUESTS / "probe" / "component.toml").read_text()
    (target / "component.toml").write_text(manifest(text, {"name": '"test/hundred"', "filesystem": "[]"}))
    done = bombed.cli("sign", str(target), "--key", str(bombed.key), check=False)
    assert 0 != done.returncode
    assert b"E_SIZE" in done.stderr


@pytest.mark.parametrize("change", ["truncated", "mutated"])
def test_a_damaged_component(bombed: Host, change: str) -> None:
    """A component whose parts were cut or changed before it was signed is refused as what it is."""
    body = (GUESTS / "probe" / "component.wasm").read_bytes()
    if change == "truncated":
        body = bombs.component((7, body[11:300]))
    else:
        body = body[:40] + bytes(byte ^ 0x55 for byte in body[40:300]) + body[300:]
    before = kept(bombed)
    assert INVALID == code_of(bombed, pack(bombed, change, body))
    wait_until("nothing is left", lambda: kept(bombed) == before)


def test_several_at_once(bombed: Host) -> None:
    """More bombs than may be compiled at once: each is refused as its own, and a good component installs among them."""
    codes: dict[int, str] = {}
    packages = [pack(bombed, f"volley-{n}", bombs.many_branch_tables(1000 + n)) for n in range(3)]

    def throw(n: int) -> None:
        try:
            upload(bombed, packages[n])
        except RefusedError as error:
            codes[n] = error.code

    throwing = [threading.Thread(target=throw, args=(n,)) for n in range(3)]
    for thread in throwing:
        thread.start()
    good = (GUESTS / "probe" / "component.wasm").read_bytes() + b"\0\x02\x01n"
    assert "running" == install(bombed, pack(bombed, "among", good))["state"]
    assert "here" == bombed.ask(NEIGHBOUR, "echo here")
    for thread in throwing:
        thread.join()
    assert dict.fromkeys(range(3), LIMIT) == codes
