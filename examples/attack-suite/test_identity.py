"""Identity: who a worker is, is decided outside of it."""

from __future__ import annotations

import pytest
from airssys.testing import Program


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    with open(f"/proc/{pid}/status") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


@pytest.mark.airssys_needs("own uids")
def test_a_uid_of_its_own(hostile_worker):
    """Two workers have two uids, neither of them 0 nor any process's of the host."""
    uids = {status(hostile_worker().pid)["Uid"] for _ in range(2)}
    assert len(uids) == 2
    assert not {"0"} & {part for uid in uids for part in uid.split()}


def test_no_capability(hostile_worker):
    """None in any set, no_new_privs set, a filter on, one thread."""
    said = status(hostile_worker().pid)
    assert {int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (said["NoNewPrivs"], said["Seccomp"], said["Threads"]) == ("1", "2", "1")
    assert status(1)["CapBnd"] != said["CapBnd"]


@pytest.mark.parametrize("call", ["setuid", "setgid", "capset", "unshare", "setns"])
def test_becoming_somebody_else(hostile_worker, call):
    """No call that changes who one is comes through."""
    program = Program()
    program.syscall(call, 0, 0)
    worker = hostile_worker()
    worker.run(program).assert_stopped_by("policy")
    worker.assert_works_without(program, worked=lambda result: result.answered)


def test_an_end_is_told_by_the_kernel(hostile_worker):
    """A worker may lie with its exit status about its own end, and about nothing else: it is gone, and replaced."""
    worker = hostile_worker()
    program = Program()
    program.syscall("exit_group", 0)
    result = worker.run(program)
    assert result.outcome == "exited"
    worker.wait(lambda now: now["state"] == "running" and now["pid"] != result.pid)
