"""The host's configuration: places, values, and errors that name file, key and line."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from sandbox.errors import AirssysError
from sandbox.types import ComponentId
from supervisor import config as config_module
from supervisor.config import HostConfig, Override, load, parse_config
from supervisor.config_tree import SupervisorSpec
from supervisor.packages.errors import ConfigError

pytestmark = pytest.mark.block11_cli

PLACES = HostConfig("/c", "/s", "/r")
FULL = """[host]
admins = [1000, 1001]
shutdown-timeout = "5s"
start-timeout = "30s"
bind-roots = ["/srv", "/data"]
forbidden = ["/srv/secret"]
[workers]
uid-range-start = 700_000
cgroups = "off"
profile = "degraded"
accept-lost = ["landlock", "mseal"]
spawn = "exec"
pool = 7
path = "general"
[[workers.override]]
component = "acme/*"
spawn = "zygote"
path = "fast"
[audit]
sync = "always"
rotate-size = "64MiB"
[compile]
memory = "1GiB"
timeout = "1m"
[storage]
map-size = "2GiB"
[policy]
install = "review"
[[supervisor]]
name = "group"
strategy = "rest-for-one"
children = ["acme/db", "pool", "acme/web/1"]
max-restarts = 5
window = "30s"
backoff = ["10ms", "1s"]
[[supervisor]]
name = "pool"
strategy = "simple-one-for-one"
template = "acme/worker"
replicas = 4
"""


def test_every_key() -> None:
    """Each key arrives in its field, in base units."""
    assert HostConfig(
        config_dir="/c",
        state_dir="/s",
        run_dir="/r",
        admins=(1000, 1001),
        shutdown_timeout_ms=5_000,
        start_timeout_ms=30_000,
        bind_roots=("/srv", "/data"),
        forbidden=("/srv/secret",),
        uid_range_start=700_000,
        cgroups="off",
        profile="degraded",
        accept_lost=("landlock", "mseal"),
        spawn="exec",
        pool=7,
        path="general",
        overrides=(Override("acme/*", "zygote", "fast"),),
        audit_sync="always",
        audit_rotate_size=64 << 20,
        compile_memory=1 << 30,
        compile_timeout_ms=60_000,
        storage_map_size=2 << 30,
        install_policy="review",
        supervisors=(
            SupervisorSpec(
                "group", "root", "rest-for-one", ("acme/db/0", "pool", "acme/web/1"), 5, 30_000, (10, 1_000)
            ),
            SupervisorSpec("pool", "group", "simple-one-for-one", template="acme/worker", replicas=4),
        ),
    ) == parse_config(FULL, PLACES)
    assert PLACES == parse_config("", PLACES)
    assert (0, 50) == (parse_config(FULL, PLACES).audit_sync_ms, PLACES.audit_sync_ms)


def test_it_travels_as_messagepack() -> None:
    """The supervisor gets exactly what was read."""
    full = parse_config(FULL, PLACES)
    assert full == msgspec.msgpack.decode(msgspec.msgpack.encode(full), type=HostConfig)


@pytest.mark.parametrize(
    ("old", "new", "key", "line"),
    [
        ("[1000, 1001]", "1000", "host.admins", 2),
        ("[1000, 1001]", "[true]", "host.admins", 2),
        ("[1000, 1001]", "[-1]", "host.admins", 2),
        ("[1000, 1001]", "[4294967295]", "host.admins", 2),
        ('"5s"', '"0ms"', "host.shutdown-timeout", 3),
        ('"5s"', "5", "host.shutdown-timeout", 3),
        ('"30s"', '"1h"', "host.start-timeout", 4),
        ('"/srv", "/data"', '"srv"', "host.bind-roots", 5),
        ('"/srv", "/data"', '"/srv/../etc"', "host.bind-roots", 5),
        ('"/srv", "/data"', '"/srv/"', "host.bind-roots", 5),
        ('"/srv", "/data"', '"//srv"', "host.bind-roots", 5),
        ('"/srv/secret"', '"secret"', "host.forbidden", 6),
        ("700_000", "0", "workers.uid-range-start", 8),
        ('"off"', '"on"', "workers.cgroups", 9),
        ('"degraded"', '"weak"', "workers.profile", 10),
        ('"degraded"', '"standard"', "workers.accept-lost", 11),
        ('"landlock", "mseal"', "", "workers.profile", 10),
        ('"landlock"', '"seccomp"', "workers.accept-lost", 11),
        ('"landlock"', '"namespaces"', "workers.accept-lost", 11),
        ('"exec"', '"fork"', "workers.spawn", 12),
        ("pool = 7", "pool = 65", "workers.pool", 13),
        ("pool = 7", "pool = -1", "workers.pool", 13),
        ('"general"', '"slow"', "workers.path", 14),
        ("acme/*", "acme", "workers.override[0].component", 16),
        ('spawn = "zygote"', 'spawn = "clone"', "workers.override[0].spawn", 17),
        ('path = "fast"', "path = 1", "workers.override[0].path", 18),
        ('spawn = "zygote"\npath = "fast"', "", "workers.override[0]", 15),
        ('"always"', '"never"', "audit.sync", 20),
        ('"always"', '"11s"', "audit.sync", 20),
        ('"64MiB"', '"1KiB"', "audit.rotate-size", 21),
        ('"1GiB"', '"1MiB"', "compile.memory", 23),
        ('"1m"', '"1ms"', "compile.timeout", 24),
        ('"2GiB"', '"2GB"', "storage.map-size", 26),
        ('"review"', '"deny"', "policy.install", 28),
        ("admins", "admin", "host.admin", 2),
        ("[policy]", "[polices]", "polices", 27),
    ],
)
def test_each_fault_names_file_key_and_line(old: str, new: str, key: str, line: int) -> None:
    """Wrong values and unknown keys are E_CONFIG."""
    with pytest.raises(ConfigError) as caught:
        parse_config(FULL.replace(old, new, 1), PLACES, file="airssys.toml")
    assert ("E_CONFIG", "airssys.toml", key, line) == (
        caught.value.code,
        caught.value.file,
        caught.value.key,
        caught.value.line,
    )


def test_spawn_by_component() -> None:
    """The first override that covers a component decides; elsewhere the host's own setting does."""
    config = parse_config(
        """[workers]
        spawn = "zygote"
        override = [
          { component = "acme/reader/1", spawn = "zygote" }, { component = "acme/*", spawn = "exec" },
        ]""",
        PLACES,
    )
    assert "exec" == config.spawn_for(ComponentId("acme", "reader", "0"))
    assert "zygote" == config.spawn_for(ComponentId("acme", "reader", "1"))
    assert "zygote" == config.spawn_for(ComponentId("acme-evil", "reader", "0"))
    assert "zygote" == PLACES.spawn_for(ComponentId("acme", "reader", "0"))


