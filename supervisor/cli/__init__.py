"""The command line: a client of control's API, and the offline tools around keys and packages.

One module per group of commands, loaded when one of them is called: `airssys --help` loads click and nothing else.
Imports `supervisor.config`, `supervisor.packages` and (for `up` and `doctor`) the parent and the kernel probe.
"""

from __future__ import annotations


def main() -> None:
    """The command `airssys`."""
    from supervisor.cli.app import run

    raise SystemExit(run())
