"""The manifest `component.toml`: read once from TOML, or from the signed predicate, into one frozen value.

Implements `docs/reference/manifest.md`. Both ways in end in `problems`, so a predicate that a hostile tool signed is
held to the same bounds as a file. What this version of the host cannot enforce is refused, never read and ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from bridge.capabilities import FileRule, MessagingRule, StorageRule
from sandbox.types import Limits
from sandbox.wire.router_frames import Mailing
from supervisor.packages.errors import ManifestError, PackageError
from supervisor.packages.limit_table import TABLE, parser
from supervisor.packages.manifest_rules import (
    FILE_ACCESS,
    MAX_LINES,
    MESSAGING_ACCESS,
    STORAGE_ACCESS,
    TOPIC_ACCESS,
    problems,
)
from supervisor.packages.toml_source import Table, TomlSource, dotted, integer, string, strings
from supervisor.packages.units import parse_duration

FILE_NAME = "component.toml"


Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
Overflow: TypeAlias = Literal["error", "block", "drop-oldest", "drop-newest"]
DeliveryMode: TypeAlias = Literal["at-most-once", "at-least-once"]
GRACEFUL = -1
"""As `shutdown`: it gets as long as its deadline allows."""
IMMEDIATE = 0
"""As `shutdown`: it is killed and not asked."""


class Health(NamedTuple):
    """A preset of health checks."""

    interval_ms: int
    timeout_ms: int
    threshold: int


HEALTH_PRESETS: dict[str, Health] = {
    "critical": Health(5_000, 1_000, 2),
    "standard": Health(30_000, 5_000, 3),
    "batch": Health(300_000, 30_000, 5),
    "slow-start": Health(60_000, 30_000, 3),
}
"""What `health = "..."` of `[supervision]` stands for; each of its numbers can be given by itself."""


class ComponentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`[component]`: who it is."""

    name: str
    version: str
    release: int
    world: str
    description: str = ""
    authors: tuple[str, ...] = ()
    license: str = ""
    homepage: str = ""


class LimitsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`[limits]`: `sandbox.types.Limits` as a manifest spells it; `limit_table` has the bounds."""

    memory: int = 64 << 20
    fuel: int = 50_000_000
    deadline_ms: int = msgspec.field(default=5_000, name="deadline")
    mailbox: int = 1_000
    storage: int = 50 << 20
    message_size: int = 1 << 20
    cpu_ms: int = msgspec.field(default=5_000, name="cpu")
    memories: int = 8
    tables: int = 64
    table_elements: int = 100_000
    instances: int = 64
    mailbox_bytes: int = msgspec.field(default=16 << 20, name="mailbox-size")
    storage_keys: int = 100_000
    requests: int = 1_024
    log_lines: int = 200
    log_bytes: int = msgspec.field(default=256 << 10, name="log-size")
    message_rate: int = 10_000
    timers: int = 100
    subscriptions: int = 100


class SupervisionSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`[supervision]`: what happens when it ends. The words mean what they mean in Erlang/OTP. Milliseconds."""

    restart: Restart = "permanent"
    max_restarts: int = 3
    window_ms: int = msgspec.field(default=60_000, name="window")
    backoff_ms: tuple[int, int] = msgspec.field(default=(100, 30_000), name="backoff")
    health_interval_ms: int = msgspec.field(default=30_000, name="health-interval")
    health_timeout_ms: int = msgspec.field(default=5_000, name="health-timeout")
    health_threshold: int = 3
    shutdown_ms: int = msgspec.field(default=GRACEFUL, name="shutdown")
    """Milliseconds to shut down in; `GRACEFUL` or `IMMEDIATE`."""


class MessagingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`[messaging]`: how its mail is kept and delivered. Milliseconds."""

    overflow: Overflow = "error"
    delivery: DeliveryMode = "at-most-once"
    max_deliveries: int = 5
    ttl_ms: int = msgspec.field(default=0, name="ttl")
    subscribe: tuple[str, ...] = ()


class FilesystemCapability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `filesystem`."""

    path: str
    access: tuple[str, ...]


