"""Numbers of system calls by name: libseccomp's, and those it is too old to know (x86-64; from 424 on all alike)."""

from __future__ import annotations

import functools

from sandbox.kernel import seccomp
from supervisor.selftest.errors import SelftestError

_NEWER = {
    "uretprobe": 335,
    "uprobe": 336,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
X32 = 0x40000000
"""Set in the number of an x32 call."""


@functools.cache
def number(name: str) -> int:
    """The call's number. Raises SelftestError for a name nobody knows."""
    if name in _NEWER:
        return _NEWER[name]
    found = seccomp.number_of(name)
    if found is None:
        raise SelftestError("no such system call", subject=name)
    return found


@functools.cache
def name(call: int) -> str:
    """The call's name, or its number where it has none."""
    if call in _NEWER.values():
        return next(key for key, value in _NEWER.items() if value == call)
    try:
        library = seccomp.bindings()
        found = library.resolve_syscall(library.Arch.NATIVE, call)
    except (ValueError, TypeError):
        return str(call)
    return found.decode() if isinstance(found, bytes) else str(found or call)
