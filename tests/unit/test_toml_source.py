"""TOML reading: every error names file, key and line; units have one spelling."""

from __future__ import annotations

import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.packages.errors import ConfigError, ManifestError
from supervisor.packages.toml_source import MAX_BYTES, TomlSource, dotted, integer, string
from supervisor.packages.units import format_duration, format_size, parse_duration, parse_size

pytestmark = pytest.mark.block7_lifecycle

DOCUMENT = '''# a comment = 1
top = 1
"quoted key" = 2
dotted.a."b.c" = 3

[table] # [not.this]
text = """several
lines with ] and } and # and \\""" in them"""
after = 'x#'
literal = \'\'\'two
lines\'\'\'
array = [ # comment ]
  1,
  [ 2, "]" ],
  { x = 1, y = [ 3,
    4 ] },
]
date = 1979-05-27T07:32:00Z

  [ table . "sub" ]
  value = true
[[list]]
name = "a"
[[list]]
name = "b"
[list.inner]
deep = 1
[[list.more]]
z = 0
inline = { a = { b = 1 }, "c" = 2 }
'''

LINES = {
    ("top",): 2,
    ("quoted key",): 3,
    ("dotted",): 4,
    ("dotted", "a", "b.c"): 4,
    ("table",): 6,
    ("table", "text"): 7,
    ("table", "after"): 9,
    ("table", "literal"): 10,
    ("table", "array"): 12,
    ("table", "array", 0): 13,
    ("table", "array", 1, 1): 14,
    ("table", "array", 2): 15,
    ("table", "array", 2, "y"): 15,
    ("table", "array", 2, "y", 1): 16,
    ("table", "date"): 18,
    ("table", "sub"): 20,
    ("table", "sub", "value"): 21,
    ("list", 0): 22,
    ("list", 0, "name"): 23,
    ("list", 1): 24,
    ("list", 1, "name"): 25,
    ("list", 1, "inner", "deep"): 27,
    ("list", 1, "more", 0, "z"): 29,
    ("list", 1, "more", 0, "inline", "a", "b"): 30,
    ("list", 1, "more", 0, "inline", "c"): 30,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_line_of_every_kind_of_key(newline: str) -> None:
    """Tables, arrays of tables, dotted and quoted keys, inline tables and multi-line values are located."""
    source = TomlSource(DOCUMENT.replace("\n", newline), file="f", error=ManifestError)
    assert LINES == {path: source.line(path) for path in LINES}


def test_a_missing_key_has_the_line_of_its_table() -> None:
    """Where a key is absent the nearest thing above it is named."""
    source = TomlSource(DOCUMENT, file="f", error=ManifestError)
    assert 20 == source.line(("table", "sub", "absent"))
    assert 1 == source.line(("nowhere",))


_QUOTED = st.text("ab. []{}#=\"'\\", max_size=5)
_SCALAR = st.sampled_from(["1", '"x # ]"', "'y'", '"""a\nb"""', "'''\n\n'''", "true", "1.5", "[1,\n 2]", "{ k = 1 }"])


@given(
    st.lists(st.tuples(_QUOTED, _SCALAR, st.sampled_from(["", "# note", "\n\n"])), max_size=8, unique_by=lambda t: t[0])
)
def test_lines_agree_with_how_a_document_was_written(items: list[tuple[str, str, str]]) -> None:
    """For documents written line by line, the locator finds the line each key was written on."""
    text, expected = "", {}
    for key, value, tail in items:
        expected[(key,)] = text.count("\n") + 1
        escaped = key.replace("\\", "\\\\").replace('"', '\\"')
        text += f'"{escaped}" = {value} {tail}\n'
    source = TomlSource(text, file="f", error=ManifestError)
    assert expected == {path: source.line(path) for path in expected}


@given(st.text(alphabet="ab=[]{}.\"'\n#,1 \\", max_size=60))
def test_the_locator_survives_all_valid_toml(text: str) -> None:
    """Whatever tomllib accepts is located without a crash, and every top-level key has a line."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ManifestError):
            TomlSource(text, file="f", error=ManifestError)
        return
    source = TomlSource(text, file="f", error=ManifestError)
    assert data == source.data
    source.line(("",))
    assert source._lines is not None
    assert {(key,) for key in data} <= source._lines.keys()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\na = 2\n", 2),
        ("a = 1\n\nb = \n", 3),
        ("a = 1\n[t]\n[t]\n", 3),
        ("a = [1,\n2", 2),
        (b"a = 1\nb = '\xff'\n", 2),
        ("\ufeffa = 1", 1),
        ("a = 1\nb = '\ud800'", 2),
        ("x" * (MAX_BYTES + 1), 1),
        ("a = " + "9" * 5000, 1),
        ("a = " + "[" * 50_000, 1),
        ("b = 1\n" + ".".join(["a"] * 300) + " = 1", 2),
    ],
)
def test_what_is_not_toml_names_the_line(text: str | bytes, line: int) -> None:
    """Duplicate keys, bad syntax, bad UTF-8 and absurd documents are refused with file and line."""
    with pytest.raises(ConfigError) as caught:
        TomlSource(text, file="airssys.toml", error=ConfigError)
    assert ("E_CONFIG", "airssys.toml", line) == (caught.value.code, caught.value.file, caught.value.line)
    assert f"airssys.toml:{line}" in str(caught.value)


def test_a_document_made_to_be_slow_is_refused_quickly() -> None:
    """The worst dotted keys that fit cost no more than seconds; without the cap tomllib needs minutes."""
    start = time.process_time()
    with pytest.raises(ManifestError):
        TomlSource(".".join(["a"] * (MAX_BYTES // 2 - 10)) + " = 1", file="f", error=ManifestError)
    assert time.process_time() - start < 1


def test_unknown_keys_are_refused_with_a_suggestion() -> None:
    """A key nobody took is an error that names it, its line and the nearest known key."""
    source = TomlSource("[limits]\nmemory = 1\nmemroy = 2\n", file="f", error=ManifestError)
    source.root.table("limits").take("memory", integer)
    with pytest.raises(ManifestError) as caught:
        source.root.done()
    assert ("limits.memroy", 3) == (caught.value.key, caught.value.line)
    assert "memory" in caught.value.hint


def test_wrong_shapes_are_refused() -> None:
    """A table where a value belongs, and the other way round, names the key."""
    source = TomlSource("a = 1\nb = [1]\nc = 'x'\n", file="f", error=ManifestError)
    for call in (
        lambda: source.root.table("a"),
        lambda: source.root.tables("b", most=9),
        lambda: source.root.take("c", integer),
        lambda: source.root.take("a", string),
        lambda: source.root.take("absent", string),
        lambda: source.root.table("absent", required=True),
    ):
        with pytest.raises(ManifestError):
            call()


def test_dotted_paths_read_as_toml() -> None:
    """Indices stand in brackets; keys that need quotes get them, escaped."""
    assert "capabilities.filesystem[0].path" == dotted(("capabilities", "filesystem", 0, "path"))
    assert "a.'b c'" == dotted(("a", "b c"))
    assert "\u202e" not in dotted(("\u202e",))


@pytest.mark.parametrize(
    ("text", "size"), [("0B", 0), ("512KiB", 524288), ("64MiB", 67108864), ("1GiB", 1 << 30), (7, 7), ("1TiB", 1 << 40)]
)
def test_sizes(text: object, size: int) -> None:
    """Sizes as the manifest writes them."""
    assert size == parse_size(text)


@pytest.mark.parametrize(
    "text", ["64MB", "64 MiB", "1.5GiB", "-1", -1, "64", "", "MiB", True, None, 1.0, "064MiB", "\uff11MiB", [1]]
)
def test_what_is_no_size(text: object) -> None:
    """No fractions, decimal units, signs, spaces or bare texts."""
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["5", 5, "5 s", "1.5s", "-1s", "5S", "", True, None, "5sec", "\u0665s", "5s\n"])
def test_what_is_no_duration(text: object) -> None:
    """A duration is a whole number with ms, s, m or h."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 1 << 50))
def test_formatting_reads_back(number: int) -> None:
    """What is formatted parses to the same number."""
    assert number == parse_size(format_size(number))
    assert number % 10**12 == parse_duration(format_duration(number % 10**12))
