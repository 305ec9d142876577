"""Loading native code: workers share the pages of one memfd, the code is what the engine had, and stays so."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import wasmtime.component as wasmtime_component
from forked import fork, refused, returns
from hypothesis import given
from hypothesis import strategies as st

from sandbox import loader
from sandbox.engine import make_engine
from sandbox.errors import ProtocolViolation
from sandbox.kernel import libc, memory, process
from sandbox.wire import code_file
from sandbox.wire.code_file import GRAIN, Image
from supervisor.control import memfd
from supervisor.parent import starts

pytestmark = pytest.mark.block1_runtime
GUESTS = Path(__file__).resolve().parents[1] / "guests"
x86_64 = pytest.mark.skipif(libc.MACHINE != "x86_64", reason="pages of code are shared on x86-64 alone")


@cache
def compiled() -> bytes:
    """The .cwasm of a guest that is large enough for its pages to be shared."""
    wasm = (GUESTS / "wasi-libc" / "component.wasm").read_bytes()
    return bytes(wasmtime_component.Component(make_engine(), wasm).serialize())


def mappings(address: int, length: int) -> list[dict[str, Any]]:
    """What /proc/self/smaps says of the mappings within a span: mode, name, KiB by kind."""
    found: list[dict[str, Any]] = []
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            first, *rest = line.split()
            if "-" in first and not first.endswith(":"):
                start = int(first.split("-")[0], 16)
                found.append({"start": start, "mode": rest[0], "name": " ".join(rest[4:])})
            elif rest and rest[0].isdigit():
                found[-1][first.rstrip(":")] = int(rest[0])
    return [each for each in found if address <= each["start"] < address + length]


def loaded(threshold: int = loader.SHARED_FROM) -> tuple[int, int, int]:
    """Load the guest; where its code is, how long, and the memfd."""
    loader.SHARED_FROM = threshold
    fd = memfd.sealed("code", compiled())
    result = loader.deserialize(make_engine(), fd, len(compiled()))
    ((address, length),) = result.spans
    return address, length, fd


@x86_64
def test_the_pages_are_the_files() -> None:
    """What was loaded is the memfd's pages, one stretch of it executable, none writable, none of it anonymous; of a
    component below the threshold they are the engine's copy (the control)."""

    def child(threshold: int) -> list[Any]:
        address, length, _ = loaded(threshold)
        found = mappings(address, length)
        names = {"memfd:code" in each["name"] for each in found}
        return [sorted(names), "".join(each["mode"] for each in found), sum(each["Anonymous"] for each in found)]

    assert [[True], "r--pr-xpr--p", 0] == returns(lambda: child(loader.SHARED_FROM))
    names, modes, anonymous = returns(lambda: child(1 << 40))
    assert ([False], False) == (names, "w" in modes)
    assert anonymous > 300


@x86_64
def test_two_workers_have_the_same_pages() -> None:
    """With another process that looks at the same memfd its pages are shared, and each is charged a half."""

    def child() -> list[int]:
        engine, fd = make_engine(), memfd.sealed("code", compiled())
        told, tell = os.pipe()
        wait, end = os.pipe()
        pid = fork()
        if pid == 0:
            ((address, length),) = loader.deserialize(engine, fd, len(compiled())).spans
            ctypes.string_at(address, length)
            os.write(tell, b"x")
            os.close(end)
            os.read(wait, 1)
            os._exit(0)
        ((address, length),) = loader.deserialize(engine, fd, len(compiled())).spans
        ctypes.string_at(address, length)
        os.read(told, 1)
        found = mappings(address, length)
        os.close(end)
        os.waitpid(pid, 0)

        def total(*names: str) -> int:
            return sum(each[name] for each in found for name in names)

        shared, private = total("Shared_Clean", "Shared_Dirty"), total("Private_Clean", "Private_Dirty")
        return [shared * 1024, private, total("Pss") * 2048, length]

    shared, private, twice, length = returns(child)
    assert (length, 0) == (shared, private)
    assert abs(twice - length) < length // 10


