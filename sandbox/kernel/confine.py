"""What bridge, auditor and compiler have in common: from a fresh process to one that holds nothing.

They are exec'd inside a user namespace that maps one id, with every module imported before `confine`.
"""

from __future__ import annotations

import resource

from sandbox.kernel import caps, mounts, process


def confine(name: str, descriptors: int) -> None:
    """Enter an empty root and give up every capability for good.

    Args:
        name: the process's name.
        descriptors: RLIMIT_NOFILE from now on, or what the machine allows if that is less.

    Raises:
        OSError: a step failed; the process must end.
    """
    process.set_name(name)
    mounts.enter_empty_root()
    caps.drop_all()
    process.no_dump()
    process.no_new_privileges()
    process.set_limit(resource.RLIMIT_CORE, 0)
    process.set_limit(resource.RLIMIT_NPROC, 0)
    process.set_limit(resource.RLIMIT_NOFILE, descriptors)
    process.die_with_parent()
