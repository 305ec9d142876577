"""Mappings and the heap: finding where the engine puts code, sealing it, and a heap without holes before a fork."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

import pytest
from forked import returns

from sandbox.kernel import heap, libc, memory, process

pytestmark = pytest.mark.block4_security
PAGE = memory.PAGE
_SOME = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def _errno(name: str, *arguments: int) -> int:
    try:
        libc.syscall(name, *arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def _can_seal() -> bool:
    address = libc.syscall("mmap", 0, PAGE, 3, _SOME, -1, 0)
    return _errno("mseal", address, PAGE, 0) == 0


needs_mseal = pytest.mark.skipif(not _can_seal(), reason="this kernel has no mseal (Linux 6.10)")


def test_the_next_mapping_lies_in_the_hole() -> None:
    """What `next_hole` names is where the kernel puts the next mapping of that size."""

    def child() -> list[int]:
        found = []
        for pages in (1, 5, 300):
            hole = memory.next_hole(pages * PAGE)
            found += [hole, libc.syscall("mmap", 0, pages * PAGE, 1, _SOME, -1, 0)]
        return found

    found = returns(child)
    assert found[0::2] == found[1::2]


def test_mapped_or_not() -> None:
    """Every page of a span must be there; one that is missing is told."""

    def child() -> list[bool]:
        address = libc.syscall("mmap", 0, 4 * PAGE, 3, _SOME, -1, 0)
        whole = memory.is_mapped(address, 4 * PAGE)
        libc.syscall("munmap", address + 2 * PAGE, PAGE)
        return [whole, memory.is_mapped(address, 4 * PAGE), memory.is_mapped(address, 2 * PAGE)]

    assert [True, False, True] == returns(child)


def test_a_files_pages_are_mapped_for_the_context_alone() -> None:
    """They are readable within and gone after it, and no descriptor is kept."""

    def child() -> list[object]:
        fd = os.memfd_create("x")
        os.write(fd, b"code" * 2000)
        before = len(os.listdir("/proc/self/fd"))
        with memory.mapped_file(fd, 2 * PAGE) as address:
            text = ctypes.string_at(address, 8).decode()
            within = len(os.listdir("/proc/self/fd"))
        return [text, within - before, memory.is_mapped(address, 2 * PAGE)]

    assert ["codecode", 0, False] == returns(child)


@needs_mseal
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("mprotect", (PAGE, 7)),
        ("munmap", (PAGE,)),
        ("mmap", (PAGE, 3, _SOME | 0x10, -1, 0)),
    ],
    ids=["mprotect", "munmap", "mmap MAP_FIXED"],
)
def test_sealed_pages_stay(call: str, arguments: tuple[int, ...]) -> None:
    """The change works on an unsealed page (the control) and is refused on a sealed one, also in a child."""

    def child() -> list[int]:
        free, sealed = (libc.syscall("mmap", 0, PAGE, 1, _SOME, -1, 0) for _ in range(2))
        memory.seal(sealed, PAGE)
        pid = os.fork()
        if pid == 0:
            os._exit(_errno(call, sealed, *arguments))
        inherited = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return [_errno(call, free, *arguments), _errno(call, sealed, *arguments), inherited]

    assert [0, errno.EPERM, errno.EPERM] == returns(child)


@needs_mseal
def test_every_executable_mapping_is_sealed() -> None:
    """After `seal_executable` no code of this process can be made writable; before it could (the control)."""

    def spans() -> list[int]:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            return [int(line.split("-")[0], 16) for line in file if " r-xp " in line and "vsyscall" not in line]

    def child() -> list[object]:
        start = spans()[0]
        control = _errno("mprotect", start, PAGE, 7), _errno("mprotect", start, PAGE, 5)
        count = process.seal_executable()
        answers = {_errno("mprotect", address, PAGE, 7) for address in spans() if address}
        return [list(control), count > 3, sorted(answers - {errno.EPERM})]

    control, many, others = returns(child)
    assert [0, 0] == control
    assert many
    # The kernel's own vdso page is no mapping that could be made writable in the first place.
    assert set(others) <= {errno.EACCES, errno.EINVAL}


def test_sealing_what_is_not_there() -> None:
    """A hole cannot be sealed: an error, not silence."""

    def child() -> int:
        hole = memory.next_hole(PAGE)
        return _errno("mseal", hole, PAGE, 0)

    assert returns(child) in (errno.ENOMEM, errno.ENOSYS)


def test_a_heap_without_holes() -> None:
    """Blocks made after `fill_holes` lie side by side at the heap's top; before it they did not (the control)."""

    def child() -> list[int]:
        malloc, free = heap.handle.malloc, heap.handle.free
        malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
        libc.keep_heap_in_brk()
        made = [malloc(3000) for _ in range(400)]
        for block in made[::2]:
            free(block)

        def spread() -> int:
            blocks = [malloc(2000) for _ in range(50)]
            return max(blocks) - min(blocks)

        before = spread()
        taken = heap.fill_holes()
        return [before, taken, spread()]

    before, taken, after = returns(child)
    if taken == 0:
        pytest.skip("this C library does not tell of its heap (mallinfo2)")
    assert taken > 100
    assert after < 50 * 2100
    assert before > 2 * after
