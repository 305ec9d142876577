"""Compile a component written in C to a core module, with the zig compiler of this Python environment.

The guests are freestanding: no libc, no WASI, nothing imported but what the source calls. The flags leave no path and
no name in the output, so that the same sources give the same bytes on every machine (`pip install ziglang`, in the
exact version that pyproject.toml names).
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


class CompileError(RuntimeError):
    """The compiler refused the source, or is not installed; the text is what it said."""


def compile_core(source: Path) -> bytes:
    """The core module of `source`, ready for `airssys.componentize`.

    Raises:
        CompileError: with the compiler's own messages.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "core.wasm")
        # zig keeps its cache under HOME unless told otherwise; one of our own leaves nothing behind.
        caches = {"ZIG_GLOBAL_CACHE_DIR": f"{scratch}/global", "ZIG_LOCAL_CACHE_DIR": f"{scratch}/local"}
        argv = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(out), source.name]
        done = subprocess.run(
            argv, cwd=source.parent, env=os.environ | caches, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CompileError(done.stderr.strip() or f"the compiler ended with status {done.returncode}")
        return out.read_bytes()
