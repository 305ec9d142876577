"""The C library by ctypes: system calls that Python does not wrap, with errno turned into OSError.

Every call passes plain integers, bytes or buffers that live until the call returns, so no pointer dangles; return
values are C longs. Nothing here keeps state but the library handle.
"""

from __future__ import annotations

import ctypes
import os
import platform

MACHINE = platform.machine()
_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "mincore": 27,
        "clone": 56,
        "capset": 126,
        "pivot_root": 155,
        "keyctl": 250,
        "seccomp": 317,
    },
    "aarch64": {
        "pivot_root": 41,
        "capset": 91,
        "munmap": 215,
        "keyctl": 219,
        "clone": 220,
        "mmap": 222,
        "mprotect": 226,
        "mincore": 232,
        "seccomp": 277,
    },
}
_COMMON: dict[str, int] = {
    "open_tree": 428,
    "move_mount": 429,
    "pidfd_open": 434,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "mseal": 462,
}

_libc = handle = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]


def number(name: str) -> int:
    """The call's number on this machine (raises KeyError on a machine that is not covered)."""
    return _COMMON[name] if name in _COMMON else _NUMBERS[MACHINE][name]


def _check(result: int, name: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def syscall(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | ctypes._Pointer[ctypes.Structure]) -> int:
    """Make a system call by name.

    Integers are passed as C longs (ctypes would cut them to int); buffers by address, for the call's duration.
    """
    converted = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _check(_libc.syscall(ctypes.c_long(number(name)), *converted), name)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, *, name: str = "prctl") -> int:
    """prctl(2); `name` appears in the error."""
    return _check(_libc.prctl(option, a, b, c, d), name)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    args = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    _check(_libc.mount(args[0], args[1], args[2], flags, args[3]), f"mount {target}")


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f"umount2 {target}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def keep_heap_in_brk() -> None:
    """Tell malloc never to map single chunks, so that realloc never needs mremap (which the seal forbids).

    mallopt(3), M_MMAP_MAX = 0: large blocks come from the brk heap, which shrinks when its top is free.
    """
    if _libc.mallopt(-4, 0) != 1:
        raise OSError(0, "mallopt(M_MMAP_MAX) refused")
