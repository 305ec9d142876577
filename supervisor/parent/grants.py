"""A filesystem grant: the bound directory as a detached mount the bridge can use and nobody can climb out of.

`open_tree(OPEN_TREE_CLONE)` copies the mount, `mount_setattr` takes from the copy all that was not granted (writing,
always set-uid, devices, execution and symbolic links) and maps the directory owner's id to the bridge's. Where that
cannot be (no root, a file system without id maps) an O_PATH descriptor serves and the wall is named as lost.
Reference: open_tree(2), mount_setattr(2).
"""

from __future__ import annotations

import os
import sys

from sandbox.kernel import libc, mounts, process
from sandbox.wire.supervisor_frames import MountSpec, close_all
from supervisor.parent.errors import GrantRefused, exhausted
from supervisor.policy import forbidden


def open_grant(
    spec: MountSpec, bridge_uid: int, roots: list[str], forbidden_extra: list[str], mountable: bool
) -> tuple[int, str]:
    """A descriptor of the granted directory, and "" or the name of the wall that is lost.

    Raises:
        GrantRefused: not an absolute path, outside the operator's bind roots, forbidden, or no directory.
        Exhausted: no descriptor or process is left to make it with.
    """
    if not spec.host.startswith("/") or "\0" in spec.host:
        raise GrantRefused("a bound directory is an absolute path", subject=spec.host)
    try:
        directory = os.open(spec.host, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if (used_up := exhausted(error, spec.host)) is not None:
            raise used_up from error
        raise GrantRefused(f"cannot open the directory: {error.strerror}", subject=spec.host) from error
    try:
        # What was opened is judged, not the text: symbolic links in the operator's path are resolved by now.
        real = os.readlink(f"/proc/self/fd/{directory}")
        reason = forbidden(real, forbidden_extra)
        if reason is not None:
            raise GrantRefused(f"this directory may never be granted: {reason}", subject=real)
        if not any(f"{real}/".startswith(root.rstrip("/") + "/") for root in roots):
            raise GrantRefused("outside the host's bind-roots", subject=real, hint="see [host] bind-roots")
        if spec.writable and (own := _own_tree(real)) is not None:
            raise GrantRefused("the host's own installation is never granted for writing", subject=own)
        if mountable:
            try:
                return _mount(directory, spec.writable, bridge_uid), ""
            except OSError as error:
                # Nothing to make the mount with is no reason to do without it.
                if (used_up := exhausted(error, spec.host)) is not None:
                    raise used_up from error
                return os.dup(directory), f"grant mounts ({error.strerror or error})"
        return os.dup(directory), "grant mounts"
    finally:
        os.close(directory)


def _own_tree(path: str) -> str | None:
    """The tree of this installation that lies in `path` or around it, or None."""
    trees = [sys.prefix, sys.base_prefix]
    trees += [os.path.dirname(sys.modules[name].__file__ or "/") for name in ("sandbox", "bridge", "supervisor")]
    for tree in map(os.path.realpath, trees):
        if f"{path}/".startswith(f"{tree}/") or f"{tree}/".startswith(f"{path}/"):
            return tree
    return None


def _mount(directory: int, writable: bool, bridge_uid: int) -> int:
    status = os.fstat(directory)
    tree = mounts.clone_mount(directory)
    try:
        attributes = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | mounts.ATTR_NOEXEC | mounts.ATTR_NOSYMFOLLOW
        if not writable:
            attributes |= mounts.ATTR_RDONLY
        userns = _id_map(status.st_uid, status.st_gid, bridge_uid)
        try:
            mounts.set_attributes(tree, attributes, userns)
        finally:
            os.close(userns)
    except OSError:
        os.close(tree)
        raise
    return tree


def _id_map(uid: int, gid: int, bridge_uid: int) -> int:
    """A user namespace whose maps say: on disk (uid, gid), seen as the bridge's."""
    opened: list[int] = []
    try:
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
        ready_r, ready_w, done_r, done_w = opened
        pid = os.fork()
    except OSError:
        close_all(opened)
        raise
    if pid == 0:
        try:
            os.close(done_w)
            libc.prctl(process.PR_SET_DUMPABLE, 1)
            try:
                libc.unshare(process.CLONE_NEWUSER)
                os.write(ready_w, b"\0")
            except OSError as error:
                os.write(ready_w, bytes([error.errno or 255]))
            os.read(done_r, 1)
        finally:
            os._exit(0)
    os.close(ready_w)
    os.close(done_r)
    try:
        said = os.read(ready_r, 1)
        if said != b"\0":
            code = said[0] if said else 0
            raise OSError(code, f"no user namespace for the id map: {os.strerror(code)}")
        for name, inside in (("uid_map", uid), ("gid_map", gid)):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, f"{inside} {bridge_uid} 1\n".encode())
            finally:
                os.close(fd)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(done_w)
        os.waitpid(pid, 0)
