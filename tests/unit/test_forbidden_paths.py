"""Host paths that may never be bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config import HostConfig
from supervisor.policy import forbidden, forbidden_paths, refuse_binding

pytestmark = pytest.mark.block4_security


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc",
        "/etc/ssh",
        "/proc",
        "/proc/1/root",
        "/sys/fs/cgroup",
        "/dev/shm",
        "/run",
        "/run/user/1000",
        "/boot",
        "/root",
        "/root/.ssh",
        "/home",
        "/home/ann",
        "/home/ann/.ssh",
        "/home/ann/.ssh/keys",
        "/var",
        "/var/lib",
        "/var/lib/airssys",
        "/var/lib/airssys/storage",
        "/usr",
        "/usr/bin",
    ],
)
def test_forbidden_paths(path: str) -> None:
    """The listed directories, what lies in them and what contains them are refused with a sentence."""
    reason = forbidden(path)
    assert reason is not None
    assert reason.startswith(path)


@pytest.mark.parametrize(
    "path", ["/srv/logs", "/etcetera", "/home/ann/work", "/var/log", "/var/lib/airssys-data", "/mnt"]
)
def test_ordinary_paths(path: str) -> None:
    """Positive control: paths are compared by component, so names that only begin alike are free."""
    assert forbidden(path) is None


@pytest.mark.parametrize("path", ["", "srv", "/srv/../etc", "/srv//logs", "/srv/", "/srv/./logs", "//srv", "/srv/\0"])
def test_paths_in_another_spelling_are_refused(path: str) -> None:
    """The question is about resolved paths; any other text is refused, not interpreted."""
    assert forbidden(path) is not None


def test_extra_paths() -> None:
    """The host's own directories and the operator's additions are forbidden like the others."""
    config = HostConfig("/x/etc", "/x/lib", "/x/run", forbidden=("/srv/secret", "/data/*/keys"))
    for path in ("/srv/secret", "/srv/secret/a", "/srv", "/x/lib/storage", "/x", "/data/a/keys", "/data/b"):
        assert forbidden(path, config.never_bound) is not None
    assert forbidden("/srv/secrets", config.never_bound) is None
    assert forbidden("/x/data", config.never_bound) is None


def test_bind_roots() -> None:
    """A bound directory lies in one of the roots, by component; what is forbidden stays so inside a root."""
    assert refuse_binding("/srv/logs", ["/srv"]) is None
    assert refuse_binding("/srv", ["/srv"]) is None
    assert refuse_binding("/srv/logs", ["/"]) is None
    assert refuse_binding("/srv2/logs", ["/srv"]) is not None
    assert refuse_binding("/srv/logs", []) is not None
    assert refuse_binding("/etc/x", ["/etc"]) is not None


_PARTS = st.lists(st.sampled_from(["etc", "srv", "home", "ann", ".ssh", "var", "lib", "airssys", "x"]), max_size=5)


@given(_PARTS)
def test_agrees_with_a_naive_reading(parts: list[str]) -> None:
    """Refused exactly if the path and some line agree on every component they both have."""
    path = "/" + "/".join(parts)

    def overlaps(line: str) -> bool:
        return all(known in ("*", part) for known, part in zip(line[1:].split("/"), parts, strict=False))

    assert any(overlaps(line.path) for line in forbidden_paths()) == (forbidden(path) is not None)


def test_each_line_has_a_reason_and_one_place() -> None:
    """The policy file is read whole; no path stands twice; each has a sentence."""
    lines = forbidden_paths()
    assert len({line.path for line in lines}) == len(lines) >= 10
    assert all(len(line.reason.split()) >= 2 for line in lines)
