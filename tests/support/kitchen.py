"""The guest `test/kitchen` from outside: how values are written to it, what may be said to it, what it must then reply.

Values are written here as `sandbox.abi.types` writes those without classes: a record is a tuple, an enum its case's
name, a variant a `Case`, a result `Ok` or `Err`. The guest's writing is that of tests/guests/kitchen/wire.h.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

from hypothesis import strategies as st

from sandbox import contract
from sandbox.abi.layout import members_of
from sandbox.abi.of_wit import Reader
from sandbox.abi.types import (
    BYTES,
    Case,
    EnumType,
    Err,
    Function,
    ListType,
    Ok,
    OptionType,
    Primitive,
    ResultType,
    Type,
    VariantType,
)
from sandbox.types import MAX_NAME, ComponentId
from sandbox.wire.bridge_ops import Op
from sandbox.wire.router_frames import (
    FAILURES,
    MAX_CONTENT_TYPE,
    MAX_KEY,
    MAX_TOPIC,
    MAX_TTL_MS,
    PRIORITIES,
    Options,
)
from sandbox.wit_resolve import Resolver

_NAMES = """
    storage.get storage.set storage.delete storage.exists storage.list-keys storage.usage
    host-messaging.send host-messaging.request host-messaging.cancel-request host-messaging.broadcast
    host-messaging.self-id
    host-services.log host-services.current-time host-services.current-time-millis host-services.sleep-millis
    host-services.list-components host-services.get-component-metadata
    filesystem.read filesystem.read-range filesystem.write filesystem.append filesystem.delete
    filesystem.make-directory filesystem.list filesystem.stat filesystem.rename
    messaging.send messaging.request messaging.publish messaging.subscribe messaging.unsubscribe messaging.defer
    messaging.reply messaging.fail messaging.current timers.send-after timers.send-every timers.cancel
"""
NUMBERS = {name: number for number, name in enumerate(_NAMES.split())}
"""The guest's number for each function of the host."""
MESSAGE, CALLBACK, FAIL, NONE, REFUSE_NEXT, INFO = range(64, 70)
"""What it can be told about itself."""
_INTEGERS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q"}


@functools.cache
def types() -> dict[str, Type]:
    """The types of `airssys:core/types` and `errors`, by name."""
    core = _reader()
    return {
        name: kind
        for interface in core.package.interfaces
        if interface.name in ("types", "errors")
        for name, kind in core.reader.types(core.package, interface).items()
    }


@functools.cache
def functions() -> dict[str, Function]:
    """Every function of `NUMBERS`."""
    known = contract.load()
    reader = Reader(Resolver.of(known.packages))
    return {
        f"{interface.name}.{name}": function
        for package in known.packages[: len(contract.PACKAGES)]
        for interface in package.interfaces
        for name, function in reader.functions(package, interface).items()
        if f"{interface.name}.{name}" in NUMBERS
    }


class _Core(NamedTuple):
    reader: Reader
    package: Any


def _reader() -> _Core:
    known = contract.load()
    return _Core(Reader(Resolver.of(known.packages)), known.packages[0])


# -- the guest's writing ----------------------------------------------------------------------------------------------


def written(kind: Type | None, value: Any) -> bytes:
    """`value` as the guest reads and writes it."""
    if kind is None:
        return b""
    if kind == BYTES:
        return struct.pack("<I", len(value)) + value
    members = members_of(kind)
    if members is not None:
        return b"".join(written(member, each) for member, each in zip(members, value, strict=True))
    match kind:
        case Primitive(kind="string"):
            text = value.encode()
            return struct.pack("<I", len(text)) + text
        case Primitive(kind="bool"):
            return bytes([value])
        case Primitive(kind=number):
            return struct.pack(_INTEGERS[number], value)
        case ListType(element):
            return struct.pack("<I", len(value)) + b"".join(written(element, each) for each in value)
        case OptionType(payload):
            return b"\0" if value is None else b"\1" + written(payload, value)
        case ResultType(ok, err):
            return b"\0" + written(ok, value.value) if isinstance(value, Ok) else b"\1" + written(err, value.value)
        case EnumType(cases):
            return bytes([cases.index(value)])
        case VariantType(choices):
            index = [name for name, _ in choices].index(value.name)
            return bytes([index]) + written(choices[index][1], value.value)
    raise AssertionError(kind)


def call(name: str, *arguments: Any) -> bytes:
    """The message that has the guest call a function."""
    kinds = [kind for _, kind in functions()[name].parameters]
    return bytes([NUMBERS[name]]) + b"".join(written(*pair) for pair in zip(kinds, arguments, strict=True))


