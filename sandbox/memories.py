"""Linear memories from the host: one limit over all of a component's memories, and a record of what was refused.

The engine's own limiter sees one memory at a time, so it can only bound each of them. Here the engine is given a memory
creator (`wasmtime_config_host_memory_creator_set`, wasmtime's C API): it asks this module for each new memory and each
growth, and this module counts them together. A memory access costs nothing: compiled code works on the base and the
length that the engine read after the last growth.

What must hold, or the sandbox is open:

* The engine gets at least the address space and the guard pages that it says it expects of each memory: in the profile
  `standard` compiled code leaves out checks because of them. What it says must be what its settings say (`install`);
  an engine that expects anything else gets no memory at all. Memories must not begin as copies of an image of the
  engine's (`memory_init_cow`), which would need memories of its own.
* A callback must not fail by an exception: ctypes would return whatever the stack held. Each catches everything, and
  an error object is kept for the case that none can be made any more.
* The callbacks exist before `process.no_writable_code`: none can be made afterwards. They are made once, in the zygote.

A memory gets address space for what it may ever have, as far as there is some to spare, so that growing moves nothing;
pages become usable (mprotect) as it grows. Where there is none to spare it gets what it needs and moves when it grows.
The bound of both together is `ADDRESS_SPACE` times the limit, beside what the engine expects. The calls are those the
last filter allows: mmap of private anonymous memory at no chosen address, mprotect, munmap. Reserving costs nothing
where the kernel is strict about what it promises (`vm.overcommit_memory = 2`), either: an inaccessible page is not
counted, and one that becomes usable is, so a growth that the kernel cannot keep its word for is refused.

A memory that begins with an image (`sandbox.patch.images`) is made beforehand, by `prepare`: no file can be mapped
behind the last filter. The engine's request is known by the maximum that marks it.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable
from typing import Any

from wasmtime import _ffi as ffi

from sandbox.kernel import memory as mappings
from sandbox.wire.code_file import Image

ADDRESS_SPACE = 3
"""Address space all memories together may take, in limits: what is used, what is spare, and one that moves."""
_WHOLE = 1 << 32
"""All that a memory can be."""
_MARK = "linear memory limit"
"""Begins the text of each refusal."""
_NO_SPACE = f"{_MARK}: the worker's address space is used up"
_PROT_NONE = 0
_PROT_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MAP = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
_FAILED = ctypes.c_void_p(-1).value
_PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Refused(Exception):
    """A memory may not be made, or may not grow."""


class Unexpected(Exception):
    """The engine expects other memories than its settings say; none is safe to give."""


class _Memory:
    """One linear memory: `reserved` bytes of address space at `base`, the first `size` of them usable.

    `guard` bytes that never are lie before and behind it. `spare` counts what is reserved only so that growing moves
    nothing; what the engine expects is no part of it. `maximum` is what the engine knows, `bound` what the author of
    the module declared, where that is less. One that is not `counted` has been set apart.
    """

    __slots__ = ("base", "bound", "counted", "guard", "maximum", "reserved", "size", "spare")

    def __init__(self, size: int, maximum: int, reserved: int, guard: int) -> None:
        self.maximum, self.bound, self.counted = maximum, _WHOLE, True
        # An empty memory needs an address, too; nothing in it is ever usable.
        self.reserved = max(-(-max(reserved, size) // _PAGE) * _PAGE, _PAGE)
        self.guard, self.size, self.spare = -(-guard // _PAGE) * _PAGE, size, 0
        mapped = _libc.mmap(None, self.reserved + 2 * self.guard, _PROT_NONE, _MAP, -1, 0)
        if mapped is None or mapped == _FAILED:
            raise Refused(_NO_SPACE)
        self.base: int = mapped + self.guard
        if size and _libc.mprotect(self.base, size, _PROT_READ_WRITE) != 0:
            self.unmap()
            raise Refused(_NO_SPACE)

    def unmap(self) -> None:
        """Give the address space back."""
        _libc.munmap(self.base - self.guard, self.reserved + 2 * self.guard)


class _Beginning:
    """An image of this process's component: the memory made for it, until it is given out, and a mapping to copy."""

    __slots__ = ("image", "memory", "reserved_and_guard", "source")

    def __init__(self, image: Image, source: int) -> None:
        self.image, self.source = image, source
        self.memory: _Memory | None = None
        self.reserved_and_guard = (0, 0)


