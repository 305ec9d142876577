"""The capability language: what a component may do, decided in one place for bridge, router and control.

Implements `[capabilities]` of the manifest (`docs/reference/manifest.md`). Deny by default: each rule adds rights,
none takes any away, and what no rule covers is refused. `Policy` is the form that travels to the bridge as opaque
bytes; `Compiled` is the form that answers. Messaging rules travel to the router as they are.

    files      path pattern (see `bridge.patterns`) and access: read, list, write, delete
    storage    namespace "self" and access: read, write (deleting is writing)
    messaging  target pattern and access: send, request, broadcast; topic pattern and access: publish, subscribe;
               or `from`: who may send, and publish, to this component

A component pattern is `*`, `ns/name` (every instance), `ns/name/instance`, and any part may be `*` as a whole:
`acme/*` covers `acme/x/0` and never `acme-evil/x/0`. People outside are `host/client/<user>`; only a pattern whose
first part is the word `host` covers them. A component without any `from` accepts what people outside send, and
nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from bridge.patterns import InvalidPath, InvalidPattern, PathPattern, is_below, parse_guest_path, validate_path_pattern
from sandbox.errors import AirssysError
from sandbox.types import ComponentId, Limits
from sandbox.wire import UNDECODABLE
from sandbox.wire.router_frames import MAX_TOPIC, MessagingRule

__all__ = [
    "FILE_ACCESS",
    "HOST_NAMESPACE",
    "MESSAGING_ACCESS",
    "STORAGE_ACCESS",
    "CapabilityLine",
    "Compiled",
    "FileRule",
    "InvalidPath",
    "InvalidPattern",
    "InvalidPolicy",
    "MessagingRule",
    "Policy",
    "StorageRule",
    "accepts",
    "binding_for",
    "covers",
    "describe",
    "guest_roots",
    "may_publish",
    "may_send",
    "may_subscribe",
    "parse_guest_path",
    "validate_component_pattern",
    "validate_path_pattern",
    "validate_topic",
    "validate_topic_pattern",
]

FILE_ACCESS = frozenset({"read", "list", "write", "delete"})
STORAGE_ACCESS = frozenset({"read", "write"})
MESSAGING_ACCESS = frozenset({"send", "request", "broadcast"})
TOPIC_ACCESS = frozenset({"publish", "subscribe"})
HOST_NAMESPACE = "host"
"""Namespace of senders outside: `host/client/<user>`. No component can be installed under it and be covered by `*`."""
MAX_TOPIC_PARTS = 8
"""Most parts of a topic: a publication looks at 2 ** 8 places among the patterns at most, however many there are."""
_TOPIC_PART_RE = re.compile(r"[A-Za-z0-9_-]+\Z")
_PART_RE = re.compile(r"\*\Z|[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")


class InvalidPolicy(AirssysError, ValueError):
    """Policy bytes that do not decode, or a rule whose words mean nothing."""

    code = "E_POLICY"


class FileRule(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line of `[capabilities] filesystem`."""

    path: str
    access: list[str]


