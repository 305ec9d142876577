"""The strict JSON loader: what parsers disagree about is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.packages.errors import PackageError
from supervisor.packages.strict_json import MAX_DEPTH, loads_object

pytestmark = pytest.mark.block7_lifecycle

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def load(data: bytes) -> object:
    return loads_object(data, max_bytes=1 << 20, what="the document")


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"b":{"a":1,"\\u0061":2}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":1,}',
        b"{} {}",
        b"[]",
        b'"a"',
        b"",
        b"{'a':1}",
        b'{"a":"\x00"}',
        "{}".encode("utf-16"),
        b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ],
)
def test_ambiguous_documents_are_refused(data: bytes) -> None:
    """Duplicate names, odd numbers, marks, bad UTF-8, depth and garbage are all E_JSON."""
    with pytest.raises(PackageError) as caught:
        load(data)
    assert "E_JSON" == caught.value.code


def test_the_ordinary_parser_would_have_taken_some_of_them() -> None:
    """Positive control: without the loader, duplicates, NaN and lone surrogates pass."""
    assert {"a": 2} == json.loads('{"a":1,"a":2}')
    assert json.loads('{"a":NaN}')
    assert {"a": "\ud800"} == json.loads('{"a":"\\ud800"}')


def test_too_long_is_refused_before_parsing() -> None:
    """Ten megabytes are E_SIZE."""
    with pytest.raises(PackageError) as caught:
        load(b'{"a":"' + b"x" * (10 << 20) + b'"}')
    assert "E_SIZE" == caught.value.code


def test_depth_at_the_bound_is_accepted() -> None:
    """Nesting of exactly MAX_DEPTH passes, one more does not; brackets within strings do not count."""
    inner = MAX_DEPTH - 1
    assert load(b'{"a":' + b"[" * inner + b"]" * inner + b"}")
    with pytest.raises(PackageError):
        load(b'{"a":' + b"[" * (inner + 1) + b"]" * (inner + 1) + b"}")
    assert {"a": "[" * 100 + '\\"'} == load(b'{"a":"' + b"[" * 100 + b'\\\\\\""}')


@given(st.dictionaries(st.text(max_size=20), _JSON, max_size=5))
def test_what_is_ordinary_passes_unchanged(document: dict[str, object]) -> None:
    """A document of plain values, written with or without escapes, comes back equal."""
    assert document == load(json.dumps(document).encode())
    assert document == load(json.dumps(document, ensure_ascii=False).encode())


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0189aeNI -', max_size=60).map(str.encode))
def test_anything_else_is_a_refusal_and_never_a_crash(data: bytes) -> None:
    """Whatever the bytes, the answer is an object that json.loads agrees with, or PackageError."""
    try:
        value = load(data)
    except PackageError:
        return
    assert json.loads(data) == value
