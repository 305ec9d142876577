"""The manifest `component.toml`: read once from TOML, or from the signed predicate, into one frozen value.

Implements `docs/reference/manifest.md`. Both ways in end in `problems`, so a predicate that a hostile tool signed is
held to the same bounds as a file. What this version of the host cannot enforce is refused, never read and ignored.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bridge.capabilities import FileRule, MessagingRule, StorageRule
from sandbox.types import Limits
from supervisor.packages.errors import ManifestError, PackageError
from supervisor.packages.limit_table import TABLE, parser
from supervisor.packages.manifest_rules import FILE_ACCESS, MAX_LINES, MESSAGING_ACCESS, STORAGE_ACCESS, problems
from supervisor.packages.toml_source import Table, TomlSource, dotted, integer, string, strings
from supervisor.packages.units import parse_duration

FILE_NAME = "component.toml"


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


class SupervisionSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """`[supervision]`: what happens when it ends. The words mean what they mean in Erlang/OTP. Milliseconds."""

    restart: Literal["permanent", "transient", "temporary"] = "permanent"
    max_restarts: int = 3
    window_ms: int = msgspec.field(default=60_000, name="window")
    backoff_ms: tuple[int, int] = msgspec.field(default=(100, 30_000), name="backoff")
    health_interval_ms: int = msgspec.field(default=30_000, name="health-interval")


class FilesystemCapability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `filesystem`."""

    path: str
    access: tuple[str, ...]


class MessagingCapability(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of `messaging`: a target with what may be done to it, or a sender that is let in."""

    target: str = ""
    access: tuple[str, ...] = ()
    source: str = msgspec.field(default="", name="from")


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
            MessagingRule(target=line.target, access=list(line.access), source=line.source)
            for line in self.capabilities.messaging
        ]

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
    return SupervisionSection(
        restart=table.take("restart", _restart, default=usual.restart),
        max_restarts=table.take("max-restarts", integer, default=usual.max_restarts),
        window_ms=table.take("window", parse_duration, default=usual.window_ms),
        backoff_ms=table.take("backoff", _backoff, default=usual.backoff_ms),
        health_interval_ms=table.take("health-interval", parse_duration, default=usual.health_interval_ms),
    )


def _restart(value: Any) -> Literal["permanent", "transient", "temporary"]:
    if value == "permanent":
        return "permanent"
    if value == "transient":
        return "transient"
    if value == "temporary":
        return "temporary"
    raise ValueError('must be "permanent", "transient" or "temporary"')


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
        if "topic" in line:
            raise line.refuse(
                "topic", "this version of airssys has no topics", "name components with target, or remove the line"
            )
        if ("target" in line) == ("from" in line):
            raise line.refuse(None, "a messaging line names either a target (with access) or from, one of the two")
        if "from" in line:
            if "access" in line:
                raise line.refuse("access", "from lets senders in and takes no access")
            messaging.append(MessagingCapability(source=line.take("from", string)))
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
            if word in ("publish", "subscribe") and known is MESSAGING_ACCESS:
                raise ValueError("this version of airssys has no topics: nothing can publish or subscribe")
            if word not in known:
                raise ValueError(f"unknown access {word[:60]!a}; known: {', '.join(known)}")
        if not words or len(set(words)) != len(words):
            raise ValueError("access must name at least one of " + ", ".join(known) + ", each once")
        return tuple(word for word in known if word in words)  # one order, so that equal manifests have equal bytes

    return parse