class StorageRule(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line of `[capabilities] storage`."""

    namespace: str
    access: list[str]


class Policy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that the bridge must know of one component. The default grants nothing."""

    files: list[FileRule] = []
    storage: list[StorageRule] = []
    bindings: list[str] = []
    """Guest roots bound to real directories, in the order of the descriptors beside the policy."""
    limits: Limits = Limits()

    def encode(self) -> bytes:
        """The opaque bytes the supervisor carries."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Policy:
        """Decode what `encode` made.

        Raises:
            InvalidPolicy: not the encoding of a policy.
        """
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except UNDECODABLE as error:
            raise InvalidPolicy(f"policy does not decode: {error}") from error


class Compiled:
    """A policy ready to answer.

    Raises:
        InvalidPolicy: an access word, namespace or binding that means nothing.
        InvalidPattern: a path pattern is malformed.
    """

    __slots__ = ("_files", "_storage", "bindings", "limits")

    def __init__(self, policy: Policy) -> None:
        self._files = [(PathPattern(rule.path), _words(rule.access, FILE_ACCESS, rule.path)) for rule in policy.files]
        self._storage: frozenset[str] = frozenset()
        for rule in policy.storage:
            if rule.namespace != "self":
                raise InvalidPolicy("storage namespace is not self", subject=ascii(rule.namespace))
            self._storage |= _words(rule.access, STORAGE_ACCESS, "storage")
        try:
            self.bindings = [parse_guest_path(root) for root in policy.bindings]
        except InvalidPath as error:
            raise InvalidPolicy(f"bound guest root: {error.message}") from error
        if len(set(self.bindings)) != len(self.bindings):
            raise InvalidPolicy("a guest root is bound twice")
        self.limits = policy.limits

    def allows(self, path: tuple[str, ...], access: str) -> bool:
        """Whether some rule covers the parsed path with this access."""
        return any(access in words and pattern.covers(path) for pattern, words in self._files)

    def may_move(self, old: tuple[str, ...], new: tuple[str, ...], *, directory: bool) -> bool:
        """Whether moving an object from `old` to `new` gives no right over it that there was not before.

        Needs delete and write on the old path and write on the new; and what may be done under the new name must be
        a subset of what could be done under the old one (otherwise write access could be turned into read access by
        a rename). For a directory the same holds for everything that can lie below.
        """
        if not directory:
            before = {word for pattern, words in self._files if pattern.covers(old) for word in words}
            after = {word for pattern, words in self._files if pattern.covers(new) for word in words}
        else:
            before = {word for pattern, words in self._files if pattern.covers_all_below(old) for word in words}
            after = {word for pattern, words in self._files if pattern.reaches_below(new) for word in words}
        return {"delete", "write"} <= before and "write" in after and after <= before

    def allows_storage(self, access: str) -> bool:
        """Whether the component may read or write its own storage."""
        return access in self._storage

    def binding_for(self, path: tuple[str, ...]) -> tuple[int, tuple[str, ...]] | None:
        """Index of the bound guest root the path lies under (the longest) and the rest of the path below it."""
        return binding_for(self.bindings, path)


def binding_for(bindings: Sequence[tuple[str, ...]], path: tuple[str, ...]) -> tuple[int, tuple[str, ...]] | None:
    """Index of the longest root in `bindings` that is `path` or above it, and the rest of the path; or None."""
    found = -1
    for index, root in enumerate(bindings):
        if is_below(path, root) and (found < 0 or len(root) > len(bindings[found])):
            found = index
    return None if found < 0 else (found, path[len(bindings[found]) :])


def guest_roots(files: Iterable[FileRule]) -> list[str]:
    """The guest directories an operator has to bind: the first component of each pattern, sorted.

    A pattern that begins with a wildcard needs `/` itself bound.
    """
    roots = set()
    for rule in files:
        first = validate_path_pattern(rule.path)[1:].split("/")[0]
        roots.add("/" if "*" in first or "?" in first else f"/{first}")
    return sorted(roots)


def _words(access: list[str], known: frozenset[str], subject: str) -> frozenset[str]:
    words = frozenset(access)
    if not words <= known:
        raise InvalidPolicy(f"unknown access {sorted(words - known)}", subject=ascii(subject))
    return words


# -- messaging ------------------------------------------------------------------------------------------------


def validate_component_pattern(text: str) -> str:
    """Return `text` if it is a component pattern: `*`, `ns/name` or `ns/name/instance`, each part `*` or a name.

    Raises:
        InvalidPattern: it is not.
    """
    parts = text.split("/")
    if text != "*" and (len(parts) not in (2, 3) or not all(_PART_RE.match(part) for part in parts)):
        raise InvalidPattern(
            "not a component pattern",
            subject=ascii(text[:200]),
            hint="write it as acme/reader, acme/* or acme/reader/0",
        )
    return text


def covers(pattern: str, component: ComponentId) -> bool:
    """Whether a component pattern covers a component."""
    # Parts are compared whole, so nothing a name may hold can stretch a pattern.
    if component.namespace == HOST_NAMESPACE and pattern.split("/", maxsplit=1)[0] != HOST_NAMESPACE:
        return False
    if pattern == "*":
        return True
    parts = pattern.split("/")
    if len(parts) not in (2, 3):
        return False
    names = (component.namespace, component.name, component.instance)
    return all(part in ("*", name) for part, name in zip(parts, names, strict=False))


def may_send(rules: Iterable[MessagingRule], target: ComponentId, action: str) -> bool:
    """Whether a component with these rules may `send`, `request` or `broadcast` to `target`."""
    return any(rule.target and action in rule.access and covers(rule.target, target) for rule in rules)


def validate_topic(text: str) -> str:
    """Return `text` if it is a topic: parts of letters, digits, `_` and `-` between dots, `MAX_TOPIC` long at most.

    Raises:
        InvalidPattern: it is not.
    """
    parts = text.split(".")
    if len(text) > MAX_TOPIC or len(parts) > MAX_TOPIC_PARTS or not all(map(_TOPIC_PART_RE.match, parts)):
        raise InvalidPattern(
            "not a topic",
            subject=ascii(text[:200]),
            hint=f"write it as orders.eu.new, with at most {MAX_TOPIC_PARTS} parts",
        )
    return text


def validate_topic_pattern(text: str) -> str:
    """Return `text` if it is a topic pattern: a topic in which a part may be `*`, and the last one `>`.

    Raises:
        InvalidPattern: it is not.
    """
    parts = text.split(".")
    if (
        len(text) > MAX_TOPIC
        or len(parts) > MAX_TOPIC_PARTS
        or not all(
            part == "*" or (part == ">" and index == len(parts) - 1) or _TOPIC_PART_RE.match(part)
            for index, part in enumerate(parts)
        )
    ):
        raise InvalidPattern(
            "not a topic pattern",
            subject=ascii(text[:200]),
            hint="write it as orders.new, orders.* (one part) or orders.> (one or more parts), "
            f"with at most {MAX_TOPIC_PARTS} parts",
        )
    return text


def topic_covers(pattern: str, topic: str) -> bool:
    """Whether a topic pattern covers a topic, or all that another pattern covers."""
    wanted, given = pattern.split("."), topic.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or given[index] == ">" or part not in ("*", given[index]):
            return False
    return len(wanted) == len(given)


def may_publish(rules: Iterable[MessagingRule], topic: str) -> bool:
    """Whether somebody with these rules may publish under this topic."""
    return any(rule.topic and "publish" in rule.access and topic_covers(rule.topic, topic) for rule in rules)


def may_subscribe(rules: Iterable[MessagingRule], pattern: str) -> bool:
    """Whether somebody with these rules may subscribe to this pattern: one rule must cover all of it."""
    return any(rule.topic and "subscribe" in rule.access and topic_covers(rule.topic, pattern) for rule in rules)


def accepts(rules: Iterable[MessagingRule], sender: ComponentId) -> bool:
    """Whether a component with these rules takes messages from `sender`."""
    sources = [rule.source for rule in rules if rule.source]
    if not sources:
        return sender.namespace == HOST_NAMESPACE
    return any(covers(source, sender) for source in sources)


# -- for people -----------------------------------------------------------------------------------------------


class CapabilityLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One capability as it is shown before consent."""

    text: str
    risk: str  # low, medium, high
    why: str


def describe(
    files: Iterable[FileRule] = (), storage: Iterable[StorageRule] = (), messaging: Iterable[MessagingRule] = ()
) -> list[CapabilityLine]:
    """What the rules allow, in words, with the risk of each and the reason for the grade."""
    lines = [CapabilityLine(f"files {rule.path}: {_join(rule.access)}", *_file_risk(rule)) for rule in files]
    lines += [
        CapabilityLine(f"storage {rule.namespace}: {_join(rule.access)}", "low", "its own values, within its quota")
        for rule in storage
    ]
    for line in messaging:
        if line.source:
            text = f"messages from {line.source}"
            risk, why = _reach(line.source, ("low", "one sender"), ("medium", "many senders"))
        elif line.topic:
            text = f"topic {line.topic}: {_join(line.access)}"
            wide = line.topic.startswith(("*", ">"))
            risk, why = ("medium", "reaches every topic") if wide else ("low", "topics of one kind")
        else:
            text = f"messages to {line.target}: {_join(line.access)}"
            risk, why = _reach(line.target, ("low", "one component"), ("high", "reaches components not yet installed"))
        lines.append(CapabilityLine(text, risk, why))
    return lines


def _join(access: list[str]) -> str:
    return ", ".join(sorted(set(access))) or "nothing"


def _file_risk(rule: FileRule) -> tuple[str, str]:
    first = rule.path[1:].split("/")[0]
    changes = {"write", "delete"} & set(rule.access)
    if "*" in first or "?" in first:
        return "high", "begins with a wildcard: every bound place is covered"
    if "delete" in changes and "**" in rule.path:
        return "high", "may remove everything below"
    if changes:
        return "medium", "changes files"
    if "**" in rule.path:
        return "medium", "reads everything below"
    return "low", "reads a narrow set of files"


def _reach(pattern: str, one: tuple[str, str], every: tuple[str, str]) -> tuple[str, str]:
    parts = pattern.split("/")
    if parts[0] == "*":
        return every
    if len(parts) > 1 and parts[1] == "*":
        return "medium", "every component of one publisher's namespace"
    return one
