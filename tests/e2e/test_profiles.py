"""The profiles of a host: what `standard` changes around a worker and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from live_host import Host
from probes import add

pytestmark = pytest.mark.block4_security
PROBE = "test/probe"


def _limits(pid: int) -> dict[str, int]:
    """Soft limits of a process by name; unlimited is -1."""
    rows = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {row[:26].strip(): -1 if (value := row[26:].split()[0]) == "unlimited" else int(value) for row in rows}


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _run(host: Host) -> int:
    """A running probe; its pid."""
    host.up()
    host.trust("test/*")
    add(host, "probe", {"memory": '"16MiB"'})
    return int(host.component(f"{PROBE}/0")["pid"])


def test_standard_reserves_memory_behind_the_same_walls(configured: Callable[[str], Host]) -> None:
    """Under `standard` a worker's address space has room for reservations; data, filters and limits are the same.

    The control is the same component on a `paranoid` host.
    """
    standard = configured('[workers]\nprofile = "standard"\n')
    paranoid = configured("")
    pids = [_run(host) for host in (standard, paranoid)]
    fast, strict = (_limits(pid) for pid in pids)
    assert fast["Max address space"] >= strict["Max address space"] + (4 << 30)
    assert strict["Max address space"] < 1 << 30
    assert fast["Max data size"] < 1 << 30
    same = set(fast) - {"Max address space", "Max data size"}
    assert {name: strict[name] for name in same} == {name: fast[name] for name in same}
    assert abs(strict["Max data size"] - fast["Max data size"]) < 16 << 20
    walls = ("Seccomp", "Seccomp_filters", "NoNewPrivs", "CapEff", "CapBnd", "Threads")
    assert [_status(pids[0])[name] for name in walls] == [_status(pids[1])[name] for name in walls]
    for host in (standard, paranoid):
        # Growth to the limit and not beyond; an answer in memory that has moved or not.
        assert 8 << 20 <= int(host.ask(PROBE, f"grow {8 << 20}"))
        assert int(host.ask(PROBE, f"grow {1 << 30}")) <= 16 << 20
        assert "x" * 100_000 == host.ask(PROBE, "echo " + "x" * 100_000)
        # A fault in wasm is still a trap: the guard's signal is caught behind the last filter.
        assert "E_TARGET_ENDED" == host.fail(PROBE, "trap").code
        assert "E_TARGET_ENDED" == host.fail(PROBE, "recurse").code
        assert "alive" == host.ask(PROBE, "echo alive")
    ends = [record["detail"]["detail"] for record in standard.audit() if record["event"] == "worker.explained"]
    assert 2 == sum("wasm backtrace" in end for end in ends), ends
    assert "paranoid" == paranoid.status()["host"]["profile"]
    assert "standard" == standard.status()["host"]["profile"]
