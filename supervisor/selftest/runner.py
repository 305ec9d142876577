"""The whole self-test: controls, the matrix, every attack in sealed workers, the looks from outside, the end.

The order matters little but for the last: T24 kills the host. Attacks run on several components at once, each case in a
worker of its own kind: one that was killed is replaced by the host before the next. Where others must not notice an
attack, it runs alone.
"""

from __future__ import annotations

import functools
import os
import platform
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.kernel import libc
from supervisor.selftest import bombs, deputies, files, kernels, lifecycle, machine, matrix, native, outside, scene
from supervisor.selftest.attack import (
    Attack,
    Case,
    CaseResult,
    Row,
    Shown,
    Verdict,
    describe,
    gained,
    judge,
    judge_control,
)
from supervisor.selftest.attacks import calls, kernel, memory, processes, sockets
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.numbers import number
from supervisor.selftest.program import CODE, Program, Until
from supervisor.selftest.witness import Witness

JOBS = 4
"""Components that attack at once."""
FIRST = "T00"
MATRIX = "T39"
LAST = "T24"
ALSO = {"T27": "T26", "T34": "T33", "T40": MATRIX}
"""Ids whose attacks stand in another row."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""


@dataclass(frozen=True)
class Report:
    """Everything that came out.

    Attributes:
        rows: by id.
        walls: the matrix's walls, in the cage's order.
        columns: the matrix, attack by attack; empty when it was not asked for.
        lost: walls the throw-away host says it lost, by name.
    """

    rows: list[Row]
    walls: list[str]
    columns: list[matrix.Column]
    lost: dict[str, str]
    seconds: float
    kernel: str = platform.release()
    user: str = "root" if os.geteuid() == 0 else "an ordinary user"

    @property
    def good(self) -> bool:
        """Whether no attack succeeded and no control failed."""
        return all(row.good for row in self.rows)


def attacks() -> list[Attack]:
    """Every attack that is a program, by id."""
    found = [calls.whole_sweep()]
    for module in (calls, processes, memory, kernel, sockets):
        found += module.attacks()
    return sorted(found, key=lambda attack: attack.id)


def ids() -> list[str]:
    """Every id there is."""
    found = {attack.id for attack in attacks()} | {FIRST, MATRIX, LAST}
    for listed in (outside.CHECKS, ALSO, *(module.TITLES for module in (deputies, files, lifecycle, bombs, kernels))):
        found.update(listed)
    return sorted(found)


def run(
    only: frozenset[str] = frozenset(),
    jobs: int = JOBS,
    progress: Progress = lambda *_: None,
    *,
    configuration: str = "",
) -> Report:
    """Run the self-test.

    Args:
        only: ids; empty for all.
        jobs: components that attack at once.
        configuration: text of the throw-away host's `airssys.toml`.

    Raises:
        SelftestError: not on this machine; an id is unknown; the throw-away host did not start or was lost.
    """
    if libc.MACHINE != "x86_64":
        raise SelftestError(f"not covered on {libc.MACHINE}", hint="the attacks are x86-64 machine code")
    if unknown := only - set(ids()):
        raise SelftestError("no such attack", subject=", ".join(sorted(unknown)), hint=f"there are {', '.join(ids())}")
    only = frozenset(ALSO.get(name, name) for name in only)
    begun = time.monotonic()

    def wanted(name: str) -> bool:
        return not only or name in only

    chosen = [attack for attack in attacks() if wanted(attack.id)]
    # Controls are forked, and so made before there are threads.
    controls = _controls(chosen, progress)
    naive = deputies.controls(wanted)
    walls: list[str] = []
    columns: list[matrix.Column] = []
    if wanted(MATRIX):
        walls, columns = matrix.run(functools.partial(progress, "each wall alone"))
    rows: list[Row] = [_matrix_row(columns)] if columns else []
    rows += kernels.run(wanted, progress)
    with HostileHost(configuration=configuration + lifecycle.CONFIGURATION) as host:
        workers = [host.worker("hostile", instance=str(instance)) for instance in range(max(2, jobs))]
        lost = dict(host.status()["host"]["walls-lost"])
        context = outside.Context(host, workers)
        witness = Witness(host.status()["components"][0]["uid"], host.code_offset())
        rows += outside.run(context, wanted)
        rows += deputies.run(host, naive, wanted, progress)
        for module in (files, lifecycle, bombs):
            rows += module.run(host, wanted, progress)
        rows += _attack(chosen, controls, workers, progress, witness)
        rows.append(_machinery(workers[0], witness))
        if wanted(LAST):
            rows.append(outside.supervisor_killed(context))
        for worker in workers:
            worker.close()
    rows.sort(key=lambda row: row.id)
    return Report(rows, walls, columns, lost, time.monotonic() - begun)


def control(case: Case) -> tuple[Shown, str]:
    """Run a case where nothing of the cage stands."""
    result = native.attempt(case.program, scene.SCENES[case.scene])
    if result.outcome == "wall":
        return Shown.CANNOT, result.detail
    return judge_control(case, result)


def _controls(chosen: list[Attack], progress: Progress) -> dict[int, tuple[Shown, str]]:
    found: dict[int, tuple[Shown, str]] = {}
    cases = [case for attack in chosen for case in (attack.cases if attack.control is None else (attack.control,))]
    for done, case in enumerate(cases):
        progress("controls, without the walls", done, len(cases))
        found[id(case)] = control(case)
    return found


def _attack(
    chosen: list[Attack],
    controls: dict[int, tuple[Shown, str]],
    workers: list[HostileWorker],
    progress: Progress,
    witness: Witness,
) -> list[Row]:
    waiting: queue.SimpleQueue[tuple[int, int, Case]] = queue.SimpleQueue()
    total = 0
    for row, attack in enumerate(chosen):
        for column, case in enumerate(attack.cases):
            waiting.put((row, column, case))
            total += 1
    verdicts: dict[tuple[int, int], tuple[Verdict, str]] = {}
    troubles: list[BaseException] = []

    def serve(worker: HostileWorker) -> None:
        try:
            while not troubles:
                row, column, case = waiting.get_nowait()
                verdicts[row, column] = judge(case, worker.run(case.program))
        except queue.Empty:
            return
        except Exception as error:
            troubles.append(error)

    threads = [threading.Thread(target=serve, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        progress("attacks from sealed workers", len(verdicts), total)
        witness.hear()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    if troubles:
        raise SelftestError(f"the throw-away host was lost: {troubles[0]}") from troubles[0]
    rows = []
    for row, attack in enumerate(chosen):
        results = []
        for column, case in enumerate(attack.cases):
            shown, how = controls[id(attack.control or case)]
            results.append(CaseResult(case.name, *verdicts[row, column], shown, how))
        rows.append(Row(attack.id, attack.title, attack.walls, tuple(results)))
    return rows


def _machinery(worker: HostileWorker, witness: Witness) -> Row:
    """T00: in a sealed worker native code does what it is told, as long as it is permitted; else nothing is shown."""
    cases = []
    for case in permitted():
        result = worker.run(case.program)
        works = case.worked(result)
        verdict, how = (Verdict.ANSWERED, "works") if works else (Verdict.ODD, describe(result))
        cases.append(CaseResult(case.name, verdict, how, *control(case)))
    witness.hear()
    witness.close()
    told = len(witness.own) + witness.elsewhere
    how = f"{len(witness.own)} of {told} deaths that it told of at the attack's own call"
    if told < _TOLD:
        why = witness.silent or "the kernel log tells of too few deaths here"
        cases.append(CaseResult("the kernel log", Verdict.ANSWERED, how, Shown.CANNOT, why))
    else:
        verdict = Verdict.ANSWERED if 2 * len(witness.own) > told else Verdict.ODD
        cases.append(CaseResult("the kernel log", verdict, how, Shown.WORKS, "read by root"))
    return Row(FIRST, "native code in a sealed worker", ("none: what is permitted",), tuple(cases))


_TOLD = 5
"""Deaths of which the kernel log must tell before they are judged."""


def permitted() -> list[Case]:
    """Programs that must work in a worker."""
    calls_, pointer, jump = Program(), Program(), Program()
    clock = calls_.room(16)
    calls_.syscall("clock_gettime", 1, clock, until=Until.OR_GIVE_UP)
    calls_.step("peek", clock)
    value = pointer.room(16)
    pointer.step("poke", value, _VALUE)
    pointer.step("copy", value + 8, value, 8)
    pointer.step("peek", value + 8)
    jump.step("call", CODE + machine.OFFSETS["thread"], 0, 0, 0)
    forked = Program()
    forked.step("fork", number("munmap"), 1, 4096)
    return [
        Case("a system call", calls_, lambda result: gained(result) and result.result() > 0),
        Case("reading and writing by address", pointer, lambda result: gained(result) and result.result() == _VALUE),
        Case("a jump to an address", jump, lambda result: gained(result) and result.result() > 0),
        Case("a call refused by the kernel itself", forked, lambda result: describe(result) == "EINVAL"),
    ]


_VALUE = 0x0123456789ABCDEF


def _matrix_row(columns: list[matrix.Column]) -> Row:
    cases = []
    for column in columns:
        stops = [wall for wall, cell in column.cells.items() if cell == matrix.STOPS]
        if not column.shown:
            cases.append(CaseResult(column.name, Verdict.STOPPED, "not tried", Shown.CANNOT, column.baseline))
            continue
        verdict = Verdict.SUCCEEDED if column.missing else Verdict.STOPPED
        how = f"{', '.join(column.missing)} no longer stop it" if column.missing else f"by {len(stops)} walls alone"
        cases.append(CaseResult(column.name, verdict, how, Shown.WORKS, column.baseline))
    return Row(MATRIX, "each wall alone, all others fallen (T40)", ("each by itself",), tuple(cases))
