"""The capability language: patterns, rules, policies and how they are shown."""

from __future__ import annotations

import itertools
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.capabilities import (
    Compiled,
    FileRule,
    InvalidPath,
    InvalidPattern,
    InvalidPolicy,
    MessagingRule,
    Policy,
    StorageRule,
    accepts,
    binding_for,
    describe,
    guest_roots,
    may_send,
    parse_guest_path,
    validate_component_pattern,
    validate_path_pattern,
)
from bridge.patterns import PathPattern, match_component
from sandbox.types import ComponentId, Limits

pytestmark = pytest.mark.block4_security

names = st.text("ab.*", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, max_size=5).map(tuple)
pattern_parts = st.lists(
    st.one_of(st.text("ab.?", min_size=1, max_size=3), st.sampled_from(["*", "a*", "*b", "a*b*", "**", "?"])),
    min_size=1,
    max_size=5,
).filter(
    lambda parts: (
        not any(part in (".", "..") for part in parts)
        and not any(one == other == "**" for one, other in itertools.pairwise(parts))
    )
)


def oracle_component(pattern: str, name: str) -> bool:
    """One component by a regular expression."""
    text = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(text, name, re.DOTALL) is not None


def oracle(pattern: list[str] | tuple[str, ...], path: tuple[str, ...]) -> bool:
    """The whole pattern by plain recursion."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(oracle(pattern[1:], path[count:]) for count in range(len(path) + 1))
    return bool(path) and oracle_component(pattern[0], path[0]) and oracle(pattern[1:], path[1:])


@settings(deadline=None)
@given(pattern_parts, paths)
def test_patterns_match_as_the_oracle_does(parts, path):
    """A pattern covers a path exactly when the naive definition says so."""
    assert oracle(parts, path) == PathPattern("/" + "/".join(parts)).covers(path)


@settings(deadline=None)
@given(st.text("ab*?", max_size=6), st.text("ab*?", max_size=6))
def test_components_match_as_the_oracle_does(pattern, name):
    """Within one component `*` and `?` mean what a regular expression says they mean."""
    assert oracle_component(pattern, name) == match_component(pattern, name)


@settings(deadline=None)
@given(pattern_parts, paths, paths)
def test_reaching_below_is_never_missed(parts, path, below):
    """Whatever a pattern covers below a path, it is said to reach below that path; `/**` alone covers all of it."""
    pattern = PathPattern("/" + "/".join(parts))
    if oracle(parts, path + below):
        assert pattern.reaches_below(path)
    if pattern.covers_all_below(path):
        assert oracle(parts, path + below)


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("/data/*", "/data/a", True),
        ("/data/*", "/database", False),
        ("/data/*", "/data", False),
        ("/data/*", "/data/a/b", False),
        ("/logs/**", "/logs", True),
        ("/logs/**", "/logs/a/b/c", True),
        ("/logs/**", "/logsx", False),
        ("/a/**/z", "/a/z", True),
        ("/a/**/z", "/a/b/c/z", True),
        ("/a/**/z", "/a/b/c/zz", False),
        ("/**", "/", True),
        ("/a?c", "/abc", True),
        ("/a?c", "/a/c", False),
        ("/*.log", "/.log", True),
    ],
)
def test_what_the_documentation_promises(pattern, path, covered):
    """The cases people will rely on."""
    assert covered == PathPattern(pattern).covers(parse_guest_path(path))


def test_matching_is_not_exponential():
    """A pattern made to hurt backtracking matchers answers at once."""
    assert not PathPattern("/" + "/".join(["**", "a"] * 100)).covers(("a",) * 500 + ("b",))
    assert not match_component("*a" * 100, "a" * 254 + "b")


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a/b", "/", "//", "/a/", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/a**", "/**a", "/***", "/**/**",
        "/a\n", "/a\0", "/a\x7f", "/a\u202eb", "/a\u2028", "/a\ud800", "/a[bc]", "/a{b,c}", "/a\\b", "/" + "a" * 1024,
        "/" + "a" * 256,
    ],
)  # fmt: skip
def test_malformed_patterns_are_refused(text):
    """Each is refused with the stable code; the message never holds raw control characters."""
    with pytest.raises(InvalidPattern) as caught:
        validate_path_pattern(text)
    assert "E_PATTERN" == caught.value.code
    assert str(caught.value).isprintable()


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_refused(text):
    """The validator returns its argument or raises InvalidPattern, whatever comes."""
    for candidate in (text, "/" + text):
        try:
            assert candidate == validate_path_pattern(candidate)
        except InvalidPattern:
            continue
        assert all(part not in ("", ".", "..") for part in candidate[1:].split("/"))


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a/b", "//", "/a/", "/a//b", "/./a", "/a/..", "/../a", "/a\0b", "/a\nb", "/a\x85b", "/" + "x" * 256,
        "/" + "x/" * 2048 + "x", "/\ud800",
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_malformed_guest_paths_are_refused(text):
    """Relative, empty, dotted, over-long, control characters, not UTF-8: refused with a reason."""
    with pytest.raises(InvalidPath) as caught:
        parse_guest_path(text)
    assert caught.value.message


@settings(deadline=None)
@given(paths.filter(bool))
def test_guest_paths_round_trip(path):
    """A path of good components parses into exactly these components."""
    assert path == parse_guest_path("/" + "/".join(path))


def test_unusual_names_are_ordinary():
    """Backslashes, unicode dots and encoded slashes are characters of a name, not syntax."""
    assert ("a\\b", "\u2024\u2024", "%2e%2e", "...") == parse_guest_path("/a\\b/\u2024\u2024/%2e%2e/...")
    assert () == parse_guest_path("/")


# -- policies -------------------------------------------------------------------------------------------------


def compiled(*rules: tuple[str, str]) -> Compiled:
    """A policy of file rules, access words separated by spaces."""
    return Compiled(Policy([FileRule(path, access.split()) for path, access in rules]))


def test_access_is_by_rule():
    """A right holds for the paths of its own rule only."""
    policy = compiled(("/in/**", "read list"), ("/out/*", "write"))
    assert policy.allows(("in", "x"), "read")
    assert not policy.allows(("in", "x"), "write")
    assert policy.allows(("out", "x"), "write")
    assert not policy.allows(("out", "x"), "read")
    assert not policy.allows(("out",), "list")


def test_the_default_policy_grants_nothing():
    """Deny by default."""
    policy = Compiled(Policy())
    assert not any(policy.allows(("a",), word) for word in ("read", "list", "write", "delete"))
    assert not policy.allows_storage("read")
    assert policy.binding_for(("a",)) is None


@settings(deadline=None)
@given(st.lists(st.sampled_from(["/logs/**", "/a/*", "/x"]), max_size=3), st.integers(0, 2**40))
def test_policies_round_trip(patterns, quota):
    """Encoding and decoding a policy gives the same policy."""
    policy = Policy(
        [FileRule(pattern, ["read"]) for pattern in patterns],
        [StorageRule("self", ["read", "write"])],
        ["/logs"],
        Limits(storage=quota),
    )
    assert policy == Policy.decode(policy.encode())


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_policy_or_refused(data):
    """Decoding raises nothing but InvalidPolicy."""
    try:
        Policy.decode(data)
    except InvalidPolicy:
        pass


@pytest.mark.parametrize(
    "policy",
    [
        Policy([FileRule("/a", ["execute"])]),
        Policy([FileRule("a", ["read"])]),
        Policy(storage=[StorageRule("shared", ["read"])]),
        Policy(storage=[StorageRule("self", ["admin"])]),
        Policy(bindings=["logs"]),
        Policy(bindings=["/logs", "/logs"]),
    ],
)
def test_policies_that_mean_nothing_are_refused(policy):
    """Unknown words are errors, never ignored."""
    with pytest.raises((InvalidPolicy, InvalidPattern)):
        Compiled(policy)


def test_binding_is_the_longest_root_by_component():
    """Roots are compared by component; the longest one above the path wins."""
    roots = [parse_guest_path(root) for root in ("/", "/logs", "/logs/app")]
    assert (2, ("x",)) == binding_for(roots, ("logs", "app", "x"))
    assert (1, ("apple",)) == binding_for(roots, ("logs", "apple"))
    assert (0, ("logsx",)) == binding_for(roots, ("logsx",))
    assert binding_for(roots[1:], ("logsx",)) is None


def test_moving_never_widens_rights():
    """A rename is refused where the new name allows what the old one did not, for a directory also below it."""
    full = compiled(("/d/**", "read list write delete"))
    assert full.may_move(("d", "a"), ("d", "b"), directory=False)
    assert full.may_move(("d", "a"), ("d", "b"), directory=True)
    drop = compiled(("/drop/*", "write delete"), ("/mine/**", "read write"))
    assert not drop.may_move(("drop", "a"), ("mine", "a"), directory=False), "write access must not become reading"
    assert drop.may_move(("drop", "a"), ("drop", "b"), directory=False)
    assert not drop.may_move(("drop", "a"), ("drop", "b"), directory=True), "what lies below drop/* is not covered"
    nested = compiled(("/d/**", "write delete"), ("/d/pub/x/**", "read"))
    assert nested.may_move(("d", "a"), ("d", "b"), directory=True)
    assert not nested.may_move(("d", "a"), ("d", "pub"), directory=True), "/d/pub/x would become readable"


@pytest.mark.parametrize(
    ("patterns", "roots"),
    [(["/logs/**", "/logs/a"], ["/logs"]), (["/in/*", "/out/x"], ["/in", "/out"]), (["/*/x"], ["/"]), ([], [])],
)
def test_guest_roots(patterns, roots):
    """What an operator has to bind follows from the patterns."""
    assert roots == guest_roots(FileRule(pattern, ["read"]) for pattern in patterns)


# -- messaging ------------------------------------------------------------------------------------------------

TARGETS = [ComponentId("acme", "redactor"), ComponentId("acme", "redactor", "1"), ComponentId("acme", "reader")]


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("acme/redactor", ["acme/redactor/0", "acme/redactor/1"]),
        ("acme/redactor/1", ["acme/redactor/1"]),
        ("acme/*", ["acme/redactor/0", "acme/redactor/1", "acme/reader/0"]),
        ("acme/*/0", ["acme/redactor/0", "acme/reader/0"]),
        ("*", ["acme/redactor/0", "acme/redactor/1", "acme/reader/0", "acme-evil/x/0"]),
        ("host/client/*", ["host/client/ann"]),
        ("host/client/ann", ["host/client/ann"]),
    ],
)
def test_component_patterns(pattern, covered):
    """Patterns compare whole parts; nothing but the word host covers people outside."""
    everyone = [*TARGETS, ComponentId("acme-evil", "x"), ComponentId("host", "client", "ann")]
    rules = [MessagingRule(target=pattern, access=["send"]), MessagingRule(source=pattern)]
    assert covered == [str(one) for one in everyone if may_send(rules, one, "send")]
    assert covered == [str(one) for one in everyone if accepts(rules, one)]
    assert not any(may_send(rules, one, "request") for one in everyone), "the access is part of the rule"


def test_who_names_no_sender_hears_the_operator_only():
    """Without any `from` a component takes what people outside send, and nothing from components."""
    rules = [MessagingRule(target="*", access=["send"])]
    assert accepts(rules, ComponentId("host", "client", "ann"))
    assert accepts([], ComponentId("host", "client", "ann"))
    assert not accepts(rules, ComponentId("acme", "reader"))
    assert not may_send([], ComponentId("acme", "reader"), "send")


@pytest.mark.parametrize("text", ["", "acme", "acme/", "/x", "acme/r*", "a/b/c/d", "**", "acme/**", "a b/c", "*/"])
def test_malformed_component_patterns_are_refused(text):
    """A wildcard is a whole part; anything else is an error, and as a rule it covers nothing."""
    with pytest.raises(InvalidPattern):
        validate_component_pattern(text)
    assert not accepts([MessagingRule(source=text or "-")], ComponentId("acme", "reader"))


# -- for people -----------------------------------------------------------------------------------------------


def test_describe_names_every_rule_with_a_risk():
    """One line per rule, graded, with a reason."""
    lines = describe(
        [FileRule("/**", ["read"]), FileRule("/logs/a", ["read"]), FileRule("/out/**", ["write", "delete"])],
        [StorageRule("self", ["read"])],
        [MessagingRule("*", ["send"]), MessagingRule("acme/x", ["request"]), MessagingRule(source="acme/*")],
    )
    assert ["high", "low", "high", "low", "high", "low", "medium"] == [line.risk for line in lines]
    assert "files /out/**: delete, write" == lines[2].text
    assert all(line.why for line in lines)
    assert msgspec.json.decode(msgspec.json.encode(lines[0]))["risk"] == "high"
