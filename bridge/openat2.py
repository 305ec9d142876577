"""openat2(2), the one way the bridge opens anything below a grant.

Every call carries all four resolution walls: the path stays beneath the descriptor, no component is a symbolic or
magic link, no mount is crossed. The kernel answers EAGAIN when it cannot prove that a rename beside it did not let
the walk escape; the call is repeated a bounded number of times.
"""

from __future__ import annotations

import ctypes
import errno
import os

from sandbox.errors import KernelFeatureMissing

_SYS_OPENAT2 = 437
"""The number is the same on every architecture (added after the tables were unified)."""
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
ALWAYS = os.O_CLOEXEC | os.O_NOFOLLOW
"""Added to every open."""
TRIES = 64
"""How often an EAGAIN is tried again."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# syscall(2) is variadic: fixed argument types keep descriptors and pointers at the width the kernel reads.
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_HOW_SIZE = ctypes.sizeof(_OpenHow)


def open_beneath(dirfd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` (relative, components joined by `/`) beneath `dirfd`; the descriptor is close-on-exec.

    Raises:
        OSError: ELOOP for a symbolic link on the way, EXDEV for another mount, EAGAIN when the tree kept moving, and
            whatever openat2(2) answers.
    """
    how = _OpenHow(flags | ALWAYS, mode, RESOLVE)
    name = os.fsencode(path)
    for _ in range(TRIES):
        fd = int(_syscall(_SYS_OPENAT2, dirfd, name, ctypes.byref(how), _HOW_SIZE))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, "openat2")


def probe() -> None:
    """Check that the kernel has openat2 with all four walls.

    Raises:
        KernelFeatureMissing: it has not (Linux before 5.6, or a filter in the way).
    """
    try:
        dirfd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(open_beneath(dirfd, ".", os.O_PATH | os.O_DIRECTORY))
        finally:
            os.close(dirfd)
    except OSError as error:
        raise KernelFeatureMissing(
            "openat2 is not to be had",
            subject=errno.errorcode.get(error.errno or 0, ""),
            hint="Linux 5.6 or newer is needed",
        ) from error