def places(**environ: str) -> tuple[str, str, str]:
    config = load(environ=environ)
    return config.config_dir, config.state_dir, config.run_dir


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module.os, "geteuid", lambda: 1000)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config_module.os, "geteuid", lambda: 0)
    real = config_module._root_places
    monkeypatch.setattr(config_module, "_root_places", lambda: (str(tmp_path / "none"), *real()[1:]))


def test_places_of_root(as_root: None) -> None:
    """Root follows the FHS, whatever XDG says."""
    assert ("/var/lib/airssys", "/run/airssys") == places(XDG_RUNTIME_DIR="/x", HOME="/root")[1:]
    config = HostConfig(*("/etc/airssys", "/var/lib/airssys", "/run/airssys"))
    assert "/run/airssys/api.sock" == config.api_socket
    assert "/var/lib/airssys/control/trust" == config.trust_dir


def test_places_of_a_user(as_user: None) -> None:
    """A user follows XDG; relative variables are ignored; without a runtime directory sockets lie with the state."""
    assert ("/h/.config/airssys", "/h/.local/state/airssys", "/h/.local/state/airssys/run") == places(HOME="/h")
    assert ("/c/airssys", "/s/airssys", "/r/airssys") == places(
        XDG_CONFIG_HOME="/c", XDG_STATE_HOME="/s", XDG_RUNTIME_DIR="/r"
    )
    assert "/h/.config/airssys" == places(HOME="/h", XDG_CONFIG_HOME="c")[0]


