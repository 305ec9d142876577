"""Compiled components that were checked once, kept as sealed memfds for the starts to come.

Workers map the pages of the memfd they are given, so two of one component share them only if they are given the same
one. It also saves each start the copying and checking of the whole entry. What is kept is bounded in bytes and in
number; the component that has not been started for longest goes first. Its workers keep their pages; the next one gets
a memfd of its own.

A memfd is handed out only while the cache's file is, by its status, the one it was read from.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from sandbox.wire.compile_result import CompileResult

MAX_BYTES = 512 << 20
"""Bytes of all components kept together."""
MAX_KEPT = 256
"""Components kept, and thus descriptors."""


class CompiledComponent(msgspec.Struct, frozen=True):
    """A sealed memfd with what the compiler made (the holder closes it) and what it said about the component."""

    fd: int
    info: CompileResult


class Mark(NamedTuple):
    """A file, as it was at one moment (stat(2))."""

    device: int
    inode: int
    size: int
    written: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        """Of a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class _Kept(NamedTuple):
    mark: Mark
    compiled: CompiledComponent
    size: int


class Shelf:
    """Keeps them by the path of the cache's file. Any thread may use it.

    Args:
        max_bytes: of all that is kept.
        max_kept: most components.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_kept: int = MAX_KEPT) -> None:
        self._max_bytes, self._max_kept = max_bytes, max_kept
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, path: str, mark: Mark | None) -> CompiledComponent | None:
        """The component with a descriptor of the caller's own; None when it is not here, or its file is another now."""
        with self._lock:
            kept = self._kept.get(path)
            if kept is None:
                return None
            if kept.mark != mark:
                self._drop(path)
                return None
            self._kept.move_to_end(path)
            return _copy(kept.compiled)

    def put(self, path: str, mark: Mark, compiled: CompiledComponent) -> CompiledComponent:
        """Keep it; what the caller is to use: the same, or that of another thread which was faster."""
        size = os.fstat(compiled.fd).st_size
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept.mark == mark:
                os.close(compiled.fd)
                return _copy(kept.compiled)
            if kept is not None:
                self._drop(path)
            if size <= self._max_bytes:
                self._kept[path] = _Kept(mark, _copy(compiled), size)
            while len(self._kept) > self._max_kept or self.size() > self._max_bytes:
                self._drop(next(iter(self._kept)))
        return compiled

    def size(self) -> int:
        """Bytes kept."""
        return sum(kept.size for kept in self._kept.values())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            for path in list(self._kept):
                self._drop(path)

    def _drop(self, path: str) -> None:
        os.close(self._kept.pop(path).compiled.fd)


def _copy(compiled: CompiledComponent) -> CompiledComponent:
    return CompiledComponent(os.dup(compiled.fd), compiled.info)
