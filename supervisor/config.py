"""The host's configuration: where things lie, and the few numbers an operator may choose.

Implements `docs/reference/config.md`. Read once, by the command line, from `airssys.toml`; the supervisor and its
children get the finished `HostConfig` as MessagePack and parse no TOML.

Where things lie is decided in this order: `AIRSSYS_ROOT` (everything below one directory, for tests and trials), then
systemd's `CONFIGURATION_DIRECTORY`, `STATE_DIRECTORY` and `RUNTIME_DIRECTORY`, then the FHS for root and the XDG base
directories for everybody else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from bridge.capabilities import covers, validate_component_pattern
from sandbox.errors import AirssysError
from sandbox.types import CallPath, ComponentId
from sandbox.walls import MAY_BE_ACCEPTED
from supervisor.config_messaging import MessagingConfig, read_messaging
from supervisor.config_tree import SupervisorSpec, read_supervisors
from supervisor.packages.errors import ConfigError
from supervisor.packages.files import FileError, check_owner_only_writes, read_regular
from supervisor.packages.limit_table import TABLE, parser, spelled
from supervisor.packages.toml_source import MAX_BYTES, Table, TomlSource, integer, string, strings
from supervisor.packages.units import format_duration, format_size, parse_duration, parse_size

FILE_NAME = "airssys.toml"
_MAX_SOCKET_DIRECTORY = 80
"""Longest run directory, bytes: a Unix socket's whole path has 107 (unix(7)), and names are put behind this."""


