"""What the supervisor keeps of root, and for what.

    CAP_SYS_ADMIN        detached, id-mapped mounts for grants; private mount namespaces for children
    CAP_SETUID, SETGID   to start control and router under uids of their own and to write id maps of cages
    CAP_KILL             to end children of other uids
    CAP_DAC_READ_SEARCH  to reach directories that the operator binds, and the interpreter, below closed directories

Nothing else stays in any set, the bounding set included. Workers need none of this to be built, inspected or killed:
the supervisor owns the user namespace they live in.
"""

from __future__ import annotations

import os

from sandbox.kernel import caps, libc, process

KEPT = (caps.SYS_ADMIN, caps.SETUID, caps.SETGID, caps.KILL, caps.DAC_READ_SEARCH)


def become_service(uid: int) -> None:
    """From root to the supervisor's own uid with `KEPT` alone. Irreversible."""
    libc.prctl(process.PR_SET_KEEPCAPS, 1, name="prctl(PR_SET_KEEPCAPS)")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # SETPCAP is needed to empty the bounding set, and leaves last.
    caps.keep_only(*KEPT, 8)
    caps.drop_bounding(keep=KEPT)
    caps.keep_only(*KEPT)
    if os.getresuid() != (uid, uid, uid) or os.getgroups():
        raise OSError(0, "the uid change did not hold")


def can_mount() -> bool:
    """Whether grants can be mounts (CAP_SYS_ADMIN in the initial user namespace)."""
    return os.getuid() != 0 and bool(caps.held() >> caps.SYS_ADMIN & 1)
