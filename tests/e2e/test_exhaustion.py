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
from live_host import Host, temporary_host, wait_until
from probes import add, install, pack

from supervisor.cli.errors import RefusedError
from supervisor.packages import envelope
from supervisor.packages.keys import load_private

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0
PROBE = "test/probe"
needs_descriptors = pytest.mark.skipif(
    not ROOT, reason="the supervisor's descriptors cannot be counted by its own user"
)


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
    """A process's descriptors; none for an ordinary user, to whom a supervisor that is not dumpable is closed."""
    if not ROOT:
        return []
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


@pytest.fixture(scope="module")
def running(able: None, key: Path) -> Iterator[Host]:
    """A running host without a pool, a probe on it; every test leaves it whole."""
    with temporary_host(key, "[workers]\npool = 0\n") as host:
        host.up()
        host.trust("test/*")
        add(host, "probe")
        yield host


@pytest.fixture
def host(running: Host) -> Host:
    """The host, its probe running and nothing else."""
    if running.component(f"{PROBE}/0")["state"] != "running":
        _cycle(running, "start")
    return running


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


@needs_descriptors
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


def _refused(host: Host, before: dict[str, int], *codes: str) -> None:
    """A start now is refused with one of the codes, the supervisor and control being the same still."""
    answer = _cycle(host, "start")
    assert "running" != answer["state"], "the limit bites"
    assert any(code in str(answer["detail"]) for code in codes), answer
    now = host.processes()
    assert (before["supervisor"], before["control"]) == (now["supervisor"], now["control"])


def _works_again(host: Host, settled: tuple[list[str], set[int]], before: dict[str, int]) -> None:
    """The component comes up by itself, and stopped again it has left nothing."""
    wait_until("the component runs", lambda: host.component(f"{PROBE}/0")["state"] == "running")
    assert "alive" == host.ask(PROBE, "echo alive")
    _cycle(host, "stop")
    fds, children = _settled(host)
    assert len(settled[0]) == len(fds)
    assert len(settled[1]) == len(children)
    wait_until("no control group is left", lambda: not _groups(host))
    assert before["supervisor"] == host.processes()["supervisor"]


@pytest.mark.parametrize(
    ("which", "room", "codes"),
    [
        (resource.RLIMIT_NPROC, 0, ("E_EXHAUSTED",)),
        (resource.RLIMIT_NOFILE, 1, ("E_EXHAUSTED",)),
        # The clone is made, and it is the worker that finds no memory; or the zygote does, and is started anew.
        (resource.RLIMIT_AS, 1 << 20, ("E_SPAWN", "E_SETUP", "E_EXHAUSTED", "E_NOT_READY")),
        (resource.RLIMIT_DATA, 1 << 20, ("E_SPAWN", "E_SETUP", "E_EXHAUSTED", "E_NOT_READY")),
    ],
    ids=["processes", "descriptors", "address space", "data"],
)
def test_the_zygote_runs_out(host: Host, which: int, room: int, codes: tuple[str, ...]) -> None:
    """Out of processes, descriptors or memory the zygote makes no worker; the host says so and goes on."""
    before = host.processes()
    _cycle(host, "stop")
    settled = _settled(host)
    with _limited(before["zygote"], which, room):
        _refused(host, before, *codes)
    _works_again(host, settled, before)


