"""The audit log's format: one canonical JSON line per record, each bound to the one before, signed in between.

A line is RFC 8785 canonical JSON with the members

    seq        1, 2, 3, ... over all files of the log
    time       RFC 3339, UTC, microseconds; the auditor's clock
    producer   who recorded it, as the supervisor named its channel; "auditor" for the log's own lines
    n          the producer's number of the record; 0 for the log's own lines
    event component decision object result detail        see `sandbox.wire.audit_frames.Record`
    lost       names of the walls the host ran without, sorted (`sandbox.walls`); only where there are any
    prev       SHA-256 of the previous line's bytes without its line feed, hexadecimal; 64 zeros before the first
    hash       SHA-256 of this line's canonical form without `hash`

An event `audit.checkpoint` carries in `detail` an Ed25519 signature over the text of `checkpoint_text`: the line before
it and, through `prev`, everything before that. Who can write the file but has not the key cannot change, remove or
reorder a line before a checkpoint; a checkpoint copied elsewhere (`size` and `head`) shows a log that was cut.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sandbox.errors import AirssysError
from sandbox.wire.audit_frames import Record

GENESIS = "0" * 64
"""`prev` of the first line."""
CHECKPOINT = "audit.checkpoint"
CHECKPOINT_EVERY = 1_000
"""Lines between checkpoints."""
AUDITOR = "auditor"
"""Producer of the log's own lines."""
_SAFE = 2**53 - 1
"""Largest integer canonical JSON holds; larger ones stand as text."""


class ChainBroken(AirssysError):
    """A line of the audit log does not follow from the one before, or a signature is wrong."""

    code = "E_AUDIT_CHAIN"

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"the audit log's chain is broken at line {line}: {why}", subject=f"line {line}")
        self.line = line
        self.why = why


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line."""

    seq: int
    time: str
    producer: str
    n: int
    event: str
    component: str
    decision: str
    object: str
    result: str
    detail: dict[str, str | int]
    prev: str
    hash: str
    lost: list[str] = []


class Verified(NamedTuple):
    """What a whole chain proved."""

    lines: int
    first_seq: int  # 0 for none
    last_seq: int
    head: str  # SHA-256 of the last line; what the next line's prev must be
    checkpoints: int
    signed_seq: int  # the last line a checkpoint covers


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False).encode
decode_entry = msgspec.json.Decoder(Entry).decode
"""Parse one line (raises msgspec.DecodeError)."""


def now() -> str:
    """The time as it stands in a line."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def line_hash(line: bytes) -> str:
    """What the next line's `prev` must be."""
    return hashlib.sha256(line).hexdigest()


def canonical(members: dict[str, Any]) -> bytes:
    """RFC 8785 form of an object of strings, integers, arrays and objects of these.

    For ASCII names the standard library's encoder gives the same bytes several times faster; names beyond ASCII sort
    by UTF-16 code units, which it does not do.
    """
    if all(name.isascii() for name in (*members, *members.get("detail", ()))):
        return _encode(members).encode()
    return rfc8785.dumps(members)


def make_line(seq: int, time: str, producer: str, record: Record, prev: str, lost: Sequence[str] = ()) -> bytes:
    """One line without its line feed; `lost` names the walls the host runs without."""
    detail = {
        key: value if isinstance(value, str) or abs(value) <= _SAFE else str(value)
        for key, value in record.detail.items()
    }
    # "hash" sorts between "event" and "lost" or "n": the halves are made once and serve for hashing and for the line.
    head = canonical(
        {"component": record.component, "decision": record.decision, "detail": detail, "event": record.event}
    )[:-1]
    without: dict[str, Any] = {"lost": sorted(lost)} if lost else {}
    tail = canonical(
        without
        | {
            "n": record.n,
            "object": record.object,
            "prev": prev,
            "producer": producer,
            "result": record.result,
            "seq": seq,
            "time": time,
        }
    )[1:]
    digest = hashlib.sha256(head + b"," + tail).hexdigest()
    return b'%b,"hash":"%b",%b' % (head, digest.encode(), tail)


def remake(entry: Entry) -> bytes:
    """The line of an entry, made again from its members: the same bytes if form and hash are right."""
    record = Record(entry.n, entry.event, entry.component, entry.decision, entry.object, entry.result, entry.detail)
    return make_line(entry.seq, entry.time, entry.producer, record, entry.prev, entry.lost)


