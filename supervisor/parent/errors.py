"""Errors of starting and running the host's parent process."""

from __future__ import annotations

from sandbox.errors import AirssysError


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
    """A worker that says it is sealed is not what it says."""

    code = "E_OUTSIDE_CHECK"


class GrantRefused(AirssysError):
    """A directory cannot be granted."""

    code = "E_GRANT"
