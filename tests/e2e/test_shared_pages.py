"""Workers of one component share its code and the data it begins with; what they may do with those pages is nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import heavy_guests
import probes
import pytest
from live_host import GUESTS, Host, temporary_host, wait_until

pytestmark = [
    pytest.mark.block1_runtime,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: /proc/PID/smaps of a worker is closed to its own user"),
]


def mappings(pid: int) -> list[dict[str, Any]]:
    """The mappings of a worker's code file: mode, inode, flags, KiB by kind."""
    found: list[dict[str, Any]] = []
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            found.append({"mode": rest[0], "inode": rest[3], "name": " ".join(rest[4:])})
        elif first == "VmFlags:":
            found[-1]["flags"] = rest
        elif rest[-1] == "kB":
            found[-1][first[:-1]] = int(rest[0])
    return [each for each in found if "memfd:cwasm" in each["name"]]


def private(pid: int) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


@pytest.fixture(scope="module")
def host(able: None, key: Path) -> Any:
    with temporary_host(key, "[workers]\npool = 0\n") as running:
        running.up()
        running.trust("test/*")
        yield running


def test_one_memfd_for_all(host: Host) -> None:
    """Two workers of a component and the one that comes after a kill map one and the same memfd, which nobody else's
    does; its code is no worker's own, executable or readable, never writable, and sealed."""
    package = probes.pack(host, "twins", {"filesystem": "[]", **probes.OFTEN})
    for instance in ("0", "1"):
        assert "running" == probes.install(host, package, instance=instance)["state"]
    probes.add(host, "another", {"memory": '"32MiB"'})
    pids = [host.component(name)["pid"] for name in ("test/twins/0", "test/twins/1", "test/another/0")]
    os.kill(pids[0], 9)
    again = wait_until(
        "the next worker",
        lambda: (now := host.component("test/twins/0"))["state"] == "running" and now["pid"] != pids[0] and now["pid"],
    )
    one, other, stranger = (mappings(pid) for pid in (again, *pids[1:]))
    assert 1 == len({each["inode"] for each in one + other})
    # The same bytes under another name are the same component to the cache.
    assert {each["inode"] for each in stranger} == {each["inode"] for each in one}
    # Whether this kernel shows what is sealed; the engine's library is.
    shown = any("sl" in line.split() for line in Path(f"/proc/{again}/smaps").read_text(errors="replace").splitlines())
    for each in one + other:
        assert each["mode"] in ("r--p", "r-xp")
        assert 0 == each["Anonymous"]
        assert not shown or "sl" in each["flags"]
    assert ["r-xp"] == [each["mode"] for each in one if "x" in each["mode"]]
    assert sum(each["Shared_Clean"] + each["Shared_Dirty"] for each in one) > 50


def test_no_mapping_is_writable_and_executable(host: Host) -> None:
    """Of no worker, whether its component's code is shared or not."""
    probes.add(host, "modes")
    modes = [
        line.split()[1] for line in Path(f"/proc/{host.component('test/modes/0')['pid']}/maps").read_text().splitlines()
    ]
    assert any("x" in mode for mode in modes)
    assert not [mode for mode in modes if "w" in mode and "x" in mode]


@pytest.mark.long
@pytest.mark.parametrize(("name", "most"), [("wasi-python", 6656), ("wasi-qjs", 4608), ("wasi-go", 6144)])
def test_private_memory_of_large_guests(able: None, key: Path, name: str, most: int) -> None:
    """A worker that has answered has so many KiB for itself: neither its code nor most of its data are among them."""
    wasm = heavy_guests.cached(name)
    with temporary_host(key, "[workers]\npool = 0\n") as host:
        host.up()
        host.trust("test/*")
        source = host.out / f"{name}-source"
        source.mkdir()
        (source / "component.wasm").write_bytes(wasm)
        shutil.copy(GUESTS / name / "component.toml", source)
        package = host.package(source, name=name)
        for instance in ("0", "1", "2"):
            host.install(package, "--instance", instance)
            for _ in range(3):
                host.ask(f"test/{name}/{instance}", "time", seconds=20)
        pids = [component["pid"] for component in host.status()["components"]]
        assert max(map(private, pids)) <= most, list(map(private, pids))
        found = mappings(pids[1])
        assert 1 == len({each["inode"] for pid in pids for each in mappings(pid)})
        # The code, and then the image of the memory, of which it has written a part.
        assert {"r--p", "r-xp", "rw-p"} == {each["mode"] for each in found}
        image = next(each for each in found if each["mode"] == "rw-p")
        assert image["Anonymous"] < image["Size"]
