"""Every limit of the manifest changes behaviour, each alone, and every end is told by its cause."""

from __future__ import annotations

import pytest
from live_host import GUESTS, Host, wait_until

pytestmark = pytest.mark.block1_runtime


@pytest.fixture(scope="module")
def probe(shared: Host) -> Host:
    """The probe on the shared host, deadline 3 s, 16 MiB, 64 KiB stored, 256 KiB a message."""
    data = shared.out / "data"
    data.mkdir()
    (data / "there.txt").write_text("hello")
    # Ended on purpose again and again: the restart intensity is not what is tested here.
    often = shared.package(GUESTS / "probe", edit=lambda text: text.replace("max-restarts = 3", "max-restarts = 100"))
    shared.install(often, "--bind", f"/data={data}", "--bind", f"/ro={data}")
    return shared


def _ended(probe: Host, command: str, outcome: str) -> None:
    old = probe.component("test/probe/0")["pid"]
    error = probe.fail("test/probe", command, seconds=20)
    assert "E_TARGET_ENDED" == error.code
    wait_until(
        "a new worker",
        lambda: (c := probe.component("test/probe/0"))["state"] == "running" and c["pid"] != old,
        seconds=30,
    )
    assert outcome == probe.component("test/probe/0")["outcome"]
    assert "alive" == probe.ask("test/probe", "echo alive")


def test_fuel(probe: Host) -> None:
    """A loop is ended by the fuel of one message."""
    _ended(probe, "spin", "fuel")


def test_deadline_while_blocked_in_the_host(probe: Host) -> None:
    """A message that sleeps past its deadline is killed from outside, or told by the bridge and ends as a deadline."""
    old = probe.component("test/probe/0")["pid"]
    error = probe.fail("test/probe", "sleep 60000", seconds=20)
    assert "E_TARGET_ENDED" == error.code
    wait_until("a new worker", lambda: probe.component("test/probe/0")["pid"] not in (old, None), seconds=30)
    assert "deadline" == probe.component("test/probe/0")["outcome"]


def test_a_short_sleep_is_no_deadline(probe: Host) -> None:
    """Positive control: sleeping less than the deadline is answered."""
    assert probe.ask("test/probe", "sleep 50") is not None


def test_trap(probe: Host) -> None:
    """A trap ends the process, never the host; the record tells of it."""
    _ended(probe, "trap", "trap")
    ends = [record for record in probe.audit("test/probe/0") if record["event"] == "worker.explained"]
    assert any("wasm backtrace" in record["detail"]["detail"] for record in ends)


def test_stack(probe: Host) -> None:
    """Endless recursion traps."""
    _ended(probe, "recurse", "trap")


def test_memory(probe: Host) -> None:
    """memory.grow past the cap answers -1 and ends nothing; below the cap it works."""
    assert int(probe.ask("test/probe", f"grow {4 << 20}")) >= 4 << 20
    assert int(probe.ask("test/probe", f"grow {1 << 30}")) <= 16 << 20


def test_message_size(probe: Host) -> None:
    """A payload over message-size is refused on the way in and on the way out, and nothing ends."""
    old = probe.component("test/probe/0")["pid"]
    assert "x" * 1000 == probe.ask("test/probe", "echo " + "x" * 1000)
    error = probe.fail("test/probe", "echo " + "x" * (300 << 10))
    assert error.code in ("E_TOO_LARGE", "E_VALIDATION")
    assert 1000 == len(probe.ask("test/probe", "big 1000"))
    error = probe.fail("test/probe", f"big {300 << 10}")
    assert "E_TOO_LARGE" == error.code
    assert "over the limit" in str(error)
    assert old == probe.component("test/probe/0")["pid"]


def test_storage_quota(probe: Host) -> None:
    """64 KiB of keys and values are given, one byte more is not, and deleting gives it back."""
    before = int(probe.ask("test/probe", "usage").split()[0])
    assert "error quota-exceeded" in probe.ask("test/probe", "set full " + "x" * (65 << 10))
    assert "error" not in probe.ask("test/probe", "set half " + "x" * (32 << 10))
    assert "error quota-exceeded" in probe.ask("test/probe", "set other " + "x" * (40 << 10))
    probe.ask("test/probe", "del half")
    assert before == int(probe.ask("test/probe", "usage").split()[0])


def test_error_is_no_end(probe: Host) -> None:
    """A guest's own error reaches the asker and the worker lives on."""
    old = probe.component("test/probe/0")["pid"]
    error = probe.fail("test/probe", "fail on purpose")
    assert "E_GUEST_ERROR" == error.code
    assert "on purpose" in str(error)
    assert old == probe.component("test/probe/0")["pid"]
