"""The manifest: one spelling, bounds on everything, and what the host cannot enforce is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.capabilities import FileRule, MessagingRule, StorageRule
from sandbox.types import Limits
from supervisor.packages.errors import ManifestError, PackageError
from supervisor.packages.manifest import Manifest, parse_manifest

pytestmark = pytest.mark.block7_lifecycle

MINIMAL = """[component]
name = "acme/redactor"
version = "1.4.0"
release = 17
world = "airssys:core/runtime-host@1.0.0"
"""

FULL = (
    MINIMAL
    + """description = "Removes names from logs"
authors = ["Ann", "Bo"]
license = "Apache-2.0 OR MIT"
homepage = "https://example.org/redactor"
[limits]
memory = "64MiB"
fuel = 50_000_000
deadline = "5s"
mailbox = 1000
storage = "50MiB"
message-size = "1MiB"
[supervision]
restart = "transient"
max-restarts = 5
window = "2m"
backoff = ["100ms", "30s"]
health-interval = "15s"
[capabilities]
filesystem = [
  { path = "/logs/**", access = ["list", "read"] },
]
messaging = [
  { target = "acme/*", access = ["request", "send"] },
  { from = "acme/*" },
]
storage = [ { namespace = "self", access = ["read", "write"] } ]
[capabilities.rationale]
"/logs/**" = "the logs to redact"
messaging = "asks its siblings"
"""
)


def refuse(text: str) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text)
    assert "E_MANIFEST" == caught.value.code
    assert "component.toml" == caught.value.file
    return caught.value


def test_a_full_manifest() -> None:
    """Every field of the design's example arrives with its value in base units."""
    manifest = parse_manifest(FULL)
    assert ("acme/redactor", "1.4.0", 17) == (
        manifest.component.name,
        manifest.component.version,
        manifest.component.release,
    )
    assert ("Ann", "Bo") == manifest.component.authors
    assert Limits(64 << 20, 50_000_000, 5_000, 1_000, 50 << 20, 1 << 20) == manifest.limits()
    supervision = manifest.supervision
    assert ("transient", 5, 120_000) == (supervision.restart, supervision.max_restarts, supervision.window_ms)
    assert ((100, 30_000), 15_000) == (supervision.backoff_ms, supervision.health_interval_ms)
    assert [FileRule("/logs/**", ["read", "list"])] == manifest.file_rules()
    assert [StorageRule("self", ["read", "write"])] == manifest.storage_rules()
    assert [
        MessagingRule(target="acme/*", access=["send", "request"]),
        MessagingRule(source="acme/*"),
    ] == manifest.messaging_rules()


def test_a_minimal_manifest_asks_for_nothing() -> None:
    """Limits are the defaults every process shares; no capability is granted."""
    manifest = parse_manifest(MINIMAL)
    assert Limits() == manifest.limits()
    assert [] == [*manifest.file_rules(), *manifest.storage_rules(), *manifest.messaging_rules()]


@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_the_predicate_is_lossless(text: str) -> None:
    """Through JSON and back a manifest is the same."""
    manifest = parse_manifest(text)
    assert manifest == Manifest.from_predicate(json.loads(json.dumps(manifest.to_predicate())))


def test_equal_manifests_have_equal_predicates() -> None:
    """Order of access words, spelling of units and comments do not matter."""
    other = FULL.replace('["list", "read"]', '["read", "list"]').replace('"64MiB"', "67108864 # bytes")
    assert parse_manifest(FULL).to_predicate() == parse_manifest(other).to_predicate()