@x86_64
def test_the_copy_stays_where_it_differs() -> None:
    """An engine that has changed as much as one byte of its copy keeps it: what was loaded is what runs."""

    def child(changed: bool) -> list[bool]:
        real = memory.same
        memory.same = lambda one, other, size: real(one, other, size) and not changed
        address, length, _ = loaded()
        return ["memfd:code" in each["name"] for each in mappings(address, length)]

    assert all(returns(lambda: child(False)))
    assert not any(returns(lambda: child(True)))


@x86_64
def test_the_copy_stays_where_files_may_not_run() -> None:
    """Where the machine refuses to execute the file's pages (here: it lies on a noexec mount), the copy is kept and
    runs; on the memfd, which it does not refuse, the pages are shared (the control)."""

    def child(noexec: bool) -> list[bool]:
        fd = memfd.sealed("code", compiled())
        if noexec:
            flags = int(os.statvfs("/dev/shm").f_flag)
            if not flags & os.ST_NOEXEC:
                libc.unshare(process.CLONE_NEWNS)
                libc.mount(None, "/", None, 0x4000 | 0x40000)  # MS_REC, MS_PRIVATE
                libc.mount("tmpfs", "/dev/shm", "tmpfs", 8)  # MS_NOEXEC
            with tempfile.TemporaryFile(dir="/dev/shm") as file:
                file.write(compiled())
                file.flush()
                fd = os.dup(file.fileno())
        ((address, length),) = loader.deserialize(make_engine(), fd, len(compiled())).spans
        found = mappings(address, length)
        return ["x" in "".join(each["mode"] for each in found), all(each["Anonymous"] == 0 for each in found)]

    assert [True, True] == returns(lambda: child(False))
    if os.geteuid() != 0 and not os.statvfs("/dev/shm").f_flag & os.ST_NOEXEC:
        pytest.skip("needs root: a mount of its own that is noexec")
    assert [True, False] == returns(lambda: child(True))


@x86_64
def test_shared_code_runs() -> None:
    """A module out of shared pages computes and traps as before, its text being where the engine registered it."""

    def child() -> list[Any]:
        loader.SHARED_FROM = 0
        engine = make_engine()
        text = """(component (core module $m
            (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
            (func (export "fail") unreachable))
          (core instance $i (instantiate $m))
          (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
          (func (export "fail") (canon lift (core func $i "fail"))))"""
        code = bytes(wasmtime_component.Component(engine, text).serialize())
        component = loader.deserialize(engine, memfd.sealed("code", code), len(code)).component
        store = wasmtime.Store(engine)
        store.set_fuel(10_000)
        instance = wasmtime_component.Linker(engine).instantiate(store, component)

        def function(name: str) -> Any:
            return instance.get_func(store, name)

        total = function("add")(store, 40, 2)
        try:
            function("fail")(store)
        except wasmtime.WasmtimeError as trap:
            return [total, "unreachable" in str(trap)]
        return [total, False]

    assert [42, True] == returns(child)


@x86_64
def test_shared_code_can_be_sealed() -> None:
    """After mseal the pages can be neither replaced nor made writable; before it they could (the control)."""

    def child() -> list[int]:
        address, length, fd = loaded()
        page = memory.PAGE

        def attacks() -> list[int]:
            return [
                refused(lambda: memory.map_file_over(address, fd, 0, page)),
                refused(lambda: memory.protect(address, page, 3)),
            ]

        before = attacks()
        memory.protect(address, page, 1)
        process.seal_pages([(address, length)])
        return [*before, *attacks()]

    if refused(lambda: memory.seal(libc.syscall("mmap", 0, memory.PAGE, 1, 0x22, -1, 0), memory.PAGE)):
        pytest.skip("this kernel has no mseal (Linux 6.10)")
    assert [0, 0, errno.EPERM, errno.EPERM] == returns(child)