def checkpoint_text(size: int, head: str) -> bytes:
    """What a checkpoint signs: the number of lines and the last one's hash."""
    return f"airssys audit log\n{size}\n{head}\n".encode()


def make_checkpoint(seq: int, prev: str, key: Ed25519PrivateKey) -> Record:
    """The record of a checkpoint that will be line `seq` after a line with hash `prev`."""
    signature = key.sign(checkpoint_text(seq - 1, prev))
    detail: dict[str, str | int] = {
        "head": prev,
        "key": key_id(key.public_key()),
        "signature": base64.b64encode(signature).decode(),
        "size": seq - 1,
    }
    return Record(0, CHECKPOINT, "", "info", "", "ok", detail)


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, hexadecimal."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


class Verifier:
    """Checks lines one after the other.

    Args:
        key: the log's public key; None checks the chain but no signature.
        head: what the first line's `prev` must be; None takes it as it is (a log whose older files are elsewhere).
        seq: the first line's `seq`; None takes it as it is.
        deep: also make each line again from its members. Without it a line is held by the next one's `prev` alone,
            which is enough for all but the last (the auditor's own start, where time counts).
    """

    def __init__(
        self, key: Ed25519PublicKey | None, head: str | None = GENESIS, seq: int | None = 1, *, deep: bool = True
    ) -> None:
        self.deep = deep
        self._key = key
        self._key_id = None if key is None else key_id(key)
        self._head = head
        self._seq = seq
        self._lines = self._checkpoints = self._signed = self._first = 0

    def feed(self, line: bytes) -> Entry:
        """Check the next line (without its line feed).

        Raises:
            ChainBroken: it is not the next line of this log.
        """
        number = self._lines + 1
        try:
            entry = decode_entry(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ChainBroken(number, f"not a record ({error})") from error
        if self._seq is not None and entry.seq != self._seq:
            raise ChainBroken(number, f"sequence number {entry.seq}, expected {self._seq}")
        if self._head is not None and entry.prev != self._head:
            raise ChainBroken(number, "it does not name the line before")
        # Made again from its members, a line must come out as the same bytes: canonical form, hash and all.
        if remake(entry) != line:
            raise ChainBroken(number, "its hash or form is wrong")
        if entry.event == CHECKPOINT and entry.producer == AUDITOR:
            self._check(entry, number)
        self._lines = number
        self._first = self._first or entry.seq
        self._seq, self._head = entry.seq + 1, line_hash(line)
        return entry

    def result(self) -> Verified:
        """What was proved so far."""
        last = 0 if self._seq is None else self._seq - 1
        return Verified(self._lines, self._first, last, self._head or GENESIS, self._checkpoints, self._signed)

    def _check(self, entry: Entry, number: int) -> None:
        if entry.detail.get("size") != entry.seq - 1 or entry.detail.get("head") != entry.prev:
            raise ChainBroken(number, "the checkpoint is of another place")
        if self._key is not None:
            if entry.detail.get("key") != self._key_id:
                raise ChainBroken(number, "the checkpoint is signed with another key")
            try:
                signature = base64.b64decode(str(entry.detail.get("signature")), validate=True)
                self._key.verify(signature, checkpoint_text(entry.seq - 1, entry.prev))
            except (InvalidSignature, binascii.Error) as error:
                raise ChainBroken(number, "the checkpoint's signature is wrong") from error
            self._signed = entry.seq
        self._checkpoints += 1


def verify(lines: Iterable[bytes], key: Ed25519PublicKey | None, checkpoint: tuple[int, str] | None = None) -> Verified:
    """Check a whole log, from its first line.

    Args:
        lines: all lines of all files, oldest first, without line feeds.
        key: the log's public key; None checks the chain but no signature.
        checkpoint: `size` and `head` of a checkpoint kept elsewhere, which the log must hold.

    Raises:
        ChainBroken: at the first line that is wrong, or the log ends before the checkpoint.
    """
    verifier = Verifier(key)
    for line in lines:
        verifier.feed(line)
        state = verifier.result()
        if checkpoint is not None and state.last_seq == checkpoint[0] and state.head != checkpoint[1]:
            raise ChainBroken(state.lines, "it is not the line the given checkpoint names")
    found = verifier.result()
    if checkpoint is not None and found.last_seq < checkpoint[0]:
        raise ChainBroken(found.lines + 1, f"the log was cut: {checkpoint[0]} lines were signed for")
    return found
