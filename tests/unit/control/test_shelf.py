"""The shelf: one memfd for all starts of a component, while its file is what it was, within bounds."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from sandbox.wire.compile_result import CompileResult
from supervisor.control import memfd
from supervisor.control.cache import Cache
from supervisor.control.errors import CacheError
from supervisor.control.shelf import CompiledComponent, Mark, Shelf

pytestmark = pytest.mark.block7_lifecycle
INFO = CompileResult({}, [], None, 6)
DIGEST = hashlib.sha256(b"wasm").hexdigest()
MARK = Mark(1, 2, 3, 4, 5)


def made(content: bytes) -> CompiledComponent:
    return CompiledComponent(memfd.sealed("test", content), INFO)


def inode(compiled: CompiledComponent | None) -> int:
    """Which memfd it is; closes it."""
    assert compiled is not None
    try:
        return os.fstat(compiled.fd).st_ino
    finally:
        os.close(compiled.fd)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(str(tmp_path / "cache"), str(tmp_path / "key"), "engine")


def test_starts_share_one_memfd(cache: Cache) -> None:
    """What was compiled is handed out from then on, each time by a descriptor of the caller's own; with nothing kept
    each is another memfd (the control)."""
    cache.put(DIGEST, INFO, memoryview(b"native"))
    first = inode(cache.get(DIGEST))
    assert {first} == {inode(cache.get(DIGEST)) for _ in range(3)}
    cache.shelf.clear()
    read_again = inode(cache.get(DIGEST))
    assert first != read_again
    assert read_again == inode(cache.get(DIGEST))


def test_another_file_is_another_memfd(cache: Cache) -> None:
    """A file that was touched is read and checked again; one that is gone is gone."""
    cache.put(DIGEST, INFO, memoryview(b"native"))
    first = inode(cache.get(DIGEST))
    path = cache.path(DIGEST)
    os.utime(path, ns=(0, 0))
    assert first != inode(cache.get(DIGEST))
    with open(path, "r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(1, 1))
    with pytest.raises(CacheError, match="MAC"):
        cache.get(DIGEST)
    cache.put(DIGEST, INFO, memoryview(b"native"))
    os.unlink(path)
    assert cache.get(DIGEST) is None
    assert 0 == cache.shelf.size()


def test_bounded_in_bytes_and_in_number() -> None:
    """What was not asked for the longest goes first; what is larger than the shelf is not kept, and works."""
    shelf = Shelf(max_bytes=100, max_kept=3)
    for name in "abc":
        os.close(shelf.put(name, MARK, made(bytes(30))).fd)
    os.close(shelf.take("a", MARK).fd)  # type: ignore[union-attr]
    os.close(shelf.put("d", MARK, made(bytes(30))).fd)
    assert shelf.take("b", MARK) is None
    os.close(shelf.put("e", MARK, made(bytes(60))).fd)
    assert [None, None] == [shelf.take(name, MARK) for name in "cb"]
    assert 90 == shelf.size()
    large = shelf.put("f", MARK, made(bytes(101)))
    assert bytes(101) == os.pread(large.fd, 200, 0)
    os.close(large.fd)
    assert shelf.take("f", MARK) is None
    shelf.clear()
    assert 0 == shelf.size()


def test_no_descriptor_is_lost(cache: Cache) -> None:
    """Whatever is put, taken and dropped: afterwards as many descriptors are open as before."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        cache.put(DIGEST, INFO, memoryview(b"native"))
        os.close(cache.get(DIGEST).fd)  # type: ignore[union-attr]
    cache.shelf.clear()
    assert before == len(os.listdir("/proc/self/fd"))


def test_the_first_of_two_threads_is_what_both_get() -> None:
    """Two that read the same file at once end with one memfd."""
    shelf, together, found = Shelf(), threading.Barrier(4), []

    def read() -> None:
        mine = made(b"native")
        together.wait()
        found.append(inode(shelf.put(DIGEST, MARK, mine)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(set(found))
    shelf.clear()
