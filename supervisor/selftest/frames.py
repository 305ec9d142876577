"""Bytes for the two channels of a worker, made by the codecs the production uses: what an attack starts from.

What is on them and what it means: `sandbox.wire`. Arguments are taken as they are, wrong types included.
"""

from __future__ import annotations

import base64
import typing
from typing import Any

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId
from sandbox.wire import packet, router_frames, zmtp
from sandbox.wire.bridge_ops import Op
from supervisor.selftest.errors import SelftestError

_encoder = msgspec.msgpack.Encoder()
ROUTER = {
    name: kind
    for name, kind in vars(router_frames).items()
    if isinstance(kind, type) and issubclass(kind, router_frames._Frame) and kind is not router_frames._Frame
}
"""Every structure of the router's side by its name."""


def bridge_packets(name: str, arguments: list[Any]) -> list[bytes]:
    """The packets that carry a request to the bridge. Raises SelftestError for a name there is not."""
    try:
        op = Op[name.upper().replace("-", "_")]
    except KeyError as error:
        known = ", ".join(op.name for op in Op)
        raise SelftestError("the bridge has no such operation", subject=name, hint=f"it has {known}") from error
    return packet.split(op, _encoder.encode([_plain(argument) for argument in arguments]))


def bridge_answer(data: bytes) -> tuple[int, Any]:
    """Kind and value of an answer that fits one packet. Raises SelftestError."""
    try:
        message = packet.Assembler().feed(data)
        if message is None:
            raise SelftestError("the answer goes on in another packet")
        return message[0], msgspec.msgpack.decode(message[1]) if message[1] else None
    except (ProtocolViolation, msgspec.MsgspecError) as error:
        raise SelftestError(f"not an answer of the bridge: {error}", subject=data[:16].hex()) from error


def router_message(name: str, fields: dict[str, Any], payload: bytes) -> bytes:
    """The bytes of a message to the router; fields that are not given have their defaults.

    Raises:
        SelftestError: no such structure, no such field, or one without a default is missing.
    """
    kind = ROUTER.get(name)
    if kind is None:
        raise SelftestError("the router's side has no such frame", subject=name, hint=f"it has {', '.join(ROUTER)}")
    known = msgspec.structs.fields(kind)
    if unknown := fields.keys() - {field.name for field in known}:
        raise SelftestError(f"{name} has no such field", subject=", ".join(sorted(unknown)))
    body: list[Any] = [kind.__name__]
    for field in known:
        if field.name in fields:
            body.append(_component(field.type, _plain(fields[field.name])))
        elif field.default is not msgspec.NODEFAULT:
            body.append(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            body.append(field.default_factory())
        else:
            raise SelftestError(f"{name} needs a value", subject=field.name)
    return zmtp.encode_message([_encoder.encode(body), payload])


def _component(kind: Any, value: Any) -> Any:
    """A component may be written as text."""
    if isinstance(value, str) and ComponentId in (kind, *typing.get_args(kind)):
        return value.split("/")
    if isinstance(value, list) and typing.get_origin(kind) is list and typing.get_args(kind) == (ComponentId,):
        return [_component(ComponentId, item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """JSON has no bytes: `{"bytes": BASE64}` stands for them."""
    if isinstance(value, dict) and value.keys() == {"bytes"} and isinstance(value["bytes"], str):
        return base64.b64decode(value["bytes"])
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
