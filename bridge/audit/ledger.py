"""The audit log as the auditor writes it: recover it, grow it line by line, sign it, rotate it.

A batch is written with one write and counts only when all of it is written: sequence number, head and the producers'
numbers change afterwards or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.audit.chain import (
    AUDITOR,
    CHECKPOINT_EVERY,
    GENESIS,
    ChainBroken,
    Entry,
    Verifier,
    decode_entry,
    line_hash,
    make_checkpoint,
    make_line,
    now,
    remake,
)
from bridge.audit.files import AUDIT, GrowingFile, last_line, rotate_audit, rotated
from bridge.audit.reading import lines_of
from sandbox.wire.audit_frames import Record

ROTATED = "audit.rotated"
ROTATE_SIZE = 64 << 20
"""Default size at which a file is put aside, bytes. It also bounds what is verified at a start."""
_MAX_PRODUCERS = 256


class Pending(NamedTuple):
    """A record to be written."""

    producer: str
    record: Record


class Ledger:
    """The chain's end.

    Args:
        dirfd: the log directory; stays open as long as this object is used.
        key: signs the checkpoints.
        rotate_size: bytes after which a new file is begun.
        lost: walls the host runs without; each line names them.

    Raises:
        ChainBroken: the current file does not follow from itself or from the file before it.
        OSError: the files cannot be opened or read.
    """

    def __init__(
        self, dirfd: int, key: Ed25519PrivateKey, rotate_size: int = ROTATE_SIZE, lost: Sequence[str] = ()
    ) -> None:
        self._lost = tuple(lost)
        self._dirfd = dirfd
        self._key = key
        self._rotate_size = rotate_size
        self._file = GrowingFile(dirfd, AUDIT)
        self.seq = 0
        """Number of the last line."""
        self._head = GENESIS
        self._signed = 0
        self._follows = ""  # the file put aside, until the new one's first line says so
        self._written: dict[str, tuple[int, int]] = {}  # producer: its last n, that line's seq
        self.torn = self._file.cut_torn_line()
        """Bytes of a half line that were cut off at the start."""
        self._follow_rotated()
        self._verify_current()

    def already(self, producer: str, n: int) -> int | None:
        """If the producer's record `n` is written: its line's number, or 0 where that is no longer known."""
        last, seq = self._written.get(producer, (0, 0))
        if n > last:
            return None
        return seq if n == last else 0

    def write(self, batch: Sequence[Pending]) -> list[int]:
        """Append the records, with checkpoints where they are due; the line number of each.

        Raises:
            OSError: nothing was written.
        """
        if self._file.size >= self._rotate_size:
            self._rotate()
        lines: list[bytes] = []
        numbers: list[int] = []
        seq, head, signed = self.seq, self._head, self._signed
        time = now()
        if self._follows:
            seq += 1
            lines.append(self._line(seq, time, AUDITOR, self._rotation_note(), head))
            head = line_hash(lines[-1])
        for producer, record in batch:
            if (seq + 1) % CHECKPOINT_EVERY == 0:
                seq += 1
                lines.append(self._line(seq, time, AUDITOR, make_checkpoint(seq, head, self._key), head))
                head, signed = line_hash(lines[-1]), seq
            seq += 1
            lines.append(self._line(seq, time, producer, record, head))
            head = line_hash(lines[-1])
            numbers.append(seq)
        self._file.append(b"".join(line + b"\n" for line in lines))
        self.seq, self._head, self._signed, self._follows = seq, head, signed, ""
        for (producer, record), number in zip(batch, numbers, strict=True):
            self._remember(producer, record.n, number)
        return numbers

    def checkpoint(self) -> None:
        """Sign the log as it stands, unless its last line does so already (raises OSError)."""
        if self.seq == self._signed:
            return
        record = make_checkpoint(self.seq + 1, self._head, self._key)
        line = self._line(self.seq + 1, now(), AUDITOR, record, self._head)
        self._file.append(line + b"\n")
        self.seq += 1
        self._head, self._signed = line_hash(line), self.seq

    def _line(self, seq: int, time: str, producer: str, record: Record, prev: str) -> bytes:
        return make_line(seq, time, producer, record, prev, self._lost)

    def sync(self) -> None:
        """Wait until everything is on disk (raises OSError)."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # -- starting ---------------------------------------------------------------------------------------------

    def _follow_rotated(self) -> None:
        names = rotated(self._dirfd)
        if not names:
            return
        line = last_line(self._dirfd, names[-1])
        try:
            entry = decode_entry(line)
        except ValueError as error:
            raise ChainBroken(0, f"the last line of {names[-1]} is not a record") from error
        if remake(entry) != line:
            raise ChainBroken(entry.seq, f"the hash or form of the last line of {names[-1]} is wrong")
        self.seq, self._head = entry.seq, line_hash(line)
        self._signed = self.seq  # rotation signs before it puts the file aside

    def _verify_current(self) -> None:
        verifier = Verifier(self._key.public_key(), self._head, self.seq + 1, deep=False)
        last: tuple[Entry, bytes] | None = None
        for line in lines_of(self._file.fd, self._file.size):
            entry = verifier.feed(line)
            last = entry, line
            if entry.producer != AUDITOR:
                self._remember(entry.producer, entry.n, entry.seq)
            elif entry.event == ROTATED:
                for producer, n in entry.detail.items():
                    if isinstance(n, int):
                        self._remember(producer, n, 0)
        # Each line but the last is held by the next one's prev; the last is held by its own hash.
        if last is not None:
            if remake(last[0]) != last[1]:
                raise ChainBroken(verifier.result().lines, "its hash or form is wrong")
            found = verifier.result()
            self.seq, self._head = found.last_seq, found.head
            self._signed = max(self._signed, found.signed_seq)

    # -- growing ----------------------------------------------------------------------------------------------

    def _remember(self, producer: str, n: int, seq: int) -> None:
        if producer == AUDITOR:
            return
        # The one heard of longest ago is forgotten first; producers alive at once are a handful.
        last = self._written.pop(producer, (0, 0))
        self._written[producer] = max(last, (n, seq))
        while len(self._written) > _MAX_PRODUCERS:
            del self._written[next(iter(self._written))]

    def _rotate(self) -> None:
        self.checkpoint()
        self._follows, self._file = rotate_audit(self._dirfd, self._file)
        os.fsync(self._dirfd)

    def _rotation_note(self) -> Record:
        # The new file is complete in itself: it says where each producer's numbers stand.
        detail: dict[str, str | int] = {"previous": self._follows}
        detail.update({producer: n for producer, (n, _) in self._written.items()})
        return Record(0, ROTATED, "", "info", self._follows, "ok", detail)
