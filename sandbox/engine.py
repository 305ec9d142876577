"""The engine's settings: one place, because every one of them is part of a .cwasm's compatibility.

`memory_reservation = 0` and `memory_guard_size = 0` buy explicit bounds checks and a small address space (so that
RLIMIT_AS can be tight); `memory_init_cow = False` keeps instantiation from asking for a memfd behind the seal;
`parallel_compilation = False` because a fork of a process with compiler threads hangs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wasmtime

SETTINGS: dict[str, bool | int] = {
    "consume_fuel": True,
    "cranelift_nan_canonicalization": True,
    "memory_guard_size": 0,
    "memory_init_cow": False,
    "memory_reservation": 0,
    "memory_reservation_for_growth": 0,
    "parallel_compilation": False,
    "wasm_memory64": False,
    "wasm_threads": False,
}
"""Every setting that differs from the engine's default."""

UNNAMED_SETTINGS: dict[str, bool] = {"concurrency_support": False}
"""Settings that the C API has and `wasmtime.Config` does not. With `concurrency_support` on, wasmtime 50 traps a host
function that is given a list of two borrowed handles, so that no guest could poll two pollables."""

MAX_WASM_STACK = 512 * 1024
"""Bytes of stack a guest may use before it traps."""


def make_engine() -> wasmtime.Engine:
    """An engine with exactly `SETTINGS` and `UNNAMED_SETTINGS`."""
    import wasmtime
    from wasmtime import _ffi as ffi

    config = wasmtime.Config()
    for name, value in SETTINGS.items():
        setattr(config, name, value)
    for name, value in UNNAMED_SETTINGS.items():
        getattr(ffi, f"wasmtime_config_{name}_set")(config.ptr(), value)
    config.max_wasm_stack = MAX_WASM_STACK
    return wasmtime.Engine(config)


def _cpu_features() -> str:
    """The processor features native code was compiled for; a .cwasm must not move to a machine without them."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return " ".join(sorted(line.split(":", 1)[1].split()))
    except OSError:
        return ""
    return ""


def fingerprint() -> str:
    """What a cached .cwasm must agree with: engine version, settings, machine. Imports no engine; hex SHA-256."""
    digest = hashlib.sha256()
    for part in (
        "wasmtime",
        importlib.metadata.version("wasmtime"),
        repr(sorted((SETTINGS | UNNAMED_SETTINGS).items())),
        str(MAX_WASM_STACK),
        platform.machine(),
        _cpu_features(),
    ):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()