@contextlib.contextmanager
def _no_process(pid: int) -> Iterator[None]:
    """A process may start no other: by a control group as root (who is exempt from RLIMIT_NPROC), else by its limit."""
    if not ROOT:
        with _limited(pid, resource.RLIMIT_NPROC, 0):
            yield
        return
    pids = Path("/sys/fs/cgroup/pids")
    if not (pids / "cgroup.procs").exists():
        pytest.skip("no v1 pids hierarchy to take processes away with")
    group = pids / f"exhaustion-{os.getpid()}-{pid}"
    old = next(
        line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if ":pids:" in line
    )
    group.mkdir()
    try:
        (group / "pids.max").write_text("1")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (Path(f"{pids}{old}") / "cgroup.procs").write_text(str(pid))
        wait_until("the group is empty", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_the_supervisor_may_start_no_process(host: Host) -> None:
    """No compiler and no zygote can be started: an install is refused by name, a dead zygote waited for; all heals."""
    before = host.processes()
    settled_fds = len(_settled(host)[0])
    package = _other(host)
    with _no_process(before["supervisor"]):
        with pytest.raises(RefusedError) as caught:
            install(host, package)
        assert "E_EXHAUSTED" == caught.value.code, caught.value
        os.kill(before["zygote"], 9)
        wait_until("the zygote's absence is seen", lambda: not _ready(host, "zygote"))
        assert "alive" == host.ask(PROBE, "echo alive"), "a live worker needs no zygote"
    wait_until("a new zygote", lambda: _ready(host, "zygote"))
    assert "running" == install(host, package)["state"]
    now = host.processes()
    assert (before["supervisor"], before["control"]) == (now["supervisor"], now["control"])
    if ROOT:
        assert settled_fds + 1 == len(_settled(host)[0]), "the second worker's pidfd"
    with host.api() as client:
        client.delete(f"/v1/components/test/{package.name}/0")
    _cycle(host, "restart")
    assert "alive" == host.ask(PROBE, "echo alive")


def _ready(host: Host, name: str) -> bool:
    return any(process["ready"] for process in host.status()["host"]["processes"] if process["name"] == name)


@needs_descriptors
def test_the_pool_survives_a_supervisor_without_descriptors(configured: Callable[[str], Host]) -> None:
    """Blanks that cannot be replaced are no reason to end: starts fail by name meanwhile, and the pool fills again."""
    host = configured("[workers]\npool = 2\n")
    host.up()
    host.trust("test/*")
    add(host, "probe")
    supervisor = host.processes()["supervisor"]
    _cycle(host, "stop")
    before = wait_until("a full pool", lambda: _blanks(host, 2))
    with _limited(supervisor, resource.RLIMIT_NOFILE, _free(supervisor, 0)):
        for pid in before:
            os.kill(pid, 9)
        wait_until("an empty pool", lambda: not before & _children(supervisor))
        # Their descriptors are free again: take those away as well.
        with _limited(supervisor, resource.RLIMIT_NOFILE, _free(supervisor, 0)):
            answer = _cycle(host, "start")
            assert "E_EXHAUSTED" in str(answer["detail"]), answer
    wait_until("the component runs", lambda: host.component(f"{PROBE}/0")["state"] == "running")
    assert supervisor == host.processes()["supervisor"]
    wait_until("a full pool", lambda: _blanks(host, 2), 70)


def _blanks(host: Host, count: int) -> set[int] | None:
    """The pids of workers without a component, once there are so many."""
    known = set(host.processes().values()) | {component["pid"] for component in host.status()["components"]}
    blanks = _children(host.processes()["supervisor"]) - known
    return blanks if len(blanks) == count else None


@pytest.mark.parametrize("which", [resource.RLIMIT_AS, resource.RLIMIT_DATA], ids=["address space", "data"])
def test_the_supervisor_runs_out_of_memory(host: Host, which: int) -> None:
    """A supervisor that gets no further memory lives on, serves or refuses by name, and is whole again afterwards."""
    before = host.processes()
    with _limited(before["supervisor"], which, 1 << 20):
        for _ in range(5):
            _cycle(host, "restart")
        with pytest.raises(RefusedError) as caught:  # a compiler inherits the limit
            install(host, _other(host))
        assert caught.value.code in ("E_COMPILE", "E_EXHAUSTED"), caught.value
    wait_until("the component runs", lambda: host.component(f"{PROBE}/0")["state"] == "running")
    assert "alive" == host.ask(PROBE, "echo alive")
    now = host.processes()
    assert before["supervisor"] == now["supervisor"]
    wait_until("every process is ready", lambda: all(_ready(host, name) for name in now))


def _other(host: Host) -> Path:
    """A component of another name and with other code than any before, so that nothing compiled is cached."""
    number = len(list(host.out.glob("other*")))
    package = pack(host, f"other{number}", {"filesystem": "[]", "memory": '"8MiB"'})
    with (package / "component.wasm").open("ab") as wasm:
        wasm.write(bytes([0, 3, 1, 0x78, number]))
    envelope.sign(str(package), load_private(str(host.key)))
    return package
