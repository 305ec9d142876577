"""The outside check, against real workers: it passes the sealed one and names what is missing in any other.

Each test is a small supervisor in a forked child: it takes a block of uids (as root), becomes the service's uid, starts
a zygote, has one worker cloned and looks at it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import wasmtime.component as wasmtime_component
from forked import fork, returns
from small_host import Host

from sandbox.engine import make_engine
from sandbox.kernel import probe
from sandbox.types import EXIT_CODES, Outcome
from sandbox.wire import bridge_ops
from supervisor.parent import inspect
from supervisor.parent.errors import OutsideCheckFailed

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Skip by name what this machine cannot do."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")


@pytest.fixture(scope="module")
def code() -> bytes:
    """Native code of an empty component; no worker here gets as far as running it."""
    return bytes(wasmtime_component.Component(make_engine(), "(component)").serialize())


def verdict(left_out: str, code: bytes, *, uid_off: int = 0) -> str:
    """What the check says of a worker that left out a step."""

    def child() -> str:
        host = Host(left_out)
        pid, uid, report = host.worker(code)
        assert report is not None
        assert (bridge_ops.SEALED, b"\1") == report, "sealed, its code too"
        try:
            return host.check(pid, uid + uid_off)
        finally:
            os.kill(pid, signal.SIGKILL)
            host.channel.close()
            os.waitpid(host.zygote, 0)

    return str(returns(child))


def test_sealed(code: bytes) -> None:
    """Positive control of everything here: the real cage passes."""
    assert "" == verdict("nothing", code)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("descriptors", "descriptors are ['0', '1', '2', '3', '4'"),
        ("last filter", "Seccomp_filters is '2'"),
        ("both filters", "Seccomp_filters is '1'"),
        ("capabilities", "CapPrm is"),
        ("network", "namespaces shared with host or zygote: net"),
        ("root", "mounts are"),
        ("pid", "first process of its pid namespace"),
        ("parent", "PPid is"),
    ],
)
def test_a_step_left_out(code: bytes, left_out: str, said: str) -> None:
    """A worker that says it is sealed and is not is refused, and the text names the difference."""
    text = verdict(left_out, code)
    assert said in text
    assert text.startswith("E_OUTSIDE_CHECK")


def test_wrong_uid(code: bytes) -> None:
    """A worker under another uid than the one it was given is refused."""
    assert "Uid is" in verdict("nothing", code, uid_off=1)


def test_a_step_that_fails_is_told(code: bytes) -> None:
    """A refused step ends the worker with its outcome, and the supervisor hears the step's name."""

    def child() -> list[Any]:
        host = Host("landlock refuses")
        pid, _, report = host.worker(code)
        _, status = os.waitpid(pid, 0)
        host.channel.close()
        os.waitpid(host.zygote, 0)
        assert report is not None
        return [report[0], report[1].decode(), os.waitstatus_to_exitcode(status)]

    kind, text, status = returns(child)
    assert bridge_ops.SETUP_ERROR == kind
    assert "[landlock]" in text
    assert "refused on purpose" in text
    assert Outcome.SETUP_ERROR is EXIT_CODES[status]


def _ordinary_child() -> int:
    pid = fork()
    if pid == 0:
        signal.pause()
    return pid


def test_an_ordinary_child() -> None:
    """A process without any wall is refused, at the first thing looked at."""
    pid = _ordinary_child()
    try:
        with pytest.raises(OutsideCheckFailed, match=r"is .*wanted"):
            inspect.check(pid, os.getuid(), False, inspect.own_namespaces(), 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_process_that_is_gone() -> None:
    """A zombie is no worker."""
    pid = fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(OutsideCheckFailed):
        inspect.check(pid, os.getuid(), False, inspect.own_namespaces(), 0)
    os.waitpid(pid, 0)


def _lying(changes: dict[str, str]) -> Callable[[int], dict[str, str]]:
    real = inspect._status
    return lambda pid: real(pid) | changes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PPid", "1"),
        ("Uid", "0\t0\t0\t0"),
        ("Gid", "0\t0\t0\t1"),
        ("NoNewPrivs", "0"),
        ("Seccomp", "1"),
        ("Seccomp_filters", "7"),
        ("Threads", "2"),
        ("CapInh", "0000000000000001"),
        ("CapPrm", "000001ffffffffff"),
        ("CapEff", "0000000000000001"),
        ("CapBnd", "0000000000000001"),
        ("CapAmb", "0000000000000001"),
        ("NSpid", "77"),
        ("Groups", "27"),
    ],
)
def test_every_line_of_the_status_counts(code: bytes, key: str, value: str) -> None:
    """Each value of /proc/PID/status alone, changed, is refused by its name."""
    if key == "Groups" and not ROOT:
        pytest.skip("needs root: an ordinary user's groups cannot be emptied and are not checked")

    def child() -> str:
        host = Host("nothing")
        pid, uid, _ = host.worker(code)
        assert "" == host.check(pid, uid), "positive control"
        inspect._status = _lying({key: value})
        try:
            return host.check(pid, uid)
        finally:
            os.kill(pid, signal.SIGKILL)
            host.channel.close()
            os.waitpid(host.zygote, 0)

    text = returns(child)
    assert ("pid namespace" if key == "NSpid" else f"{key} is") in text


def test_the_zygote_ends_with_its_channel() -> None:
    """A zygote whose supervisor hangs up exits by itself."""

    def child() -> int:
        host = Host("nothing")
        host.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(host.zygote, 0)[1])

    assert 0 == returns(child)
