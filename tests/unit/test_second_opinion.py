"""The compiled filters read by another program than ours: libseccomp's own simulator, `scmp_bpf_sim`.

Debian ships it in no package; `scripts/build-bpf-sim` builds it from Debian's source into `build/`. Skipped where it is
neither there nor in PATH. The same questions are asked of our interpreter of BPF in `test_seccomp_policies`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bpf import ALLOW, ARCHITECTURES, KILL, compiled, run, wanted

from sandbox.policy.rules import MACHINES

pytestmark = pytest.mark.block4_security
BUILT = Path(__file__).resolve().parents[2] / "build" / "scmp_bpf_sim"
TOOL = shutil.which("scmp_bpf_sim") or (str(BUILT) if BUILT.exists() else "")
FILTERS = ("worker", "worker-load", "compiler", "zygote", "auditor", "bridge", "router", "control", "supervisor")
WORDS = {KILL: "KILL_PROCESS", ALLOW: "ALLOW"}


def _questions(name: str, machine: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each rule's call as the rule wants it, with each of its arguments changed in a low and a high bit, and others."""
    _, listed = compiled(name, machine)
    for number, rule in [(number, rule) for number, said in listed.items() for rule in said]:
        arguments = [0] * 6
        for entry in rule.comparisons:
            arguments[entry.argument] = entry.value
        yield number, tuple(arguments)
        for entry in rule.comparisons:
            for bit in (0, 2, 33, 63):
                changed = list(arguments)
                changed[entry.argument] ^= 1 << bit
                yield number, tuple(changed)
    for number in (set(range(0, 480)) | {512, 547, 1023}) - set(listed):
        yield number, (0,) * 6


@pytest.mark.skipif(not TOOL, reason="no scmp_bpf_sim here: scripts/build-bpf-sim builds it")
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", FILTERS)
def test_the_simulator_agrees(name: str, machine: str, tmp_path: Path) -> None:
    """For each question the policy, our interpreter and the simulator give one answer."""
    bpf, listed = compiled(name, machine)
    file = tmp_path / "filter.bpf"
    file.write_bytes(bpf)
    for number, arguments in _questions(name, machine):
        options = [word for at, value in enumerate(arguments) for word in (f"-{at}", str(value))]
        done = subprocess.run(
            [TOOL, "-f", str(file), "-a", machine, "-s", str(number), *options], capture_output=True, check=True
        )
        said = wanted(listed, number, arguments)
        assert said == run(bpf, number, arguments, ARCHITECTURES[machine])
        assert WORDS.get(said, f"ERRNO({said & 0xFFFF})") == done.stdout.decode().strip(), (number, arguments)
