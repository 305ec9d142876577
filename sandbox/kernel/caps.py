"""Capabilities: dropping all of them for good, or all but a named few.

Reference: capabilities(7).
"""

from __future__ import annotations

import struct

from sandbox.kernel import libc, process

CHOWN = 0
DAC_READ_SEARCH = 2
KILL = 5
SETGID = 6
SETUID = 7
SYS_ADMIN = 21

_VERSION_3 = 0x20080522
_SECUREBITS_LOCKED = 0x2F
"""NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, and KEEP_CAPS locked off:
uid 0 means nothing any more, for this process and all it may become."""
SECBIT_NO_SETUID_FIXUP = 1 << 2


def last() -> int:
    """Number of the highest capability this kernel knows."""
    number = 40  # CAP_CHECKPOINT_RESTORE, the newest when this was written; probe upwards for later kernels
    while True:
        try:
            libc.prctl(23, number + 1)  # PR_CAPBSET_READ answers EINVAL beyond the last
        except OSError:
            return number
        number += 1


LAST = last()


def _set(mask: int, inheritable: int = 0) -> None:
    header = struct.pack("<Ii", _VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    ilow, ihigh = inheritable & 0xFFFFFFFF, inheritable >> 32
    libc.syscall("capset", header, struct.pack("<6I", low, low, ilow, high, high, ihigh))


def keep_only(*wanted: int) -> None:
    """Permitted and effective become exactly `wanted` (which must be held), nothing is inheritable or ambient."""
    mask = 0
    for cap in wanted:
        mask |= 1 << cap
    libc.prctl(process.PR_CAP_AMBIENT, 4, name="prctl(PR_CAP_AMBIENT_CLEAR_ALL)")
    _set(mask)


def drop_bounding(keep: tuple[int, ...] = ()) -> None:
    """Empty the bounding set but for `keep`: no execve can ever bring a capability back."""
    for cap in range(LAST + 1):
        if cap not in keep:
            libc.prctl(process.PR_CAPBSET_DROP, cap, name="prctl(PR_CAPBSET_DROP)")


def drop_all() -> None:
    """Bounding set emptied, securebits locked, all sets zero, ambient cleared; in that order, each fatal.

    The first two need CAP_SETPCAP, so they come first; a process without it and without any capability has
    nothing to lose and must call `drop_held` instead.
    """
    drop_bounding()
    libc.prctl(process.PR_SET_SECUREBITS, _SECUREBITS_LOCKED, name="prctl(PR_SET_SECUREBITS)")
    keep_only()


def drop_held() -> None:
    """Zero all sets without CAP_SETPCAP; no_new_privs must make sure that no file brings any back."""
    keep_only()


def held() -> int:
    """The effective set as a bit mask (capget through /proc is avoided: it may not be there)."""
    import ctypes

    header = struct.pack("<Ii", _VERSION_3, 0)
    buffer = ctypes.create_string_buffer(24)
    number = {"x86_64": 125, "aarch64": 90}[libc.MACHINE]
    if libc._libc.syscall(ctypes.c_long(number), header, buffer) < 0:
        raise OSError(ctypes.get_errno(), "capget")
    low, _, _, high, _, _ = struct.unpack("<6I", buffer.raw)
    return int(low | high << 32)
