"""What `scripts/bench` measures, one module per kind of question.

A benchmark takes a `Bench` and gives its figures by name; the first has the benchmark's own name. Everything here uses
the checkout's packages and what the tests have to start hosts with.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_HERE), str(_HERE / "tests" / "support")]
