"""Control groups: a memory and a process limit per worker, by whatever backend the machine has.

v2 where the controllers are there and the tree may be written, else v1 memory and pids as root, else none (named as
lost). Reference: the kernel's cgroup-v2.rst and cgroup-v1/. The tree is made once at start, while still privileged, and
given to the supervisor's uid; afterwards no capability is needed.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

V2_ROOT = "/sys/fs/cgroup"
V1_ROOT = "/sys/fs/cgroup"


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


@dataclass(frozen=True)
class Tree:
    """The host's own part of the hierarchy.

    Attributes:
        backend: "v2", "v1" or "none".
        paths: directory per controller ("v2" has one for all).
        reason: why it is none.
    """

    backend: str
    paths: dict[str, str]
    reason: str = ""

    def prepare(self, name: str, memory: int) -> list[int]:
        """`make` and `limit` in one: for a process whose limits are known before it is born. Raises OSError."""
        opened = self.make(name)
        try:
            self.limit(name, memory)
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def make(self, name: str) -> list[int]:
        """Make the group `name`, for one process, and with no other limit yet: `limit` may come after it was joined.

        Returns:
            Descriptors a process with one thread joins through by writing "0" into each (`join`). Moving another
            process makes the kernel wait for an RCU grace period, some 10 ms; joining by oneself through v1's `tasks`
            does not.

        Raises:
            OSError: the group cannot be made or limited.
        """
        for controller, parent in self.paths.items():
            group = os.path.join(parent, name)
            os.mkdir(group)
            if controller != "memory":
                _write(f"{group}/pids.max", "1")
        file = "cgroup.procs" if self.backend == "v2" else "tasks"
        opened: list[int] = []
        try:
            for parent in self.paths.values():
                opened.append(os.open(os.path.join(parent, name, file), os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def limit(self, name: str, memory: int) -> None:
        """Set the limits (bytes) of a group that `make` made; at any time, whoever is in it.

        Raises:
            OSError: a limit cannot be set. EBUSY: v1 refuses a limit below what is already in use.
        """
        if self.backend == "v2":
            group = os.path.join(self.paths["v2"], name)
            _write(f"{group}/memory.max", str(memory))
            if os.path.exists(f"{group}/memory.swap.max"):
                _write(f"{group}/memory.swap.max", "0")
        elif self.backend == "v1":
            _write(f"{self.paths['memory']}/{name}/memory.limit_in_bytes", str(memory))

    def holds(self, name: str, pid: int) -> bool:
        """Whether the kernel says that `pid` is in the group, in each hierarchy."""
        own = {line.split(":", 2)[2] for line in _read(f"/proc/{pid}/cgroup").splitlines()}
        return all(
            any(wanted in (f"{V1_ROOT}/{controller}{path}", f"{V2_ROOT}{path}") for path in own)
            for controller, wanted in ((c, os.path.join(parent, name)) for c, parent in self.paths.items())
        )

    def out_of_memory(self, name: str) -> bool:
        """Whether the kernel's memory killer struck in the group."""
        try:
            if self.backend == "v2":
                events = dict(line.split() for line in _read(f"{self.paths['v2']}/{name}/memory.events").splitlines())
                return events.get("oom_kill", "0") != "0"
            if self.backend == "v1":
                for line in _read(f"{self.paths['memory']}/{name}/memory.oom_control").splitlines():
                    if line.startswith("oom_kill "):
                        return line.split()[1] != "0"
        except OSError:
            return False
        return False

    def remove(self, name: str) -> bool:
        """Remove an empty group; False when the kernel still counts something in it (try again later)."""
        done = True
        for parent in self.paths.values():
            try:
                os.rmdir(os.path.join(parent, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                done = False
        return done

    def dissolve(self) -> None:
        """Remove the tree at the host's end, as far as the kernel lets go of it."""
        for parent in self.paths.values():
            _remove_tree(parent)


def join(fds: list[int]) -> None:
    """Join the groups `prepare` made, and close their descriptors. Raises OSError."""
    for fd in fds:
        os.write(fd, b"0")
        os.close(fd)


def create(name: str, owner: int | None) -> Tree:
    """Make the host's tree and move this process into it.

    Args:
        name: the same for each run of one host, so that what a killed run left is taken over and cleared.
        owner: uid that will use it, when started as root; None for an ordinary user.
    """
    reasons = []
    _clear(name)
    for attempt in (_create_v2, _create_v1):
        try:
            return attempt(name, owner)
        except OSError as error:
            reasons.append(f"{attempt.__name__[-2:]}: {error.strerror or error}")
    return Tree("none", {}, "; ".join(reasons))


_KEEP = "keep"
"""A group inside each host's own, so that nobody takes a host's group without workers for a forgotten one."""


def _clear(name: str) -> None:
    """Remove what killed runs of this host left, and the empty shells of others.

    An ended host cannot remove its outermost group (the directory above is root's), so the next start of any host does:
    rmdir takes only groups without processes and without groups inside.
    """
    for parent in (V2_ROOT, *(os.path.join(V1_ROOT, controller) for controller in ("memory", "pids"))):
        _remove_tree(os.path.join(parent, name))
        try:
            shells = [entry for entry in os.listdir(parent) if entry.startswith("airssys-")]
        except OSError:
            continue  # no such hierarchy here
        for shell in shells:
            try:
                os.rmdir(os.path.join(parent, shell))
            except OSError:
                continue  # a live host's


def _remove_tree(root: str) -> None:
    for directory, _, _ in os.walk(root, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            continue  # a group outlives its processes for a moment; the next run of this host clears it


def _own_v2_group() -> str:
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise OSError(errno.ENOENT, "no unified hierarchy")


def _create_v2(name: str, owner: int | None) -> Tree:
    available = _read(f"{V2_ROOT}/cgroup.controllers").split()
    if not {"memory", "pids"} <= set(available):
        raise OSError(errno.EOPNOTSUPP, "memory and pids controllers are not in the unified hierarchy")
    own = _own_v2_group().lstrip("/")
    # As root a tree at the top; as a user only what was delegated, which is the group this process runs in.
    base = os.path.join(V2_ROOT, name) if owner is not None else os.path.join(V2_ROOT, own)
    if owner is not None:
        os.makedirs(base, exist_ok=True)
    leaf = os.path.join(base, "host")
    os.makedirs(leaf, exist_ok=True)
    _write(f"{leaf}/cgroup.procs", str(os.getpid()))
    _write(f"{base}/cgroup.subtree_control", "+memory +pids")
    workers = os.path.join(base, "workers")
    os.makedirs(workers, exist_ok=True)
    _write(f"{workers}/cgroup.subtree_control", "+memory +pids")
    if owner is not None:
        for directory in (base, leaf, workers):
            os.chown(directory, owner, owner)
            for file in ("cgroup.procs", "cgroup.subtree_control"):
                os.chown(os.path.join(directory, file), owner, owner)
    return Tree("v2", {"v2": workers})


def _create_v1(name: str, owner: int | None) -> Tree:
    paths = {}
    for controller in ("memory", "pids"):
        root = os.path.join(V1_ROOT, controller)
        if not os.path.isdir(root):
            raise OSError(errno.ENOENT, f"no v1 {controller} hierarchy")
        path = os.path.join(root, name)
        os.makedirs(path, exist_ok=True)
        os.makedirs(os.path.join(path, _KEEP), exist_ok=True)
        if owner is not None:
            os.chown(path, owner, owner)
            os.chown(os.path.join(path, _KEEP), owner, owner)
        paths[controller] = path
    return Tree("v1", paths)
