"""How payloads are given on the command line, and how replies are shown; how little the help costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from airssys import codecs

from supervisor.cli.errors import OperatorError
from supervisor.cli.payloads import (
    INDENTED_BYTES,
    INDENTED_DEPTH,
    MAX_PAYLOAD,
    PLAIN,
    Payload,
    as_json,
    order,
    payload,
    pretty,
    unreadable,
)

pytestmark = pytest.mark.block11_cli
NONE: dict[str, str | None] = dict.fromkeys(("data", "text", "file", "dash", "codec", "content_type"))


def given(**values: str) -> Payload:
    return payload(**{**NONE, **values})  # type: ignore[arg-type]


def test_forms() -> None:
    """`--json` is sent as it stands; with `--codec` the value has the form's bytes and a prefix."""
    assert (b'{"a": 1}', "application/json") == given(text='{"a": 1}')
    assert (b"x", PLAIN) == given(data="x")
    assert (b"x", "text/x") == given(data="x", content_type="text/x")
    assert (b"\x80\x04" + b'{"a":1}', codecs.PREFIXED) == given(text='{"a": 1}', codec="json")
    assert (b"\x81\x04\x81\xa1a\x01", codecs.PREFIXED) == given(data='{"a": 1}', codec="msgpack")
    with pytest.raises(OperatorError):
        given(text="{")
    with pytest.raises(OperatorError):
        given(data="{", codec="cbor")
    with pytest.raises(OperatorError):
        given(text=str(1 << 70), codec="msgpack")
    with pytest.raises(click.UsageError):
        given(data="x", text="1")
    assert {"priority": "high", "ttl": 2000, "key": "k"} == order("high", "2s", "k")
    assert {} == order(None, None)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b'{"b":1,"a":[2]}', '{\n  "b": 1,\n  "a": [\n    2\n  ]\n}'),
        (b"Q1", "Q1"),  # text, though a number in CBOR with its prefix
        (b"12", "12"),
        (b"plain text\n", "plain text\n"),
        (b"\x80\x04[1]", "[\n  1\n]"),
        (b"\x81\x04\x81\xa1a\xc4\x02\x00\xff", '{\n  "a": "00ff"\n}'),
        (b"\xff\x00", "ff 00"),
        (b"\x81\x04\xc1", "81 04 c1"),
        (b"", ""),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_pretty(data: bytes, shown: str) -> None:
    """JSON and prefixed values are indented, text stays text, and what nobody can read is hexadecimal."""
    assert shown == pretty(data)


def _nested(depth: int, inner: bytes) -> bytes:
    return b"[" * depth + inner + b"]" * depth


def test_pretty_is_bounded() -> None:
    """A deep or a long reply is shown as it is: what a component answers cannot make the terminal's text explode."""
    assert INDENTED_DEPTH + 1 < pretty(_nested(INDENTED_DEPTH, b"1")).count("\n")
    numbers = b"1," * 10_000 + b"1"
    for data in (_nested(300, numbers), _nested(17, numbers), _nested(1, b"1," * INDENTED_BYTES + b"1")):
        assert data.decode() == pretty(data)
    deep: object = 1
    for _ in range(40):
        deep = [deep, 1]
    assert "\n" not in pretty(codecs.encode("msgpack", deep))
    assert len(pretty(codecs.encode("msgpack", [1] * 100_000))) <= 3 * 100_000


@pytest.mark.parametrize("data", [b"\x1b[2J", b'["\x7f"]', codecs.encode("msgpack", "\x1b]0;x\x07"), "\u202e".encode()])
def test_a_terminal_is_not_told_what_to_do(data: bytes) -> None:
    """Control characters in a reply are shown as escapes, whatever form they come in."""
    assert not set(pretty(data)) & {"\x1b", "\x07", "\x7f", "\u202e"}


@pytest.mark.parametrize("text", ["[" * 100_000, "[NaN]", "[-Infinity]", "[1e400]", '{"a":1,"a":2}', "[1] 2"])
def test_json_that_is_none(text: str) -> None:
    """What is no JSON, or means something else to the next reader, is refused; a reply like it is shown as it is."""
    with pytest.raises(OperatorError):
        given(text=text)
    assert text == pretty(text.encode())


def test_payloads_without_an_end(tmp_path: Path) -> None:
    """A file is read no further than a payload may be long."""
    with pytest.raises(OperatorError, match="at most"):
        given(file="/dev/zero")
    whole = tmp_path / "whole"
    whole.write_bytes(bytes(MAX_PAYLOAD))
    assert MAX_PAYLOAD == len(given(file=str(whole)).data)


def test_numbers_that_json_has_not() -> None:
    """A component cannot make the command line print what is no JSON."""
    numbers = [float("nan"), float("inf"), -float("inf"), 1.5]
    told = as_json(codecs.encode("msgpack", {"a": numbers}))
    assert {"a": ["nan", "inf", "-inf", 1.5]} == json.loads(json.dumps(told, allow_nan=False))["value"]
    assert "NaN" not in pretty(codecs.encode("msgpack", numbers))


def test_cbor_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CBOR cannot be read, the package that reads it is named."""
    monkeypatch.setitem(sys.modules, "cbor2", None)
    data = b"\x51\xa1aa\x01"
    assert codecs.NO_CBOR == unreadable(data) == as_json(data)["error"]
    assert ["", ""] == [unreadable(b"Q1"), unreadable(b"\xff")]
    with pytest.raises(OperatorError, match="cbor2"):
        given(data="1", codec="cbor")
    with pytest.raises(ImportError, match="pip install"):
        codecs.dump("cbor", 1)


def test_replies_as_json() -> None:
    """Text, else base64; and the value of a payload with a prefix, whatever it holds."""
    assert {"text": "x"} == as_json(b"x")
    assert {"base64": "/w=="} == as_json(b"\xff")
    told = as_json(codecs.encode("msgpack", {1: [b"\x01"], "a": None}))
    assert ("msgpack", {"1": ["01"], "a": None}) == (told["codec"], told["value"])
    assert json.dumps(told)


@pytest.mark.parametrize("command", ["request", "publish", "trace", "deadletters"])
def test_help_loads_little(command: str) -> None:
    """`--help` has an example and loads neither the HTTP client nor the codecs."""
    program = (
        "import sys\nfrom supervisor.cli.app import run\n"
        f"status = run([{command!r}, '--help'])\n"
        "print([m for m in ('httpx', 'airssys', 'cbor2', 'zmq', 'rich') if m in sys.modules], status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"airssys {command} " in done.stdout
    assert "Example:" in done.stdout
    assert done.stdout.endswith("[] 0\n")
