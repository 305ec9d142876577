"""What callers send, parsed once into strict structures, never more of it than allowed."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from sandbox.types import ComponentId
from supervisor.control.errors import TooLargeError, ValidationError

MAX_JSON = 1 << 20
"""Largest JSON body, bytes."""
_T = TypeVar("_T", bound=msgspec.Struct)


async def read_bytes(request: web.Request, limit: int) -> bytes:
    """The whole body. Raises TooLargeError beyond `limit` bytes."""
    if request.content_length is not None and request.content_length > limit:
        raise TooLargeError(f"the body is larger than {limit} bytes", subject=f"{request.content_length} bytes")
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_chunked(1 << 16):
        size += len(part)
        if size > limit:
            raise TooLargeError(f"the body is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


async def read_json(request: web.Request, kind: type[_T]) -> _T:
    """The body as one structure. Raises ValidationError, TooLargeError."""
    body = await read_bytes(request, MAX_JSON)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(f"the body is not what this endpoint takes: {error}") from error


def read_query(request: web.Request, kind: type[_T]) -> _T:
    """The query string as one structure; a key given twice is refused. Raises ValidationError."""
    values: dict[str, str] = {}
    for key, value in request.query.items():
        if key in values:
            raise ValidationError("a query parameter is given twice", subject=key[:80])
        values[key] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ValidationError(f"the query is not what this endpoint takes: {error}") from error


def component_of(request: web.Request) -> ComponentId:
    """The component a path names. Raises ValidationError."""
    match = request.match_info
    return parse_component(f"{match['namespace']}/{match['name']}/{match['instance']}")


def parse_target(text: str) -> ComponentId:
    """A component id, or `ns/name/*` for one instance of all. Raises ValidationError."""
    try:
        return ComponentId.parse_target(text[:300])
    except ValueError as error:
        raise ValidationError(str(error)) from error


def parse_component(text: str) -> ComponentId:
    """A component id. Raises ValidationError."""
    try:
        return ComponentId.parse(text[:300])
    except ValueError as error:
        raise ValidationError(str(error)) from error
