"""Entry of the auditor process.

The process is already what it will be: final uid, empty root, no privileges. Everything is imported before `run` is
called; the log directory is a descriptor and stays one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from bridge.audit.auditor import Auditor
from bridge.audit.files import load_key
from bridge.audit.ledger import ROTATE_SIZE


def run(
    sup: socket.socket, log_dirfd: int, sync: str, *, rotate_size: int = ROTATE_SIZE, lost: Sequence[str] = ()
) -> None:
    """Serve until the supervisor hangs up.

    Args:
        sup: channel to the supervisor (SEQPACKET).
        log_dirfd: the log directory; kept for rotation.
        sync: "always", or how long a line may wait for the disk, as "50ms".
        rotate_size: bytes after which a new audit file is begun.
        lost: walls the host runs without; each line names them.

    Raises:
        ChainBroken: the log does not follow from itself (`E_AUDIT_CHAIN`, naming the line); nothing is written.
        AuditKeyUnusable, BadSync: see there.
        OSError: the directory cannot be used, or synchronising failed.
    """
    os.umask(0o077)
    Auditor(sup, log_dirfd, load_key(log_dirfd), sync, rotate_size, lost).run()