def message(sender: ComponentId, payload: bytes, fields: dict[str, Any]) -> bytes:
    """What the guest replies to `MESSAGE` and `CALLBACK`; `fields` as in `paths.deliver`."""
    reply_to = fields.get("reply_to")
    about = (
        fields.get("correlation"),
        None if reply_to is None else tuple_of(reply_to),
        (fields.get("seconds", 1), fields.get("nanoseconds", 2)),
        fields.get("content_type"),
    )
    return written(types()["component-message"], (tuple_of(sender), payload, about))


def tuple_of(component: ComponentId) -> tuple[str, str, str]:
    """The record `component-id`."""
    return component.namespace, component.name, component.instance


# -- what may be said -------------------------------------------------------------------------------------------------

# Of each length in UTF-8 the least, the greatest and some between; hypothesis' own tables take seconds to be made.
_CHARACTERS = "\0\n\x1f aZ09/-~\x7f\x80é\u07ff\u0800\u202e日\ud7ff\ue000\ufeff\uffff\U00010000\U0001f600\U0010ffff"
TEXT = st.text(_CHARACTERS, max_size=60) | st.sampled_from(
    ["", "\0", "a\0b", "é", "日本", "\U0001f600", "\ufeff", "\u202e", "x" * 300, "\U0010ffff" * 1500]
)
BLOB = st.binary(max_size=200) | st.sampled_from(
    [b"", b"\0", b"\xff\xfe", bytes(range(256)), b"x" * 4000, b"y" * 4097, b"z" * 65_536, bytes(200_000)]
)


def values(kind: Type | None) -> st.SearchStrategy[Any]:
    """Any value of a type."""
    if kind is None:
        return st.none()
    if kind == BYTES:
        return BLOB
    members = members_of(kind)
    if members is not None:
        return st.tuples(*map(values, members))
    match kind:
        case Primitive(kind="string"):
            return TEXT
        case Primitive(kind="bool"):
            return st.booleans()
        case Primitive(kind=number):
            return st.integers(0, (1 << int(number[1:])) - 1)
        case ListType(element):
            return st.lists(values(element), max_size=5)
        case OptionType(payload):
            return st.none() | values(payload)
        case ResultType(ok, err):
            return values(ok).map(Ok) | values(err).map(Err)
        case EnumType(cases):
            return st.sampled_from(cases)
        case VariantType(choices):
            return st.one_of([values(payload).map(functools.partial(Case, name)) for name, payload in choices])
    raise AssertionError(kind)


# -- what the host's functions make of it -----------------------------------------------------------------------------

_OPS = {
    "storage.get": Op.STORAGE_GET,
    "storage.set": Op.STORAGE_SET,
    "storage.delete": Op.STORAGE_DELETE,
    "storage.exists": Op.STORAGE_EXISTS,
    "storage.list-keys": Op.STORAGE_LIST_KEYS,
    "storage.usage": Op.STORAGE_USAGE,
    "host-services.log": Op.LOG,
    "filesystem.read": Op.FS_READ,
    "filesystem.read-range": Op.FS_READ_RANGE,
    "filesystem.write": Op.FS_WRITE,
    "filesystem.append": Op.FS_APPEND,
    "filesystem.delete": Op.FS_DELETE,
    "filesystem.make-directory": Op.FS_MAKE_DIRECTORY,
    "filesystem.list": Op.FS_LIST,
    "filesystem.stat": Op.FS_STAT,
    "filesystem.rename": Op.FS_RENAME,
}
BRIDGED = tuple(_OPS)
"""Functions that are one request to the bridge."""
TYPED = tuple(name for name in NUMBERS if name.partition(".")[0] in ("messaging", "timers") and "current" not in name)
"""Functions of `airssys:messaging` that are one question to the router."""
ROUTED = (
    "host-messaging.send",
    "host-messaging.request",
    "host-messaging.cancel-request",
    "host-messaging.broadcast",
)
"""Functions that are one question to the router."""


def plain(kind: Type | None, value: Any) -> Any:
    """A value as the frames of the bridge carry it: records as lists, enums by number."""
    members = members_of(kind) if kind is not None else None
    if members is not None:
        return [plain(member, each) for member, each in zip(members, value, strict=True)]
    if isinstance(kind, EnumType):
        return kind.cases.index(value)
    if isinstance(kind, ListType) and kind != BYTES:
        return [plain(kind.element, each) for each in value]
    if isinstance(kind, OptionType):
        return None if value is None else plain(kind.payload, value)
    return value


