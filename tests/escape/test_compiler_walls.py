"""The compiler's cage, taken over: native code in it gains nothing, and one that is not sealed gets nothing to compile.

Each test is a small supervisor in a forked child that starts one compiler through the production path
(`supervisor.parent.compilers`). The attack runs in the place where the stranger's bytes would be compiled. Positive
control: the same attack succeeds in an ordinary process.
"""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import odd_compiler
import pytest
from forked import become_ordinary, ends, returns
from odd_compiler import ATTACKS

from sandbox.kernel import cgroups, probe, process
from sandbox.wire import supervisor_frames as frames
from sandbox.wire.compile_result import parse_header
from supervisor.config import HostConfig
from supervisor.parent import inspect, privileges
from supervisor.parent.compilers import Compilation, Compilers
from supervisor.parent.identities import claim
from supervisor.parent.services import Services

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacks are calls by x86-64 number"),
]
ROOT = os.geteuid() == 0
SCRIPT = Path(__file__).resolve().parents[1] / "support" / "odd_compiler.py"
SECONDS = 60
EMPTY = b"\0asm\x0d\0\x01\0"
"""The empty component."""


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Skip by name what this machine cannot do."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")


class Host:
    """A supervisor that has compilers alone (in a forked child of the test)."""

    def __init__(self, left_out: str, attack: str, tree: cgroups.Tree | None = None) -> None:
        identities = claim(f"compiler walls {os.getpid()}")
        log = tempfile.TemporaryFile()  # noqa: SIM115 - the child ends with it
        self.own_uids = identities.base is not None
        if self.own_uids:
            owner = identities.supervisor
            tree = tree or cgroups.create(f"airssys-test-{os.getpid():08x}", owner)
            privileges.become_service(owner)
        process.no_dump()
        execve, pid = os.execve, str(os.getpid())

        def odd(path: str, arguments: list[str], environment: dict[str, str]) -> None:
            assert "sandbox.compiler" == arguments[4]
            execve(path, [path, "-I", "-B", str(SCRIPT), left_out, attack, pid, *arguments[5:]], environment)

        os.execve = odd
        layout: Any = types.SimpleNamespace(log_fd=log.fileno())
        config = HostConfig("/nowhere", "/nowhere", "/nowhere")
        self.tree = tree or cgroups.Tree("none", {}, "an ordinary user's")
        self.compilers = Compilers(Services(config, layout, identities), self.tree)
        self.output = os.memfd_create("compiled")

    def begin(self, memory: int = 256 << 20, seconds: int = 20, body: bytes = EMPTY) -> Compilation:
        """Start the compiler."""
        wasm = os.memfd_create("wasm")
        os.write(wasm, body)
        try:
            return self.compilers.begin(frames.Compile(1, memory, seconds), wasm, self.output, 0)
        finally:
            os.close(wasm)

    def end(self, compilation: Compilation) -> frames.Done | frames.Failed:
        """Hear its report, let it begin or not, wait for its end."""
        assert select.select([compilation.channel], [], [], SECONDS)[0]
        self.compilers.reported(compilation)
        wall = SECONDS
        if compilation.verdict is None:
            self.compilers.expire(compilation.deadline - 0.001)  # not yet
        if not select.select([compilation.pidfd], [], [], wall)[0]:
            signal.pidfd_send_signal(compilation.pidfd, signal.SIGKILL)
            raise AssertionError("the compiler does not end")
        answer = self.compilers.ended(compilation)
        self.tree.remove(compilation.group)
        return answer

    def close(self) -> None:
        """Leave no group."""
        self.tree.dissolve()


def ended(left_out: str, attack: str, **limits: int) -> list[str]:
    """Code, sentence and outcome of a compiler that left out a step and attacked; empty when it ended well."""

    def child() -> list[str]:
        host = Host(left_out, attack)
        try:
            answer = host.end(host.begin(**limits))
            return [answer.code, answer.message, answer.outcome] if isinstance(answer, frames.Failed) else []
        finally:
            host.close()

    return list(returns(child))


