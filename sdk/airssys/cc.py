"""Compile a component written in C to a core module, with the zig compiler of this Python environment.

A guest is freestanding (no libc, no WASI, nothing imported but what the source calls), or it has the C library and with
it the imports of WASI that the library needs. The flags leave no path and no name in the output, so that the same
sources give the same bytes on every machine (`pip install ziglang`, in the exact version that pyproject.toml names).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = (
    "--target=wasm32-freestanding",
    "-mcpu=mvp+bulk_memory",  # nothing that a host could have switched off but memory.copy and memory.fill
    "-std=c11",
    "-Os",
    "-ffreestanding",
    "-nostdlib",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-function",  # helpers of airssys_guest.h that one guest does not need
    "-Wl,--no-entry",
    "-Wl,--strip-all",
)


LIBC_FLAGS = (
    "--target=wasm32-wasi",
    "-mexec-model=reactor",  # a library with exports: there is no main
    "-std=gnu11",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--strip-all",
    "-Wl,-z,stack-size=131072",  # zig's own default is 16 MiB, more than most memory limits
)


class CompileError(RuntimeError):
    """The compiler refused the source, or is not installed; the text is what it said."""


def compile_core(source: Path, *, libc: bool = False) -> bytes:
    """The core module of `source`, ready for `airssys.componentize`.

    Args:
        libc: with the C library. The first time the compiler builds the library, which takes half a minute, and keeps
            it in its own cache.

    Raises:
        CompileError: with the compiler's own messages.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "core.wasm")
        # zig keeps its cache under HOME unless told otherwise; one of our own leaves nothing behind.
        caches = {"ZIG_GLOBAL_CACHE_DIR": f"{scratch}/global", "ZIG_LOCAL_CACHE_DIR": f"{scratch}/local"}
        if libc:
            del caches["ZIG_GLOBAL_CACHE_DIR"]
        flags = LIBC_FLAGS if libc else FLAGS
        argv = [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(out), source.name]
        done = subprocess.run(
            argv, cwd=source.parent, env=os.environ | caches, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CompileError(done.stderr.strip() or f"the compiler ended with status {done.returncode}")
        return out.read_bytes()