Profile = Literal["paranoid", "standard", "degraded"]
Spawn = Literal["zygote", "exec"]
MAX_POOL = 64
MAX_OVERRIDES = 100


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[workers.override]]`: what differs for the components a pattern covers."""

    component: str
    """A component pattern: `acme/*`, `acme/reader`, `acme/reader/0`."""
    spawn: Spawn | None = None
    path: CallPath | None = None


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of one host's configuration. Bytes and milliseconds."""

    config_dir: str
    """Where `airssys.toml` lies."""
    state_dir: str
    """What must survive a restart: registry, trust store, packages, storage, audit log."""
    run_dir: str
    """Sockets and locks of the running host."""
    admins: tuple[int, ...] = ()
    """[host] admins: uids that may use the API, beside root and the host's owner."""
    shutdown_timeout_ms: int = 10_000
    """[host] shutdown-timeout: for all components together to stop."""
    start_timeout_ms: int = 20_000
    """[host] start-timeout: for a host process or a worker to become ready."""
    bind_roots: tuple[str, ...] = ("/",)
    """[host] bind-roots: bound directories lie in one of these."""
    forbidden: tuple[str, ...] = ()
    """[host] forbidden: paths never bound, beside the built-in ones."""
    uid_range_start: int = 0x70000000
    """[workers] uid-range-start: as root, a host takes one of 4,000 blocks of 65,536 ids that begin here."""
    cgroups: Literal["auto", "off"] = "auto"
    """[workers] cgroups."""
    cpu_max: int = 100
    """[workers] cpu-max: percent of one processor that one worker may use; 100 is no bound."""
    cpu_weight: int = 100
    """[workers] cpu-weight: of one worker where processors are short; 100 is the kernel's usual."""
    profile: Profile = "paranoid"
    """[workers] profile: which walls a start insists on, and how linear memory is laid out."""
    accept_lost: tuple[str, ...] = ()
    """[workers] accept-lost: walls a `degraded` host may run without."""
    spawn: Spawn = "zygote"
    """[workers] spawn: workers are cloned from the zygote, or executed with an address-space layout of their own."""
    pool: int = 2
    """[workers] pool: caged workers without a component that are kept ready."""
    path: CallPath = "fast"
    """[workers] path: whether components are patched, so that values cross their boundary in bulk."""
    messaging: MessagingConfig = MessagingConfig()
    """[messaging], [[client]], [[group]] and [[target]]."""
    overrides: tuple[Override, ...] = ()
    """[[workers.override]], in the order of the file."""
    limit_maxima: dict[str, int] = {}
    """[limits]: the most a manifest may ask for, by key of its own [limits]."""
    audit_sync: str = "50ms"
    """[audit] sync: "always", or how long records may wait to be synced to disk together."""
    audit_rotate_size: int = 256 << 20
    """[audit] rotate-size: length at which the log goes on in a new file."""
    compile_memory: int = 2 << 30
    """[compile] memory: what one compiler may use; address space, data, control group."""
    compile_timeout_ms: int = 120_000
    """[compile] timeout: CPU time of one compilation; it gets a little more of wall clock."""
    storage_map_size: int = 1 << 30
    """[storage] map-size: most bytes all components together can store."""
    install_policy: Literal["review", "trusted"] = "trusted"
    """[policy] install: "trusted" lets packages of trusted publishers in without a question, "review" asks always."""
    supervisors: tuple[SupervisorSpec, ...] = ()
    """[[supervisor]], in the order of the file."""

    @property
    def api_socket(self) -> str:
        """The operator's API."""
        return os.path.join(self.run_dir, "api.sock")

    @property
    def clients_socket(self) -> str:
        """Where programs outside talk to components."""
        return os.path.join(self.run_dir, "clients", "router.sock")

    @property
    def client_uids(self) -> tuple[int, ...]:
        """Who may use it beside root and the host's owner."""
        return (*self.admins, *(client.uid for client in self.messaging.clients))

    @property
    def audit_dir(self) -> str:
        """The auditor's directory."""
        return os.path.join(self.state_dir, "audit")

    @property
    def storage_dir(self) -> str:
        """The bridge's directory."""
        return os.path.join(self.state_dir, "storage")

    @property
    def control_dir(self) -> str:
        """Control's directory: registry, packages, cache, trust store."""
        return os.path.join(self.state_dir, "control")

    @property
    def trust_dir(self) -> str:
        """The trust store."""
        return os.path.join(self.control_dir, "trust")

    @property
    def never_bound(self) -> tuple[str, ...]:
        """What `supervisor.policy.forbidden` forbids on this host beside its own list."""
        own = (self.config_dir, self.state_dir, self.run_dir)
        return (*self.forbidden, *(os.path.realpath(path) for path in own))

    def spawn_for(self, component: ComponentId) -> Spawn:
        """How this component's workers are made: the first override that covers it and says so, else `spawn`."""
        found = (each.spawn for each in self.overrides if covers(each.component, component))
        return next((spawn for spawn in found if spawn is not None), self.spawn)

    def path_for(self, component: ComponentId) -> CallPath:
        """How values cross this component's boundary, if it can be patched: likewise, else `path`."""
        found = (each.path for each in self.overrides if covers(each.component, component))
        return next((path for path in found if path is not None), self.path)

    @property
    def audit_sync_ms(self) -> int:
        """`audit_sync` in milliseconds; 0 for "always"."""
        return 0 if self.audit_sync == "always" else parse_duration(self.audit_sync)


def load(path: str | None = None, environ: Mapping[str, str] | None = None) -> HostConfig:
    """The configuration of this host.

    Args:
        path: the file; None for the usual place, where a missing one means defaults throughout.
        environ: the environment, `os.environ` unless told.

    Raises:
        ConfigError: E_CONFIG with file, key and line.
        AirssysError: E_POLICY_PERM; others than its owner may write the file.
    """
    places = _places(os.environ if environ is None else environ)
    file = path or os.path.join(places.config_dir, FILE_NAME)
    try:
        # The operator's own link is followed; what matters is who may write the file behind it.
        data, state = read_regular(os.path.realpath(file), max_bytes=MAX_BYTES)
    except FileNotFoundError as error:
        if path is None:
            return places
        raise _unplaced(file, "there is no such configuration file") from error
    except FileError as error:
        raise _unplaced(file, error.message) from error
    check_owner_only_writes(state, file)
    return parse_config(data, places, file=file)


def parse_config(text: str | bytes, places: HostConfig, *, file: str = FILE_NAME) -> HostConfig:
    """Read `airssys.toml`.

    Args:
        text: its content.
        places: a configuration that says where things lie and holds every default.
        file: the name errors use.

    Raises:
        ConfigError: E_CONFIG with file, key and line.
    """
    source = TomlSource(text, file=file, error=ConfigError)
    root = source.root
    host, workers, audit = root.table("host"), root.table("workers"), root.table("audit")
    profile: Profile = workers.take("profile", _profile, default=places.profile)
    compiler, storage, policy = root.table("compile"), root.table("storage"), root.table("policy")
    config = msgspec.structs.replace(
        places,
        admins=host.take("admins", _uids, default=places.admins),
        shutdown_timeout_ms=_duration(host, "shutdown-timeout", places.shutdown_timeout_ms, 100, 600_000),
        start_timeout_ms=_duration(host, "start-timeout", places.start_timeout_ms, 100, 600_000),
        bind_roots=host.take("bind-roots", _paths, default=places.bind_roots),
        forbidden=host.take("forbidden", _paths, default=places.forbidden),
        uid_range_start=_number(workers, "uid-range-start", places.uid_range_start, 65_536, 4_000_000_000),
        cgroups=workers.take("cgroups", _cgroups, default=places.cgroups),
        cpu_max=_number(workers, "cpu-max", places.cpu_max, 1, 100),
        cpu_weight=_number(workers, "cpu-weight", places.cpu_weight, 1, 10_000),
        profile=profile,
        accept_lost=_accept_lost(workers, profile, places.accept_lost),
        spawn=workers.take("spawn", _spawn, default=places.spawn),
        pool=_number(workers, "pool", places.pool, 0, MAX_POOL),
        path=workers.take("path", _path, default=places.path),
        overrides=_overrides(workers),
        messaging=read_messaging(root),
        limit_maxima=_limit_maxima(root.table("limits")),
        audit_sync=audit.take("sync", _sync, default=places.audit_sync),
        audit_rotate_size=_size(audit, "rotate-size", places.audit_rotate_size, 1 << 20, 1 << 40),
        compile_memory=_size(compiler, "memory", places.compile_memory, 256 << 20, 64 << 30),
        compile_timeout_ms=_duration(compiler, "timeout", places.compile_timeout_ms, 1_000, 3_600_000),
        storage_map_size=_size(storage, "map-size", places.storage_map_size, 1 << 20, 1 << 40),
        install_policy=policy.take("install", _install, default=places.install_policy),
        supervisors=read_supervisors(root),
    )
    root.done()
    return config


# -- places -----------------------------------------------------------------------------------------------------


def _places(environ: Mapping[str, str]) -> HostConfig:
    root = environ.get("AIRSSYS_ROOT", "")
    if root:
        base = _absolute("AIRSSYS_ROOT", root)
        places = HostConfig(os.path.join(base, "etc"), os.path.join(base, "lib"), os.path.join(base, "run"))
    else:
        config, state, run = _root_places() if os.geteuid() == 0 else _user_places(environ)
        places = HostConfig(
            config_dir=_from_systemd(environ, "CONFIGURATION_DIRECTORY") or config,
            state_dir=_from_systemd(environ, "STATE_DIRECTORY") or state,
            run_dir=_from_systemd(environ, "RUNTIME_DIRECTORY") or run,
        )
    if len(os.fsencode(places.run_dir)) > _MAX_SOCKET_DIRECTORY:
        raise _unplaced(
            places.run_dir,
            f"the run directory's path is longer than {_MAX_SOCKET_DIRECTORY} bytes, and sockets in it cannot be named",
            "use a shorter directory",
        )
    return places


def _root_places() -> tuple[str, str, str]:
    return "/etc/airssys", "/var/lib/airssys", "/run/airssys"


def _user_places(environ: Mapping[str, str]) -> tuple[str, str, str]:
    home = environ.get("HOME", "")

    def base(variable: str, *below_home: str) -> str:
        value = environ.get(variable, "")
        if value.startswith("/"):  # the XDG specification has relative ones ignored
            return os.path.normpath(value)
        return os.path.join(_absolute("HOME", home), *below_home)

    state = os.path.join(base("XDG_STATE_HOME", ".local", "state"), "airssys")
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # Without a runtime directory the sockets lie with the state: a name in a directory open to all could be taken.
    run = os.path.join(os.path.normpath(runtime), "airssys") if runtime.startswith("/") else os.path.join(state, "run")
    return os.path.join(base("XDG_CONFIG_HOME", ".config"), "airssys"), state, run


def _from_systemd(environ: Mapping[str, str], variable: str) -> str | None:
    # Several directories come separated by colons (systemd.exec(5)); the first is the service's main one.
    first = environ.get(variable, "").split(":")[0]
    return _absolute(variable, first) if first else None


def _absolute(variable: str, value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise _unplaced(variable, f"the environment variable is not an absolute path: {value[:200]!a}")
    return os.path.normpath("/" + value.lstrip("/"))


def _unplaced(file: str, message: str, hint: str = "") -> ConfigError:
    return ConfigError(message, file=file, key="", line=1, hint=hint)


# -- values -----------------------------------------------------------------------------------------------------


def _duration(table: Table, key: str, default: int, low: int, high: int) -> int:
    value = table.take(key, parse_duration, default=default)
    if not low <= value <= high:
        raise table.refuse(key, f"must be between {format_duration(low)} and {format_duration(high)}")
    return value


def _size(table: Table, key: str, default: int, low: int, high: int) -> int:
    value = table.take(key, parse_size, default=default)
    if not low <= value <= high:
        raise table.refuse(key, f"must be between {format_size(low)} and {format_size(high)}")
    return value


def _number(table: Table, key: str, default: int, low: int, high: int) -> int:
    value = table.take(key, integer, default=default)
    if not low <= value <= high:
        raise table.refuse(key, f"must be between {low} and {high}")
    return value


def _limit_maxima(table: Table) -> dict[str, int]:
    maxima = {row.key: table.take(row.key, parser(row)) for row in TABLE if row.key in table}
    for row in TABLE:
        # Below the least a manifest can ask for, no component at all could be installed.
        if row.key in maxima and not row.low <= maxima[row.key] <= row.high:
            raise table.refuse(row.key, f"must be between {spelled(row, row.low)} and {spelled(row, row.high)}")
    return maxima


def _uids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 1000:
        raise ValueError("must be an array of user ids, as [1000, 1001]")
    uids = tuple(integer(item) for item in value)
    if not all(0 <= uid < (1 << 32) - 1 for uid in uids):
        raise ValueError("a user id lies between 0 and 4294967294")
    return uids


def _paths(value: Any) -> tuple[str, ...]:
    paths = strings(value)
    for path in paths:
        if not path.startswith("/") or "\0" in path or os.path.normpath(path) != path or path.startswith("//"):
            raise ValueError(f"{path[:200]!a} is not an absolute path in its plain spelling")
    return paths


def _sync(value: Any) -> str:
    if value == "always":
        return "always"
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise ValueError('must be "always" or a duration, as "50ms"') from error
    if not 1 <= duration <= 10_000:
        raise ValueError("must be between 1ms and 10s")
    assert isinstance(value, str)
    return value


def _cgroups(value: Any) -> Literal["auto", "off"]:
    if value == "auto":
        return "auto"
    if value == "off":
        return "off"
    raise ValueError('must be "auto" or "off"')


def _profile(value: Any) -> Profile:
    if value == "paranoid":
        return "paranoid"
    if value == "standard":
        return "standard"
    if value == "degraded":
        return "degraded"
    raise ValueError('must be "paranoid", "standard" or "degraded"')


def _spawn(value: Any) -> Spawn:
    if value == "zygote":
        return "zygote"
    if value == "exec":
        return "exec"
    raise ValueError('must be "zygote" or "exec"')


def _path(value: Any) -> CallPath:
    if value == "fast":
        return "fast"
    if value == "general":
        return "general"
    raise ValueError('must be "fast" or "general"')


def _walls(value: Any) -> tuple[str, ...]:
    walls = strings(value)
    for wall in walls:
        if wall not in MAY_BE_ACCEPTED:
            raise ValueError(f"{wall[:60]!a} is no wall a host may run without: {', '.join(MAY_BE_ACCEPTED)}")
    return walls


def _accept_lost(workers: Table, profile: Profile, default: tuple[str, ...]) -> tuple[str, ...]:
    walls = workers.take("accept-lost", _walls, default=default)
    if walls and profile != "degraded":
        raise workers.refuse("accept-lost", 'walls are lost under profile = "degraded" alone')
    if profile == "degraded" and not walls:
        raise workers.refuse("profile", '"degraded" names in accept-lost each wall that may be lost')
    return walls


def _component_pattern(value: Any) -> str:
    try:
        return validate_component_pattern(string(value))
    except AirssysError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error


def _overrides(workers: Table) -> tuple[Override, ...]:
    return tuple(_override(table) for table in workers.tables("override", most=MAX_OVERRIDES))


def _override(table: Table) -> Override:
    override = Override(
        component=table.take("component", _component_pattern),
        spawn=table.take("spawn", _spawn) if "spawn" in table else None,
        path=table.take("path", _path) if "path" in table else None,
    )
    if override.spawn is None and override.path is None:
        raise table.refuse(None, "an override says what differs: spawn, path, or both")
    return override


def _install(value: Any) -> Literal["review", "trusted"]:
    if value == "review":
        return "review"
    if value == "trusted":
        return "trusted"
    raise ValueError('must be "review" or "trusted"')
