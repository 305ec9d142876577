"""What a caller gives and gets: payloads, replies and events."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

from airssys import codecs
from airssys.client.errors import Invalid
from airssys.client.frames import PRIORITIES, Options

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
    missed just before this one, because it did not read fast enough.
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
    if ttl is not None and ttl <= 0:
        raise Invalid("a time to live is more than nothing")
    if values:
        codec, value = values[0]
        data = codecs.dump(codec, value)
        content_type = content_type or codecs.CONTENT_TYPES[codec]
    else:
        data = payload.encode() if isinstance(payload, str) else bytes(payload or b"")
    milliseconds = 0 if ttl is None else max(1, round(ttl * 1000))
    return data, Options(PRIORITIES.index(priority), milliseconds, key, content_type)