@pytest.mark.parametrize(
    ("old", "new", "key", "line"),
    [
        ('"acme/redactor"', '"redactor"', "component.name", 2),
        ('"acme/redactor"', '"Acme/redactor"', "component.name", 2),
        ('"acme/redactor"', '"acme/../x"', "component.name", 2),
        ('"acme/redactor"', '"acme/redactor\\u001b[31m"', "component.name", 2),
        ('"acme/redactor"', '"host/client"', "component.name", 2),
        ('"acme/redactor"', f'"acme/{"x" * 65}"', "component.name", 2),
        ('"1.4.0"', '"1.4"', "component.version", 3),
        ('"1.4.0"', '"01.4.0"', "component.version", 3),
        ('"1.4.0"', '"1.4.0\\n"', "component.version", 3),
        ("release = 17", "release = 0", "component.release", 4),
        ("release = 17", "release = -1", "component.release", 4),
        ("release = 17", "release = true", "component.release", 4),
        ("release = 17", 'release = "17"', "component.release", 4),
        ("release = 17", "release = 17.0", "component.release", 4),
        ("runtime-host@1.0.0", "runtime-host@2.0.0", "component.world", 5),
        ("Removes names", "Removes\\tnames", "component.description", 6),
        ("Removes names", "Removes \\u202enames", "component.description", 6),
        ("Removes names", "Removes \\u200bnames", "component.description", 6),
        ("Removes names", "x" * 1001, "component.description", 6),
        ('"Bo"', '"B\\u0000o"', "component.authors[1]", 7),
        ('"Bo"', "1", "component.authors", 7),
        ('"Apache-2.0 OR MIT"', '"<b>"', "component.license", 8),
        ("https://example.org", "javascript://example.org", "component.homepage", 9),
        ('"64MiB"', '"63KiB"', "limits.memory", 11),
        ('"64MiB"', '"5GiB"', "limits.memory", 11),
        ('"64MiB"', '"64MB"', "limits.memory", 11),
        ('"64MiB"', "-1", "limits.memory", 11),
        ("50_000_000", "0", "limits.fuel", 12),
        ("50_000_000", "1_000_000_000_000_001", "limits.fuel", 12),
        ("50_000_000", '"5"', "limits.fuel", 12),
        ('"5s"', '"0ms"', "limits.deadline", 13),
        ('"5s"', '"11m"', "limits.deadline", 13),
        ('"5s"', "5", "limits.deadline", 13),
        ("mailbox = 1000", "mailbox = 0", "limits.mailbox", 14),
        ("mailbox = 1000", "mailbox = 100_001", "limits.mailbox", 14),
        ('"50MiB"', '"2TiB"', "limits.storage", 15),
        ('"1MiB"', '"0B"', "limits.message-size", 16),
        ('"1MiB"', '"9MiB"', "limits.message-size", 16),
        ('"transient"', '"always"', "supervision.restart", 18),
        ("max-restarts = 5", "max-restarts = 1001", "supervision.max-restarts", 19),
        ('"2m"', '"999ms"', "supervision.window", 20),
        ('["100ms", "30s"]', '["30s"]', "supervision.backoff", 21),
        ('["100ms", "30s"]', '["31s", "30s"]', "supervision.backoff", 21),
        ('["100ms", "30s"]', '["0ms", "30s"]', "supervision.backoff[0]", 21),
        ('"15s"', '"1ms"', "supervision.health-interval", 22),
        ('"/logs/**"', '"logs/**"', "capabilities.filesystem[0].path", 25),
        ('"/logs/**"', '"/logs/../etc"', "capabilities.filesystem[0].path", 25),
        ('"/logs/**"', '"/lo\\u0007gs"', "capabilities.filesystem[0].path", 25),
        ('["list", "read"]', '["list", "execute"]', "capabilities.filesystem[0].access", 25),
        ('["list", "read"]', "[]", "capabilities.filesystem[0].access", 25),
        ('["list", "read"]', '["read", "read"]', "capabilities.filesystem[0].access", 25),
        ('["list", "read"]', '"read"', "capabilities.filesystem[0].access", 25),
        ('path = "/logs/**", ', "", "capabilities.filesystem[0]", 25),
        ('"acme/*", access = ["request"', '"acme*", access = ["request"', "capabilities.messaging[0].target", 28),
        ('["request", "send"]', '["publish"]', "capabilities.messaging[0].access", 28),
        ('target = "acme/*", ', "", "capabilities.messaging[0]", 28),
        ('target = "acme/*"', 'topic = "orders"', "capabilities.messaging[0].access", 28),
        ('target = "acme/*"', 'target = ""', "capabilities.messaging[0]", 28),
        ('{ from = "acme/*" }', '{ from = "acme/*", access = ["send"] }', "capabilities.messaging[1].access", 29),
        ('{ from = "acme/*" }', '{ from = "" }', "capabilities.messaging[1]", 29),
        ('"self"', '"other"', "capabilities.storage[0].namespace", 31),
        ('"/logs/**" = "the', '"/other" = "the', "capabilities.rationale.'/other'", 33),
        ("asks its siblings", "asks\\u0000", "capabilities.rationale.messaging", 34),
        ("[limits]", "[limit]", "limit", 10),
        ("deadline =", "dead-line =", "limits.dead-line", 13),
        ("[limits]", "[limits]\nmemory = 1", "", 12),
        ("[capabilities.rationale]", "network = 1\n[capabilities.rationale]", "capabilities.network", 32),
    ],
)
def test_each_fault_is_refused_with_its_key_and_line(old: str, new: str, key: str, line: int) -> None:
    """Wrong types, unknown keys, controls, bidi marks and absurd sizes name file, key and line."""
    assert old in FULL
    error = refuse(FULL.replace(old, new, 1))
    assert (key, line) == (error.key, error.line)