def bridge_answer(name: str, result: Any) -> tuple[int, Any]:
    """What the bridge says so that the function's result is `result`."""
    kind = functions()[name].result
    if not isinstance(kind, ResultType):
        return 0, None
    if isinstance(result, Ok):
        return 0, plain(kind.ok, result.value)
    assert isinstance(kind.err, VariantType)
    return 1 + [case for case, _ in kind.err.cases].index(result.value.name), result.value.value


def bridge_question(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the bridge is then asked."""
    kinds = [kind for _, kind in functions()[name].parameters]
    if name == "host-services.log":
        level, text, context = plain(kinds[0], arguments[0]), arguments[1][: 16 * 1024], arguments[2]
        pairs = None if context is None else [(key[:256], value[:1024]) for key, value in context[:32]]
        return _OPS[name], level, text, pairs
    return _OPS[name], *(plain(kind, each) for kind, each in zip(kinds, arguments, strict=True))


def router_answer(name: str, arguments: tuple[Any, ...], result: Any) -> tuple[dict[str, Any], Any]:
    """What the router says so that the result is `result`, and the result then: an unknown target is the one asked."""
    if isinstance(result, Ok):
        return {"case": 0, "text": result.value or ""}, result
    kind = functions()[name].result
    assert isinstance(kind, ResultType)
    assert isinstance(kind.err, VariantType)
    case = 1 + [case for case, _ in kind.err.cases].index(result.value.name)
    if result.value.name != "target-not-found":
        return {"case": case, "text": result.value.value or ""}, result
    if name in ("host-messaging.send", "host-messaging.request"):
        return {"case": case}, Err(Case("target-not-found", cut(arguments[0])))
    return {"case": case, "components": [ComponentId(*result.value.value)]}, result


def router_question(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the router is then asked."""
    if name == "host-messaging.send":
        return "Send", ComponentId(*cut(arguments[0])), None, arguments[1]
    if name == "host-messaging.request":
        return "Request", ComponentId(*cut(arguments[0])), arguments[2], None, arguments[1]
    if name == "host-messaging.cancel-request":
        return "Cancel", arguments[0][: MAX_NAME + 1], b""
    return "Broadcast", [ComponentId(*cut(target)) for target in arguments[0]], arguments[1]


def cut(component: tuple[str, str, str]) -> tuple[str, ...]:
    """An id as the worker passes it on."""
    return tuple(part[: MAX_NAME + 1] for part in component)


# -- airssys:messaging ------------------------------------------------------------------------------------------------

_FRAMES = {
    "messaging.send": "Send",
    "messaging.request": "Request",
    "messaging.publish": "Publish",
    "messaging.subscribe": "Subscribe",
    "messaging.unsubscribe": "Unsubscribe",
    "messaging.defer": "Defer",
    "messaging.reply": "Respond",
    "messaging.fail": "Respond",
    "timers.send-after": "SetTimer",
    "timers.send-every": "SetTimer",
    "timers.cancel": "CancelTimer",
}


def typed_question(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What the router is asked; None when the worker answers by itself, because the router could not read it."""
    frame, given = _FRAMES[name], list(arguments)
    payload = b""
    if name in ("messaging.send", "messaging.request", "messaging.publish"):
        priority, ttl, key, kind = given.pop()
        if len(key) > MAX_KEY or (kind is not None and len(kind) > MAX_CONTENT_TYPE):
            return None
        number = PRIORITIES.index(priority)
        given.append(Options(number, min(ttl, MAX_TTL_MS), key, kind))
        payload = given.pop(1)
        given[0] = given[0] if name == "messaging.publish" else ComponentId(*cut(given[0]))
    elif frame in ("Respond", "SetTimer"):
        payload = given.pop()
    if frame in ("Publish", "Subscribe", "Unsubscribe") and len(given[0]) > MAX_TOPIC:
        return None
    if frame == "SetTimer":
        if given[0] > MAX_TTL_MS:
            return None
        given.append(name == "timers.send-every")
    if frame in ("Respond", "CancelTimer"):
        given[0] = given[0][:64]
    if frame == "Respond":
        given.append("" if name == "messaging.reply" else str(payload)[:4096] or "failed")
        payload = b"" if name == "messaging.fail" else payload
    return frame, *given, payload


def typed_answer(result: Any) -> dict[str, Any]:
    """What the router says so that the result is `result`."""
    if isinstance(result, Err):
        reason, text = result.value
        return {"case": 1 + FAILURES.index(reason), "text": text}
    if isinstance(result.value, int):
        return {"case": 0, "number": result.value}
    return {"case": 0, "text": result.value or ""}
