"""The compiler: one disposable, caged process per compilation. Untrusted .wasm in, .cwasm out, nothing else.

fd 3 is the component's bytes in a sealed memfd, fd 4 an empty memfd for the result. Everything is imported and the
WIT packages are parsed before the cage closes. The result is a `CompileResult` header and the native code; an error
that the component is to blame for is a result too. Bombs end this process and nothing else: address space, CPU time
and output size are limited here, wall clock by the supervisor.
"""

from __future__ import annotations

import mmap
import os
import resource
import sys
from typing import NoReturn

import wasmtime
from wasmtime import component as wasmtime_component

from sandbox import contract, values
from sandbox.engine import make_engine
from sandbox.errors import AirssysError
from sandbox.kernel import landlock, libc, process, seccomp
from sandbox.kernel.confine import confine
from sandbox.wire.compile_result import CompileResult, pack_header

OUTPUT_MAX = 1 << 30
"""Largest result, bytes."""


def main(memory: int, seconds: int, profile: str) -> NoReturn:
    """Compile fd 3 into fd 4 and exit 0; any other status is a failure of this process.

    Args:
        memory: address space beyond what the idle compiler has, bytes.
        seconds: CPU time.
        profile: whose engine the code is for.
    """
    process.die_with_parent()
    libc.keep_heap_in_brk()
    values.install()
    contract.load()
    engine = make_engine(profile)
    _warm_up(engine)
    bpf = seccomp.compile_policy("compiler")
    version = landlock.abi()
    base = process.address_space()
    size = os.fstat(3).st_size
    mapped = mmap.mmap(3, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
    confine("airssys-compile", 16)
    process.set_limit(resource.RLIMIT_AS, base + memory)
    process.set_limit(resource.RLIMIT_CPU, seconds)
    process.set_limit(resource.RLIMIT_FSIZE, OUTPUT_MAX)
    landlock.restrict_all(version)
    seccomp.load(bpf)
    try:
        output = _compile(engine, bytes(mapped))
    except MemoryError:
        output = _refusal("E_COMPILE_LIMIT", "compiling needs more memory than allowed", "")
    _write(output)
    os._exit(0)


def _warm_up(engine: wasmtime.Engine) -> None:
    wasmtime_component.Component(engine, "(component)").serialize()


def _compile(engine: wasmtime.Engine, wasm: bytes) -> bytes:
    try:
        component = wasmtime_component.Component(engine, wasm)
        facts = contract.check_component(component.type, engine)
        code = bytes(component.serialize())
    except AirssysError as error:
        return _refusal(error.code, error.message, error.subject)
    except wasmtime.WasmtimeError as error:
        return _refusal("E_INVALID_COMPONENT", str(error)[:2000], "")
    return pack_header(CompileResult(facts.imports, facts.exports, None, len(code))) + code


def _refusal(code: str, message: str, subject: str) -> bytes:
    return pack_header(CompileResult({}, [], (code, message, subject), 0))


def _write(output: bytes) -> None:
    view = memoryview(output)
    while view:
        view = view[os.write(4, view) :]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
