"""Payloads on the command line: how they are given, in which form they go out, and how replies are shown."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from typing import IO, Any, NamedTuple, cast

import click

from supervisor.cli.errors import OperatorError
from supervisor.cli.escape import clean

PLAIN = "application/octet-stream"
MAX_PAYLOAD = 8 << 20
"""Largest message from outside, bytes, as control has it."""
_CBOR = b"\x51"
INDENTED_BYTES, INDENTED_DEPTH = 64 << 10, 16
"""Replies beyond it are shown as they are: indented, a deep one would be hundreds of times as long."""


class Payload(NamedTuple):
    """Bytes and what the component is told of them."""

    data: bytes
    content_type: str


def payload_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that give a payload, and the order of a message."""
    for option in reversed(
        [
            click.option("--data", metavar="TEXT", help="The payload as text."),
            click.option("--json", "text", metavar="JSON", help="The payload as JSON, checked."),
            click.option("--file", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Its file."),
            click.option(
                "--codec",
                type=click.Choice(["json", "cbor", "msgpack"]),
                help="Send the JSON that is given in this form, its multicodec number in front.",
            ),
            click.option("--content-type", metavar="TYPE", help="What the component is told of the payload."),
            click.option(
                "--priority", type=click.Choice(["low", "normal", "high", "critical"]), help="Default: normal."
            ),
            click.option("--ttl", metavar="SPAN", help="After this it is not delivered any more. Default: none."),
        ]
    ):
        command = option(command)
    return command


def payload(
    *,
    data: str | None,
    text: str | None,
    file: str | None,
    dash: str | None,
    codec: str | None,
    content_type: str | None,
) -> Payload:
    """The payload that was given, once, in the form asked for. Raises UsageError, OperatorError."""
    given = [value for value in (data, text, file, dash) if value is not None]
    if len(given) > 1:
        raise click.UsageError("Give the payload once: --data, --json, --file or -.")
    if dash is not None and dash != "-":
        raise click.UsageError(f"Unexpected argument {dash!r}; a payload is given with --data.")
    if text is not None:
        _parsed(text, "--json")
        found = Payload(text.encode(), "application/json")
    elif file is not None:
        with open(file, "rb") as opened:
            found = Payload(_all_of(opened), PLAIN)
    elif dash is not None:
        found = Payload(_all_of(sys.stdin.buffer), PLAIN)
    else:
        found = Payload((data or "").encode("utf-8", "surrogateescape"), PLAIN)
    if codec is not None:
        found = _prefixed(codec, found.data)
    return found if content_type is None else Payload(found.data, content_type)


def _all_of(source: IO[bytes]) -> bytes:
    """What a file holds, which may be one without an end. Raises OperatorError."""
    data = source.read(MAX_PAYLOAD + 1)
    if len(data) > MAX_PAYLOAD:
        raise OperatorError(f"a payload has {MAX_PAYLOAD} bytes at most")
    return data


def _parsed(text: str | bytes, what: str) -> Any:
    try:
        return _json(text)
    except RecursionError as error:
        raise OperatorError(f"{what} is JSON of too many levels") from error
    except ValueError as error:
        raise OperatorError(f"{what} is no JSON: {error}") from error


def _json(text: str | bytes) -> Any:
    """A value of JSON that means the same to everybody. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_no_number, parse_float=_number, object_pairs_hook=_object)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _prefixed(codec: str, data: bytes) -> Payload:
    from airssys import codecs

    value = _parsed(data, "the payload")
    try:
        return Payload(codecs.encode(cast(codecs.Codec, codec), value), codecs.PREFIXED)
    except ImportError as error:
        raise OperatorError(codecs.NO_CBOR) from error
    except codecs.CodecError as error:
        raise OperatorError(str(error)) from error


def milliseconds(text: str) -> int:
    """A span of time. Raises OperatorError."""
    from supervisor.packages.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise OperatorError(f"not a time span: {text}", hint="as in 500ms, 5s or 2m") from error


def order(priority: str | None, ttl: str | None, key: str | None = None) -> dict[str, str | int]:
    """What was said of a message beside its payload, as the API takes it."""
    said: dict[str, str | int] = {}
    if priority is not None:
        said["priority"] = priority
    if ttl is not None:
        said["ttl"] = milliseconds(ttl)
    if key is not None:
        said["key"] = key
    return said


# -- replies --------------------------------------------------------------------------------------------------


def as_json(data: bytes) -> dict[str, Any]:
    """Bytes from a component for `--output json`: their text or base64, and the value of a multicodec payload."""
    import base64

    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        shown: dict[str, Any] = {"base64": base64.b64encode(data).decode()}
    form, value = _value(data)
    if not form and (lack := unreadable(data)):
        return shown | {"codec": "cbor", "error": lack}
    return shown | {"codec": form, "value": value} if form else shown


def unreadable(data: bytes) -> str:
    """Why a value in CBOR cannot be shown here; "" where it can, and of everything else."""
    from airssys import codecs

    if data[:1] != _CBOR or importlib.util.find_spec("cbor2") is not None:
        return ""
    try:
        data.decode()
    except UnicodeDecodeError:
        return codecs.NO_CBOR
    return ""  # shown as text


def pretty(data: bytes) -> str:
    """Bytes from a component for a person: JSON indented, other values as JSON, text as it is, else hexadecimal."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        form, value = _value(data)
        return clean(_indented(value, len(data)), lines=True) if form else data.hex(" ")
    if len(data) > INDENTED_BYTES:
        return clean(text, lines=True)
    try:
        value = _json(text)
    except (ValueError, RecursionError):
        return clean(text, lines=True)
    if not isinstance(value, dict | list) or not _is_flat(value):
        return clean(text, lines=True)
    return clean(_indented(value, len(data)), lines=True)


def _indented(value: Any, size: int) -> str:
    """A value that came as `size` bytes, as JSON: indented where it is small and not deep."""
    return json.dumps(value, indent=2 if size <= INDENTED_BYTES and _is_flat(value) else None, ensure_ascii=False)


def _is_flat(value: Any) -> bool:
    level = [value]
    for _ in range(INDENTED_DEPTH + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return True
        level = [each for inner in level for each in (inner.values() if isinstance(inner, dict) else inner)]
    return False


def _value(data: bytes) -> tuple[str, Any]:
    """The form and the value of a multicodec payload, as JSON has them; "" where it is none, or cannot be read here."""
    from airssys import codecs

    try:
        form, value = codecs.decode(data)
    except (codecs.CodecError, ImportError):
        return "", None
    return form, _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes in hexadecimal, keys as text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "nan", "inf" and "-inf": JSON has no such numbers
    return value if isinstance(value, str | int | float | bool | None) else str(value)
