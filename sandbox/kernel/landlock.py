"""Landlock: deny every file system, network and scope right the kernel can name, but for what is listed (landlock(7)).

ABI 6 (Linux 6.12) brought both scopes; with less than that the wall has holes and `restrict` refuses, unless the
operator agreed to lose the wall: then what the kernel has is used.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sandbox.kernel import libc

WANTED_ABI = 6
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
READS = READ_FILE | READ_DIR
"""Reading files and listing directories."""
KEEPS = READS | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE
"""Keeping files in one directory: made, written, renamed within it, removed."""
OWNS = KEEPS | MAKE_DIR | REMOVE_DIR | REFER
"""Keeping a tree: directories as well, and moving between them."""
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
_RULE_PATH_BENEATH = 1


class Allowed(NamedTuple):
    """Rights on an open directory and all beneath it, or on an open file."""

    fd: int
    rights: int


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


def _filesystem(version: int) -> int:
    return (1 << _FS_BITS.get(version, 16)) - 1


def _ruleset(version: int, files: bool) -> int:
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    attributes = struct.pack("<QQQ", _filesystem(version) if files else 0, network, scopes)
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
    restrict(version, lost)


def restrict(version: int, lost: bool = False, *, files: bool = True, allowed: Iterable[Allowed] = ()) -> None:
    """Handle all rights and grant only what is listed, for this process and its descendants, for ever.

    Handled always: TCP, connecting to abstract sockets and signalling outside of this domain. Needs no_new_privs.

    Args:
        version: what `abi()` said (asked before the filter forbids it).
        lost: the host runs without this wall; the rights that `version` has are handled still.
        files: handle the file system's rights, too. A process that does can never mount again, and can move files
            between directories only where that is listed now.
        allowed: the exceptions; descriptors stay the caller's.

    Raises:
        OSError: refused; or `version` is older than the wall needs, and that was not agreed to.
    """
    if version < WANTED_ABI and not lost:
        raise OSError(0, f"Landlock ABI {version} is older than {WANTED_ABI}")
    if version <= 0:
        return
    ruleset = _ruleset(version, files)
    try:
        for entry in allowed:
            rule = struct.pack("<Qi", entry.rights & _filesystem(version), entry.fd)
            libc.syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, rule, 0)
        libc.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def open_allowed(path: str, rights: int) -> Allowed | None:
    """Rights on what a path names now; None when it names nothing. The descriptor is the caller's to close."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    directory = os.path.isdir(path)
    return Allowed(fd, rights if directory else rights & _OF_FILES)
