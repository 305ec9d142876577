"""Processes, descriptors and memory run out in a live host: what was asked is refused by name, nothing leaks, and
what comes after works.

The limits are real ones, put on the live process from outside (prlimit(2), a pids control group).
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import pytest
from live_host import Host, wait_until
from probes import add

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0
PROBE = "test/probe"


def _prlimit(pid: int, which: int, soft: int | None = None) -> int:
    """The soft limit of another process, changed to `soft` if given; the one before. Done as its own user."""
    owner = _uid(pid)

    def act() -> int:
        if ROOT:
            os.setgroups([])
            os.setresgid(owner, owner, owner)
            os.setresuid(owner, owner, owner)
        old, hard = resource.prlimit(pid, which)
        if soft is not None:
            resource.prlimit(pid, which, (soft, hard))
        return old

    return int(forked.returns(act))


def _uid(pid: int) -> int:
    """The outside uid of a process (which is no longer dumpable: its files in /proc are root's)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    raise AssertionError(pid)


@contextlib.contextmanager
def _limited(pid: int, which: int, value: int) -> Iterator[None]:
    """A soft limit of another process."""
    old = _prlimit(pid, which, value)
    try:
        yield
    finally:
        _prlimit(pid, which, old)


def _fds(pid: int) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid}/fd"), key=int)


def _free(pid: int, count: int) -> int:
    """The limit of open files under which a process has room for `count` more."""
    used, limit = {int(fd) for fd in _fds(pid)}, 0
    while count > 0 or limit in used:
        count -= limit not in used
        limit += 1
    return limit


def _children(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.fixture
def host(configured: Callable[[str], Host]) -> Host:
    """A running host without a pool, a probe on it."""
    host = configured("[workers]\npool = 0\n")
    host.up()
    host.trust("test/*")
    add(host, "probe")
    return host


def _cycle(host: Host, action: str) -> dict[str, object]:
    with host.api() as client:
        return dict(client.post(f"/v1/components/test/probe/0/{action}", timeout=30.0))


def _groups(host: Host) -> list[str]:
    """What is left of workers' and compilers' control groups of this host (as root, v1 or v2)."""
    name = f"airssys-{zlib.crc32(str(host.root / 'lib').encode()):08x}"
    trees = [*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup") / name]
    return [str(path) for tree in trees for path in tree.glob("**/[wc][0-9]*") if path.is_dir()]


def _settled(host: Host) -> tuple[list[str], set[int]]:
    """Descriptors and children of the supervisor once nothing is under way: the same twice in a row."""
    pid = host.processes()["supervisor"]
    last: list[object] = [None]

    def same() -> object:
        state = (_fds(pid), _children(pid))
        if state == last[0]:
            return state
        last[0] = state
        time.sleep(0.05)
        return None

    return wait_until("a quiet supervisor", same)  # type: ignore[no-any-return]


def test_descriptors_run_out_at_each_step_of_a_start(host: Host) -> None:
    """With room for 0, 1, 2, ... descriptors in the supervisor each start is refused with E_EXHAUSTED until one works.

    No descriptor and no process is left over, and supervisor and control live on.
    """
    before_processes = host.processes()
    supervisor = before_processes["supervisor"]
    _cycle(host, "stop")
    fds, children = _settled(host)
    refused = 0
    for room in range(40):
        with _limited(supervisor, resource.RLIMIT_NOFILE, _free(supervisor, room)):
            answer = _cycle(host, "start")
            if answer["state"] == "running":
                break
            assert "E_EXHAUSTED" in str(answer["detail"]), (room, answer)
            refused += 1
            _cycle(host, "stop")
        assert (len(fds), children) == (len(_settled(host)[0]), _settled(host)[1]), room
    else:
        pytest.fail("no start worked")
    assert refused >= 3
    assert "alive" == host.ask(PROBE, "echo alive")
    if ROOT:
        assert _groups(host), "the control: a live worker's group is seen"
    _cycle(host, "stop")
    assert (len(fds), children) == (len(_settled(host)[0]), _settled(host)[1])
    wait_until("no control group is left", lambda: not _groups(host))
    assert before_processes == host.processes()
