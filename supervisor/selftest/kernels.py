"""T62, T63: kernels that refuse a step of the hardening, or lack a wall.

The kernel is this one; a filter in front of a whole throw-away host answers some calls as a lesser kernel would
(`lesser_kernel`), and nothing of the host is replaced. The control is the self-test's own host, which starts without.

T62 has the steps that the host's start does not try beforehand. Each single step of a worker, refused in turn, is a
matter of the test suite (`tests/unit/test_failing_steps.py`), because that takes another zygote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sandbox.kernel import probe
from supervisor.cli.errors import RefusedError
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import HostileHost
from supervisor.selftest.outside import descendants

_LESSER = "supervisor.selftest.lesser_kernel"
_AT_ONCE = 3


def degraded(*walls: str) -> str:
    """Text of `airssys.toml` by which the operator agrees to lose these walls."""
    return f'[workers]\nprofile = "degraded"\naccept-lost = {json.dumps(walls)}\n'


@dataclass(frozen=True)
class Lesser:
    """A kernel.

    Attributes:
        lacks: as `lesser_kernel` has it.
        wall: by the host's own name; "" for a step that is refused.
        words: in what the host says.
        configuration: of the host.
    """

    id: str
    name: str
    lacks: str
    wall: str
    words: str
    configuration: str = ""


_ALONE = "[workers]\npool = 0\n"
KERNELS = (
    Lesser("T62", "a new keyring refused to a process of the host", "keyrings", "", "died 6 times"),
    Lesser("T62", "huge pages off refused to a compiler", "huge pages", "", "[huge pages]", _ALONE),
    Lesser("T63", "without Landlock", "landlock", "landlock", "landlock: "),
    Lesser("T63", "with Landlock left out of the security modules", "landlock disabled", "landlock", "landlock: "),
    Lesser("T63", "without MDWE", "mdwe", "mdwe", "mdwe: "),
    Lesser("T63", "without namespaces for users", "namespaces", "namespaces", "namespaces: "),
    Lesser("T63", "without openat2", "openat2", "openat2", "openat2: "),
    Lesser(
        "T63", "without Landlock, by the operator's consent", "landlock", "landlock", "landlock", degraded("landlock")
    ),
)
TITLES = {
    "T62": ("two steps refused by the kernel; each step of a worker by the test suite", ("every step is fatal",)),
    "T63": ("kernels that lack a wall", ("refused by name, or lost by consent",)),
}


def tried(kernel: Lesser, missing: frozenset[str] = frozenset()) -> CaseResult:
    """Start a host there.

    Args:
        missing: walls that this machine lacks anyway.
    """
    shown = (Shown.WORKS, "starts on this kernel as it is")
    if kernel.wall in missing:
        shown = (Shown.CANNOT, "this machine lacks it anyway")
    command = [sys.executable, "-m", _LESSER, kernel.lacks, "--"]
    try:
        with HostileHost(configuration=kernel.configuration, before=command) as host:
            if "degraded" in kernel.configuration:
                lost = host.status()["host"]["walls-lost"]
                named = kernel.wall in lost and f"wall lost: {kernel.wall}: " in host.log()
                verdict = Verdict.STOPPED if named else Verdict.SUCCEEDED
                return CaseResult(
                    kernel.name, verdict, "starts, and names what is lost" if named else str(lost), *shown
                )
            return CaseResult(kernel.name, *_no_worker(host, kernel), *shown)
    except SelftestError as error:
        said = f"{error.message} {error.subject}"
        if kernel.words not in said:
            return CaseResult(kernel.name, Verdict.ODD, said, *shown)
        how = "refused by name" if kernel.wall else "the host does not start"
        return CaseResult(kernel.name, Verdict.STOPPED, how, *shown)


def _no_worker(host: HostileHost, kernel: Lesser) -> tuple[Verdict, str]:
    """No compiler or worker may come up there; the step must be named, and nothing be left behind."""
    supervisor = host.pids()["supervisor"]
    before = descendants(supervisor)
    try:
        host.worker("unfinished", values={"restart": '"temporary"'})
    except (SelftestError, RefusedError) as error:
        left = descendants(supervisor) - before
        if left:
            return Verdict.SUCCEEDED, f"processes are left: {sorted(left)}"
        named = kernel.words in str(error)
        return (Verdict.STOPPED, "refused by name") if named else (Verdict.ODD, str(error))
    return Verdict.SUCCEEDED, "a worker came up"


def run(wanted: Callable[[str], bool], progress: Callable[[str, int, int], None] = lambda *_: None) -> Iterator[Row]:
    """The rows that are wanted; see `deputies.run`. Hosts of its own."""
    chosen = [kernel for kernel in KERNELS if wanted(kernel.id)]
    if not chosen:
        return
    missing = frozenset(wall.name for wall in probe.probe() if wall.state == "missing")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        progress("lesser kernels", 0, 1)
        found = list(pool.map(lambda kernel: tried(kernel, missing), chosen))
    for id_, (title, walls) in TITLES.items():
        cases = tuple(case for kernel, case in zip(chosen, found, strict=True) if kernel.id == id_)
        if cases:
            yield Row(id_, title, walls, cases)
