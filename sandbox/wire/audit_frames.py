"""The vocabulary of the auditor's channels (SEQPACKET, one per producer, one `packet` message per frame).

A producer sends `Record` and gets `Recorded` once the line is written; it withholds its own answer until then.
`n` numbers a producer's records and survives the auditor's death: what was not acknowledged is sent again and the
auditor drops what it has already written. `LogLine` (a guest's log) is not acknowledged. Control may `Read`.
"""

from __future__ import annotations

import msgspec

RECORD, RECORDED, LOG_LINE, READ, READ_RESULT = 1, 2, 3, 4, 5
"""Packet kinds of the five frames."""


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One decision or event."""

    n: int
    event: str  # e.g. fs.read, storage.set, messaging.send, worker.ended, package.installed
    component: str  # ns/name/instance, or "" for the host
    decision: str  # allowed, denied, or info
    object: str  # path, key, target, ... as the asker named it
    result: str = ""  # ok, or the error's case
    detail: dict[str, str | int] = {}


class Recorded(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Record `n` is written, as line `seq` of the chain."""

    n: int
    seq: int


class LogLine(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line a guest logged."""

    component: str
    level: str
    message: str
    context: list[tuple[str, str]] = []


class Read(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Read lines back. `stream` is "audit" or "logs"; `after` is exclusive; newest `limit` when `after` is -1."""

    n: int
    stream: str
    after: int
    limit: int
    component: str = ""
    denied: bool = False


class ReadResult(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """JSON lines as they stand in the file, oldest first; `last` is the sequence number to go on from."""

    n: int
    lines: list[str]
    last: int
    error: str = ""
