"""Which walls a start insists on, by profile, on kernels that really answer as if they lacked something."""

from __future__ import annotations

import os
from typing import Any

import forked
import pytest

from sandbox.errors import KernelFeatureMissing
from sandbox.kernel import landlock
from sandbox.kernel.probe import Wall, probe
from sandbox.walls import MAY_BE_ACCEPTED, NEED_ROOT, WALLS, parse, spell
from supervisor.config import HostConfig
from supervisor.parent import consent
from supervisor.selftest import lesser_kernel

pytestmark = pytest.mark.block4_security
ROOT = os.geteuid() == 0
EVERYTHING = ("landlock", "mdwe", "mseal", "cgroup", "grant mounts")
LACKING = [
    ("landlock", "landlock"), ("landlock disabled", "landlock"), ("mdwe", "mdwe"), ("mseal", "mseal"),
    ("namespaces", "namespaces"), ("openat2", "openat2"), ("grant mounts", "grant mounts"),
]  # fmt: skip


def _config(profile: Any = "paranoid", *accepted: str, **more: Any) -> HostConfig:
    return HostConfig("/c", "/s", "/r", profile=profile, accept_lost=accepted, **more)


def _start(config: HostConfig, *lacking: str) -> tuple[list[str], str, str]:
    """On a kernel without these: what the host runs without, or the refusal's message and hint."""

    def act() -> Any:
        lesser_kernel.without(*lacking)
        walls = consent.judge(probe(), config)
        try:
            consent.insist(walls)
        except KernelFeatureMissing as error:
            return [], error.message, error.hint
        return sorted(consent.lost(walls)), "", ""

    ended = forked.ends(act)
    assert not ended.error, ended
    lost, message, hint = ended.value
    return lost, message, hint


@pytest.fixture(scope="module")
def whole() -> set[str]:
    """What this user's host loses here under `paranoid`; skips by name where this machine itself lacks a wall."""
    walls = probe()
    for wall in walls:
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")
    return {wall.name for wall in walls if wall.state == "lost"}


@pytest.mark.parametrize("profile", ["paranoid", "standard"])
@pytest.mark.parametrize(("lacking", "wall"), LACKING, ids=[lacking for lacking, _ in LACKING])
def test_each_wall_is_insisted_on(whole: set[str], lacking: str, wall: str, profile: str) -> None:
    """A missing wall is refused under `paranoid` and `standard`, alone and by name, with what to do."""
    if wall in whole:
        pytest.skip(f"{wall} needs root: an ordinary user's host runs without it anyway")
    lost, message, hint = _start(_config(profile), lacking)
    assert ([], True) == (lost, message.startswith(f"{wall}: "))
    assert [] == [name for name in WALLS if f"; {name}: " in message]
    assert f"{wall}: {WALLS[wall].remedy}" in hint
    assert (f'accept-lost = ["{wall}"]' in hint) == (wall in MAY_BE_ACCEPTED)


@pytest.mark.parametrize(("lacking", "wall"), LACKING, ids=[lacking for lacking, _ in LACKING])
def test_each_wall_alone_may_be_accepted_or_not_at_all(whole: set[str], lacking: str, wall: str) -> None:
    """`degraded` runs without a wall that is named, refuses where all but it are, and never without a core wall."""
    if wall in whole:
        pytest.skip(f"{wall} needs root: an ordinary user's host runs without it anyway")
    others = tuple(name for name in EVERYTHING if name != wall)
    assert _start(_config("degraded", *others), lacking)[1].startswith(f"{wall}: ")
    lost, message, _ = _start(_config("degraded", *EVERYTHING), lacking)
    if wall in MAY_BE_ACCEPTED:
        assert (sorted({wall, *whole}), "") == (lost, message)
    else:
        assert message.startswith(f"{wall}: ")


def test_nothing_is_lost_where_nothing_is_missing(whole: set[str]) -> None:
    """Positive control: on this machine as it is no wall is lost by consent, whatever was agreed to."""
    for config in (_config(), _config("standard"), _config("degraded", *EVERYTHING)):
        assert (sorted(whole), "", "") == _start(config)


def test_an_ordinary_user_is_told_what_root_would_have() -> None:
    """Only walls that need root are lost without being named in the configuration, and only without root."""
    lost = {wall.name for wall in probe() if wall.state == "lost"}
    assert lost <= set(NEED_ROOT)
    if ROOT:
        assert set() == lost
    else:
        assert {"own uids", "grant mounts"} <= lost


def test_switching_control_groups_off_is_a_consent_of_its_own() -> None:
    """`cgroups = "off"` loses that wall under any profile; without it root's missing group is refused."""
    walls = [Wall("cgroup", "missing", "no controllers")]
    (judged,) = consent.judge(walls, _config(cgroups="off"))
    assert ("lost", True) == (judged.state, "workers.cgroups" in judged.detail)
    with pytest.raises(KernelFeatureMissing, match="cgroup: no controllers"):
        consent.insist(consent.judge(walls, _config()))


def test_the_core_walls_have_no_name_to_accept() -> None:
    """The list of what may be accepted holds no wall that the cage stands on."""
    assert {"namespaces", "seccomp", "libseccomp", "openat2", "machine", "own uids"}.isdisjoint(MAY_BE_ACCEPTED)
    assert set(MAY_BE_ACCEPTED) | set(NEED_ROOT) <= set(WALLS)


def test_names_travel_as_one_argument() -> None:
    """`spell` and `parse` are each other's inverse; what is no wall is refused."""
    for names in (frozenset[str](), frozenset(MAY_BE_ACCEPTED), frozenset({"grant mounts"})):
        assert names == parse(spell(names))
    for text in ("seccomp", "landlock,namespaces", "landlock mdwe"):
        with pytest.raises(ValueError, match="can be lost"):
            parse(text)


@pytest.mark.parametrize("version", [1, 3, 5])
def test_an_old_landlock_is_used_as_far_as_it_goes(version: int) -> None:
    """With consent the rights an old ABI has are handled: files are closed; without consent the step refuses."""
    if landlock.abi() < version:
        pytest.skip(f"this kernel's Landlock ABI is {landlock.abi()}")

    def restricted(lost: bool) -> Any:
        def act() -> list[str]:
            from sandbox.kernel import process

            process.no_new_privileges()
            landlock.restrict_all(version, lost)
            found = []
            for path in ("/etc/passwd", "/proc/self/status"):
                try:
                    os.close(os.open(path, os.O_RDONLY))
                    found.append(path)
                except PermissionError:
                    continue
            return found

        return forked.ends(act)

    assert [] == restricted(True).value
    assert "older than" in restricted(False).error
    assert landlock.lacks(version)


def test_without_landlock_nothing_is_restricted_only_by_consent() -> None:
    """ABI 0: by consent the step does nothing (the control: files stay open), without it it refuses."""

    def act() -> int:
        landlock.restrict_all(0, True)
        return len(os.listdir("/"))

    assert forked.ends(act).value > 0
    with pytest.raises(OSError, match="older than"):
        landlock.restrict_all(0)
    assert "everything" == landlock.lacks(0)
    assert "" == landlock.lacks(landlock.WANTED_ABI)
