"""`[[supervisor]]`: what is a tree, and errors that name file, key and line where it is none."""

from __future__ import annotations

import pytest

from supervisor.config import HostConfig, parse_config
from supervisor.packages.errors import ConfigError

pytestmark = pytest.mark.block3_actors

PLACES = HostConfig("/c", "/s", "/r")
TREE = """[[supervisor]]
name = "top"
children = ["acme/a", "inner"]
[[supervisor]]
name = "inner"
strategy = "one-for-all"
children = ["acme/b/1"]
[[supervisor]]
name = "pool"
parent = "top"
strategy = "simple-one-for-one"
template = "acme/w"
replicas = 2
"""


def test_a_tree() -> None:
    """Parents are known from either side; who names a parent that does not list it comes after the listed."""
    top, inner, pool = parse_config(TREE, PLACES).supervisors
    assert ("root", ("acme/a/0", "inner", "pool")) == (top.parent, top.children)
    assert ("top", ("acme/b/1",)) == (inner.parent, inner.children)
    assert ("top", "acme/w", 2) == (pool.parent, pool.template, pool.replicas)


def test_the_order_of_the_file_does_not_matter() -> None:
    """A child may be declared before its parent."""
    tables = TREE.split("[[supervisor]]")[1:]
    turned = "".join("[[supervisor]]" + table for table in reversed(tables))
    by_name = {spec.name: spec for spec in parse_config(TREE, PLACES).supervisors}
    assert by_name == {spec.name: spec for spec in parse_config(turned, PLACES).supervisors}


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "message"),
    [
        ('name = "top"', 'name = "root"', "[0].name", 2, "not declared"),
        ('name = "top"', 'name = "Top"', "[0].name", 2, "lower-case"),
        ('name = "top"', 'name = "a/b"', "[0].name", 2, "lower-case"),
        ('name = "top"\n', "", "[0]", 1, "name is missing"),
        ('name = "inner"', 'name = "top"', "[1].name", 5, "two supervisors"),
        ('"inner"]', '"outer"]', "[0].children", 3, "no supervisor outer"),
        ('"acme/a"', '"acme/A"', "[0].children", 3, "not a component id"),
        ('"inner"]', '"inner", "acme/a/0"]', "[0].children", 3, "named twice"),
        ('["acme/b/1"]', '["acme/a"]', "[1].children", 7, "a child of top already"),
        ('["acme/b/1"]', '["acme/w/7"]', "[1].children", 7, "the template of pool"),
        ('parent = "top"', 'parent = "nobody"', "[2].parent", 10, "no supervisor nobody"),
        ('parent = "top"', 'parent = "inner"\nname2 = 1', "[2].name2", 11, "unknown key"),
        ('["acme/b/1"]', '["top"]', "[0].name", 2, "its own ancestor"),
        ('["acme/b/1"]', '["inner"]', "[1].children", 7, "already"),
        ('["acme/b/1"]', '["pool"]', "[1].children", 7, "a child of top"),
        ('name = "inner"', 'name = "inner"\nparent = "pool"', "[0].children", 3, "a child of pool"),
        ('"one-for-all"', '"all"', "[1].strategy", 6, "one of one-for-one"),
        ('"one-for-all"', '"simple-one-for-one"', "[1]", 4, "says template"),
        ('template = "acme/w"\n', "", "[2]", 8, "says template"),
        ("replicas = 2", "", "[2]", 8, "says replicas"),
        ("replicas = 2", "replicas = 0", "[2].replicas", 13, "between 1 and 1000"),
        ("replicas = 2", 'replicas = 2\nchildren = ["acme/x"]', "[2].children", 14, "replicas of the template"),
        ('"acme/w"', '"acme/w/0"', "[2].template", 12, "package's name"),
        ('["acme/b/1"]', '["acme/b/1"]\nreplicas = 2', "[1].replicas", 8, "belongs to"),
        ('["acme/b/1"]', '["acme/b/1"]\nmax-restarts = -1', "[1].max-restarts", 8, "between"),
        ('["acme/b/1"]', '["acme/b/1"]\nwindow = "1ms"', "[1].window", 8, "between 1s and 24h"),
        ('["acme/b/1"]', '["acme/b/1"]\nbackoff = ["2s", "1s"]', "[1].backoff", 8, "longer than the longest"),
        ('["acme/b/1"]', '["acme/b/1"]\nbackoff = "1s"', "[1].backoff", 8, "first and the longest"),
    ],
)
def test_no_tree(old: str, new: str, key: str, line: int, message: str) -> None:
    """Everything that makes it no tree is refused with key and line."""
    text = TREE.replace(old, new, 1)
    assert text != TREE
    with pytest.raises(ConfigError) as caught:
        parse_config(text, PLACES)
    assert (f"supervisor{key}", line) == (caught.value.key, caught.value.line)
    assert message in caught.value.message


def test_a_supervisor_below_replicas() -> None:
    """Replicas are the only children of their supervisor, whichever side says otherwise."""
    text = TREE + '[[supervisor]]\nname = "late"\nparent = "pool"\n'
    with pytest.raises(ConfigError, match="replicas for children"):
        parse_config(text, PLACES)


def test_one_template_twice() -> None:
    """Two supervisors cannot keep the same replicas."""
    text = TREE + TREE[TREE.rindex("[[supervisor]]") :].replace("pool", "other")
    with pytest.raises(ConfigError, match="the template of pool already"):
        parse_config(text, PLACES)
