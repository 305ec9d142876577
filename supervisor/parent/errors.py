"""Errors of starting and running the host's parent process."""

from __future__ import annotations

import errno

from sandbox.errors import AirssysError
from sandbox.wire.supervisor_frames import MAX_TEXT, Failed

_USED_UP = {
    errno.EMFILE: "the process has as many descriptors as it may: raise its limit of open files (LimitNOFILE)",
    errno.ENFILE: "the machine has as many open files as it may: see fs.file-max",
    errno.EAGAIN: "no further process or memory lock is allowed: see the user's and the control group's limits",
    errno.ENOMEM: "no memory is left: see the machine's memory and the control group's limit",
    errno.ENOSPC: "a limit of the kernel is used up: see user.max_*_namespaces and the number of control groups",
}


FAILURES = (AirssysError, OSError, MemoryError)
"""What may go wrong in starting a process, and ends that start alone."""


class RootError(AirssysError):
    """The root directory is not ours, not empty, or not usable."""

    code = "E_ROOT"


class AlreadyRunning(AirssysError):
    """Another host holds this root."""

    code = "E_RUNNING"


class SpawnFailed(AirssysError):
    """A process of the host could not be started."""

    code = "E_SPAWN"


class Exhausted(SpawnFailed):
    """Processes, descriptors or memory are used up for the moment. What was asked may succeed later."""

    code = "E_EXHAUSTED"


class OutsideCheckFailed(AirssysError):
    """A worker or a compiler that says it is sealed is not what it says."""

    code = "E_OUTSIDE_CHECK"


class CompilersBusy(AirssysError):
    """As many compilers as may be are at work."""

    code = "E_COMPILE_BUSY"


class GrantRefused(AirssysError):
    """A directory cannot be granted."""

    code = "E_GRANT"


def exhausted(error: BaseException, subject: str = "") -> Exhausted | None:
    """What to raise for an error that means that something is used up; None for any other error."""
    if isinstance(error, Exhausted):
        return error
    if isinstance(error, MemoryError):
        return Exhausted("the host has no memory for it", subject=subject, hint=_USED_UP[errno.ENOMEM])
    if not isinstance(error, OSError) or error.errno not in _USED_UP:
        return None
    return Exhausted(str(error), subject=subject, hint=_USED_UP[error.errno])


def refusal(n: int, error: Exception, outcome: str = "") -> Failed:
    """The answer to a request that failed."""
    error = exhausted(error) or error
    code = error.code if isinstance(error, AirssysError) else SpawnFailed.code
    # The code has a place of its own.
    return Failed(n, code, str(error).removeprefix(f"{code}: ")[: 2 * MAX_TEXT], outcome)