class Memories:
    """All linear memories of this process. `limit` is set by the worker before it instantiates anything."""

    def __init__(self, limit: int) -> None:
        self.installed = False
        """Whether an engine takes its memories from here."""
        self.expected = (0, 0)
        """Bytes of address space and of guard that it expects of each."""
        self.limit = limit
        """Bytes of all memories together."""
        self.used = 0
        self.refused = 0
        """Largest total that was asked for and refused since `take_refused`."""
        self._spare = 0
        self._apart = 0
        self._apart_limit = 0
        self._placed: Callable[[int, int], None] = lambda _base, _size: None
        self._live: dict[int, _Memory] = {}
        self._beginnings: dict[int, _Beginning] = {}
        self._last = 0

    def prepare(self, images: list[Image], fd: int) -> None:
        """Make the memories that begin with images out of a sealed file, before `create` is asked for them.

        Called once, under the limit the component will have.

        Raises:
            OSError: a part of the file cannot be mapped.
            Refused: no address space.
        """
        total = 0
        for image in images:
            begins = self._beginnings[image.mark] = _Beginning(image, mappings.map_file(fd, image.offset, image.length))
            total += image.minimum
            if total > self.limit:
                continue  # asking for it will be refused; until then it must take nothing
            begins.memory = memory = self._make(image.minimum, image.maximum, *self.expected)
            begins.reserved_and_guard = self.expected
            self._spare += memory.spare
            mappings.map_file_over(memory.base + image.start, fd, image.offset, image.length)
            mappings.protect(memory.base + image.start, image.length, _PROT_READ_WRITE)

    def take_refused(self) -> int:
        """The largest total refused since the last call, bytes; 0 when nothing was."""
        refused, self.refused = self.refused, 0
        return refused

    def create(self, minimum: int, maximum: int, reserved: int = 0, guard: int = 0) -> int:
        """A new memory; its number.

        Args:
            minimum: bytes it begins with.
            maximum: bytes it never grows over.
            reserved: bytes of address space the engine expects of it.
            guard: bytes behind it that must fault; as many are made before it.

        Raises:
            Refused: over the limit, or no address space.
        """
        self._admit(minimum)
        begins = self._beginnings.get(maximum) if self._beginnings else None
        try:
            if begins is not None and begins.image.minimum == minimum:
                memory = self._begin(begins, reserved, guard)
            else:
                memory = self._make(minimum, maximum, reserved, guard)
                self._spare += memory.spare
        except Refused:
            self._note(minimum)
            raise
        self._last += 1
        self._live[self._last] = memory
        self.used += minimum
        return self._last

    def _make(self, minimum: int, maximum: int, reserved: int, guard: int) -> _Memory:
        if reserved:
            return _Memory(minimum, maximum, max(reserved, minimum), guard)
        # Nothing is left to spare where the limit has become smaller than what older memories have: the mapping
        # must never be shorter than the memory, or mprotect would go on into whatever lies behind it.
        left = max(self.limit - self._spare, 0)
        spare = max(min(max(minimum, maximum), self.limit) - minimum, 0)
        memory = _Memory(minimum, maximum, minimum + min(spare, left), guard)
        memory.spare = memory.reserved - minimum
        return memory

    def _begin(self, begins: _Beginning, reserved: int, guard: int) -> _Memory:
        """The memory made for the image; where the module is instantiated again, another one with a copy."""
        image, memory = begins.image, begins.memory
        if memory is not None and begins.reserved_and_guard == (reserved, guard):
            begins.memory = None
        else:
            memory = self._make(image.minimum, image.maximum, reserved, guard)
            self._spare += memory.spare
            ctypes.memmove(memory.base + image.start, begins.source, image.length)
        memory.maximum, memory.bound = image.mark, image.maximum
        return memory

    def grow(self, number: int, size: int) -> None:
        """Make a memory `size` bytes long. Raises Refused."""
        memory = self._live[number]
        more = size - memory.size
        if more < 0:
            raise Refused(f"{_MARK}: a memory does not shrink")
        if size > memory.bound:
            raise Refused(f"{_MARK}: a memory does not grow over its maximum")
        if number == self._apart:
            self._admit_apart(size)
        else:
            self._admit(more)
        if size <= memory.reserved:
            if _libc.mprotect(memory.base + memory.size, more, _PROT_READ_WRITE) != 0:
                self._note(more)
                raise Refused(_NO_SPACE)
            spare = max(memory.spare - more, 0)
            self._spare -= memory.spare - spare
            memory.spare, memory.size = spare, size
        else:
            try:
                moved = _Memory(size, memory.maximum, size, memory.guard)
            except Refused:
                self._note(more)
                raise
            moved.bound, moved.counted = memory.bound, memory.counted
            ctypes.memmove(moved.base, memory.base, memory.size)
            memory.unmap()
            self._spare -= memory.spare
            self._live[number] = memory = moved
        if number == self._apart:
            self._placed(memory.base, size)
        else:
            self.used += more

    def find(self, number: int) -> _Memory:
        """A live memory."""
        return self._live[number]

    def with_maximum(self, maximum: int) -> list[int]:
        """The live memories that may grow to so many bytes."""
        return [number for number, memory in self._live.items() if memory.maximum == maximum]

    def set_apart(self, number: int, limit: int, placed: Callable[[int, int], None]) -> None:
        """A memory is the host's own: it does not count, and has a limit of its own.

        Args:
            number: which.
            limit: bytes it never grows over.
            placed: called with its base and size, now and after each growth.
        """
        memory = self._live[number]
        self._apart, self._apart_limit, self._placed = number, limit, placed
        memory.counted = False
        self.used -= memory.size
        placed(memory.base, memory.size)

    def drop(self, number: int) -> None:
        """Give a memory back."""
        memory = self._live.pop(number)
        if number == self._apart:
            self._apart = 0
            self._placed(0, 0)
        if memory.counted:
            self.used -= memory.size
        memory.unmap()
        self._spare -= memory.spare

    def _admit(self, more: int) -> None:
        total = self.used + more
        if total > self.limit:
            self._note(more)
            raise Refused(f"{_MARK}: {total} bytes over all memories, {self.limit} are allowed")

    def _admit_apart(self, size: int) -> None:
        if size > self._apart_limit:
            raise Refused(f"{_MARK}: values of {size} bytes at a time, {self._apart_limit} are allowed")

    def _note(self, more: int) -> None:
        self.refused = max(self.refused, self.used + more)


