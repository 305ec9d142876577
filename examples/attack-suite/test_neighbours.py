"""An honest component beside a compromised one."""

from __future__ import annotations

from pathlib import Path

import pytest
from airssys.testing import HostError, Program

REDACTOR = Path(__file__).resolve().parents[1] / "logclean" / "redactor"


@pytest.fixture
def redactor(airssys_worker, tmp_path):
    """A component of somebody else's: signed, installed, started."""
    return airssys_worker(REDACTOR, binds={"/out": str(tmp_path)})


def test_a_neighbour_answers_meanwhile(redactor, hostile_worker):
    """While a hostile worker spins and dies, the neighbour answers from the same process."""
    pid = redactor.pid
    worker = hostile_worker()
    spin = Program()
    spin.step("thread", times=5_000_000)
    spin.syscall("getpid")
    running = worker.start_program(spin)
    for _ in range(5):
        assert b"lines" in redactor.ask("report", content_type="text/plain")
    running.result().assert_stopped_by("policy", "fuel", "deadline")
    assert redactor.pid == pid


def test_a_neighbour_is_no_target(redactor, hostile_worker):
    """It is no target of messages either; a client of the host may ask it."""
    worker = hostile_worker()
    request = worker.router("Request", b"report", ask=1, target=redactor.id, timeout_ms=1000)
    result = worker.frames(4, request, answers=1).assert_answered()
    assert result.denied() == ["messaging.request"]
    assert b"lines" in redactor.ask("report", content_type="text/plain")


def test_who_may_send_to_a_component(hostile_worker):
    """It is in the component's own manifest: one that takes messages of acme's alone answers no client."""
    worker = hostile_worker(manifest={"messaging": '[{ from = "acme/*" }]'})
    with pytest.raises(HostError, match="does not accept"):
        worker.ask(b"hello")