class MessagingCapability(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of `messaging`: a target or topic with what may be done to it, or a sender that is let in."""

    target: str = ""
    access: tuple[str, ...] = ()
    source: str = msgspec.field(default="", name="from")
    topic: str = ""


class StorageCapability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `storage`."""

    namespace: str
    access: tuple[str, ...]


class CapabilitiesSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[capabilities]`: what is asked for. Empty means nothing."""

    filesystem: tuple[FilesystemCapability, ...] = ()
    messaging: tuple[MessagingCapability, ...] = ()
    storage: tuple[StorageCapability, ...] = ()
    rationale: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole manifest, valid in every field.

    Make it with `parse_manifest` or `Manifest.from_predicate`; the constructor checks nothing.
    """

    component: ComponentSection
    limits_section: LimitsSection = msgspec.field(default=LimitsSection(), name="limits")
    supervision: SupervisionSection = SupervisionSection()
    messaging: MessagingSection = MessagingSection()
    capabilities: CapabilitiesSection = CapabilitiesSection()

    def limits(self) -> Limits:
        """`[limits]` in the form that travels between processes."""
        return Limits(**msgspec.structs.asdict(self.limits_section))

    def file_rules(self) -> list[FileRule]:
        """`filesystem` in the bridge's form."""
        return [FileRule(line.path, list(line.access)) for line in self.capabilities.filesystem]

    def storage_rules(self) -> list[StorageRule]:
        """`storage` in the bridge's form."""
        return [StorageRule(line.namespace, list(line.access)) for line in self.capabilities.storage]

    def messaging_rules(self) -> list[MessagingRule]:
        """`messaging` in the router's form."""
        return [
            MessagingRule(target=line.target, access=list(line.access), source=line.source, topic=line.topic)
            for line in self.capabilities.messaging
        ]

    def mailing(self) -> Mailing:
        """`[messaging]` in the router's form."""
        section = self.messaging
        return Mailing(
            overflow=section.overflow,
            at_least_once=section.delivery == "at-least-once",
            max_deliveries=section.max_deliveries,
            ttl_ms=section.ttl_ms,
            subscribe=list(section.subscribe),
        )

    def to_predicate(self) -> dict[str, Any]:
        """The whole manifest as JSON values, every default written out, in base units."""
        built = msgspec.json.decode(msgspec.json.encode(self))  # arrays as lists, as a reader of JSON has them
        assert isinstance(built, dict)
        return built

    @classmethod
    def from_predicate(cls, predicate: Any) -> Manifest:
        """Read what `to_predicate` made.

        Raises:
            PackageError: E_SCHEMA; an unknown or missing field, a wrong type, or a value a manifest may not have.
        """
        try:
            manifest = msgspec.convert(predicate, cls, strict=True)
        except msgspec.ValidationError as error:
            raise PackageError(f"the signed manifest has another form: {error}", code="E_SCHEMA") from error
        for path, message in problems(manifest):
            raise PackageError(
                f"the signed manifest is not acceptable: {message}", subject=dotted(path), code="E_SCHEMA"
            )
        if manifest.to_predicate() != predicate:
            # A default left out, or an access list in another order: then two texts would mean one manifest.
            raise PackageError("the signed manifest is not in its one canonical form", code="E_SCHEMA")
        return manifest


def parse_manifest(text: str | bytes, *, file: str = FILE_NAME) -> Manifest:
    """Read `component.toml`.

    Args:
        text: its content.
        file: the name errors use.

    Raises:
        ManifestError: E_MANIFEST with file, key and line.
    """
    source = TomlSource(text, file=file, error=ManifestError)
    root = source.root
    component = root.table("component", required=True)
    capabilities = root.table("capabilities")
    manifest = Manifest(
        component=ComponentSection(
            name=component.take("name", string),
            version=component.take("version", string),
            release=component.take("release", integer),
            world=component.take("world", string),
            description=component.take("description", string, default=""),
            authors=component.take("authors", strings, default=()),
            license=component.take("license", string, default=""),
            homepage=component.take("homepage", string, default=""),
        ),
        limits_section=_read_limits(root.table("limits")),
        supervision=_read_supervision(root.table("supervision")),
        messaging=_read_messaging(root.table("messaging")),
        capabilities=_read_capabilities(capabilities),
    )
    root.done()
    for path, message in problems(manifest):
        raise source.refuse(path, message)
    return manifest


def _read_limits(table: Table) -> LimitsSection:
    usual = LimitsSection()
    return LimitsSection(
        **{row.field: table.take(row.key, parser(row), default=getattr(usual, row.field)) for row in TABLE}
    )


def _read_supervision(table: Table) -> SupervisionSection:
    usual = SupervisionSection()
    preset = HEALTH_PRESETS[table.take("health", word(HEALTH_PRESETS), default="standard")]
    return SupervisionSection(
        restart=table.take("restart", word(get_args(Restart)), default=usual.restart),
        max_restarts=table.take("max-restarts", integer, default=usual.max_restarts),
        window_ms=table.take("window", parse_duration, default=usual.window_ms),
        backoff_ms=table.take("backoff", _backoff, default=usual.backoff_ms),
        health_interval_ms=table.take("health-interval", parse_duration, default=preset.interval_ms),
        health_timeout_ms=table.take("health-timeout", parse_duration, default=preset.timeout_ms),
        health_threshold=table.take("health-threshold", integer, default=preset.threshold),
        shutdown_ms=table.take("shutdown", _shutdown, default=usual.shutdown_ms),
    )


def _shutdown(value: Any) -> int:
    if value == "graceful":
        return GRACEFUL
    if value == "immediate":
        return IMMEDIATE
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError('must be "graceful", "immediate" or how long it may take, as "5s"') from error


def _read_messaging(table: Table) -> MessagingSection:
    usual = MessagingSection()
    return MessagingSection(
        overflow=table.take("overflow", word(get_args(Overflow)), default=usual.overflow),
        delivery=table.take("delivery", word(get_args(DeliveryMode)), default=usual.delivery),
        max_deliveries=table.take("max-deliveries", integer, default=usual.max_deliveries),
        ttl_ms=table.take("ttl", parse_duration, default=usual.ttl_ms),
        subscribe=table.take("subscribe", strings, default=usual.subscribe),
    )


def word(known: Iterable[str]) -> Callable[[Any], Any]:
    """A parser of one word out of `known`."""
    words = tuple(known)

    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError(f'must be {", ".join(chr(34) + each + chr(34) for each in words[:-1])} or "{words[-1]}"')
        return str(value)

    return parse


def _backoff(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError('must be the first and the longest delay, as ["100ms", "30s"]')
    return parse_duration(value[0]), parse_duration(value[1])


def _read_capabilities(table: Table) -> CapabilitiesSection:
    for kind in ("network", "process"):
        if table.tables(kind, most=MAX_LINES):
            raise table.refuse(
                kind,
                f"this version of airssys has no executor for {kind} capabilities, so it grants none",
                f"remove {kind}; a component that needs it cannot be installed on this host",
            )
    filesystem = []
    for line in table.tables("filesystem", most=MAX_LINES):
        filesystem.append(FilesystemCapability(line.take("path", string), line.take("access", _access(FILE_ACCESS))))
    messaging = []
    for line in table.tables("messaging", most=MAX_LINES):
        if sum(key in line for key in ("target", "topic", "from")) != 1:
            raise line.refuse(None, "a messaging line names one of target, topic (both with access) and from")
        if "from" in line:
            if "access" in line:
                raise line.refuse("access", "from lets senders in and takes no access")
            messaging.append(MessagingCapability(source=line.take("from", string)))
        elif "topic" in line:
            access = line.take("access", _access(TOPIC_ACCESS))
            messaging.append(MessagingCapability(topic=line.take("topic", string), access=access))
        else:
            access = line.take("access", _access(MESSAGING_ACCESS))
            messaging.append(MessagingCapability(target=line.take("target", string), access=access))
    storage = []
    for line in table.tables("storage", most=MAX_LINES):
        storage.append(StorageCapability(line.take("namespace", string), line.take("access", _access(STORAGE_ACCESS))))
    reasons = table.table("rationale")
    rationale = {key: reasons.take(key, string) for key in sorted(reasons.keys())}
    return CapabilitiesSection(tuple(filesystem), tuple(messaging), tuple(storage), rationale)


def _access(known: tuple[str, ...]) -> Any:
    def parse(value: Any) -> tuple[str, ...]:
        words = strings(value)
        for word in words:
            if word in TOPIC_ACCESS and known is MESSAGING_ACCESS:
                raise ValueError(f"{word} is access to a topic: name one with topic in place of target")
            if word not in known:
                raise ValueError(f"unknown access {word[:60]!a}; known: {', '.join(known)}")
        if not words or len(set(words)) != len(words):
            raise ValueError("access must name at least one of " + ", ".join(known) + ", each once")
        return tuple(word for word in known if word in words)  # one order, so that equal manifests have equal bytes

    return parse