def test_the_real_one_compiles() -> None:
    """Positive control of everything here: sealed, checked, told to begin, and an answer about the component."""

    def child() -> Any:
        host = Host("nothing", "")
        try:
            answer = host.end(host.begin())
            assert frames.Done(1) == answer
            info, _ = parse_header(os.pread(host.output, 1 << 20, 0))
            return info.error
        finally:
            host.close()

    code, _, _ = returns(child)
    assert "E_EXPORTS" == code


def test_an_attack_that_is_none() -> None:
    """Positive control: what runs in place of the compilation ends as it says."""
    assert [] == ended("nothing", "nothing")


CALLS = [name for name in ATTACKS if name not in ("nothing", "take all memory", "spin")]
FREE = {"mount", "trace a process", "write into the component", "load a BPF program"}
"""What an ordinary process without a capability, or without these descriptors, cannot do either."""


@pytest.mark.parametrize("attack", CALLS)
def test_native_code_gains_nothing(attack: str) -> None:
    """A forbidden call ends the compiler by its filter, whatever the call would have met."""
    code, message, outcome = ended("nothing", attack)
    assert ("E_COMPILE", "policy") == (code, outcome)
    assert f"signal {int(signal.SIGSYS)}" in message


@pytest.mark.parametrize("attack", [name for name in CALLS if name not in FREE])
def test_without_the_cage_it_does(attack: str) -> None:
    """Positive control: in an ordinary process the same attack succeeds."""

    def child() -> bool:
        become_ordinary()
        for target in (3, 4):
            os.dup2(os.open("/dev/null", os.O_RDWR), target)
        odd_compiler.victim = os.getpid()
        return ATTACKS[attack]()

    if attack == "run a program":
        # A program in the place of the child answers for it: it ends well.
        outcome = ends(child)
        assert (0, 0) == (outcome.status, outcome.signal)
        assert outcome.value is None
    else:
        assert returns(child)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("filter", "Seccomp is '0'"),
        ("capabilities", "CapPrm is"),
        ("root", "mounts are"),
        ("descriptors", "descriptors are ['0', '1', '2', '3', '4'"),
        ("limits", "limit of Max"),
        ("keyring refuses", "[keyring]"),
        ("descriptors refuse", "[descriptors]"),
        ("filter refuses", "[filter]"),
    ],
)
def test_a_step_left_out(left_out: str, said: str) -> None:
    """A compiler that is not sealed never reads the component, and the refusal names what differs or failed."""
    code, message, outcome = ended(left_out, "nothing")
    assert "setup-error" == outcome
    assert said in message
    assert code == ("E_SPAWN" if "refuse" in left_out else "E_OUTSIDE_CHECK")


WITHOUT_FILTER = [
    "open a file",
    "make a process",
    "run a program",
    "signal its supervisor",
    "trace a process",
    "make a user namespace",
    "mount",
    "make a memfd",
    "duplicate a descriptor",
    "io_uring",
]


@pytest.mark.parametrize("attack", WITHOUT_FILTER)
def test_the_other_walls_without_the_filter(attack: str) -> None:
    """With the filter off and nobody looking from outside, the other walls stop the same attacks."""

    def child() -> list[str]:
        host = Host("filter", attack)
        inspect.check_process = lambda pid, wanted: None
        try:
            answer = host.end(host.begin())
            return [answer.code, answer.message] if isinstance(answer, frames.Failed) else []
        finally:
            host.close()

    if attack == "io_uring" and not _memlock_counts():
        pytest.skip("this kernel charges io_uring to the control group, not to locked memory")
    assert ["E_COMPILE", "exit status 77"] == returns(child)


def _memlock_counts() -> bool:
    def child() -> bool:
        import resource

        become_ordinary()
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        return not ATTACKS["io_uring"]()

    return bool(returns(child))


