"""JSON, CBOR and MessagePack as payloads, with or without the prefix that says which (multicodec).

A payload is bytes: airssys never looks into it, and never turns one form into another. Where sender and receiver want
to tell the form by the bytes themselves, it stands in front of them as a multicodec number, an unsigned varint
(https://github.com/multiformats/multicodec):

    json     0x0200     CBOR (RFC 8949)     0x51
    msgpack  0x0201     raw bytes           0x55

Decoders are strict and bounded: one value and nothing behind it, text in UTF-8, at most `MAX_DEPTH` levels, and no
length that is believed before the bytes are there. CBOR needs the package `cbor2` (`airssys-wasm[client]`); tags are
refused, for what they stand for is made by code that a payload should not choose. In JSON, bytes are text in base64.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, get_args

import msgspec

Codec = Literal["json", "cbor", "msgpack", "raw"]
CODES: Final[dict[Codec, int]] = {"json": 0x0200, "cbor": 0x51, "msgpack": 0x0201, "raw": 0x55}
"""Numbers of the multicodec table."""
CONTENT_TYPES: Final[dict[Codec, str]] = {
    "json": "application/json",
    "cbor": "application/cbor",
    "msgpack": "application/vnd.msgpack",
    "raw": "application/octet-stream",
}
"""Content types of plain payloads."""
PREFIXED: Final = "application/vnd.airssys.multicodec"
"""Content type of a payload that begins with its multicodec number."""
MAX_DEPTH: Final = 64
"""Most levels of arrays and maps."""
NO_CBOR: Final = "CBOR needs the package cbor2: pip install 'airssys-wasm[client]'"
_MAX_VARINT: Final = 9


class CodecError(ValueError):
    """A value that cannot be written in this form, or bytes that are not one value of it."""


# -- with a prefix ----------------------------------------------------------------------------------------------


def encode(codec: Codec, value: Any) -> bytes:
    """A value with its multicodec number in front; of "raw", bytes.

    Raises:
        CodecError: the form cannot hold the value.
        ImportError: CBOR without `cbor2`.
    """
    return _varint(CODES[codec]) + dump(codec, value)


def decode(data: bytes) -> tuple[Codec, Any]:
    """The form and the value of a payload with a prefix.

    Raises:
        CodecError: no prefix of those above, or no value of that form behind it.
        ImportError: CBOR without `cbor2`.
    """
    codec, body = split(data)
    return codec, load(codec, body)


def split(data: bytes) -> tuple[Codec, bytes]:
    """The form a payload claims to be, and the bytes behind the prefix. Raises CodecError."""
    number = shift = 0
    for index, byte in enumerate(data[:_MAX_VARINT]):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            continue
        if byte == 0 and index:
            raise CodecError("a multicodec number longer than it needs to be")
        for codec, code in CODES.items():
            if code == number:
                return codec, data[index + 1 :]
        raise CodecError(f"unknown multicodec number {number:#x}")
    raise CodecError("no multicodec number")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# -- without ----------------------------------------------------------------------------------------------------


def dump(codec: Codec, value: Any) -> bytes:
    """A value in a form, without a prefix. Raises as `encode`."""
    try:
        match codec:
            case "json":
                data = msgspec.json.encode(value)
                if b"null" in data:  # which msgspec makes of numbers that JSON does not have
                    _check_numbers(msgspec.to_builtins(value))
                return data
            case "msgpack":
                return msgspec.msgpack.encode(value)
            case "cbor":
                cbor2 = _cbor2()
                return bytes(cbor2.dumps(value, default=_cbor_default))
            case "raw":
                if isinstance(value, bytes | bytearray | memoryview):
                    return bytes(value)
                raise CodecError("raw payloads are bytes")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, CodecError):
            raise
        raise CodecError(f"{codec} cannot hold this value: {error}") from error
    raise CodecError(f"unknown codec {codec!r}: {', '.join(get_args(Codec))}")


def load(codec: Codec, data: bytes, type: Any = Any) -> Any:
    """The one value of these bytes; with `type`, checked against it.

    Raises:
        CodecError: not one value of this form, or not of this type.
        ImportError: CBOR without `cbor2`.
    """
    try:
        match codec:
            case "json":
                value: Any = msgspec.json.decode(data)
            case "msgpack":
                value = msgspec.msgpack.decode(data, ext_hook=_no_extension)
            case "cbor":
                value = _load_cbor(data)
            case "raw":
                value = bytes(data)
            case _:
                raise CodecError(f"unknown codec {codec!r}: {', '.join(get_args(Codec))}")
        _check_depth(value)
        return value if type is Any else msgspec.convert(value, type)
    except CodecError:
        raise
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise CodecError(f"not {codec}: {error}") from error


def _no_extension(code: int, _data: memoryview) -> Any:
    raise CodecError(f"MessagePack extension {code} is not understood")


def _check_numbers(value: Any) -> None:
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
        elif isinstance(each, float) and not math.isfinite(each):
            raise CodecError(f"json cannot hold this value: {each}")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while containers := [each for each in level if isinstance(each, dict | list | tuple)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise CodecError(f"more than {MAX_DEPTH} levels")
        level = []
        for each in containers:
            if isinstance(each, dict):
                if any(isinstance(key, tuple | list | dict) for key in each):
                    raise CodecError("a map's key is a number or a text")
                level += each.values()
            else:
                level += each


# -- CBOR ---------------------------------------------------------------------------------------------------------

_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6


def _cbor2() -> Any:
    try:
        import cbor2
    except ImportError as error:
        raise ImportError(NO_CBOR) from error
    return cbor2


def _cbor_default(encoder: Any, value: Any) -> None:
    encoder.encode(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _load_cbor(data: bytes) -> Any:
    _check_cbor(data)
    cbor2 = _cbor2()
    try:
        return cbor2.loads(
            data, max_depth=MAX_DEPTH + 1, allow_indefinite=False, allow_duplicate_keys=False, str_errors="strict"
        )
    except cbor2.CBORDecodeError as error:
        raise CodecError(f"not cbor: {error}") from error


def _check_cbor(data: bytes) -> None:
    """Refuse what is not one well-formed value of definite length without tags (RFC 8949, appendix C)."""
    at, end = 0, len(data)
    left = [1]  # items still to come, of each level
    while left:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        if at >= end:
            raise CodecError("not cbor: it ends early")
        major, info = data[at] >> 5, data[at] & 0x1F
        at += 1
        argument = info
        if info >= 24:
            if info > 27:
                raise CodecError("not cbor: a length that is not told, or reserved")
            size = 1 << (info - 24)
            if at + size > end:
                raise CodecError("not cbor: it ends early")
            argument = int.from_bytes(data[at : at + size], "big")
            at += size
        if major in (_BYTES, _TEXT):
            at += argument
            if at > end:
                raise CodecError("not cbor: it ends early")
        elif major in (_ARRAY, _MAP):
            if argument > end - at:  # each item has a byte at least
                raise CodecError("not cbor: it ends early")
            if len(left) > MAX_DEPTH:
                raise CodecError(f"more than {MAX_DEPTH} levels")
            left.append(argument * (2 if major == _MAP else 1))
        elif major == _TAG:
            raise CodecError("cbor tags are not understood")
        elif major == 7 and (info < 20 or info in (23, 24)):
            raise CodecError("not cbor: a simple value without a meaning")  # undefined (23) among them
    if at != end:
        raise CodecError("not cbor: there is more behind the value")
