"""Control groups: a share of the processors, killing what is left, a fork bomb; each where this kernel has it.

The unified hierarchy's memory, pids and cpu controllers can be tried on a machine that has them there. Where version 1
holds them, a directory stands in for version 2's files, and `cgroup.kill`, which needs no controller, is tried on the
real one.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import become_ordinary, fork, returns

from sandbox.kernel import cgroups, process
from sandbox.kernel.cgroups import Share, Tree

pytestmark = pytest.mark.block4_security
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root here")
UNIFIED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
BOMB = 200
"""Processes a fork bomb tries to make."""


def _until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def _stand_in(monkeypatch: pytest.MonkeyPatch, root: Path, controllers: str, share: Share) -> Tree:
    """A tree in a directory that looks like the unified hierarchy, delegated to an ordinary user."""
    monkeypatch.setattr(cgroups, "V2_ROOT", str(root))
    monkeypatch.setattr(cgroups, "V1_ROOT", str(root / "none"))
    monkeypatch.setattr(cgroups, "_own_v2_group", lambda: "/user.slice/x")
    (root / "cgroup.controllers").write_text(controllers)
    (root / "user.slice" / "x").mkdir(parents=True)
    return cgroups.create("airssys-test", None, share)


def test_version_two_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The unified hierarchy gets quota and weight in the files the kernel documents, and only where they differ."""
    tree = _stand_in(monkeypatch, tmp_path, "cpu memory pids\n", Share(30, 200))
    assert {"memory": "v2", "pids": "v2", "cpu": "v2"} == tree.controllers
    base = tmp_path / "user.slice" / "x"
    assert "+memory +pids +cpu" == (base / "workers" / "cgroup.subtree_control").read_text()
    for name in ("w1", "c1"):
        (base / "workers" / name).mkdir()
        (base / "workers" / name / "cgroup.procs").touch()
    monkeypatch.setattr(os, "mkdir", lambda path: None)
    for fd in [*tree.make("w1"), *tree.make("c1", shared=False)]:
        os.close(fd)
    worker, compiler = base / "workers" / "w1", base / "workers" / "c1"
    assert ["30000 100000", "200", "1"] == [
        (worker / name).read_text() for name in ("cpu.max", "cpu.weight", "pids.max")
    ]
    assert (compiler / "pids.max").exists()
    assert not (compiler / "cpu.max").exists()
    (worker / "memory.swap.max").touch()
    tree.limit("w1", 1 << 20)
    assert [str(1 << 20), "0"] == [(worker / name).read_text() for name in ("memory.max", "memory.swap.max")]


def test_a_usual_share_asks_for_no_controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a bound the cpu controller is not enabled: it would cost and hold nothing."""
    tree = _stand_in(monkeypatch, tmp_path, "cpu memory pids\n", Share())
    assert {"memory": "v2", "pids": "v2"} == tree.controllers
    assert "+memory +pids" == (tmp_path / "user.slice/x/workers/cgroup.subtree_control").read_text()


def test_a_share_nobody_holds_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the controller is missing the tree says so, and counts it among what it holds no more."""
    tree = _stand_in(monkeypatch, tmp_path, "memory pids\n", Share(50, 100))
    assert ("v2", {"memory": "v2", "pids": "v2"}) == (tree.backend, tree.controllers)
    assert "cpu" in tree.reason