def test_systemd_and_airssys_root_win(as_user: None) -> None:
    """systemd's directories win over XDG, AIRSSYS_ROOT over both."""
    systemd = {"CONFIGURATION_DIRECTORY": "/e/a", "STATE_DIRECTORY": "/v/a:/v/b", "RUNTIME_DIRECTORY": "/r/a"}
    assert ("/e/a", "/v/a", "/r/a") == places(HOME="/h", **systemd)
    assert ("/x/etc", "/x/lib", "/x/run") == places(HOME="/h", AIRSSYS_ROOT="/x", **systemd)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOME": "h"},
        {"AIRSSYS_ROOT": "x"},
        {"HOME": "/h", "STATE_DIRECTORY": "s"},
        {"AIRSSYS_ROOT": "/" + "x" * 90},
    ],
)
def test_places_that_cannot_be(as_user: None, environ: dict[str, str]) -> None:
    """Relative places, no home at all, and a run directory too long for a socket's name are E_CONFIG."""
    with pytest.raises(ConfigError):
        load(environ=environ)


def test_load(tmp_path: Path) -> None:
    """The usual file is read where it exists; a named one must exist; its errors name its path."""
    environ = {"AIRSSYS_ROOT": str(tmp_path)}
    assert () == load(environ=environ).admins
    (tmp_path / "etc").mkdir()
    usual = tmp_path / "etc" / "airssys.toml"
    usual.write_text("[host]\nadmins = [7]\n")
    usual.chmod(0o644)
    assert (7,) == load(environ=environ).admins
    assert (7,) == load(str(usual), environ).admins
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "missing.toml"), environ)
    assert "missing.toml" in caught.value.file
    usual.write_text("[host]\nadmin = [7]\n")
    with pytest.raises(ConfigError) as caught:
        load(environ=environ)
    assert f"{usual}:2 host.admin" == caught.value.subject
    assert "admins" in caught.value.hint


def test_a_file_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever can write the configuration rules the host: group or world write is E_POLICY_PERM."""
    path = tmp_path / "airssys.toml"
    path.write_text("")
    path.chmod(0o644)
    assert load(str(path), {"AIRSSYS_ROOT": str(tmp_path)})
    path.chmod(0o664)
    with pytest.raises(AirssysError) as caught:
        load(str(path), {"AIRSSYS_ROOT": str(tmp_path)})
    assert "E_POLICY_PERM" == caught.value.code


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A FIFO or a directory under the configuration's name is refused without blocking."""
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(ConfigError):
            load(str(tmp_path / name), {"AIRSSYS_ROOT": str(tmp_path)})


def test_path_by_component() -> None:
    """An override decides only about what it names; the first that names it and covers a component counts."""
    config = parse_config(
        """[workers]
        path = "general"
        spawn = "exec"
        override = [
          { component = "acme/reader", spawn = "zygote" },
          { component = "acme/*", path = "fast" },
          { component = "acme/reader", path = "general" },
        ]
        """,
        PLACES,
    )
    assert "fast" == config.path_for(ComponentId("acme", "reader", "0"))
    assert "zygote" == config.spawn_for(ComponentId("acme", "reader", "0"))
    assert "exec" == config.spawn_for(ComponentId("acme", "writer", "0"))
    assert "general" == config.path_for(ComponentId("other", "reader", "0"))
