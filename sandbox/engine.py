"""The engine's settings: one place, because every one of them is part of a .cwasm's compatibility.

There are two layouts of linear memory. `paranoid` and `degraded` reserve nothing and have no guard pages, which buys
explicit bounds checks and a small address space, so that RLIMIT_AS can be tight. In `standard` each memory reserves
4 GiB with guards around it: no access needs a check, no growth copies. RLIMIT_AS is larger by the reservations there;
RLIMIT_DATA counts only what can be written (getrlimit(2), Linux 4.7) and is the same.

`memory_init_cow = False` keeps instantiation from asking for a memfd behind the seal; `parallel_compilation = False`
because a fork of a process with compiler threads hangs.
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
    "memory_init_cow": False,
    "parallel_compilation": False,
    "wasm_memory64": False,
    "wasm_threads": False,
}
"""Every setting that differs from the engine's default, whatever the profile."""

EXPLICIT = {"memory_guard_size": 0, "memory_reservation": 0, "memory_reservation_for_growth": 0}
"""Linear memory of `paranoid` and `degraded`, bytes."""

RESERVED = {"memory_guard_size": 32 << 20, "memory_reservation": 4 << 30, "memory_reservation_for_growth": 0}
"""Linear memory of `standard`, bytes."""

UNNAMED_SETTINGS: dict[str, bool] = {"concurrency_support": False}
"""Settings that the C API has and `wasmtime.Config` does not. With `concurrency_support` on, wasmtime 50 traps a host
function that is given a list of two borrowed handles, so that no guest could poll two pollables."""

MAX_WASM_STACK = 512 * 1024
"""Bytes of stack a guest may use before it traps."""


def settings(profile: str) -> dict[str, bool | int]:
    """What an engine of this profile is made with."""
    return SETTINGS | (RESERVED if profile == "standard" else EXPLICIT)


def reservation(profile: str) -> int:
    """Address space, bytes, that each linear memory takes beyond what is in use in it."""
    # A guard lies before each memory as well.
    return RESERVED["memory_reservation"] + 2 * RESERVED["memory_guard_size"] if profile == "standard" else 0


def make_engine(profile: str = "paranoid", *, counted: bool = False) -> wasmtime.Engine:
    """An engine with exactly the profile's `settings` and `UNNAMED_SETTINGS`.

    Args:
        profile: whose.
        counted: take linear memories from `sandbox.memories`, which bounds them together. No part of a .cwasm's
            compatibility.
    """
    import wasmtime
    from wasmtime import _ffi as ffi

    config = wasmtime.Config()
    for name, value in settings(profile).items():
        setattr(config, name, value)
    for name, value in UNNAMED_SETTINGS.items():
        getattr(ffi, f"wasmtime_config_{name}_set")(config.ptr(), value)
    config.max_wasm_stack = MAX_WASM_STACK
    if counted:
        from sandbox import memories

        chosen = settings(profile)
        memories.install(config, int(chosen["memory_reservation"]), int(chosen["memory_guard_size"]))
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


def fingerprint(profile: str = "paranoid", path: str = "general") -> str:
    """What a cached .cwasm must agree with: engine version, the profile's settings, machine; how the component may be
    patched, and by which program.

    Imports no engine; hex SHA-256.
    """
    from sandbox.patch.version import version

    digest = hashlib.sha256()
    for part in (
        "wasmtime",
        importlib.metadata.version("wasmtime"),
        repr(sorted((settings(profile) | UNNAMED_SETTINGS).items())),
        str(MAX_WASM_STACK),
        platform.machine(),
        _cpu_features(),
        path,
        version(),
    ):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()
