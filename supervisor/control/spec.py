"""What control needs to know of a component, taken once out of its signed manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import msgspec
import rfc8785

from bridge.capabilities import CapabilityLine, FileRule, Policy, StorageRule, describe, guest_roots
from sandbox.types import ComponentId, Limits
from sandbox.wire.router_frames import Mailing, MessagingRule, Route
from sandbox.wire.supervisor_frames import MountSpec
from supervisor.control.errors import LimitError, WorldError
from supervisor.control.tree import RestartPolicy
from supervisor.packages.limit_table import beyond
from supervisor.packages.manifest import GRACEFUL, Manifest

WORLD_PACKAGES: dict[str, tuple[str, ...]] = {
    "airssys:core/runtime-host": ("airssys:core",),
    "airssys:osl/osl-host": ("airssys:core", "airssys:osl"),
    "airssys:messaging/messaging-host": ("airssys:core", "airssys:osl", "airssys:messaging"),
    "airssys:messaging/topic-host": ("airssys:core", "airssys:osl", "airssys:messaging"),
}
"""World to the WIT packages whose functions its components may import."""
TOPIC_HANDLER = "airssys:messaging/topic-handler@0.1.0"
"""What a component exports to get publications."""
WASI = "wasi:"
"""Namespace of packages that belong to every world: what this host serves of them grants nothing."""


class ComponentSpec(msgspec.Struct, frozen=True):
    """One package's manifest in the shapes that bridge, router and tree take.

    `package` names bytes and manifest together: the same .wasm under another manifest is another package.
    """

    package: str
    digest: str
    name: str
    version: str
    release: int
    world: str
    description: str
    limits: Limits
    supervision: RestartPolicy
    files: list[FileRule]
    storage: list[StorageRule]
    messaging: list[MessagingRule]
    mailing: Mailing
    predicate: str

    def guest_roots(self) -> list[str]:
        """The guest directories the operator has to bind."""
        return guest_roots(self.files)

    def capabilities(self) -> list[CapabilityLine]:
        """What is asked for, in words, with its risk."""
        return describe(self.files, self.storage, self.messaging)

    def check_imports(self, imports: dict[str, list[str]]) -> None:
        """Hold what a component imports against the world its manifest names.

        Raises:
            WorldError: it imports functions from outside that world.
        """
        allowed = WORLD_PACKAGES.get(self.world.split("@")[0], ())
        for interface, functions in imports.items():
            package = interface.split("/")[0]
            if functions and package not in allowed and not package.startswith(WASI):
                raise WorldError(
                    f"the manifest says {self.world}, but the component imports {interface}",
                    subject=self.name,
                    hint="the publisher has to name the world the component was built for",
                )

    def check_exports(self, exports: Collection[str]) -> None:
        """Hold what a component exports against the topics its manifest subscribes it to.

        Raises:
            WorldError: publications would come, and there is nothing they could be handed to.
        """
        if self.mailing.subscribe and TOPIC_HANDLER not in exports:
            raise WorldError(
                f"the manifest subscribes to {self.mailing.subscribe[0]}, but the component gets no publications",
                subject=self.name,
                hint=f"it has to export {TOPIC_HANDLER}, as components of the world topic-host do",
            )

    def check_limits(self, maxima: Mapping[str, int]) -> None:
        """Hold the manifest's limits against the operator's.

        Raises:
            LimitError: one is larger; `subject` is its key.
        """
        for key, fault in beyond(self.limits, maxima):
            raise LimitError(
                fault,
                subject=f"{self.name} limits.{key}",
                hint=f"raise [limits] {key} in airssys.toml, or have the publisher ask for less",
            )

    def policy(self, bindings: dict[str, str]) -> tuple[bytes, list[MountSpec]]:
        """The bridge's policy and the mounts beside it, in the same order."""
        guests = sorted(bindings)
        policy = Policy(self.files, self.storage, guests, self.limits)
        return policy.encode(), [MountSpec(guest, bindings[guest], self.writes(guest)) for guest in guests]

    def writes(self, guest: str) -> bool:
        """Whether any rule changes files under this guest root; if none does the mount is read-only."""
        first = guest.strip("/")
        for rule in self.files:
            root = rule.path[1:].split("/")[0]
            if {"write", "delete"} & set(rule.access) and (not first or root == first or "*" in root or "?" in root):
                return True
        return False

    def route(self, component: ComponentId, env: dict[str, str], args: list[str]) -> Route:
        """What the router must know; `env` and `args` are for the component."""
        return Route(
            component,
            self.limits,
            self.messaging,
            component.package,
            self.version,
            list(env.items()),
            list(args),
            self.mailing,
            round(self.supervision.health_interval * 1000),
            max(1, round(self.supervision.health_timeout * 1000)),
        )


def from_manifest(manifest: Manifest, digest: str) -> ComponentSpec:
    """Take a component's spec out of its manifest.

    Args:
        manifest: as the publisher signed it.
        digest: sha256 of the .wasm, hex.
    """
    predicate = manifest.to_predicate()
    package = hashlib.sha256(rfc8785.dumps({"digest": digest, "predicate": predicate})).hexdigest()
    supervision = manifest.supervision
    return ComponentSpec(
        package=package,
        digest=digest,
        name=manifest.component.name,
        version=manifest.component.version,
        release=manifest.component.release,
        world=manifest.component.world,
        description=manifest.component.description,
        limits=manifest.limits(),
        supervision=RestartPolicy(
            restart=supervision.restart,
            max_restarts=supervision.max_restarts,
            window=supervision.window_ms / 1000,
            backoff_first=supervision.backoff_ms[0] / 1000,
            backoff_most=supervision.backoff_ms[1] / 1000,
            health_interval=supervision.health_interval_ms / 1000,
            health_timeout=supervision.health_timeout_ms / 1000,
            health_threshold=supervision.health_threshold,
            shutdown=None if supervision.shutdown_ms == GRACEFUL else supervision.shutdown_ms / 1000,
        ),
        files=manifest.file_rules(),
        storage=manifest.storage_rules(),
        messaging=manifest.messaging_rules(),
        mailing=manifest.mailing(),
        predicate=msgspec.json.encode(predicate).decode(),
    )


def from_predicate(predicate: str, digest: str) -> ComponentSpec:
    """The same from the predicate as the registry keeps it. Raises what `Manifest.from_predicate` raises."""
    return from_manifest(Manifest.from_predicate(msgspec.json.decode(predicate)), digest)
