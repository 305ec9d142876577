"""Who each process is: uids of the host and its workers.

Started as root, a host takes one block of 65,536 ids out of a range no distribution assigns (systemd's "unused" range,
UIDS-GIDS.md) and holds it by a lock. Within the block each service has its own uid, compilers and workers draw from the
rest in turn, so that an id is not reused at once. Started by an ordinary user there is one uid for all.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from dataclasses import dataclass

from supervisor.parent.errors import RootError

FIRST_ID = 0x70000000
BLOCK = 1 << 16
BLOCKS = 4000
LOCK_DIRECTORY = "/run/lock/airssys"
_COMPILERS = range(16, 256)
_WORKER_BASE = 256
WORKERS = BLOCK - _WORKER_BASE
"""Ids workers may have; inside the zygote's namespace they are 1 .. WORKERS - 1."""


@dataclass(frozen=True)
class Identities:
    """The uids (and gids, the same numbers) of one host.

    `base` is None for an ordinary user: then every property is that user's uid.
    """

    base: int | None
    own: int
    lock: int | None = None
    """Descriptor that holds the block."""

    def _service(self, offset: int) -> int:
        return self.own if self.base is None else self.base + offset

    @property
    def supervisor(self) -> int:
        """The parent itself."""
        return self._service(0)

    @property
    def control(self) -> int:
        """Control."""
        return self._service(1)

    @property
    def router(self) -> int:
        """The router."""
        return self._service(2)

    @property
    def bridge(self) -> int:
        """The bridge."""
        return self._service(3)

    @property
    def auditor(self) -> int:
        """The auditor."""
        return self._service(4)

    def compiler(self, number: int) -> int:
        """A throw-away id for the `number`-th compilation."""
        return self._service(_COMPILERS[number % len(_COMPILERS)])

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """First outside id and count of the workers' ids; None where there are none."""
        return None if self.base is None else (self.base + _WORKER_BASE, WORKERS - 1)

    def worker(self, inside: int) -> int:
        """The outside uid of a worker with this id inside the zygote's namespace."""
        return self.own if self.base is None else self.base + _WORKER_BASE + inside - 1


def claim(root: str, first_id: int = FIRST_ID) -> Identities:
    """The identities of the host at `root`, holding a block when started as root.

    The same root gets the same block again unless another host took it meanwhile.

    Raises:
        RootError: no block is free.
    """
    if os.geteuid() != 0:
        return Identities(None, os.geteuid())
    os.makedirs(LOCK_DIRECTORY, mode=0o700, exist_ok=True)
    wanted = zlib.crc32(root.encode()) % BLOCKS
    for step in range(BLOCKS):
        number = (wanted + step) % BLOCKS
        fd = os.open(f"{LOCK_DIRECTORY}/{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return Identities(first_id + number * BLOCK, 0, fd)
    raise RootError("every block of uids is taken by another host", subject=LOCK_DIRECTORY, hint="stop a host")
