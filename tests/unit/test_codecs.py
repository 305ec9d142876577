"""`airssys.codecs`: round trips, prefixes, and decoders that take one value, bounded, and nothing else."""

from __future__ import annotations

import pytest
from airssys import codecs
from airssys.codecs import MAX_DEPTH, Codec, CodecError
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.block5_messaging
pytest.importorskip("cbor2", reason="CBOR needs the package cbor2 (airssys-wasm[client])")

FORMS: tuple[Codec, ...] = ("json", "cbor", "msgpack")
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=20
)


@pytest.mark.parametrize("codec", FORMS)
@given(value=VALUES)
def test_round_trip(codec: Codec, value: object) -> None:
    """What goes in comes out, with and without a prefix."""
    assert value == codecs.load(codec, codecs.dump(codec, value))
    assert (codec, value) == codecs.decode(codecs.encode(codec, value))


@given(data=st.binary())
def test_raw_round_trip(data: bytes) -> None:
    """Raw bytes are what they are."""
    assert ("raw", data) == codecs.decode(codecs.encode("raw", data))


def test_prefixes_are_the_tables() -> None:
    """The numbers of the multicodec table as unsigned varints."""
    assert b"\x80\x04null" == codecs.encode("json", None)
    assert b"\x51\xf6" == codecs.encode("cbor", None)
    assert b"\x81\x04\xc0" == codecs.encode("msgpack", None)
    assert b"\x55x" == codecs.encode("raw", b"x")


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\xd1\x00\xf6", b"\x50", b"\x00"]
)
def test_what_is_no_prefix(data: bytes) -> None:
    """Numbers that are cut, too long, spelled longer than needed or unknown are refused."""
    with pytest.raises(CodecError):
        codecs.decode(data)


_PIECES = [b"\xa1", b"\x81", b"\x01", b"\x61a", b"\x41a", b"\xf6", b"\x3b" + b"\xff" * 8, b"\x80", b"\x91", b"\xa0"]
_PIECES += [
    b"\xc0",
    b"\xd6\xff\0\0\0\1",
    b"\xcf" + b"\xff" * 8,
    b"\xfb\x7f\xf0" + bytes(6),
    b"\x80\x04",
    b"\x51",
    b'{"a":',
]


@settings(max_examples=500)
@given(data=st.binary(max_size=64) | st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join))
def test_decoders_refuse_or_return(data: bytes) -> None:
    """Whatever comes, the answer is a value or a CodecError; and a value is one that the form can hold."""
    for form in FORMS:
        try:
            value = codecs.load(form, data)
        except CodecError:
            continue
        codecs.dump(form, value)
    try:
        codecs.decode(data)
    except CodecError:
        return


@settings(max_examples=400)
@given(value=VALUES, codec=st.sampled_from(FORMS), cut=st.integers(1, 40), more=st.binary(min_size=1, max_size=8))
def test_one_whole_value(value: object, codec: Codec, cut: int, more: bytes) -> None:
    """Nothing may follow the value (blanks of JSON apart), and a part of one is none."""
    data = codecs.dump(codec, value)
    if codec != "json":
        with pytest.raises(CodecError):
            codecs.load(codec, data + more)
        with pytest.raises(CodecError):
            codecs.load(codec, data[:-cut] if cut < len(data) else b"")


def test_json_has_no_such_numbers() -> None:
    """JSON cannot hold what is no number, or beyond all numbers; a null is a null."""
    for value in (float("nan"), [1, {"a": float("inf")}], (-float("inf"), None)):
        with pytest.raises(CodecError):
            codecs.dump("json", value)
    assert b'{"a":[null,"null",1.5]}' == codecs.dump("json", {"a": [None, "null", 1.5]})


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("json", b"[" * 100_000),
        ("json", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)),
        ("json", b'"\xff"'),
        ("json", b"NaN"),
        ("json", b"1 2"),
        ("msgpack", b"\x91" * 100_000),
        ("msgpack", b"\x91" * (MAX_DEPTH + 1) + b"\xc0"),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("msgpack", b"\xdf\xff\xff\xff\xff"),
        ("msgpack", b"\xc7\x01\x05x"),
        ("msgpack", b"\x81\x81\xc0\xc0\xc0"),
        ("cbor", b"\x81" * 100_000),
        ("cbor", b"\x81" * (MAX_DEPTH + 1) + b"\xf6"),
        ("cbor", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("cbor", b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("cbor", b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff"),
        ("cbor", b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("cbor", b"\x9f\xf6\xff"),
        ("cbor", b"\x5f\xff"),
        ("cbor", b"\xff"),
        ("cbor", b"\x1c"),
        ("cbor", b"\xe0"),
        ("cbor", b"\xf7"),
        ("cbor", b"\xa1\x80\x01"),
        ("msgpack", b"\x81\x90\xc0"),
        ("cbor", b"\xf8\x20"),
        ("cbor", b"\x61\xff"),
        ("cbor", b"\xa2\x61a\x01\x61a\x02"),
        ("cbor", b"\xc1\x1a\x00\x00\x00\x00"),
        ("cbor", b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01"),  # a number of some exabytes
        ("cbor", b"\xd8\x23\x61("),  # a regular expression
        ("cbor", b"\xd8\x1c\x81\xd8\x1d\x00"),  # a list within itself
    ],
)
def test_bombs(codec: Codec, data: bytes) -> None:
    """Nesting, announced lengths, extensions and tags cost nothing and are refused."""
    with pytest.raises(CodecError):
        codecs.load(codec, data)


def test_the_deepest_value_that_is_taken() -> None:
    """Positive control: one level less is a value."""
    for codec in FORMS:
        value: object = []
        for _ in range(MAX_DEPTH - 1):
            value = [value]
        assert value == codecs.load(codec, codecs.dump(codec, value))


def test_types_are_checked() -> None:
    """With a type the value is one of it."""
    assert [1] == codecs.load("json", b"[1]", list[int])
    with pytest.raises(CodecError):
        codecs.load("cbor", b"\x81\x61a", list[int])
    with pytest.raises(CodecError):
        codecs.dump("json", object())
    with pytest.raises(CodecError):
        codecs.dump("raw", "text")
    with pytest.raises(CodecError):
        codecs.load("xml", b"")  # type: ignore[arg-type]