@needs_root
def test_quota() -> None:
    """Under a quota the kernel holds a spinning process back; without one there is no controller to do so."""

    def child() -> Any:
        counts = []
        for number, share in enumerate((Share(5, 100), Share(100, 100))):
            tree = cgroups.create(f"airssys-test-{os.getpid()}-{number}", 0, share)
            bounded = not share.usual
            if bounded and "cpu" not in tree.controllers:
                tree.dissolve()
                return tree.reason or "no control groups"
            try:
                groups = tree.make("w1")
                tree.limit("w1", 64 << 20)
                pid = fork()
                if pid == 0:
                    cgroups.join(groups)
                    end = time.process_time() + 0.2
                    while time.process_time() < end:
                        pass
                    os._exit(0)
                if bounded:
                    stat = Path(tree.paths.get("cpu", tree.paths.get("v2", ""))) / "w1" / "cpu.stat"
                    _until("throttling", lambda stat=stat: "nr_throttled 0\n" not in stat.read_text())
                os.waitpid(pid, 0)
                counts.append("cpu" in tree.controllers)
                _until("an empty group", lambda tree=tree: tree.remove("w1"))
            finally:
                tree.dissolve()
        return counts

    found = returns(child)
    if isinstance(found, str):
        pytest.skip(f"no cpu controller to be had here: {found}")
    assert [True, False] == found


def _unified() -> str:
    for root in UNIFIED:
        if os.path.exists(f"{root}/cgroup.controllers") and os.access(root, os.W_OK):
            return root
    return ""


@needs_root
@pytest.mark.parametrize("backend", ["v2", "v1"])
def test_killing_what_is_left(backend: str) -> None:
    """Everything in a group dies at once, what it started included; a process outside lives, and so does the caller."""
    root = _unified() if backend == "v2" else "/sys/fs/cgroup/pids"
    if not root or not os.path.isdir(root):
        pytest.skip(f"no hierarchy of {backend} here")

    def child() -> list[Any]:
        parent = f"{root}/airssys-test-{os.getpid()}"
        os.makedirs(f"{parent}/w1")
        tree = Tree(backend, {"v2" if backend == "v2" else "pids": parent})
        pids = []
        try:
            for inside in (True, True, False):
                ready_r, ready_w = os.pipe()
                pid = fork()
                if pid == 0:
                    if inside:
                        with open(f"{parent}/w1/cgroup.procs", "w") as file:
                            file.write("0")
                    os.write(ready_w, b"r")
                    while True:
                        signal.pause()
                os.read(ready_r, 1)
                pids.append(pid)
            tree.kill("w1")
            tree.kill("never")
            ends = [os.waitpid(pid, 0)[1] for pid in pids[:2]]
            alive = os.waitpid(pids[2], os.WNOHANG) == (0, 0)
            os.kill(pids[2], signal.SIGKILL)
            os.waitpid(pids[2], 0)
        finally:
            tree.dissolve()
        return [ends, alive, os.path.exists(parent)]

    assert [[signal.SIGKILL] * 2, True, False] == returns(child)


def _bomb() -> list[int]:
    """How many processes could be made, and why not more."""
    made, why = 0, 0
    for _ in range(BOMB):
        try:
            pid = fork()
        except OSError as error:
            why = error.errno or -1
            continue
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        made += 1
    return [made, why]


@pytest.mark.parametrize("wall", ["none", "RLIMIT_NPROC", "pids controller"])
def test_a_fork_bomb(wall: str) -> None:
    """Without any filter, the limit on processes alone, and the control group alone, let no process be made."""
    if wall == "pids controller" and os.geteuid() != 0:
        pytest.skip("control groups need root here")

    def child() -> Any:
        tree = Tree("none", {})
        if wall == "pids controller":
            tree = cgroups.create(f"airssys-test-{os.getpid()}", 0)
            if tree.backend == "none":
                return tree.reason
        try:
            groups = tree.prepare("w1", 256 << 20)

            def caged() -> list[int]:
                cgroups.join(groups)
                become_ordinary()
                if wall == "RLIMIT_NPROC":
                    process.set_limit(resource.RLIMIT_NPROC, 0)
                return _bomb()

            found = returns(caged)
            _until("an empty group", lambda: tree.remove("w1"))
            return found
        finally:
            tree.dissolve()

    found = returns(child)
    if isinstance(found, str):
        pytest.skip(f"no control groups here: {found}")
    assert ([BOMB, 0] if wall == "none" else [0, errno.EAGAIN]) == found
