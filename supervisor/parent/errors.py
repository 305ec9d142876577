"""Errors of starting and running the host's parent process."""

from __future__ import annotations

from sandbox.errors import AirssysError
from sandbox.wire.supervisor_frames import MAX_TEXT, Failed


class RootError(AirssysError):
    """The root directory is not ours, not empty, or not usable."""

    code = "E_ROOT"


class AlreadyRunning(AirssysError):
    """Another host holds this root."""

    code = "E_RUNNING"


class SpawnFailed(AirssysError):
    """A process of the host could not be started."""

    code = "E_SPAWN"


class OutsideCheckFailed(AirssysError):
    """A worker or a compiler that says it is sealed is not what it says."""

    code = "E_OUTSIDE_CHECK"


class CompilersBusy(AirssysError):
    """As many compilers as may be are at work."""

    code = "E_COMPILE_BUSY"


class GrantRefused(AirssysError):
    """A directory cannot be granted."""

    code = "E_GRANT"


def refusal(n: int, error: Exception, outcome: str = "") -> Failed:
    """The answer to a request that failed."""
    code = error.code if isinstance(error, AirssysError) else SpawnFailed.code
    return Failed(n, code, str(error)[: 2 * MAX_TEXT], outcome)
