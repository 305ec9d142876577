"""A fallen worker against bridge and router: every row of the self-test that plays it, on a real host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from sandbox.kernel import libc
from supervisor.selftest import deputies, naive
from supervisor.selftest.attack import CaseResult, Shown, Verdict
from supervisor.selftest.attacks import bridge_frames, router_frames
from supervisor.selftest.attacks.frames import mutations
from supervisor.selftest.deputies import Deputies
from supervisor.selftest.host import HostileHost
from supervisor.selftest.neighbour import Siege

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code"),
]
EVERY = 4
"""The default run takes one frame of so many; the long one takes all."""


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """What naive bridges and routers do."""
    return deputies.controls()


@pytest.fixture(scope="module")
def besieged(hostile_host: HostileHost, shown: dict[str, str]) -> Iterator[Deputies]:
    """A host under siege, from before `shown` has no more to fork."""
    with Siege(hostile_host) as siege:
        found = Deputies(hostile_host, siege, shown, EVERY)
        yield found
        found.close()


def bad(cases: tuple[CaseResult, ...]) -> list[CaseResult]:
    """Those that are not as they must be."""
    return [case for case in cases if not case.good]


@pytest.mark.parametrize("name", deputies.TITLES)
def test_row(besieged: Deputies, name: str) -> None:
    """Each attack ends its worker, for its reason and on record; a neighbour and the host's processes notice nothing;
    and it does harm to a bridge or router that believes what it is told."""
    assert [] == bad(besieged.row(name))


def test_every_frame_harms_a_naive_peer(shown: dict[str, str]) -> None:
    """Positive control of each frame, those that the default run leaves out too."""
    assert [] == [name for name, harm in shown.items() if not harm]


def test_an_ordinary_frame_harms_nobody() -> None:
    """The controls can fail: naive peers serve what is well-formed, and all that happens is that they act on it."""
    assert "acts on it" == naive.harm(naive.bridge, [bridge_frames.SEEDS[4]])
    assert "acts on it" == naive.harm(naive.router, [router_frames.SEEDS[6]])
    assert "" == naive.harm(naive.bridge, [])


def test_a_frame_that_is_taken_is_told(besieged: Deputies) -> None:
    """The rows can fail: a frame that is well-formed counts as an attack that succeeded, another reason as odd."""
    attack = next(bridge_frames.attacks())
    good = dataclasses.replace(attack, packets=(bridge_frames.SEEDS[4],), outcome="deadline", why="not that")
    (case,) = besieged.frames([good])
    assert (Verdict.SUCCEEDED, Shown.WORKS) == (case.verdict, case.shown)
    (case,) = besieged.frames([dataclasses.replace(attack, why="not that")])
    assert Verdict.ODD == case.verdict


def test_mutations_are_the_same_again() -> None:
    """A seed gives the same frames on every machine, and other frames than the good ones."""
    one, two = (list(mutations(bridge_frames.SEEDS, 100, deputies.SEED)) for _ in range(2))
    assert one == two
    assert len(set(one) - set(bridge_frames.SEEDS)) > 80


@pytest.mark.long
def test_everything(hostile_host: HostileHost, shown: dict[str, str]) -> None:
    """All frames, and ten times as many mutated ones as the self-test sends."""
    with Siege(hostile_host) as siege:
        whole = Deputies(hostile_host, siege, shown)
        for name in deputies.TITLES:
            assert [] == bad(whole.row(name)), name
        for seed in range(deputies.SEED, deputies.SEED + 10):
            assert [] == bad((whole.mutated(3, bridge_frames.SEEDS, seed), whole.mutated(4, router_frames.SEEDS, seed)))
        whole.close()
