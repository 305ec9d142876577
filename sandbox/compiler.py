"""The compiler: one disposable, caged process per compilation. Untrusted .wasm in, .cwasm out, nothing else.

It starts with fd 3, the component's bytes in a sealed memfd; fd 4, an empty memfd for the result; fd 5, a channel to
the supervisor. Everything is imported and the WIT packages are parsed, then `_enter` puts up every wall that a process
can have that still writes machine code. The channel becomes fd 2, so that what the engine says when it gives up is
heard; over it the compiler reports `SEALED`, and reads the first byte of the component only after `GO`, which the
supervisor sends when it has looked at the walls from outside.

The component is patched first (`sandbox.patch`), in here because patching reads a stranger's bytes as compiling does.
One that cannot be patched, or does not compile when it is, is compiled as it came.

The result is a `CompileResult` header and the native code; an error that the component is to blame for is a result
too. Bombs end this process and nothing else: address space, data, CPU time and output are limited here, memory once
more by a control group, wall clock by the supervisor.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import NoReturn, TypeAlias, TypeVar

import wasmtime
from wasmtime import component as wasmtime_component

from sandbox import contract, walls
from sandbox.engine import make_engine
from sandbox.errors import AirssysError, SetupFailed
from sandbox.kernel import caps, landlock, libc, mounts, process, seccomp
from sandbox.patch import images, names, patcher
from sandbox.types import CallPath
from sandbox.wire import code_file
from sandbox.wire.compile_result import GO, MAX_CWASM, MAX_HEADER, SEALED, CompileResult, Crossing, pack_header

T = TypeVar("T")
_Built: TypeAlias = tuple[wasmtime_component.Component, list[tuple[code_file.Image, bytes]]]
"""A component, and what its memories begin with where that was taken out of it (`sandbox.patch.images`)."""

WASM_FD, OUTPUT_FD, CHANNEL_FD = 3, 4, 2
_CHANNEL_AT_START = 5
OUTPUT_MAX = MAX_CWASM + MAX_HEADER
"""Largest result, bytes: what control would take."""
STACK = 8 << 20
"""Bytes of stack."""
MAX_REASON = 500
"""Characters of the reason why a component was not patched."""


def main(memory: int, seconds: int, profile: str, lost: frozenset[str], path: CallPath) -> NoReturn:
    """Compile fd 3 into fd 4 and exit 0; any other status is a failure of this process.

    Args:
        memory: address space beyond what the idle compiler has, bytes.
        seconds: CPU time.
        profile: whose engine the code is for.
        lost: walls the host runs without.
        path: "fast": patch the component if that can be done; "general": leave it as it is.
    """
    process.die_with_parent()
    libc.keep_heap_in_brk()
    contract.load()
    names.functions()
    engine = make_engine(profile)
    _warm_up(engine)
    try:
        channel = _enter(process.address_space() + memory, seconds, lost)
    except SetupFailed as error:
        _report(error)
        os._exit(1)
    os.write(CHANNEL_FD, SEALED)
    if channel.recv(16) != GO:
        os._exit(1)
    os._exit(_work(engine, path))


def _report(error: SetupFailed) -> None:
    """Tell the supervisor which step failed, on whichever number the channel has by then."""
    for fd in (_CHANNEL_AT_START, CHANNEL_FD):
        try:
            os.write(fd, str(error).encode(errors="replace")[:2000])
            return
        except OSError:
            continue  # closed already


def _warm_up(engine: wasmtime.Engine) -> None:
    wasmtime.wat2wasm("(module)")
    wasmtime_component.Component(engine, "(component)").serialize()


# -- the walls ------------------------------------------------------------------------------------------------------


def _enter(address_space: int, seconds: int, lost: frozenset[str]) -> socket.socket:
    """Every wall around the compiler, in order; the channel. Namespaces and throw-away uid were there before exec.

    Raises:
        SetupFailed: a step failed; `subject` is its name. The process must end.
    """
    # 1. What needs a library, a file or /proc.
    bpf = _step("compile filter", seccomp.compile_policy, "compiler")
    version = _step("landlock version", landlock.abi)
    _step("no writable code", process.no_writable_code)
    _step("no further user namespaces", _forbid_user_namespaces)
    # 2. Nothing of the starter's, and no file system.
    _step("keyring", process.new_session_keyring)
    _step("empty root", mounts.enter_empty_root)
    # 3. No capability, now or ever.
    _step("capabilities", caps.drop_all)
    # 4. Limits: what a compilation may use, and nothing of everything else.
    _step("limits", _limits, address_space, seconds)
    # 5. Switches. The engine's handlers go: no guest code runs here, and a fault is to end the process as what it is.
    _step("name", process.set_name, "airssys-compile")
    _step("signals", process.reset_signals)
    _step("not dumpable", process.no_dump)
    _step("speculation", process.no_speculation)
    _step("huge pages", process.no_huge_pages)
    _step("die with the supervisor", process.die_with_parent)
    _step("no new privileges", process.no_new_privileges)
    # 6. Three descriptors, and never another one.
    channel = _step("descriptors", _three_descriptors)
    _step("landlock", landlock.restrict_all, version, "landlock" in lost)
    _step("no descriptors", process.set_limit, resource.RLIMIT_NOFILE, 0)
    # 7. The filter. Nothing after this line can be undone.
    _step("filter", seccomp.load, bpf)
    return channel


def _step(name: str, action: Callable[..., T], *arguments: object) -> T:
    try:
        return action(*arguments)
    except Exception as error:
        raise SetupFailed(f"hardening step failed: {error}", subject=name) from error


def _forbid_user_namespaces() -> None:
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write("0")


def _limits(address_space: int, seconds: int) -> None:
    process.set_limit(resource.RLIMIT_AS, address_space)
    process.set_limit(resource.RLIMIT_DATA, address_space)
    process.set_limit(resource.RLIMIT_STACK, STACK)
    process.set_limit(resource.RLIMIT_CPU, seconds)
    process.set_limit(resource.RLIMIT_FSIZE, OUTPUT_MAX)
    for which in (
        resource.RLIMIT_CORE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_MEMLOCK,
        resource.RLIMIT_MSGQUEUE,
        resource.RLIMIT_RTPRIO,
    ):
        process.set_limit(which, 0)
    process.set_limit(resource.RLIMIT_SIGPENDING, 16)


def _three_descriptors() -> socket.socket:
    os.dup2(_CHANNEL_AT_START, CHANNEL_FD)
    process.close_range(0, CHANNEL_FD - 1)
    process.close_range(OUTPUT_FD + 1)
    return socket.socket(fileno=CHANNEL_FD)


# -- the work -------------------------------------------------------------------------------------------------------


def _work(engine: wasmtime.Engine, path: CallPath) -> int:
    """Compile and write; the exit status. Nothing may escape: printing a traceback would open files."""
    try:
        output = _compile(engine, _read(), path)
        if len(output) > OUTPUT_MAX:
            output = _refusal("E_COMPILE_LIMIT", "the compiled component is larger than allowed")
    except (MemoryError, RecursionError):
        gc.collect()
        output = _refusal("E_COMPILE_LIMIT", "compiling needs more memory than allowed")
    except Exception as error:
        output = _refusal("E_COMPILE", f"the compiler failed: {type(error).__name__}: {error}"[:2000])
    try:
        view = memoryview(output)
        while view:
            view = view[os.write(OUTPUT_FD, view) :]
    except OSError:
        return 1
    return 0


def _compile(engine: wasmtime.Engine, wasm: bytearray, path: CallPath) -> bytes:
    try:
        (component, memories), crossing = _component(engine, wasm, path)
        facts = contract.check_component(component.type, engine, _added(crossing))
        code = b"".join(code_file.pack(bytes(component.serialize()), memories))
    except AirssysError as error:
        return _refusal(error.code, error.message, error.subject)
    except wasmtime.WasmtimeError as error:
        return _refusal("E_INVALID_COMPONENT", str(error)[:2000])
    return pack_header(CompileResult(facts.imports, facts.exports, None, len(code), crossing)) + code


def _component(engine: wasmtime.Engine, wasm: bytearray, path: CallPath) -> tuple[_Built, Crossing]:
    """The component, patched if it may and can be. Raises ReservedName, wasmtime.WasmtimeError."""
    if path == "general":
        patcher.check_names(wasm)
        return _built(engine, wasm), Crossing(reason="the operator chose it")
    try:
        patched = patcher.patch(wasm)
    except patcher.Declined as declined:
        return _built(engine, wasm), Crossing(reason=str(declined)[:MAX_REASON])
    imports = {interface: list(functions) for interface, functions in patched.imports.items()}
    try:
        return _built(engine, patched.wasm), Crossing("fast", list(patched.exports), imports)
    except wasmtime.WasmtimeError as error:
        # The original may be invalid, too, and then its own error is the one to tell.
        return _built(engine, wasm), Crossing(reason=f"patched, it does not compile: {error}"[:MAX_REASON])


def _added(crossing: Crossing) -> contract.Added:
    """The names that the patch added."""
    if crossing.path == "general":
        return contract.Added()
    exports = frozenset((names.RESERVE, names.TAKE, *map(names.fast, crossing.exports)))
    imports = {interface: frozenset(map(names.fast, each)) for interface, each in crossing.imports.items()}
    return contract.Added(exports, imports)


def _built(engine: wasmtime.Engine, wasm: bytes | bytearray) -> _Built:
    """The component, and the images of its memories' data where that compiles. Raises wasmtime.WasmtimeError."""
    extracted = images.extract(wasm)
    if extracted.images:
        # Another module may ask for that memory with its own maximum, which the marked one has not.
        with contextlib.suppress(wasmtime.WasmtimeError):
            return wasmtime_component.Component(engine, extracted.wasm), extracted.images
    return wasmtime_component.Component(engine, wasm), []


def _read() -> bytearray:
    # The size comes from reading, too: a file's status is one more call.
    wasm = bytearray()
    while part := os.pread(WASM_FD, 1 << 20, len(wasm)):
        wasm += part
    return wasm


def _refusal(code: str, message: str, subject: str = "") -> bytes:
    return pack_header(CompileResult({}, [], (code, message, subject), 0))


def run(arguments: list[str]) -> NoReturn:
    """`main` out of a command line's words."""
    memory, seconds, profile, lost, path = arguments
    main(int(memory), int(seconds), profile, walls.parse(lost), "fast" if path == "fast" else "general")


if __name__ == "__main__":
    run(sys.argv[1:])
