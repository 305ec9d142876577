"""One request of a worker: is it permitted, carry it out, say what to answer and what to record.

`TABLE` is the whole of what a worker may ask on fd 3. Everything else, an unknown operation or arguments of another
shape, is a protocol violation and ends the worker. Checks happen here, on parsed paths, before any executor runs; the
executors then judge the object itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from bridge import filesystem
from bridge.capabilities import Compiled
from bridge.paths import TEMPORARY, FsFailure, Place
from bridge.patterns import InvalidPath, parse_guest_path
from bridge.storage import Storage, StorageFailure
from sandbox.errors import ProtocolViolation
from sandbox.types import ComponentId
from sandbox.wire.bridge_ops import ANSWER, FsError, Op, StorageError
from sandbox.wire.packet import split

LEVELS = ("trace", "debug", "info", "warn", "error")
"""Names of `log-level`, by index."""

# -- arguments ------------------------------------------------------------------------------------------------

U64 = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack holds nothing larger


class _Arguments(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class NoArguments(_Arguments, frozen=True):
    """Nothing."""


class OnPath(_Arguments, frozen=True):
    """One path."""

    path: str


class OnRange(_Arguments, frozen=True):
    """One path and a range of the file."""

    path: str
    offset: U64
    length: U64


class PathAndData(_Arguments, frozen=True):
    """One path and bytes for it."""

    path: str
    data: bytes


class TwoPaths(_Arguments, frozen=True):
    """From, to."""

    path: str
    to: str


class OnKey(_Arguments, frozen=True):
    """One storage key."""

    key: str


class KeyAndValue(_Arguments, frozen=True):
    """One storage key and its value."""

    key: str
    value: bytes


class OnPrefix(_Arguments, frozen=True):
    """The beginning of keys, or all."""

    prefix: str | None


class LogArguments(_Arguments, frozen=True):
    """A line of the guest's log."""

    level: Annotated[int, msgspec.Meta(ge=0, le=len(LEVELS) - 1)]
    message: str
    context: list[tuple[str, str]] | None


class SleepArguments(_Arguments, frozen=True):
    """Until when, and when the worker's message must be over: nanoseconds of CLOCK_MONOTONIC."""

    until: U64
    deadline: U64


# -- the table ------------------------------------------------------------------------------------------------


class Rights(NamedTuple):
    """What one component is given: its policy, its bound places in the policy's order, the storage of all."""

    component: ComponentId
    policy: Compiled
    places: Sequence[Place]
    storage: Storage


class Decision(NamedTuple):
    """What to answer and what to record."""

    answer: list[bytes]  # packets
    event: str
    decision: str  # allowed, denied
    object: str
    result: str
    detail: dict[str, str | int]


class Row(NamedTuple):
    """One operation: how its arguments look, which access it needs (any of them), who does it, how it is recorded."""

    arguments: type[_Arguments]
    access: tuple[str, ...]
    execute: Callable[..., Any] | None
    event: str


TABLE: Mapping[int, Row] = {
    # operation           arguments       access (any of)    executor                     audit event
    Op.FS_READ: Row(OnPath, ("read",), filesystem.read, "fs.read"),
    Op.FS_READ_RANGE: Row(OnRange, ("read",), filesystem.read_range, "fs.read"),
    Op.FS_WRITE: Row(PathAndData, ("write",), filesystem.write, "fs.write"),
    Op.FS_APPEND: Row(PathAndData, ("write",), filesystem.append, "fs.append"),
    Op.FS_DELETE: Row(OnPath, ("delete",), filesystem.delete, "fs.delete"),
    Op.FS_MAKE_DIRECTORY: Row(OnPath, ("write",), filesystem.make_directory, "fs.make-directory"),
    Op.FS_LIST: Row(OnPath, ("list",), filesystem.list_directory, "fs.list"),
    Op.FS_STAT: Row(OnPath, ("read", "list"), filesystem.status, "fs.stat"),
    Op.FS_RENAME: Row(TwoPaths, ("delete",), filesystem.rename, "fs.rename"),
    Op.STORAGE_GET: Row(OnKey, ("read",), Storage.get, "storage.get"),
    Op.STORAGE_SET: Row(KeyAndValue, ("write",), Storage.set, "storage.set"),
    Op.STORAGE_DELETE: Row(OnKey, ("write",), Storage.delete, "storage.delete"),
    Op.STORAGE_EXISTS: Row(OnKey, ("read",), Storage.exists, "storage.exists"),
    Op.STORAGE_LIST_KEYS: Row(OnPrefix, ("read",), Storage.list_keys, "storage.list-keys"),
    Op.STORAGE_USAGE: Row(NoArguments, ("read", "write"), Storage.usage, "storage.usage"),
    # Services: no capability, no record; the session carries them out.
    Op.LOG: Row(LogArguments, (), None, ""),
    Op.SLEEP: Row(SleepArguments, (), None, ""),
}
"""Everything a worker may ask. `stat` needs read or list; a rename is checked further in `_rename`."""

_DECODERS = {op: msgspec.msgpack.Decoder(row.arguments) for op, row in TABLE.items()}
_encoder = msgspec.msgpack.Encoder()


