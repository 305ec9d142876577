"""From `airssys up` to a running supervisor: probe, claim, prepare, detach, drop, run.

Everything that needs root happens here, once, before the first child exists; then the process becomes the supervisor's
own uid with the few capabilities `privileges` names.
"""

from __future__ import annotations

import logging
import os
import sys
import zlib
from typing import NoReturn

from sandbox.errors import AirssysError, KernelFeatureMissing
from sandbox.kernel import cgroups, probe, process
from sandbox.kernel.confine import confine_parent
from supervisor.config import HostConfig
from supervisor.parent import consent, layout, privileges
from supervisor.parent.errors import RootError
from supervisor.parent.identities import claim
from supervisor.parent.main import Supervisor
from supervisor.parent.spawn import unreadable

log = logging.getLogger("airssys.supervisor")


def launch(config: HostConfig, detach: bool) -> None:
    """Run a host. In the foreground the call ends the process with the host's status.

    With `detach` it returns once the host serves, the host living on in a session of its own.

    Raises:
        KernelFeatureMissing: a wall that the host insists on cannot stand here; nothing was changed.
        RootError, AlreadyRunning: see `layout.prepare`.
        SpawnFailed: the host did not get ready; its log tells why.
    """
    if not detach:
        status = _run(config, lambda: None)
        sys.exit(status)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _detached(config, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read(64 * 1024)
    os.waitpid(pid, 0)
    if answer != b"ready":
        code, message, subject, hint = (answer.decode(errors="replace").split("\n") + [""] * 4)[:4]
        raise AirssysError(
            message or "the host ended while starting", code=code or "E_SPAWN", subject=subject, hint=hint
        )


def _detached(config: HostConfig, writer: int) -> NoReturn:
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        null = os.open("/dev/null", os.O_RDWR)
        for target in (0, 1, 2):
            os.dup2(null, target)
        os.close(null)

        def ready() -> None:
            os.write(writer, b"ready")
            os.close(writer)

        try:
            status = _run(config, ready)
        except AirssysError as error:
            status = 1
            parts = (error.code, error.message, error.subject, error.hint)
            os.write(writer, "\n".join(part.replace("\n", " ") for part in parts).encode())
        except OSError as error:
            status = 1
            os.write(writer, f"E_SPAWN\n{error}".encode())
        os._exit(status)
    finally:
        os._exit(1)


def _run(config: HostConfig, on_ready: object) -> int:
    os.umask(0o022)  # directories on the way are for the host's own uids; what is secret has a mode of its own
    walls = consent.judge(probe.probe(config.uid_range_start), config)
    consent.insist(walls)
    if os.geteuid() == 0 and (closed := unreadable()) is not None:
        raise RootError(
            "the installation is closed to the host's own processes, which have uids of their own",
            subject=closed,
            hint="chmod -R go+rX it, or install under another umask",
        )
    process.all_descriptors()
    identities = claim(config.state_dir, config.uid_range_start)
    shared = any(uid not in (0, identities.own) for uid in config.client_uids)
    prepared = layout.prepare(config.state_dir, config.run_dir, config.api_socket, identities, shared=shared)
    _log_to(prepared.log_fd)
    tree = cgroups.Tree("none", {}, "switched off by [workers] cgroups")
    if config.cgroups == "auto":
        owner = identities.supervisor if identities.base is not None else None
        share = cgroups.Share(config.cpu_max, config.cpu_weight)
        tree = cgroups.create(group_name(config.state_dir), owner, share)
        walls = [_made(wall, tree) if wall.name == "cgroup" else wall for wall in walls]
        # The probe looked; this tried. What it found out late is refused or agreed to by the same rule.
        walls = consent.judge(walls, config)
        consent.insist(walls)
    _insist_on_share(config, tree)
    states = {wall.name: "on" if wall.state == "on" else wall.detail for wall in walls}
    if tree.backend != "none":
        states["cgroup"] = f"on ({tree.backend})"
    lost = consent.lost(walls)
    for wall in walls:
        if wall.name in lost:
            log.warning("wall lost: %s: %s", wall.name, wall.detail)
            print(f"wall lost: {wall.name}: {wall.detail}", file=sys.stderr)
    if identities.base is not None:
        privileges.become_service(identities.supervisor)
    process.set_name("airssys-host")
    os.environ.clear()
    confine_parent(lost)
    supervisor = Supervisor(
        config,
        prepared,
        identities,
        tree,
        states,
        privileges.can_mount() and "grant mounts" not in lost,
        on_ready,  # type: ignore[arg-type]
        lost,
    )
    status = supervisor.run()
    if supervisor.failure is not None and not supervisor.served:
        raise supervisor.failure
    return status


def _made(wall: probe.Wall, tree: cgroups.Tree) -> probe.Wall:
    if tree.backend != "none":
        return probe.Wall(wall.name, "on", tree.backend)
    return probe.Wall(wall.name, "missing" if os.geteuid() == 0 else "lost", tree.reason)


def _insist_on_share(config: HostConfig, tree: cgroups.Tree) -> None:
    """A bound that somebody asked for and nobody holds must not be read and ignored."""
    if (config.cpu_max, config.cpu_weight) != (100, 100) and "cpu" not in tree.controllers:
        raise KernelFeatureMissing(
            f"[workers] cpu-max and cpu-weight need the cpu controller of a control group: {tree.reason}",
            subject="cgroup",
            hint="delegate the controller, start as root, or leave both out",
        )


def group_name(state_dir: str) -> str:
    """The name of a host's control groups: the same for each run on this state."""
    return f"airssys-{zlib.crc32(state_dir.encode()):08x}"


def _log_to(fd: int) -> None:
    handler = logging.StreamHandler(os.fdopen(os.dup(fd), "w", buffering=1))
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
