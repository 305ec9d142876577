"""Entry of the bridge process.

The process is already what it will be: final uid, empty root, no privileges. Everything is imported before `run` is
called (nothing can be imported in an empty root); the storage directory is a descriptor, entered once.
"""

from __future__ import annotations

import os
import socket

from bridge import openat2
from bridge.server import Server
from bridge.storage import MAP_SIZE, Storage


def run(sup: socket.socket, storage_dirfd: int, *, map_size: int = MAP_SIZE) -> None:
    """Serve until the supervisor hangs up.

    Args:
        sup: channel to the supervisor (SEQPACKET).
        storage_dirfd: the storage directory; closed once the database is open.
        map_size: bound of the storage database, bytes.

    Raises:
        KernelFeatureMissing: no openat2.
        StorageBroken: the storage database does not open.
    """
    os.umask(0o077)
    openat2.probe()
    storage = Storage.open(storage_dirfd, map_size)
    os.chdir("/")
    os.close(storage_dirfd)
    Server(sup, storage).run()
