"""What only the command line can say."""

from __future__ import annotations

from sandbox.errors import AirssysError


class UsageError(AirssysError):
    """The command line makes no sense."""

    code = "E_USAGE"


class UnreachableError(AirssysError):
    """No host answers at the socket."""

    code = "E_UNREACHABLE"


class InterruptedAskError(UnreachableError):
    """Whoever was asked ended before it answered; most likely the host itself goes on."""

    code = "E_UNAVAILABLE"


class RefusedError(AirssysError):
    """The host answered with an error; its code, sentence, object and hint are the host's."""


class OperatorError(AirssysError):
    """What the operator gave is not acceptable."""

    code = "E_VALIDATION"


class ConsentMissingError(AirssysError):
    """The operator did not agree."""

    code = "E_CONSENT"


class NotRunningError(AirssysError):
    """The component did not come up."""

    code = "E_NOT_RUNNING"


class StillRunningError(AirssysError):
    """The host did not end in time."""

    code = "E_STILL_RUNNING"
