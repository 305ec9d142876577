"""What guests logged: `logs.jsonl`, numbered lines, two files of bounded size, no chain.

A log line is worth less than a record: it is not acknowledged, and while the disk is full lines are dropped. The
first line that can be written again says how many.
"""

from __future__ import annotations

import msgspec

from bridge.audit.chain import now
from bridge.audit.files import LOGS, GrowingFile, last_line, rotate_logs
from sandbox.wire.audit_frames import LogLine

MAX_SIZE = 16 << 20
"""Size at which the file is put aside, bytes; one older file is kept."""


class _Line(msgspec.Struct, frozen=True):
    component: str
    context: list[tuple[str, str]]
    level: str
    message: str
    seq: int
    time: str


_encode = msgspec.json.Encoder().encode


class GuestLog:
    """The log's end.

    Args:
        dirfd: the log directory; stays open as long as this object is used.
        max_size: bytes after which a new file is begun.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, dirfd: int, max_size: int = MAX_SIZE) -> None:
        self._dirfd = dirfd
        self._max_size = max_size
        self._file = GrowingFile(dirfd, LOGS)
        self._file.cut_torn_line()
        self.seq = self._last_number()
        """Number of the last line."""
        self.dropped = 0
        """Lines that could not be written since the last one that could."""

    def write(self, lines: list[LogLine]) -> None:
        """Append the lines; on a full disk they are counted and dropped."""
        if self.dropped:
            lines = [LogLine("", "warn", f"{self.dropped} log lines were lost: the log could not be written"), *lines]
        time, seq, data = now(), self.seq, bytearray()
        for line in lines:
            seq += 1
            data += _encode(_Line(line.component, line.context, line.level, line.message, seq, time)) + b"\n"
        try:
            if self._file.size + len(data) > self._max_size and self._file.size:
                self._file = rotate_logs(self._dirfd, self._file)
            self._file.append(bytes(data))
        except OSError:
            # Not lost silently: the count is told by the next line that can be written.
            self.dropped += len(lines) - (1 if self.dropped else 0)
            return
        self.seq, self.dropped = seq, 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _last_number(self) -> int:
        for name in (LOGS, "logs.1.jsonl"):
            try:
                line = last_line(self._dirfd, name)
                if line:
                    return msgspec.json.decode(line, type=_Line).seq
            except (FileNotFoundError, msgspec.DecodeError):
                continue
        return 0
