"""Attacks on airssys, written as tests: hosts, workers, hostile workers, and controls without the cage.

Everything is done by the command `airssys`: by its subcommands, and by `airssys selftest serve`, whose protocol is
docs/reference/selftest-serve.md. Nothing of the host is imported, and importing this starts nothing. With pytest the
fixtures of `airssys.pytest_plugin` make these objects and end them.
"""

from airssys.testing.host import Host, Publisher, Worker
from airssys.testing.hostile import HostileWorker, Pending
from airssys.testing.link import HostError
from airssys.testing.program import CODE, MEMORY, OWN, Place, Program
from airssys.testing.result import Result, cannot_show

__all__ = [
    "CODE",
    "MEMORY",
    "OWN",
    "Host",
    "HostError",
    "HostileWorker",
    "Pending",
    "Place",
    "Program",
    "Publisher",
    "Result",
    "Worker",
    "cannot_show",
]
