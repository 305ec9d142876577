"""`scripts/bench` gives its figures in the form that scripts rely on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_host import CHECKOUT

pytestmark = [pytest.mark.block9_monitoring, pytest.mark.long]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the figures are those of a host with every wall")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap, the peer of a start, is not installed")
def test_figures(able: None, tmp_path: Path) -> None:
    """Each figure has ours, peer, ratio, unit and the peer's name; a ratio follows from the two."""
    out = tmp_path / "figures.json"
    names = ["start", "crash", "memory", "install"]
    command = [sys.executable, str(CHECKOUT / "scripts" / "bench.py"), *names, "--rounds", "1", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    figures = json.loads(out.read_text())
    assert set(names) <= set(figures)
    for figure in figures.values():
        assert {"ours", "peer", "ratio", "unit", "peer_name"} == set(figure)
        assert figure["ours"] > 0
        if figure["peer"] is not None:
            assert figure["ratio"] == pytest.approx(figure["ours"] / figure["peer"], abs=0.01)
