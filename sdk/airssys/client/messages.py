"""What a caller gives and gets: payloads, replies and events."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

from airssys import codecs
from airssys.client.errors import Invalid
from airssys.client.frames import MAX_CONTENT_TYPE, MAX_KEY, MAX_TTL_MS, PRIORITIES, Options

T = TypeVar("T")
UNSET: Any = msgspec.UNSET
"""No value: `None` is one."""


class Payload(msgspec.Struct, frozen=True):
    """Bytes that came from a component or a publisher."""

    payload: bytes

    @property
    def text(self) -> str:
        """The payload as UTF-8. Raises UnicodeDecodeError."""
        return self.payload.decode()

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, type: type[T]) -> T: ...
    def json(self, type: Any = Any) -> Any:
        """The payload as JSON; with `type` (anything `msgspec.convert` knows) checked. Raises CodecError."""
        return codecs.load("json", self.payload, type)

    @overload
    def msgpack(self) -> Any: ...
    @overload
    def msgpack(self, type: type[T]) -> T: ...
    def msgpack(self, type: Any = Any) -> Any:
        """The payload as MessagePack; `type` as in `json`. Raises CodecError."""
        return codecs.load("msgpack", self.payload, type)

    @overload
    def cbor(self) -> Any: ...
    @overload
    def cbor(self, type: type[T]) -> T: ...
    def cbor(self, type: Any = Any) -> Any:
        """The payload as CBOR; `type` as in `json`. Raises CodecError, and ImportError without `cbor2`."""
        return codecs.load("cbor", self.payload, type)

    def value(self) -> Any:
        """The value of a payload that begins with its multicodec number (`airssys.codecs`). Raises CodecError."""
        return codecs.decode(self.payload)[1]


class Reply(Payload, frozen=True):
    """The answer to a request. `some` is False where the handler gave no value; the payload is empty then.

    `message` and `correlation` are for `airssys trace`.
    """

    some: bool = True
    message: int = 0
    correlation: str = ""


class Event(Payload, frozen=True):
    """A publication that a subscription covers.

    `at` is seconds since 1970, set by the host as `sender` is. `lost` says how many events this subscriber may have
    missed just before this one, because it did not read fast enough. `message` is the host's number for what this one
    subscriber got; events to programs are not traced.
    """

    topic: str = ""
    sender: str = ""
    message: int = 0
    at: float = 0.0
    content_type: str | None = None
    priority: str = "normal"
    lost: int = 0


def outgoing(
    payload: bytes | str | None,
    json: Any,
    cbor: Any,
    msgpack: Any,
    content_type: str | None,
    priority: str,
    ttl: float | None,
    key: str,
) -> tuple[bytes, Options]:
    """The bytes and options of one message. Raises Invalid, CodecError, ImportError (CBOR without `cbor2`)."""
    given: dict[codecs.Codec, Any] = {"json": json, "cbor": cbor, "msgpack": msgpack}
    values = [(codec, value) for codec, value in given.items() if value is not UNSET]
    if len(values) + (payload is not None) > 1:
        raise Invalid("one payload: bytes, json, cbor or msgpack")
    if priority not in PRIORITIES:
        raise Invalid(f"priority is one of {', '.join(PRIORITIES)}")
    if content_type is not None:
        text("a content type", content_type, MAX_CONTENT_TYPE)
    if values:
        codec, value = values[0]
        data = codecs.dump(codec, value)
        content_type = content_type or codecs.CONTENT_TYPES[codec]
    else:
        data = _bytes(payload)
    ttl_ms = 0 if ttl is None else milliseconds("a time to live", ttl, MAX_TTL_MS)
    return data, Options(PRIORITIES.index(priority), ttl_ms, text("a key", key, MAX_KEY), content_type)


def _bytes(payload: bytes | str | None) -> bytes:
    if payload is None:
        return b""
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    if not isinstance(payload, str):
        raise Invalid("a payload is bytes or text; other values are given as json=, cbor= or msgpack=")
    try:
        return payload.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"a payload's text cannot be UTF-8: {error.reason}") from error


def text(what: str, value: str, most: int) -> str:
    """A word for the host, as it takes it: text that UTF-8 can hold, `most` characters. Raises Invalid."""
    if not isinstance(value, str):
        raise Invalid(f"{what} is text")
    if len(value) > most:
        raise Invalid(f"{what} has {most} characters at most, not {len(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Invalid(f"{what} cannot be UTF-8: {error.reason}") from error
    return value


def milliseconds(what: str, seconds: float, most: int) -> int:
    """A span of time as the host takes it: more than nothing, at most `most` milliseconds. Raises Invalid."""
    if not isinstance(seconds, int | float) or not 0 < seconds <= most / 1000:
        raise Invalid(f"{what} is more than 0 seconds and at most {most // 1000}")
    return max(1, round(seconds * 1000))