@pytest.mark.parametrize(
    "line",
    [
        'network = [ { host = "api.example.org", port = 443, access = ["connect"] } ]',
        'process = [ { program = "pdftotext", args = ["-layout"] } ]',
    ],
)
def test_capabilities_without_an_executor_are_refused(line: str) -> None:
    """Network and process are refused with a sentence, never accepted and ignored; asking for none is fine."""
    kind = line.split(maxsplit=1)[0]
    error = refuse(MINIMAL + "[capabilities]\n" + line)
    assert (f"capabilities.{kind}", 7) == (error.key, error.line)
    assert "no executor" in error.message
    assert parse_manifest(MINIMAL + f"[capabilities]\n{kind} = []")


def test_too_many_lines_are_refused() -> None:
    """A list of capabilities that nobody can read is refused."""
    many = ", ".join(f'{{ path = "/d{n}", access = ["read"] }}' for n in range(101))
    assert "more than 100" in refuse(MINIMAL + f"[capabilities]\nfilesystem = [ {many} ]").message


def test_a_missing_table_or_key_is_named() -> None:
    """Without [component], or one of its keys, the sentence says which."""
    assert "[component]" in refuse("[limits]\n").message
    assert "version" in refuse(MINIMAL.replace('version = "1.4.0"\n', "")).message


def _predicate() -> dict[str, Any]:
    return parse_manifest(FULL).to_predicate()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("component", "extra"), 1),
        (("component", "name"), "host/x"),
        (("component", "release"), True),
        (("component", "release"), 0),
        (("component", "release"), "17"),
        (("component", "description"), "\x1b[2J"),
        (("limits", "memory"), 1 << 50),
        (("limits", "memory"), "64MiB"),
        (("supervision", "restart"), "never"),
        (("supervision", "backoff"), [1]),
        (("capabilities", "network"), []),
        (("capabilities", "filesystem"), [{"path": "/../x", "access": ["read"]}]),
        (("capabilities", "filesystem"), [{"path": "/x", "access": ["list", "read"]}]),
        (("capabilities", "filesystem"), [{"path": f"/{n}", "access": ["read"]} for n in range(101)]),
        (("capabilities", "messaging"), [{"target": "acme/*", "access": ["send"], "from": "acme/*"}]),
        (("capabilities", "messaging"), [{"target": "acme/*", "access": ["send"], "from": ""}]),
        (("capabilities", "messaging"), [{"from": "acme/*", "access": ["send"]}]),
        (("capabilities", "storage"), [{"namespace": "all", "access": ["read"]}]),
        (("capabilities", "rationale"), {"nothing": "asked"}),
    ],
)
def test_a_signed_predicate_is_held_to_the_same_bounds(path: tuple[str, ...], value: object) -> None:
    """A publisher's own tool cannot sign what a manifest file could not say."""
    predicate = _predicate()
    assert Manifest.from_predicate(predicate)
    table = predicate
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    with pytest.raises(PackageError) as caught:
        Manifest.from_predicate(predicate)
    assert "E_SCHEMA" == caught.value.code


def test_a_predicate_has_one_form() -> None:
    """Leaving a default out would give one manifest two signed forms."""
    predicate = _predicate()
    del predicate["component"]["license"]
    predicate["component"]["license"] = ""
    assert Manifest.from_predicate(predicate)
    del predicate["component"]["license"]
    with pytest.raises(PackageError):
        Manifest.from_predicate(predicate)


@given(st.text(max_size=40))
def test_texts_that_pass_are_visible(text: str) -> None:
    """No description that is accepted can move a cursor or reverse a line."""
    predicate = _predicate()
    predicate["component"]["description"] = text
    try:
        manifest = Manifest.from_predicate(predicate)
    except PackageError:
        return
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in manifest.component.description)
    assert not set("\u200b\u200e\u202a\u202e\u2066\u2069\u2028\ufeff") & set(manifest.component.description)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=8,
    )
)
def test_a_hostile_predicate_is_only_ever_refused(value: Any) -> None:
    """Arbitrary JSON in any of the sections is E_SCHEMA, not a crash."""
    for section in ("component", "limits", "supervision", "capabilities"):
        predicate = _predicate()
        predicate[section] = value
        if value == {} or value == parse_manifest(FULL).to_predicate()[section]:
            continue
        with pytest.raises(PackageError):
            Manifest.from_predicate(predicate)
