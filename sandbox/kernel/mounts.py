"""Mounts: the empty root, detached trees, and making the interpreter reachable in a private namespace.

References: mount(2), pivot_root(2), open_tree(2), mount_setattr(2), mount_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterable

from sandbox.kernel import libc

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOSYMFOLLOW = 1, 2, 4, 8, 32, 256
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
ATTR_IDMAP, ATTR_NOSYMFOLLOW = 0x100000, 0x200000


def make_private() -> None:
    """No mount event leaves or enters this namespace."""
    libc.mount(None, "/", None, MS_REC | MS_PRIVATE)


def enter_empty_root() -> None:
    """Make a 64 KiB read-only tmpfs with nothing in it the root, and let go of everything else.

    Runs in a mount namespace of its own with CAP_SYS_ADMIN over it. The tmpfs is mounted over /proc-independent ground:
    any directory serves as the mount point, because pivot_root(".", ".") stacks old on new and detaches the old.
    """
    make_private()
    libc.mount("none", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,nr_inodes=8,mode=0555")  # noqa: S108
    os.chdir("/tmp")  # noqa: S108
    libc.syscall("pivot_root", b".\0", b".\0")
    libc.umount2(".", MNT_DETACH)
    os.chdir("/")
    libc.mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    libc.mount("none", "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,nr_inodes=8")
    if os.listdir("/"):
        raise OSError(0, "the new root is not empty")


def open_tree(path: str, *, clone: bool) -> int:
    """A descriptor of the tree at `path`; with `clone` a detached copy of its mount (CAP_SYS_ADMIN)."""
    flags = os.O_CLOEXEC | (OPEN_TREE_CLONE if clone else 0)
    return libc.syscall("open_tree", AT_FDCWD, os.fsencode(path) + b"\0", flags)


def clone_mount(directory: int) -> int:
    """A detached copy of the mount at an open directory, with the mounts below it.

    Those must be there to be seen: whoever walks the copy stops at them (RESOLVE_NO_XDEV), where without them it would
    reach what they hide, and could remove their mount points under them.
    """
    flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE | os.O_CLOEXEC
    return libc.syscall("open_tree", directory, b"\0", flags)


def set_attributes(tree: int, attributes: int, userns: int | None = None) -> None:
    """mount_setattr(2) on a detached tree and all mounts in it; with `userns` the top mount's id map is that
    namespace's (the mounts below are never entered, and their file systems may know no id maps)."""
    body = struct.pack("<QQQQ", attributes, 0, 0, 0)
    libc.syscall("mount_setattr", tree, b"\0", AT_EMPTY_PATH | AT_RECURSIVE, body, len(body))
    if userns is not None:
        body = struct.pack("<QQQQ", ATTR_IDMAP, 0, 0, userns)
        libc.syscall("mount_setattr", tree, b"\0", AT_EMPTY_PATH, body, len(body))


def unreachable_ancestor(path: str) -> str | None:
    """The topmost ancestor of `path` that other users may not pass, or None."""
    current = "/"
    for part in [p for p in os.path.realpath(path).split("/") if p][:-1]:
        current = os.path.join(current, part)
        if not os.stat(current).st_mode & stat.S_IXOTH:
            return current
    return None


def expose(paths: Iterable[str], writable: Iterable[str] = ()) -> None:
    """Make `paths` (read-only) and `writable` reachable for other uids in this (private) mount namespace.

    Where a directory on the way is closed to others (root's 0700 home holding the checkout), a tmpfs covers that
    directory and the wanted trees alone, read-only, are mounted back beneath it. Needs CAP_SYS_ADMIN and the right to
    pass those directories. What was beside them is hidden, so a child sees less than before, never more.
    """
    covered: dict[str, list[tuple[str, int]]] = {}
    changeable = {os.path.realpath(p) for p in writable}
    for path in sorted({os.path.realpath(p) for p in paths if os.path.exists(p)} | changeable):
        blocked = unreachable_ancestor(path)
        above = [p for p, _ in covered.get(blocked, [])] if blocked is not None else []
        if blocked is not None and (path in changeable or not any(path.startswith(p + "/") for p in above)):
            tree = libc.syscall(
                "open_tree", AT_FDCWD, os.fsencode(path) + b"\0", OPEN_TREE_CLONE | os.O_CLOEXEC | 0x8000
            )  # AT_RECURSIVE
            covered.setdefault(blocked, []).append((path, tree))
    for blocked, trees in covered.items():
        libc.mount("none", blocked, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
        for path, tree in trees:
            if not os.path.lexists(path):  # below a tree already mounted back it exists
                is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
                os.makedirs(path if is_directory else os.path.dirname(path), mode=0o755, exist_ok=True)
                if not is_directory:
                    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
            _mount_back(tree, path, ATTR_NOSUID | ATTR_NODEV | (0 if path in changeable else ATTR_RDONLY))
        libc.mount(None, blocked, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _mount_back(tree: int, path: str, attributes: int) -> None:
    late = False
    try:
        set_attributes(tree, attributes)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        late = True  # before Linux 5.12
    libc.syscall("move_mount", tree, b"\0", AT_FDCWD, os.fsencode(path) + b"\0", MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
    if late:
        # The first three attributes and mount(2)'s flags are the same bits. Mounts below keep what they had.
        libc.mount(None, path, None, MS_REMOUNT | MS_BIND | attributes)
