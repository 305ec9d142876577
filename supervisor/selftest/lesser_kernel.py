"""Run a command as if the kernel lacked something: `python -m supervisor.selftest.lesser_kernel WALL... -- COMMAND...`.

Nothing of the program is replaced: a filter that the command and all its descendants are under answers the calls of
each WALL with the error an older or differently built kernel gives. The command keeps its rights (no_new_privs is not
set where root starts it).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

import pyseccomp as sc

from sandbox.kernel import libc, process

PR_SET_MDWE = 65


def _rules(wall: str) -> list[tuple[int, int, list[sc.Arg]]]:
    """Error, call's number and arguments of each rule that takes a wall away."""
    if wall == "landlock":  # before Linux 5.13
        names = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
        return [(errno.ENOSYS, libc.number(name), []) for name in names]
    if wall == "landlock disabled":  # built, and not in the list of security modules
        return [(errno.EOPNOTSUPP, libc.number("landlock_create_ruleset"), [])]
    if wall == "mdwe":  # before Linux 6.3
        prctl = sc.resolve_syscall(sc.Arch.NATIVE, "prctl")
        return [(errno.EINVAL, prctl, [sc.Arg(0, sc.EQ, PR_SET_MDWE)])]
    if wall == "mseal":  # before Linux 6.10
        return [(errno.ENOSYS, libc.number("mseal"), [])]
    if wall == "grant mounts":  # before Linux 5.12
        return [(errno.ENOSYS, libc.number("mount_setattr"), [])]
    if wall == "openat2":  # before Linux 5.6
        return [(errno.ENOSYS, libc.number("openat2"), [])]
    if wall == "keyrings":  # never missing, but refused when a quota is used up
        return [(errno.EDQUOT, libc.number("keyctl"), [])]
    if wall == "huge pages":  # built without them
        prctl = sc.resolve_syscall(sc.Arch.NATIVE, "prctl")
        return [(errno.EINVAL, prctl, [sc.Arg(0, sc.EQ, process.PR_SET_THP_DISABLE)])]
    if wall == "namespaces":  # forbidden by a security module or a sysctl
        number = sc.resolve_syscall(sc.Arch.NATIVE, "unshare")
        flag = process.CLONE_NEWUSER
        return [(errno.EPERM, number, [sc.Arg(0, sc.MASKED_EQ, flag, flag)])]
    raise ValueError(wall)


def without(*walls: str) -> None:
    """Take these walls from this process and its descendants. Irreversible."""
    kernel = sc.SyscallFilter(sc.ALLOW)
    for wall in walls:
        for code, number, arguments in _rules(wall):
            kernel.add_rule(sc.ERRNO(code), number, *arguments)
    with contextlib.suppress(OSError, RuntimeError):
        if os.geteuid() == 0:
            kernel.set_attr(sc.Attr.CTL_NNP, 0)
    kernel.load()


if __name__ == "__main__":
    split = sys.argv.index("--")
    without(*sys.argv[1:split])
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