def test_memory_ends_it() -> None:
    """4 GiB of allocations are refused by the limit on address space; the process is told no, and goes on."""
    assert ["E_COMPILE", "exit status 77", "internal-error"] == ended("nothing", "take all memory")


@pytest.mark.skipif(not ROOT, reason="needs root: an ordinary user has no control group to limit")
def test_the_control_group_alone_ends_it() -> None:
    """Without resource limits the kernel's memory killer strikes at the group's limit, and is told as memory."""

    def child() -> list[str]:
        host = Host("limits", "take all memory")
        inspect.check_process = lambda pid, wanted: None
        assert host.tree.backend != "none", host.tree.reason
        try:
            answer = host.end(host.begin(memory=64 << 20))
            assert isinstance(answer, frames.Failed)
            return [answer.code, answer.outcome]
        finally:
            host.close()

    assert ["E_COMPILE_LIMIT", "memory"] == returns(child)


def test_cpu_time_ends_it() -> None:
    """A compiler that spins is ended by its limit of CPU time, though it is the first process of its namespace."""
    code, message, outcome = ended("nothing", "spin", seconds=1)
    assert ("E_COMPILE_LIMIT", "deadline") == (code, outcome)
    assert "longer" in message


def test_the_wall_clock_ends_it() -> None:
    """Without a limit of CPU time the supervisor's clock ends it."""

    def child() -> list[str]:
        host = Host("nothing", "spin")
        try:
            compilation = host.begin(seconds=1000)
            assert select.select([compilation.channel], [], [], SECONDS)[0]
            host.compilers.reported(compilation)
            assert [compilation.deadline] == host.compilers.deadlines()
            host.compilers.expire(compilation.deadline - 1)
            assert not select.select([compilation.pidfd], [], [], 0.2)[0], "positive control: it works on"
            host.compilers.expire(compilation.deadline)
            assert select.select([compilation.pidfd], [], [], SECONDS)[0]
            answer = host.compilers.ended(compilation)
            assert isinstance(answer, frames.Failed)
            host.tree.remove(compilation.group)
            return [answer.code, answer.outcome]
        finally:
            host.close()

    assert ["E_COMPILE_LIMIT", "deadline"] == returns(child)


def test_not_more_than_some_at_once() -> None:
    """The fifth compiler is refused while four are at work; when one has ended there is room again."""

    def child() -> list[str]:
        from supervisor.parent.compilers import AT_ONCE
        from supervisor.parent.errors import CompilersBusy

        host = Host("nothing", "nothing")
        try:
            begun = [host.begin() for _ in range(AT_ONCE)]
            try:
                host.begin()
            except CompilersBusy as error:
                said = [error.code]
            host.end(begun.pop())
            begun.append(host.begin())
            host.compilers.end_all()
            return [*said, str(len(host.compilers.at_work)), str(_groups(host.tree))]
        finally:
            host.close()

    assert ["E_COMPILE_BUSY", "0", "0"] == returns(child)


def _groups(tree: cgroups.Tree) -> int:
    return sum(len(list(Path(parent).glob("c[0-9]*"))) for parent in tree.paths.values())


def test_it_dies_with_its_supervisor() -> None:
    """A supervisor that is killed takes a compiler at work with it."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2], sys.argv[3]]\n"
        "from test_compiler_walls import Host, select\n"
        "host = Host('nothing', 'spin'); c = host.begin(seconds=1000)\n"
        "assert select.select([c.channel], [], [], 60)[0]; host.compilers.reported(c); assert c.verdict is None, c\n"
        "print(c.pid, flush=True); sys.stdin.read()"
    )
    here = Path(__file__).resolve()
    paths = [str(here.parent), str(here.parents[1] / "support"), str(here.parents[2])]
    with subprocess.Popen(
        [sys.executable, "-c", code, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            assert not select.select([pidfd], [], [], 0)[0], "positive control: it lives"
            parent.kill()
            assert select.select([pidfd], [], [], SECONDS)[0]
        finally:
            os.close(pidfd)
            cgroups.clear(f"airssys-test-{parent.pid:08x}")
