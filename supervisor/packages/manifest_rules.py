"""What a manifest may hold, whether it was written in TOML or came signed from somebody else's tool.

Data first (bounds, words, worlds), then one generator that names every fault with the place it stands at.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bridge.capabilities import (
    HOST_NAMESPACE,
    InvalidPattern,
    may_subscribe,
    validate_component_pattern,
    validate_path_pattern,
    validate_topic_pattern,
)
from sandbox.types import MAX_NAME, valid_package_name
from sandbox.wire.router_frames import MAX_TTL_MS
from supervisor.packages import limit_table
from supervisor.packages.toml_source import Path
from supervisor.packages.units import format_duration

if TYPE_CHECKING:
    from supervisor.packages.manifest import CapabilitiesSection, ComponentSection, Manifest

WORLDS = (
    "airssys:core/runtime-host@1.0.0",
    "airssys:osl/osl-host@0.1.0",
    "airssys:messaging/messaging-host@0.1.0",
    "airssys:messaging/topic-host@0.1.0",
)
"""The worlds this host provides."""
FILE_ACCESS = ("read", "list", "write", "delete")
MESSAGING_ACCESS = ("send", "request", "broadcast")
TOPIC_ACCESS = ("publish", "subscribe")
STORAGE_ACCESS = ("read", "write")
MAX_LINES = 100
"""Most lines of one kind of capability."""

_SEMVER_RE = re.compile(
    r"(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})\.(?:0|[1-9][0-9]{0,8})"
    r"(?:-(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z"
)
_LICENSE_RE = re.compile(r"[A-Za-z0-9.+() -]*\Z")
_HOMEPAGE_RE = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*)?\Z")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_DEFAULT_IGNORABLE = frozenset(
    chr(point)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for point in range(first, last + 1)
)
"""Letters and marks that show nothing (DerivedCoreProperties.txt), beside the categories in `_UNSEEN`."""

_DURATION_BOUNDS: dict[tuple[str, str], tuple[int, int]] = {
    ("supervision", "window"): (1_000, 86_400_000),
    ("supervision", "health-interval"): (100, 86_400_000),
    ("supervision", "health-timeout"): (10, 600_000),
    ("supervision", "backoff"): (1, 3_600_000),
}
_COUNT_BOUNDS: dict[tuple[str, str], tuple[int, int]] = {
    ("component", "release"): (1, 10**15),
    ("supervision", "max-restarts"): (0, 1_000),
    ("supervision", "health-threshold"): (1, 100),
    ("messaging", "max-deliveries"): (1, 100),
}


def problems(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """Where and what is wrong; empty for a manifest that may be believed."""
    yield from _component_problems(manifest.component)
    yield from _number_problems(manifest)
    yield from _capability_problems(manifest.capabilities)
    yield from _subscription_problems(manifest)


def _component_problems(component: ComponentSection) -> Iterator[tuple[Path, str]]:
    if not valid_package_name(component.name) or max(map(len, component.name.split("/"))) > MAX_NAME:
        yield ("component", "name"), "must be namespace/name in small letters, digits and hyphens, as acme/redactor"
    elif component.name.startswith(f"{HOST_NAMESPACE}/"):
        yield ("component", "name"), f"the namespace {HOST_NAMESPACE} stands for people outside and is no publisher's"
    if len(component.version) > 64 or not _SEMVER_RE.match(component.version):
        yield ("component", "version"), "must be a semantic version, as 1.4.0"
    if component.world not in WORLDS:
        yield ("component", "world"), "this host provides " + " and ".join(WORLDS)
    yield from _text_problems(("component", "description"), component.description, 1000)
    if len(component.authors) > 20:
        yield ("component", "authors"), "more than 20 authors"
    for index, author in enumerate(component.authors):
        yield from _text_problems(("component", "authors", index), author, 200)
    if len(component.license) > 200 or not _LICENSE_RE.match(component.license):
        yield ("component", "license"), "must be an SPDX expression, as Apache-2.0"
    if component.homepage and (len(component.homepage) > 500 or not _HOMEPAGE_RE.match(component.homepage)):
        yield ("component", "homepage"), "must be an http or https address"


def _number_problems(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    supervision = manifest.supervision
    for key, fault in limit_table.problems(manifest.limits()):
        yield ("limits", key), fault
    durations: list[tuple[Path, tuple[int, int], int]] = [
        (("supervision", "window"), _DURATION_BOUNDS["supervision", "window"], supervision.window_ms),
        (
            ("supervision", "health-interval"),
            _DURATION_BOUNDS["supervision", "health-interval"],
            supervision.health_interval_ms,
        ),
        (
            ("supervision", "health-timeout"),
            _DURATION_BOUNDS["supervision", "health-timeout"],
            supervision.health_timeout_ms,
        ),
        (("supervision", "backoff", 0), _DURATION_BOUNDS["supervision", "backoff"], supervision.backoff_ms[0]),
        (("supervision", "backoff", 1), _DURATION_BOUNDS["supervision", "backoff"], supervision.backoff_ms[1]),
    ]
    for path, (low, high), duration in durations:
        if not low <= duration <= high:
            yield path, f"must be between {format_duration(low)} and {format_duration(high)}"
    if supervision.backoff_ms[0] > supervision.backoff_ms[1]:
        yield ("supervision", "backoff"), "the first delay is longer than the longest"
    counts = {
        ("component", "release"): manifest.component.release,
        ("supervision", "max-restarts"): supervision.max_restarts,
        ("supervision", "health-threshold"): supervision.health_threshold,
        ("messaging", "max-deliveries"): manifest.messaging.max_deliveries,
    }
    for place, count in counts.items():
        low, high = _COUNT_BOUNDS[place]
        if not low <= count <= high:
            yield place, f"must be between {low} and {high}"
    if not -1 <= supervision.shutdown_ms <= 600_000:
        yield ("supervision", "shutdown"), f"must be at most {format_duration(600_000)}"
    if not 0 <= manifest.messaging.ttl_ms <= MAX_TTL_MS:
        yield ("messaging", "ttl"), f"must be at most {format_duration(MAX_TTL_MS)}"


def _subscription_problems(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """What it subscribes to from the start must be covered by what it may subscribe to."""
    rules = manifest.messaging_rules()
    if len(manifest.messaging.subscribe) > MAX_LINES:
        yield ("messaging", "subscribe"), f"more than {MAX_LINES} entries"
    for index, pattern in enumerate(manifest.messaging.subscribe):
        place: Path = ("messaging", "subscribe", index)
        faults = list(_pattern_problems(place, validate_topic_pattern, pattern))
        yield from faults
        if not faults and not may_subscribe(rules, pattern):
            yield place, "no messaging capability with topic and access subscribe covers this pattern"


def _capability_problems(capabilities: CapabilitiesSection) -> Iterator[tuple[Path, str]]:
    named: set[str] = set()
    kinds: list[tuple[str, int]] = [
        ("filesystem", len(capabilities.filesystem)),
        ("messaging", len(capabilities.messaging)),
        ("storage", len(capabilities.storage)),
    ]
    for kind, count in kinds:
        if count:
            named.add(kind)
        if count > MAX_LINES:
            yield ("capabilities", kind), f"more than {MAX_LINES} entries"
    for index, file in enumerate(capabilities.filesystem):
        here: Path = ("capabilities", "filesystem", index)
        yield from _pattern_problems((*here, "path"), validate_path_pattern, file.path)
        yield from _access_problems((*here, "access"), file.access, FILE_ACCESS)
        named.add(file.path)
    for index, message in enumerate(capabilities.messaging):
        here = ("capabilities", "messaging", index)
        if sum(map(bool, (message.target, message.source, message.topic))) != 1:
            yield here, "a messaging line names one of target, topic (both with access) and from"
        elif message.topic:
            yield from _pattern_problems((*here, "topic"), validate_topic_pattern, message.topic)
            yield from _access_problems((*here, "access"), message.access, TOPIC_ACCESS)
        elif message.source:
            yield from _pattern_problems((*here, "from"), validate_component_pattern, message.source)
            if message.access:
                yield (*here, "access"), "from lets senders in and takes no access"
        else:
            yield from _pattern_problems((*here, "target"), validate_component_pattern, message.target)
            yield from _access_problems((*here, "access"), message.access, MESSAGING_ACCESS)
        named.add(message.target or message.source or message.topic)
    for index, storage in enumerate(capabilities.storage):
        here = ("capabilities", "storage", index)
        if storage.namespace != "self":
            yield (*here, "namespace"), 'this version of airssys knows one storage namespace, "self"'
        yield from _access_problems((*here, "access"), storage.access, STORAGE_ACCESS)
    for key, reason in capabilities.rationale.items():
        if key not in named:
            yield (
                ("capabilities", "rationale", key),
                "explains nothing asked for; use a kind, as filesystem, or a line's path, target, topic or from",
            )
        yield from _text_problems(("capabilities", "rationale", key), reason, 1000)


def _pattern_problems(path: Path, validate: Callable[[str], str], pattern: str) -> Iterator[tuple[Path, str]]:
    try:
        validate(pattern)
    except InvalidPattern as error:
        yield path, error.message + (f"; {error.hint}" if error.hint else "")


def _access_problems(path: Path, access: tuple[str, ...], known: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    if not access or access != tuple(word for word in known if word in access):
        yield path, f"must be some of {', '.join(known)}, each once and in this order"


def _text_problems(path: Path, text: str, most: int) -> Iterator[tuple[Path, str]]:
    if len(text) > most:
        yield path, f"is longer than {most} characters"
    for char in text:
        if unicodedata.category(char) in _UNSEEN or char in _DEFAULT_IGNORABLE:
            yield path, f"holds the control or invisible character U+{ord(char):04X}"
            return