def parse(kind: int, body: bytes) -> _Arguments:
    """The arguments of a request.

    Raises:
        ProtocolViolation: no such operation, or not its arguments.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise ProtocolViolation("unknown operation", subject=str(kind))
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolViolation(f"wrong arguments of {Op(kind).name}: {error}", subject=str(kind)) from error


def answer(op: int, value: object, case: int = 0) -> list[bytes]:
    """The packets of an answer: a value, or a case and its text."""
    return split(op | ANSWER, _encoder.encode((case, value)))


def decide(rights: Rights, op: int, arguments: _Arguments) -> Decision:
    """Check, execute, and say what to answer and record. Never raises for what a guest can cause."""
    row = TABLE[op]
    if isinstance(arguments, TwoPaths):
        return _file(rights, op, row, arguments, _rename)
    if isinstance(arguments, (OnPath, OnRange, PathAndData)):
        return _file(rights, op, row, arguments, _one_path)
    return _store(rights, op, row, arguments)


# -- files ----------------------------------------------------------------------------------------------------


def _file(rights: Rights, op: int, row: Row, arguments: Any, run: Callable[[Rights, Row, Any], Any]) -> Decision:
    detail: dict[str, str | int] = {}
    if isinstance(arguments, TwoPaths):
        detail["to"] = arguments.to
    elif isinstance(arguments, PathAndData):
        detail["bytes"] = len(arguments.data)
    try:
        value = run(rights, row, arguments)
    except FsFailure as error:
        case = error.case
        decision = "denied" if case in (FsError.DENIED, FsError.INVALID_PATH) else "allowed"
        if case in (FsError.DENIED, FsError.INVALID_PATH):
            detail["why"] = error.message
        text = f"{arguments.path}: {error.message}"
        name = case.name.lower().replace("_", "-")
        return Decision(answer(op, text, int(case)), row.event, decision, arguments.path, name, detail)
    if isinstance(value, bytes):
        detail["bytes"] = len(value)
    return Decision(answer(op, value), row.event, "allowed", arguments.path, "ok", detail)


def _one_path(rights: Rights, row: Row, arguments: Any) -> Any:
    path = _parse(arguments.path)
    if not any(rights.policy.allows(path, word) for word in row.access):
        raise FsFailure(FsError.DENIED, f"no capability covers this path with {' or '.join(row.access)}")
    place, rest = _place(rights, path)
    assert row.execute is not None
    _, *others = msgspec.structs.astuple(arguments)
    return row.execute(place, rest, *others)


def _rename(rights: Rights, row: Row, arguments: TwoPaths) -> None:
    old, new = _parse(arguments.path), _parse(arguments.to)
    policy = rights.policy
    if not (policy.allows(old, "delete") and policy.allows(old, "write") and policy.allows(new, "write")):
        raise FsFailure(FsError.DENIED, "moving needs delete and write on the old path and write on the new")
    directory = policy.may_move(old, new, directory=True)
    if not directory and not policy.may_move(old, new, directory=False):
        raise FsFailure(FsError.DENIED, "moving it would widen what may be done with it")
    place, rest = _place(rights, old)
    other, new_rest = _place(rights, new)
    if place is not other:
        raise FsFailure(FsError.DENIED, "the two paths are not in one bound place")
    assert row.execute is not None
    row.execute(place, rest, new_rest, directory)


def _parse(text: str) -> tuple[str, ...]:
    try:
        path = parse_guest_path(text)
    except InvalidPath as error:
        raise FsFailure(FsError.INVALID_PATH, error.message) from error
    if any(part.startswith(TEMPORARY) for part in path):
        raise FsFailure(FsError.INVALID_PATH, f"names that begin with {TEMPORARY} are the host's")
    return path


def _place(rights: Rights, path: tuple[str, ...]) -> tuple[Place, tuple[str, ...]]:
    found = rights.policy.binding_for(path)
    if found is None:
        raise FsFailure(FsError.DENIED, "nothing is bound there")
    index, rest = found
    return rights.places[index], rest


# -- storage --------------------------------------------------------------------------------------------------


def _store(rights: Rights, op: int, row: Row, arguments: Any) -> Decision:
    values = msgspec.structs.astuple(arguments)
    name = next((value for value in values if isinstance(value, str)), "")
    detail: dict[str, str | int] = {}
    if isinstance(arguments, KeyAndValue):
        detail["bytes"] = len(arguments.value)
    if not any(rights.policy.allows_storage(word) for word in row.access):
        # `storage-error` has no case for it; the text says what happened, and the record that it was denied.
        text = f"denied: no capability to {' or '.join(row.access)} storage"
        return Decision(answer(op, text, int(StorageError.IO_ERROR)), row.event, "denied", name, "denied", detail)
    assert row.execute is not None
    if isinstance(arguments, (KeyAndValue, NoArguments)):
        values = (*values, rights.policy.limits)
    try:
        value = row.execute(rights.storage, rights.component, *values)
    except StorageFailure as error:
        # Even QUOTA_EXCEEDED, which carries no text in WIT, has one here: the frame has one shape.
        case = error.case.name.lower().replace("_", "-")
        return Decision(answer(op, error.message, int(error.case)), row.event, "allowed", name, case, detail)
    if isinstance(value, bytes):
        detail["bytes"] = len(value)
    return Decision(answer(op, value), row.event, "allowed", name, "ok", detail)
