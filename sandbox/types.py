"""Words shared by every process: who a component is, what it may use, and how a worker ended."""

from __future__ import annotations

import enum
import re
from typing import Literal, TypeAlias

import msgspec

_NAME = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
_NAME_RE = re.compile(rf"(?P<namespace>{_NAME})/(?P<name>{_NAME})\Z")
_INSTANCE_RE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
MAX_NAME = 64
"""Longest namespace, name or instance, in characters."""


CallPath: TypeAlias = Literal["fast", "general"]
"""How values cross a component's wasm boundary: in bulk, through an adapter that the compiler appends to it
(`sandbox.patch`), as far as it can; or one by one through the engine's dynamic values (`sandbox.marshal`)."""
PATHS: tuple[CallPath, ...] = ("fast", "general")


FastExport: TypeAlias = Literal["handle-message", "handle-callback", "handle-topic"]
"""A function of a component that can be called on the fast path."""


class ComponentId(msgspec.Struct, frozen=True, order=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """`namespace/name/instance`, as `acme/reader/0`; the record `component-id` of `airssys:core`."""

    namespace: str
    name: str
    instance: str = "0"

    @property
    def package(self) -> str:
        """`namespace/name`, the name a publisher signs."""
        return f"{self.namespace}/{self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}/{self.instance}"

    @classmethod
    def parse(cls, text: str) -> ComponentId:
        """Parse `ns/name` (instance 0) or `ns/name/instance`.

        Raises:
            ValueError: not of that form, or a part longer than `MAX_NAME`.
        """
        head, instance = text, "0"
        if text.count("/") == 2:
            head, instance = text.rsplit("/", 1)
        match = _NAME_RE.match(head)
        if match is None or not _INSTANCE_RE.match(instance):
            raise ValueError(f"not a component id: {text!r} (expected namespace/name or namespace/name/instance)")
        if max(len(match["namespace"]), len(match["name"]), len(instance)) > MAX_NAME:
            raise ValueError(f"a part of the component id is longer than {MAX_NAME} characters: {text!r}")
        return cls(match["namespace"], match["name"], instance)

    @classmethod
    def parse_target(cls, text: str) -> ComponentId:
        """As `parse`; `ns/name/*` means one instance of all.

        Raises:
            ValueError: not of that form, or a part longer than `MAX_NAME`.
        """
        if text.endswith("/*") and text.count("/") == 2:
            one = cls.parse(text[:-1] + "0")
            return cls(one.namespace, one.name, "*")
        return cls.parse(text)


def valid_package_name(text: str) -> bool:
    """Whether `text` is a `namespace/name` a manifest may carry."""
    return len(text) <= 2 * MAX_NAME + 1 and _NAME_RE.match(text) is not None


class Limits(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one instance may use. Bytes, fuel units, milliseconds, messages.

    Several processes read it as an array: new fields come last.
    """

    memory: int = 64 << 20
    """Linear memory over all memories together, bytes."""
    fuel: int = 50_000_000
    """Fuel per message."""
    deadline_ms: int = 5_000
    """Wall clock per message, milliseconds."""
    mailbox: int = 1_000
    """Messages waiting in the router."""
    storage: int = 50 << 20
    """Stored bytes, keys and values together."""
    message_size: int = 1 << 20
    """Bytes of one payload, in or out."""
    cpu_ms: int = 5_000
    """CPU time per message, milliseconds."""
    memories: int = 8
    """Linear memories."""
    tables: int = 64
    """Tables."""
    table_elements: int = 100_000
    """Entries of each table."""
    instances: int = 64
    """Core instances."""
    mailbox_bytes: int = 16 << 20
    """Bytes waiting in the router, and again for callbacks."""
    storage_keys: int = 100_000
    """Stored keys."""
    requests: int = 1_024
    """Requests without an answer."""
    log_lines: int = 200
    """Log lines a second."""
    log_bytes: int = 256 << 10
    """Bytes of log a second."""
    message_rate: int = 10_000
    """Messages sent a second, of all kinds; as many may come at once."""
    timers: int = 100
    """Messages to itself that wait for their time."""
    subscriptions: int = 100
    """Topic patterns subscribed to at run time."""

    def crossing(self, *, fast: bool) -> int:
        """Bytes that payloads may take on their way across the wasm boundary (docs/values.md).

        One that comes in and goes out again is there a few times. On the general path each of its bytes is a dynamic
        value besides, of 32 bytes in the C API and 48 in the engine, both times; larger ones the engine refuses. A file
        or a reply may be larger than a message, so there has to be room for the largest, unless the path is fast.
        """
        general = min(self.message_size, LARGEST_GENERAL) if fast else LARGEST_GENERAL
        return 8 * self.message_size + 168 * general


LARGEST_GENERAL = (128 << 20) // 48
"""Bytes of a list that the engine takes or gives on the general path, at most: what it lets one call copy, and what it
counts for each. No setting of the C API changes it."""
START_MS = 10_000
"""Least time a worker has to become ready, milliseconds; its deadline, if that is longer."""


class Outcome(enum.StrEnum):
    """How a worker ended: one closed list from the zygote to the CLI."""

    EXITED = "exited"
    TRAP = "trap"
    FUEL = "fuel"
    DEADLINE = "deadline"
    MEMORY = "memory"
    POLICY = "policy"
    KILLED = "killed"
    SETUP_ERROR = "setup-error"
    INTERNAL_ERROR = "internal-error"


EXIT_CODES: dict[int, Outcome] = {
    0: Outcome.EXITED,
    10: Outcome.TRAP,
    11: Outcome.FUEL,
    12: Outcome.MEMORY,
    13: Outcome.SETUP_ERROR,
    14: Outcome.INTERNAL_ERROR,
    15: Outcome.POLICY,
    16: Outcome.KILLED,
    17: Outcome.DEADLINE,
}
"""A worker's exit status. A compromised worker can pick one; it then lies about its own end and nothing else."""