def test_a_mapped_memfd_cannot_be_cut() -> None:
    """Nobody can truncate or change a sealed memfd, so no page of a worker's code goes away; unsealed, a reader of the
    cut page dies of SIGBUS (the control)."""

    def child(sealed: bool) -> list[int]:
        fd = memfd.create("code")
        os.write(fd, bytes(2 * memory.PAGE))
        if sealed:
            memfd.seal(fd)
        address = memory.map_file(fd, 0, 2 * memory.PAGE)
        told = [refused(lambda: os.ftruncate(fd, 0)), refused(lambda: os.pwrite(fd, b"x", 0))]
        ctypes.string_at(address, 2 * memory.PAGE)
        return told

    assert [errno.EPERM, errno.EPERM] == returns(lambda: child(True))
    pid = fork()
    if pid == 0:
        process.reset_signals()
        child(False)
        os._exit(0)
    assert 7 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1, "SIGBUS"
    assert memfd.SEALS & fcntl.F_SEAL_SHRINK


def test_the_supervisor_wants_it_sealed() -> None:
    """Code that could still change, be cut, or is no memfd at all is refused before a worker sees it."""
    sealed, unsealed, device = memfd.sealed("a", b"x"), memfd.create("b"), os.open("/dev/null", os.O_RDONLY)
    try:
        assert [True, False, False] == [starts._sealed(fd) for fd in (sealed, unsealed, device)]
        fcntl.fcntl(unsealed, fcntl.F_ADD_SEALS, memfd.SEALS & ~(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL))
        assert not starts._sealed(unsealed)
    finally:
        for fd in (sealed, unsealed, device):
            os.close(fd)


# -- where the text is ------------------------------------------------------------------------------------------------


def _text_of(data: bytes) -> tuple[int, int] | None:
    buffer = ctypes.create_string_buffer(data, len(data) + 1)
    return loader.text_of(ctypes.addressof(buffer), len(data))


def test_the_text_is_found() -> None:
    """It begins and ends at pages, and is where the engine's own section table says."""
    offset, length = _text_of(compiled()) or (0, 0)
    assert 0 == offset % memory.PAGE == length % memory.PAGE
    assert 0 < offset + length <= len(compiled())


@given(st.data())
def test_any_bytes_as_elf(data: st.DataObject) -> None:
    """Whatever the headers say: nothing outside the file is read or named."""
    size = len(compiled())
    (table,) = struct.unpack_from("<Q", compiled(), 40)
    start = data.draw(st.sampled_from([0, 40, table, max(table, size - 500)]))
    changed = bytearray(compiled()[: data.draw(st.integers(0, size)) if data.draw(st.booleans()) else size])
    for _ in range(data.draw(st.integers(1, 8))):
        if (at := start + data.draw(st.integers(0, 400))) < len(changed):
            changed[at] = data.draw(st.integers(0, 255))
    found = _text_of(bytes(changed))
    assert found is None or (0 < found[0] and 0 < found[1] and sum(found) <= len(changed) + memory.PAGE)


# -- the code file ---------------------------------------------------------------------------------------------------


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def test_a_code_file_comes_back() -> None:
    """Code and images are where the table says, at multiples of the grain; without images it is the .cwasm alone."""
    image = Image(65535 * GRAIN, 4 * GRAIN, 1 << 32, GRAIN, 0, 0)
    contents = [bytes([n]) * GRAIN * n for n in (1, 3)]
    data = b"".join(code_file.pack(b"code", [(image, content) for content in contents]))
    length, images = code_file.unpack(_reader(data), len(data))
    assert b"code" == data[:length]
    assert contents == [data[each.offset : each.offset + each.length] for each in images]
    assert {0} == {each.offset % GRAIN for each in images}
    assert [b"code"] == code_file.pack(b"code", [])
    assert (4, []) == code_file.unpack(_reader(b"code"), 4)


@given(st.data())
def test_any_bytes_as_code_file(data: st.DataObject) -> None:
    """A damaged footer or table is refused, or names places within the file."""
    image = Image(65535 * GRAIN, 2 * GRAIN, 1 << 32, 0, 0, 0)
    whole = bytearray(b"".join(code_file.pack(b"code", [(image, bytes(GRAIN))])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[-1 - data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
    try:
        length, images = code_file.unpack(_reader(bytes(whole)), len(whole))
    except ProtocolViolation:
        return
    assert length <= len(whole)
    for each in images:
        assert length <= each.offset
        assert each.offset + each.length <= len(whole)
        assert each.start + each.length <= each.minimum <= each.maximum <= 1 << 32
