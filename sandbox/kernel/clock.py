"""The CPU clock of another process, clock_gettime(2); no library beyond Python's own."""

from __future__ import annotations

import time


def cpu_seconds(pid: int) -> float | None:
    """CPU time a process has used, all its threads together, seconds; None when it is gone.

    Anybody may read it, of any process in the own pid namespace: its CPU clock's id is (~pid << 3) | 2, as
    clock_getcpuclockid(3) makes it.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None
