"""Control's errors: each a stable code that the API and the command line map to a status."""

from __future__ import annotations

from sandbox.errors import AirssysError


class ControlError(AirssysError):
    """Any failure control reports to its caller."""

    code = "E_INTERNAL"


class ValidationError(ControlError):
    """What the caller sent does not parse or makes no sense."""

    code = "E_VALIDATION"


class AuthenticationError(ControlError):
    """Nobody can say who the caller is."""

    code = "E_AUTHENTICATION"


class AuthorizationError(ControlError):
    """The caller may not use this host's API."""

    code = "E_AUTHORIZATION"


class NotFoundError(ControlError):
    """No such component, package, plan or publisher."""

    code = "E_NOT_FOUND"


class ConflictError(ControlError):
    """The object's state does not allow it now."""

    code = "E_CONFLICT"


class ConsentError(ControlError):
    """The operator has not agreed to what would be granted."""

    code = "E_CONSENT"


class LimitError(ControlError):
    """The manifest asks for more than the operator allows any component."""

    code = "E_LIMIT"


class BindingError(ControlError):
    """A guest root has no host directory, or one that may not be bound."""

    code = "E_BINDING"


class RollbackError(ControlError):
    """A release lower than one that was installed before."""

    code = "E_ROLLBACK"


class TooLargeError(ControlError):
    """More bytes than this request may carry."""

    code = "E_TOO_LARGE"


class UnavailableError(ControlError):
    """Another process of the host is not answering at the moment."""

    code = "E_UNAVAILABLE"


class NoSpaceError(UnavailableError):
    """A disk of the host is full: nothing was changed."""

    code = "E_NO_SPACE"


class AuditError(UnavailableError):
    """The audit log cannot be written at the moment: what must be recorded is not done."""

    code = "E_AUDIT"


class SupervisorError(ControlError):
    """The supervisor answered `Failed`; `outcome` is its word for how, "" where there is none."""

    def __init__(self, code: str, message: str, outcome: str = "", *, subject: str = "") -> None:
        super().__init__(message, code=code, subject=subject)
        self.outcome = outcome


class CompileError(ControlError):
    """The component does not compile."""

    code = "E_COMPILE"


class WorldError(ControlError):
    """The component imports more than the world its manifest names."""

    code = "E_WORLD"


class CacheError(ControlError):
    """A cached .cwasm is not what control wrote: quarantined, never used."""

    code = "E_CACHE_MAC"


class RegistryError(ControlError):
    """The registry's file cannot be used."""

    code = "E_STATE"


class MessageError(ControlError):
    """A message from outside was not delivered, or its request was not answered."""

    code = "E_MESSAGE"
