"""Whether this machine's walls are enough for the configured profile, and which the host then runs without.

A missing wall ends a start, except where somebody agreed to lose it, by one of three acts: an ordinary user starts the
host (`sandbox.walls.NEED_ROOT`); `workers.cgroups = "off"`; or `workers.profile = "degraded"` with the wall's name in
`workers.accept-lost`. There is no way to agree to walls that are not named.
"""

from __future__ import annotations

from collections.abc import Iterable

from sandbox.errors import KernelFeatureMissing
from sandbox.kernel.probe import Wall
from sandbox.walls import MAY_BE_ACCEPTED, WALLS
from supervisor.config import HostConfig

ACCEPTED = "accepted by workers.accept-lost"


def judge(walls: Iterable[Wall], config: HostConfig) -> list[Wall]:
    """The walls as a host with this configuration would run: what was agreed to is "lost", not "missing"."""
    return [_judged(wall, config) for wall in walls]


def _judged(wall: Wall, config: HostConfig) -> Wall:
    if wall.name == "cgroup" and config.cgroups == "off":
        return Wall(wall.name, "lost", 'switched off by workers.cgroups = "off"')
    if wall.state == "missing" and config.profile == "degraded" and wall.name in config.accept_lost:
        return Wall(wall.name, "lost", f"{wall.detail}; {ACCEPTED}")
    return wall


def insist(walls: Iterable[Wall]) -> None:
    """Refuse to start where a wall is missing.

    Raises:
        KernelFeatureMissing: the message has each missing wall by name, the hint what to do about it.
    """
    missing = [wall for wall in walls if wall.state == "missing"]
    if not missing:
        return
    hints = [f"{wall.name}: {WALLS[wall.name].remedy}" for wall in missing]
    if all(wall.name in MAY_BE_ACCEPTED for wall in missing):
        names = ", ".join(f'"{wall.name}"' for wall in missing)
        hints.append(f'or run without: [workers] profile = "degraded" and accept-lost = [{names}]')
    raise KernelFeatureMissing(
        "; ".join(f"{wall.name}: {wall.detail}" for wall in missing),
        hint="; ".join([*hints, "airssys doctor lists every wall"]),
    )


def lost(walls: Iterable[Wall]) -> frozenset[str]:
    """The names of the walls the host runs without."""
    return frozenset(wall.name for wall in walls if wall.state == "lost")
