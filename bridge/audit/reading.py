"""Reading the log back, in slices, so that a long search never holds up the records of others.

A `search` is a generator: each step reads at most one block and yields; its return value is the answer. The newest
lines are found from the end; lines after a number are found by bisection over the file's bytes (numbers only grow).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator

import msgspec

from bridge.audit.files import AUDIT, LOGS, rotated
from sandbox.wire.audit_frames import Read, ReadResult

MAX_LINES = 1_000
"""Most lines of one answer."""
MAX_BYTES = 4 << 20
"""Most bytes of one answer."""
_BLOCK = 256 * 1024

Search = Generator[None, None, ReadResult]


class _Key(msgspec.Struct, frozen=True):
    # The members a search looks at; the others are skipped.
    seq: int
    component: str = ""
    decision: str = ""


_decode = msgspec.json.Decoder(_Key).decode


def lines_of(fd: int, size: int, start: int = 0) -> Iterator[bytes]:
    """Complete lines of the first `size` bytes from offset `start`, without line feeds."""
    rest = b""
    while start < size:
        block = os.pread(fd, min(_BLOCK, size - start), start)
        if not block:
            return
        start += len(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def search(dirfd: int, request: Read, last: int) -> Search:
    """Carry out a `Read`; `last` is the number of the stream's newest line.

    The answer's `error` says why there is none (an unknown stream, a file that cannot be read).
    """
    if request.stream not in ("audit", "logs"):
        return ReadResult(request.n, [], request.after, "no such stream")
    opened: list[int] = []
    try:
        # The file that grows is opened at once: a rotation meanwhile changes its name, not the descriptor.
        current = AUDIT if request.stream == "audit" else LOGS
        older = rotated(dirfd) if request.stream == "audit" else _present(dirfd, "logs.1.jsonl")
        opened.append(_open(dirfd, current))
        if request.after < 0:
            return (yield from _newest(dirfd, [*older, current], opened, request, last))
        return (yield from _following(dirfd, [*older, current], opened, request))
    except OSError:
        return ReadResult(request.n, [], request.after, "the log cannot be read")
    finally:
        for fd in opened:
            os.close(fd)


def _newest(dirfd: int, names: list[str], opened: list[int], request: Read, last: int) -> Search:
    limit = _limit(request)
    found: deque[str] = deque()
    size = 0
    for name in reversed(names):
        fd = opened[0] if name == names[-1] else _open(dirfd, name)
        if name != names[-1]:
            opened.append(fd)
        for line in _backwards(fd):
            if line is None:
                yield
                continue
            if not _wanted(line, request):
                continue
            size += len(line)
            if size > MAX_BYTES:
                return ReadResult(request.n, list(found), last)
            found.appendleft(line.decode())
            if len(found) == limit:
                return ReadResult(request.n, list(found), last)
    return ReadResult(request.n, list(found), last)


def _following(dirfd: int, names: list[str], opened: list[int], request: Read) -> Search:
    limit = _limit(request)
    found: list[str] = []
    size, seen = 0, request.after
    for index, name in enumerate(names):
        fd = opened[0] if name == names[-1] else _open(dirfd, name)
        if name != names[-1]:
            opened.append(fd)
            following = opened[0] if index + 2 == len(names) else _open(dirfd, names[index + 1])
            first = _first_number(following)
            if following != opened[0]:
                os.close(following)
            if first is not None and first <= request.after + 1:
                os.close(opened.pop())
                continue
        end = os.fstat(fd).st_size
        for number, line in enumerate(lines_of(fd, end, _offset_after(fd, end, request.after))):
            if number % 512 == 511:
                yield
            seq = _number(line)
            if seq is None or seq <= request.after:
                continue
            if _wanted(line, request):
                size += len(line)
                if size > MAX_BYTES:
                    return ReadResult(request.n, found, seen)
                found.append(line.decode())
            seen = seq
            if len(found) == limit:
                return ReadResult(request.n, found, seen)
        if fd != opened[0]:
            os.close(opened.pop())
    return ReadResult(request.n, found, seen)


def _limit(request: Read) -> int:
    return max(1, min(request.limit, MAX_LINES))


def _wanted(line: bytes, request: Read) -> bool:
    if not request.component and not request.denied:
        return bool(line)
    try:
        key = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    # "ns/name" asks for every instance, "ns/name/instance" for one.
    same = key.component == request.component or key.component.startswith(request.component + "/")
    return (not request.component or same) and (not request.denied or key.decision == "denied")


def _number(line: bytes) -> int | None:
    try:
        return _decode(line).seq
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _first_number(fd: int) -> int | None:
    for line in lines_of(fd, os.fstat(fd).st_size):
        return _number(line)
    return None


def _offset_after(fd: int, size: int, after: int) -> int:
    """An offset at a line's beginning, at or before the first line numbered above `after`, and near it."""
    low, high = 0, size
    while high - low > _BLOCK:
        middle = (low + high) // 2
        block = os.pread(fd, min(_BLOCK, size - middle), middle)
        start = block.find(b"\n") + 1
        end = block.find(b"\n", start)
        number = _number(block[start:end]) if start > 0 and end > 0 else None
        if number is None:
            return low  # a line longer than a block: go on from what is known
        if number <= after:
            low = middle + start
        else:
            high = middle
    return low


def _backwards(fd: int) -> Iterator[bytes | None]:
    """Lines from the last to the first, and None after each block."""
    start = os.fstat(fd).st_size
    rest = b""
    while start > 0:
        size = min(_BLOCK, start)
        start -= size
        head, *lines = (os.pread(fd, size, start) + rest).split(b"\n")
        for line in reversed(lines):
            if line:
                yield line
        rest = head
        yield None
    if rest:
        yield rest


def _present(dirfd: int, name: str) -> list[str]:
    return [name] if name in os.listdir(dirfd) else []


def _open(dirfd: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
