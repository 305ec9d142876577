"""Control groups: limits of a worker that the kernel holds, by whatever backend the machine has.

v2 where the controllers are there and the tree may be written, else v1 as root, else none (named as lost). Reference:
the kernel's cgroup-v2.rst and cgroup-v1/. The tree is made once at start, while still privileged, and given to the
supervisor's uid; afterwards no capability is needed.

    controller   v2                              v1                         what it bounds
    memory       memory.max, memory.swap.max 0   memory.limit_in_bytes      bytes of the whole process
    pids         pids.max                        pids.max                   processes: one
    cpu          cpu.max, cpu.weight             cpu.cfs_quota_us, .shares  processor time, where the operator bounds it

`memory.high` is not set: above it a worker is made slow instead of ended, and nothing would say why it is slow.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass

V2_ROOT = "/sys/fs/cgroup"
V1_ROOT = "/sys/fs/cgroup"
CPU_PERIOD = 100_000
"""Period of a processor quota, microseconds; the kernel's own default."""


def _write(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


@dataclass(frozen=True)
class Share:
    """What one worker may have of the processors.

    Attributes:
        percent: of one processor; 100 is no bound, since a worker has one thread.
        weight: against the other workers when there is not enough, 1 to 10,000; 100 is the usual.
    """

    percent: int = 100
    weight: int = 100

    @property
    def usual(self) -> bool:
        """Whether the kernel needs to be told anything."""
        return self == Share()


@dataclass(frozen=True)
class Tree:
    """The host's own part of the hierarchy.

    Attributes:
        backend: "v2", "v1" or "none".
        paths: directory per controller ("v2" has one for all).
        reason: why it is none, or what of it is missing.
        share: of the processors, for each worker; told to the kernel only where it is not the usual.
    """

    backend: str
    paths: dict[str, str]
    reason: str = ""
    share: Share = Share()

    @property
    def controllers(self) -> dict[str, str]:
        """Controller to the backend that has it, as `{"memory": "v1", "pids": "v1"}`."""
        if self.backend != "v2":
            return dict.fromkeys(self.paths, self.backend)
        held = ["memory", "pids", *([] if self.share.usual or self.reason else ["cpu"])]
        return dict.fromkeys(held, "v2")

    def prepare(self, name: str, memory: int, *, shared: bool = True) -> list[int]:
        """`make` and `limit` in one: for a process whose limits are known before it is born. Raises OSError."""
        opened = self.make(name, shared=shared)
        try:
            self.limit(name, memory)
        except OSError:
            for fd in opened:
                os.close(fd)
            self.remove(name)
            raise
        return opened

    def make(self, name: str, *, shared: bool = True) -> list[int]:
        """Make the group `name` for one process, with no bound on memory yet: `limit` may come after it was joined.

        Args:
            name: of the group.
            shared: whether it gets the tree's `share` of the processors; a compiler, which has a time limit, does not.

        Returns:
            Descriptors a process with one thread joins through by writing "0" into each (`join`). Moving another
            process makes the kernel wait for an RCU grace period, some 10 ms; joining by oneself through v1's `tasks`
            does not.

        Raises:
            OSError: the group cannot be made; nothing of it is left.
        """
        file = "cgroup.procs" if self.backend == "v2" else "tasks"
        opened: list[int] = []
        try:
            for controller, parent in self.paths.items():
                group = os.path.join(parent, name)
                os.mkdir(group)
                if controller in ("v2", "pids"):
                    _write(f"{group}/pids.max", "1")
                if shared:
                    self._limit_cpu(controller, group)
                opened.append(os.open(os.path.join(group, file), os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in opened:
                os.close(fd)
            self.remove(name)
            raise
        return opened

    def _limit_cpu(self, controller: str, group: str) -> None:
        quota, weight = self.share.percent * CPU_PERIOD // 100, self.share.weight
        if controller == "v2" and "cpu" in self.controllers:
            _write(f"{group}/cpu.max", f"{quota} {CPU_PERIOD}")
            _write(f"{group}/cpu.weight", str(weight))
        elif controller == "cpu":
            _write(f"{group}/cpu.cfs_period_us", str(CPU_PERIOD))
            _write(f"{group}/cpu.cfs_quota_us", str(quota))
            _write(f"{group}/cpu.shares", str(max(2, weight * 1024 // 100)))

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

    def kill(self, name: str) -> None:
        """SIGKILL whatever is in the group; nothing happens where there is no such group."""
        for parent in self.paths.values():
            _kill(os.path.join(parent, name))

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
        """End what is left in the tree and remove it, as far as the kernel lets go of it."""
        for parent in self.paths.values():
            _kill_tree(parent)
            _remove_tree(parent)


def join(fds: list[int]) -> None:
    """Join the groups `prepare` made, and close their descriptors. Raises OSError."""
    for fd in fds:
        os.write(fd, b"0")
        os.close(fd)


def create(name: str, owner: int | None, share: Share = Share()) -> Tree:
    """Make the host's tree and move this process into it.

    Args:
        name: the same for each run of one host, so that what a killed run left is taken over and cleared.
        owner: uid that will use it, when started as root; None for an ordinary user.
        share: of the processors, for each worker.
    """
    reasons = []
    clear(name)
    for attempt in (_create_v2, _create_v1):
        try:
            return attempt(name, owner, share)
        except OSError as error:
            reasons.append(f"{attempt.__name__[-2:]}: {error.strerror or error}")
    return Tree("none", {}, "; ".join(reasons))


_KEEP = "keep"
"""A group inside each host's own, so that nobody takes a host's group without workers for a forgotten one."""


def clear(name: str) -> None:
    """End and remove what killed runs of this host left, and remove the empty shells of others.

    An ended host cannot remove its outermost group (the directory above is root's), so the next start of any host does:
    rmdir takes only groups without processes and without groups inside.
    """
    for parent in (V2_ROOT, *(os.path.join(V1_ROOT, controller) for controller in ("memory", "pids", "cpu"))):
        _kill_tree(os.path.join(parent, name))
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


def _kill_tree(root: str) -> None:
    for directory, _, _ in os.walk(root, topdown=False):
        _kill(directory)


def _kill(group: str) -> None:
    """SIGKILL every process of one group but this one: cgroup.kill takes the groups below it, too."""
    try:
        inside = {int(line) for line in _read(f"{group}/cgroup.procs").split()}
        if os.getpid() in inside or not inside:
            return
        if os.path.exists(f"{group}/cgroup.kill"):
            _write(f"{group}/cgroup.kill", "1")
            return
    except OSError:
        return  # no such group, or it is going
    for pid in inside - {0}:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # gone meanwhile, or no longer this host's: then the group is not empty, and stays


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


def _create_v2(name: str, owner: int | None, share: Share) -> Tree:
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
    reason = "" if share.usual or "cpu" in available else "cpu: not in the unified hierarchy"
    wanted = "+memory +pids" if share.usual or reason else "+memory +pids +cpu"
    _write(f"{base}/cgroup.subtree_control", wanted)
    workers = os.path.join(base, "workers")
    os.makedirs(workers, exist_ok=True)
    _write(f"{workers}/cgroup.subtree_control", wanted)
    if owner is not None:
        for directory in (base, leaf, workers):
            os.chown(directory, owner, owner)
            for file in ("cgroup.procs", "cgroup.subtree_control"):
                os.chown(os.path.join(directory, file), owner, owner)
    return Tree("v2", {"v2": workers}, reason, share)


def _create_v1(name: str, owner: int | None, share: Share) -> Tree:
    paths = {}
    reason = ""
    for controller in ("memory", "pids", *([] if share.usual else ["cpu"])):
        root = os.path.join(V1_ROOT, controller)
        if not os.path.isdir(root):
            if controller == "cpu":
                reason = "cpu: no v1 hierarchy"
                continue
            raise OSError(errno.ENOENT, f"no v1 {controller} hierarchy")
        path = os.path.join(root, name)
        os.makedirs(path, exist_ok=True)
        os.makedirs(os.path.join(path, _KEEP), exist_ok=True)
        if owner is not None:
            os.chown(path, owner, owner)
            os.chown(os.path.join(path, _KEEP), owner, owner)
        paths[controller] = path
    return Tree("v1", paths, reason, share)
