"""Landlock: deny every file system, network and scope right the kernel can name (landlock(7)).

ABI 6 (Linux 6.12) brought both scopes; with less than that the wall has holes and `restrict_all` refuses, unless the
operator agreed to lose the wall: then what the kernel has is used.
"""

from __future__ import annotations

import os
import struct

from sandbox.kernel import libc

WANTED_ABI = 6
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ_DIR_FILE = (1 << 2) | (1 << 3)  # READ_FILE, READ_DIR


def abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    try:
        return libc.syscall("landlock_create_ruleset", 0, 0, 1)
    except OSError:
        return 0


def lacks(version: int) -> str:
    """What a kernel with this ABI cannot restrict, in words; "" for nothing."""
    if version <= 0:
        return "everything"
    added = {
        2: "moving files between directories",
        3: "truncating files",
        4: "TCP",
        5: "devices' ioctl",
        6: "abstract sockets and signals",
    }
    return ", ".join(text for abi, text in added.items() if version < abi)


def _ruleset(version: int) -> int:
    filesystem = (1 << _FS_BITS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    attributes = struct.pack("<QQQ", filesystem, network, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    return libc.syscall("landlock_create_ruleset", attributes, size, 0)


def restrict_all(version: int, lost: bool = False) -> None:
    """Handle all rights and grant none, for this process and its descendants, for ever. Needs no_new_privs.

    Args:
        version: what `abi()` said (asked before the filter forbids it).
        lost: the host runs without this wall; the rights that `version` has are handled still.

    Raises:
        OSError: refused; or `version` is older than the wall needs, and that was not agreed to.
    """
    if version < WANTED_ABI and not lost:
        raise OSError(0, f"Landlock ABI {version} is older than {WANTED_ABI}")
    if version <= 0:
        return
    ruleset = _ruleset(version)
    try:
        libc.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