memories = Memories(1 << 32)
"""One process, one store at a time: module state is right. The zygote's own rehearsal runs under this limit."""


def is_refusal(text: str) -> bool:
    """Whether the engine's error text tells of a refusal of ours."""
    return _MARK in text


_NEW = ctypes.CFUNCTYPE(
    ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 4, ctypes.c_void_p
)  # fmt: skip
_GET = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)
_GROW = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
_DROP = ctypes.CFUNCTYPE(None, ctypes.c_size_t)
"""The four callbacks with addresses as plain integers: no object is made for a call's arguments."""
_LINEAR_MEMORY = struct.Struct("@NPPP")
"""`wasmtime_linear_memory_t`: the number of the memory, then get, grow and drop."""
_SIZE = struct.Struct("@N")


def install(config: Any, reserved: int, guard: int) -> None:
    """Have an engine made from `config` take its memories from here (a `wasmtime.Config`, `memory_init_cow` off).

    Args:
        config: what the engine will be made from.
        reserved: bytes of address space its settings have it expect of each memory.
        guard: bytes behind each that must fault, likewise.
    """
    spare_error = ffi.wasmtime_error_new(b"linear memory limit: no memory is left to say why")
    emergency = ctypes.cast(spare_error, ctypes.c_void_p).value or 1
    move, expected = ctypes.memmove, (reserved, guard)

    def failed(error: Exception) -> int:
        try:
            made = ffi.wasmtime_error_new(str(error).encode())
            return ctypes.cast(made, ctypes.c_void_p).value or emergency
        except Exception:  # whatever it is, the engine must hear of a failure
            return emergency

    def new(_env: Any, _type: Any, minimum: int, maximum: int, reserved: int, guard: int, out: int) -> int:
        try:
            if (reserved, guard) != expected:
                raise Unexpected(
                    f"the engine expects {reserved} bytes and {guard} of guard of a memory, not {expected}"
                )
            number = memories.create(minimum, maximum, reserved, guard)
            move(out, _LINEAR_MEMORY.pack(number, *callbacks), _LINEAR_MEMORY.size)
            return 0
        except Exception as error:  # see above: an exception must not leave a callback
            return failed(error)

    def get(number: int, size: int, maximum: int) -> int:
        try:
            memory = memories.find(number)
            base = memory.base
            move(maximum, _SIZE.pack(memory.reserved), _SIZE.size)
            # Last: without a length nothing can be read at a wrong base.
            move(size, _SIZE.pack(memory.size), _SIZE.size)
            return base
        except Exception:
            return 0

    def grow(number: int, size: int) -> int:
        try:
            memories.grow(number, size)
            return 0
        except Exception as error:
            return failed(error)

    def drop(number: int) -> None:
        try:
            memories.drop(number)
        except Exception:
            return  # the store is going; its process ends soon after

    made = [_GET(get), _GROW(grow), _DROP(drop)]
    callbacks = [ctypes.cast(each, ctypes.c_void_p).value for each in made]
    new_ = _NEW(new)
    creator = ffi.wasmtime_memory_creator_t(None, ctypes.cast(new_, ffi.wasmtime_new_memory_callback_t))
    # The engine takes a copy of the structure; the callbacks must live as long as any engine does.
    _kept.append((creator, new_, made))
    ffi.wasmtime_config_host_memory_creator_set(config.ptr(), ctypes.byref(creator))
    memories.installed, memories.expected = True, expected


_kept: list[Any] = []
