"""Each step of the cage made to fail in a real worker: it never reaches READY, names the step, and leaves nothing."""

from __future__ import annotations

import errno
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
import wasmtime.component as wasmtime_component
from forked import returns
from small_host import Host

from sandbox import cage
from sandbox.engine import make_engine
from sandbox.kernel import probe
from sandbox.types import EXIT_CODES, Outcome
from sandbox.wire import bridge_ops

pytestmark = pytest.mark.block4_security
NAMES = re.findall(r'step(?:\.unless_lost)?\((?:"[a-z]+", )?"([^"]+)", [a-z_]', inspect.getsource(cage.enter))
"""The steps, as they are written in `cage.enter`."""
NOT_HERE = {"no further user namespaces"} if os.geteuid() == 0 else {"uid"}


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Skip by name what this machine cannot do."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM], ids=["EPERM", "ENOMEM"])
def test_each_step_refused(number: int) -> None:
    """One zygote, one worker per step: each tells SETUP_ERROR with the step's name and is gone; the last is sealed."""
    code = bytes(wasmtime_component.Component(make_engine(), "(component)").serialize())

    def child() -> list[list[Any]]:
        host = Host(f"each in turn {number}")
        descriptors = len(os.listdir("/proc/self/fd"))
        told: list[list[Any]] = []
        for _ in range(len(NAMES) + 1):
            pid, uid, report = host.worker(code)
            assert report is not None, told
            if report[0] == bridge_ops.SEALED:
                assert "" == host.check(pid, uid), "the control: without a failure it is sealed and passes"
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                break
            _, status = os.waitpid(pid, 0)
            told.append([report[1].decode(), os.waitstatus_to_exitcode(status)])
        for sock in host.kept:
            sock.close()
        assert [str(host.zygote)] == _children(os.getpid()), "nothing is left of them"
        assert [] == _children(host.zygote)
        left = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert len(left) <= descriptors, " ".join(left[14:])
        host.channel.close()
        os.waitpid(host.zygote, 0)
        return told

    told = returns(child)
    steps = [re.findall(r"\[([^]]+)\]$", text)[0] for text, _ in told]
    assert [name for name in NAMES if name not in NOT_HERE] == steps
    assert all("refused on purpose" in text for text, _ in told)
    assert {Outcome.SETUP_ERROR} == {EXIT_CODES[status] for _, status in told}
