"""`wasi:io`: waiting, the two streams that end in the component's log, and an input that is at its end.

Nothing waits but `block` and `poll`, and they wait for a point in time: one request to the bridge, whatever the number
of pollables. Streams are ready always, since every write is over when it returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from sandbox.abi.types import Err
from sandbox.bindings import wasi_io as wit
from sandbox.host.links import links, sleep_until
from sandbox.host.wasi.handles import Kind, handles, trap
from sandbox.wire.bridge_ops import Op

MAX_WRITE = 4096
"""Bytes of one write, as `check-write` tells; a list costs 32 bytes a byte on its way through the engine."""
MAX_LINE = 4096
"""Bytes of one line of the log; a longer one is broken up."""
CALL_BYTES = 64 * 1024
"""Bytes that one call of the guest may print; what is more is dropped, and the log says how much."""
CALL_LINES = 1000
"""Lines likewise."""
MAX_POLLED = 1024
"""Pollables in one list, the same one counted each time."""
CLOSED = Err(wit.StreamErrorClosed())
"""What is at its end."""
_INFO, _WARN = 2, 3


class Pollable:
    """Ready once the monotonic clock is at `when`, nanoseconds; 0 is always."""

    __slots__ = ("when",)

    def __init__(self, when: int = 0) -> None:
        self.when = when

    def ready(self) -> bool:
        """Whether waiting would be over at once."""
        return self.when == 0 or self.when <= time.monotonic_ns()


def new_pollable(when: int = 0) -> int:
    """A handle of a `Pollable`, for the guest."""
    return handles.give(Kind.POLLABLE, Pollable(when))


def _pollable(handle: int) -> Pollable:
    found: Pollable = handles.thing(handle)
    return found


def _ready(this: int) -> bool:
    return _pollable(this).ready()


def _block(this: int) -> None:
    pollable = _pollable(this)
    if not pollable.ready():
        sleep_until(pollable.when)


def _poll(these: list[int]) -> list[int]:
    if not these:
        raise trap("poll of an empty list")
    if len(these) > MAX_POLLED:
        raise trap(f"poll of more than {MAX_POLLED} pollables")
    pollables = [_pollable(each) for each in these]
    if not any(pollable.ready() for pollable in pollables):
        sleep_until(min(pollable.when for pollable in pollables))
    return [number for number, pollable in enumerate(pollables) if pollable.ready()]


class EndedStream:
    """An input stream at its end."""


class LogStream:
    """An output stream whose lines are lines of the component's log, as soon as they are complete."""

    _all: ClassVar[list[LogStream]] = []
    _bytes = _lines = _dropped = 0

    def __init__(self, name: str, level: int) -> None:
        self._context = [("stream", name)]
        self._level = level
        self._line = bytearray()
        self._all.append(self)

    def write(self, contents: bytes) -> None:
        """Take bytes; pass on what makes whole lines."""
        if LogStream._bytes + len(contents) > CALL_BYTES or LogStream._lines >= CALL_LINES:
            room = CALL_BYTES - LogStream._bytes if LogStream._lines < CALL_LINES else 0
            LogStream._dropped += len(contents) - room
            contents = contents[:room]
        LogStream._bytes += len(contents)
        self._line += contents
        while (end := self._line.find(b"\n", 0, MAX_LINE + 1)) >= 0 or len(self._line) > MAX_LINE:
            self._tell(end if end >= 0 else MAX_LINE, skip=int(end >= 0))

    def _tell(self, length: int, skip: int = 0) -> None:
        text = self._line[:length].decode(errors="replace")
        del self._line[: length + skip]
        if LogStream._lines < CALL_LINES:
            LogStream._lines += 1
            links.bridge.ask(Op.LOG, self._level, text.removesuffix("\r"), self._context)
        else:
            LogStream._dropped += length + skip

    @classmethod
    def end_of_call(cls) -> None:
        """Pass on incomplete lines, say what was dropped, and begin the next call's allowance."""
        if not cls._bytes and not cls._dropped:
            return
        for stream in cls._all:
            if stream._line:
                stream._tell(len(stream._line))
        dropped, cls._bytes, cls._lines, cls._dropped = cls._dropped, 0, 0, 0
        if dropped:
            links.bridge.ask(Op.LOG, _WARN, f"{dropped} bytes more were printed in this call, and dropped", None)


STDIN = EndedStream()
STDOUT = LogStream("stdout", _INFO)
STDERR = LogStream("stderr", _WARN)


def _log_stream(handle: int) -> LogStream:
    found: LogStream = handles.thing(handle)
    return found


def _check_write(_this: int) -> int:
    return MAX_WRITE


def _write(this: int, contents: bytes) -> None:
    if len(contents) > MAX_WRITE:
        raise trap(f"write of {len(contents)} bytes where check-write allows {MAX_WRITE}")
    _log_stream(this).write(contents)


def _write_zeroes(this: int, length: int) -> None:
    if length > MAX_WRITE:
        raise trap(f"write of {length} zeroes where check-write allows {MAX_WRITE}")
    _write(this, bytes(length))


def _flush(_this: int) -> None:
    return None


def _ended(*_: int) -> Err:
    return CLOSED


def _subscribe(_this: int) -> int:
    return new_pollable()


def _to_debug_string(_this: int) -> str:
    return ""


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "io/error": {"[method]error.to-debug-string": _to_debug_string},
    "io/poll": {
        "[method]pollable.ready": _ready,
        "[method]pollable.block": _block,
        "poll": _poll,
    },
    "io/streams": {
        "[method]input-stream.read": _ended,
        "[method]input-stream.blocking-read": _ended,
        "[method]input-stream.skip": _ended,
        "[method]input-stream.blocking-skip": _ended,
        "[method]input-stream.subscribe": _subscribe,
        "[method]output-stream.check-write": _check_write,
        "[method]output-stream.write": _write,
        "[method]output-stream.blocking-write-and-flush": _write,
        "[method]output-stream.flush": _flush,
        "[method]output-stream.blocking-flush": _flush,
        "[method]output-stream.subscribe": _subscribe,
        "[method]output-stream.write-zeroes": _write_zeroes,
        "[method]output-stream.blocking-write-zeroes-and-flush": _write_zeroes,
        "[method]output-stream.splice": _ended,
        "[method]output-stream.blocking-splice": _ended,
    },
}
RESOURCES = {
    "io/error": {"error": Kind.ERROR},
    "io/poll": {"pollable": Kind.POLLABLE},
    "io/streams": {"input-stream": Kind.INPUT_STREAM, "output-stream": Kind.OUTPUT_STREAM},
}
