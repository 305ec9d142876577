"""Every attack of the self-test as a test of its own: stopped in a sealed worker, and working without the wall."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.kernel import libc
from supervisor.selftest import matrix, outside, runner
from supervisor.selftest.attack import Attack, Case, Shown, Verdict, judge, one
from supervisor.selftest.attacks import calls
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.victim import Victim
from supervisor.selftest.walls import Prepared, Wall, walls

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code"),
]
CASES = 5
"""Cases of an attack that the default run takes; the long one takes all."""


@pytest.fixture(scope="module")
def workers(hostile_host: HostileHost) -> Iterator[list[HostileWorker]]:
    """Two hostile workers of it."""
    found = [hostile_host.worker("attacks", instance=str(number)) for number in range(2)]
    yield found
    for worker in found:
        worker.close()


def expect(attack: Attack, cases: tuple[Case, ...], worker: HostileWorker) -> list[str]:
    """Try the cases; what this machine cannot show."""
    common = runner.control(attack.control) if attack.control is not None else None
    unshown = []
    for case in cases:
        verdict, how = judge(case, worker.run(case.program))
        assert (Verdict.STOPPED, how) == (verdict, how), (attack.id, case.name)
        shown, why = common or runner.control(case)
        assert Shown.FAILED != shown, (attack.id, case.name, why)
        if shown is Shown.CANNOT:
            unshown.append(f"{case.name}: {why}")
    return unshown


PROGRAMS = [attack for attack in runner.attacks() if attack.id != "T01"]


@pytest.mark.parametrize("attack", PROGRAMS, ids=[f"{attack.id}-{attack.title}" for attack in PROGRAMS])
def test_attack(workers: list[HostileWorker], attack: Attack) -> None:
    """A few cases, spread over the attack: each is stopped as it must be, and works without the wall."""
    step = max(1, len(attack.cases) // CASES)
    cases = attack.cases[::step][:CASES]
    unshown = expect(attack, cases, workers[0])
    if len(unshown) == len(cases):
        pytest.skip(f"stopped, but this machine cannot show that it works without the wall: {unshown[0]}")


def test_permitted(workers: list[HostileWorker]) -> None:
    """T00: what is permitted works, in a worker and in a control; else the rest shows nothing."""
    for case in runner.permitted():
        result = workers[0].run(case.program)
        assert case.worked(result), (case.name, result)
        assert Shown.WORKS == runner.control(case)[0], case.name


def test_other_workers(workers: list[HostileWorker]) -> None:
    """Workers that are executed and reserve address space stand behind the same walls; `workers` tells it can."""
    wanted = ("T00", "T10", "T11", "T12")
    configuration = '[workers]\nspawn = "exec"\nprofile = "standard"\npool = 0\n'
    with HostileHost(configuration=configuration) as other:
        worker = other.worker("other")
        for case in runner.permitted():
            assert case.worked(worker.run(case.program)), case.name
        for attack in PROGRAMS:
            if attack.id in wanted:
                for case in attack.cases[:2]:
                    verdict, how = judge(case, worker.run(case.program))
                    assert Verdict.STOPPED == verdict, (attack.id, case.name, how)
        worker.close()


def test_sweep(workers: list[HostileWorker]) -> None:
    """T01 by every 61st number, and the two numbers no filter sees."""
    numbers = [*range(0, 1024, 61), *calls.UNFILTERED]
    cases = tuple(case for number in numbers for case in calls.sweep(range(number, number + 1)))
    expect(dataclasses.replace(calls.whole_sweep(), cases=cases), cases, workers[0])


@pytest.mark.parametrize("name", outside.CHECKS)
def test_outside(hostile_host: HostileHost, workers: list[HostileWorker], name: str) -> None:
    """What the kernel says of workers under attack."""
    row = outside.CHECKS[name](outside.Context(hostile_host, workers))
    assert [] == [case for case in row.cases if not case.good]
    if all(case.shown is Shown.CANNOT for case in row.cases):
        pytest.skip(row.cases[0].control)


def test_nothing_outlives_the_supervisor(workers: list[HostileWorker]) -> None:
    """T24, on a host of its own; `workers` tells that this machine can have one."""
    with HostileHost() as host:
        row = outside.supervisor_killed(outside.Context(host, [host.worker("last")]))
    assert row.good, row


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    """What the attacks of the matrix are aimed at."""
    with Victim() as victim:
        yield victim


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """What walls need that are put up one by one."""
    return Prepared()


COLUMNS = range(28)


@pytest.mark.parametrize("number", COLUMNS)
def test_each_wall_alone(victim: Victim, prepared: Prepared, number: int) -> None:
    """An attack that works without walls is stopped by each wall that must stop it, with all others down."""
    target = list(matrix.targets(victim.found))[number]
    listed = [wall for wall in walls(prepared) if wall.name in target.stopped_by]
    assert target.stopped_by == {wall.name for wall in listed}, "a wall that does not exist"
    column = matrix.make(target, listed, victim.found)
    if not column.shown:
        pytest.skip(f"{target.name} cannot be shown here: {column.baseline}")
    assert () == column.missing
    assert matrix.STOPS in column.cells.values()


def test_a_success_is_told(workers: list[HostileWorker], victim: Victim) -> None:
    """The tests above can fail: a permitted call counts as an attack that succeeded, a wall of air as one that fell."""
    case = one("a clock", "clock_gettime", 1, bytes(16))
    assert Verdict.SUCCEEDED == judge(case, workers[0].run(case.program))[0]
    target = dataclasses.replace(next(matrix.targets(victim.found)), stopped_by=frozenset({"air"}))
    assert ("air",) == matrix.make(target, [Wall("air", lambda: None)], victim.found).missing


def test_every_column_is_tested(victim: Victim) -> None:
    """The numbers above are those of all columns, and every wall that can be shown alone stops something."""
    listed = list(matrix.targets(victim.found))
    assert len(COLUMNS) == len(listed)
    expected = {wall for target in listed for wall in target.stopped_by}
    assert set() == {wall.name for wall in walls(Prepared())} - expected


def run(*arguments: str) -> tuple[int, Any]:
    """`airssys selftest escape` with JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.cli", "selftest", "escape", "--json", *arguments],
        capture_output=True,
        check=False,
        timeout=600,
    )
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_command(workers: list[HostileWorker]) -> None:
    """The command runs what it is asked for and says so; `workers` only tells that this machine can."""
    status, report = run("--only", "T02,t27", "--jobs", "2")
    assert 0 == status, report
    assert ["T00", "T02", "T26"] == [row["id"] for row in report["attacks"]]
    assert {"attacks": 4, "stopped": 4, "succeeded": 0, "odd": 0, "controls-failed": 0} == {
        key: report["summary"][key] for key in ("attacks", "stopped", "succeeded", "odd", "controls-failed")
    }
    assert {"walls": [], "attacks": []} == report["matrix"]


def test_unknown_attack() -> None:
    """An id that does not exist is an error, not an empty success."""
    status, report = run("--only", "T999")
    assert 1 == status
    assert "E_SELFTEST" == report["error"]["code"]


@pytest.mark.long
def test_everything(workers: list[HostileWorker]) -> None:
    """The whole command: nothing succeeds, no control fails."""
    status, report = run()
    bad = [case for row in report["attacks"] for case in row["cases"] if case["verdict"] != "stopped"]
    failed = [case for row in report["attacks"] for case in row["cases"] if case["control"] == "failed"]
    assert ([], [], 0) == (bad, failed, status)
    assert os.geteuid() != 0 or report["walls-lost"] == {}
