"""Workers started again, loops, bombs, code in the cache, lesser kernels: the self-test's rows, on a real host."""

from __future__ import annotations

import dataclasses
import os

import pytest

from sandbox.kernel import libc
from supervisor.selftest import bombs, kernels, lifecycle
from supervisor.selftest.attack import CaseResult, Shown, Verdict
from supervisor.selftest.bombs import Bomb
from supervisor.selftest.host import HostileHost
from supervisor.selftest.kernels import Lesser

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code"),
]


def bad(cases: tuple[CaseResult, ...]) -> list[CaseResult]:
    """Those that are not as they must be."""
    return [case for case in cases if not case.good]


@pytest.mark.parametrize("name", lifecycle.TITLES)
def test_row(hostile_host: HostileHost, name: str) -> None:
    """Every start puts up the same walls; each limit ends a loop alone; each wall stops a fork bomb alone; code that
    control did not leave is never loaded."""
    assert [] == bad(lifecycle.cases(hostile_host, name))


BOMBS = list(bombs.bombs())


@pytest.mark.parametrize("number", range(len(BOMBS)), ids=[bomb.name for bomb in BOMBS])
def test_bomb(hostile_host: HostileHost, number: int) -> None:
    """T60: the component is refused or ends for its reason; the host's processes are the same and have not grown."""
    case = bombs.tried(hostile_host, BOMBS[number], number)
    assert case.good, case
    assert case.shown is Shown.WORKS or not BOMBS[number].control


def test_native_bombs(hostile_host: HostileHost) -> None:
    """T60: machine code gets no memory beyond its limit, and its stack's end is its worker's alone."""
    worker = hostile_host.worker("eater")
    assert [] == bad(tuple(bombs.native_bombs(worker)))
    worker.close()


def test_a_component_without_a_bomb_is_told(hostile_host: HostileHost) -> None:
    """T60 can fail: what comes up counts as a success of the attack, another end than expected as odd."""
    harmless = Bomb("harmless", frozenset({"memory"}), ("",))
    assert Verdict.SUCCEEDED == bombs.tried(hostile_host, harmless, 100).verdict
    other = dataclasses.replace(BOMBS[0], outcomes=frozenset({"fuel"}))
    assert Verdict.ODD == bombs.tried(hostile_host, other, 101).verdict


QUICK = ("without MDWE", "without namespaces for users", "huge pages off refused to a compiler")


@pytest.mark.parametrize("kernel", [k for k in kernels.KERNELS if k.name in QUICK], ids=lambda kernel: kernel.name)
def test_lesser_kernel(hostile_host: HostileHost, kernel: Lesser) -> None:
    """T62, T63: refused by name; `hostile_host` tells that this machine can have a host."""
    case = kernels.tried(kernel)
    assert case.good, case


@pytest.mark.long
def test_lesser_kernels(hostile_host: HostileHost) -> None:
    """All of them."""
    for row in kernels.run(lambda _: True):
        assert row.good, row


def test_a_kernel_that_is_not_lesser_is_told(hostile_host: HostileHost) -> None:
    """T63 can fail: a host that starts where it should not counts as a success of the attack."""
    agreed = Lesser("T63", "without mseal", "mseal", "landlock", "landlock", kernels.degraded("mseal"))
    assert Verdict.SUCCEEDED == kernels.tried(agreed).verdict, "another wall is lost than the one looked for"
    assert os.path.exists(hostile_host.socket), "another host is untouched"
