"""Why a message did not get where it should, one exception for each reason."""

from __future__ import annotations


class ClientError(Exception):
    """Anything this library raises about the host."""


class NotConnected(ClientError, ConnectionError):
    """No host answers at the socket, or not in time; or it has no room for one more connection of this user."""


class NotAllowed(NotConnected):
    """The host does not let this user in: it has no `[[client]]` in the host's configuration."""


class ConnectionLost(ClientError, ConnectionError):
    """The router ended while it had this: nobody knows whether the message was delivered; it is not sent again."""


class Closed(ClientError):
    """The client was closed."""


class Refused(ClientError):
    """The control API answered with an error: `code` as in the host's reference of errors, and a hint."""

    def __init__(self, code: str, message: str, subject: str = "", hint: str = "") -> None:
        super().__init__(f"{message} ({code})")
        self.code, self.subject, self.hint = code, subject, hint


class Failed(ClientError):
    """The host told why: `reason` is the word for it, `text` explains; `message` and `correlation` are for a trace."""

    reason = ""

    def __init__(self, text: str = "", *, message: int = 0, correlation: str = "") -> None:
        super().__init__(text or self.reason)
        self.text, self.message, self.correlation = text, message, correlation


class RequestTimeout(Failed, TimeoutError):
    """No reply in time. The handler may be at work still; its reply is discarded."""

    reason = "timeout"


class TargetNotFound(Failed):
    """There is no such component."""

    reason = "target-not-found"


class TargetEnded(Failed):
    """The component ended while it had the message in hand."""

    reason = "target-ended"


class Denied(Failed):
    """This user may not, or the component does not accept it. It is in the audit log."""

    reason = "denied"


class QueueFull(Failed):
    """The component's mailbox is full, or too much is open already."""

    reason = "queue-full"


class TooLarge(Failed):
    """The payload, or the reply, is larger than what is taken."""

    reason = "too-large"


class GuestError(Failed):
    """The handler answered with an error."""

    reason = "guest-error"


class Stopping(Failed):
    """The component is shutting down."""

    reason = "stopping"


class Expired(Failed):
    """Its time to live was over before it was delivered."""

    reason = "expired"


class CircuitOpen(Failed):
    """Too many requests to the component have failed lately; the host refuses them for a while."""

    reason = "circuit-open"


class RateLimited(Failed):
    """More messages in a second than this user may send."""

    reason = "rate-limited"


class Invalid(Failed):
    """What was asked makes no sense: a name that is none, a pattern, options."""

    reason = "invalid"


REASONS: dict[str, type[Failed]] = {
    kind.reason: kind
    for kind in (
        RequestTimeout,
        TargetNotFound,
        TargetEnded,
        Denied,
        QueueFull,
        TooLarge,
        GuestError,
        Stopping,
        Expired,
        CircuitOpen,
        RateLimited,
        Invalid,
    )
}
"""The host's words and what is raised for each."""


def failure(reason: str, text: str, *, message: int = 0, correlation: str = "") -> Failed:
    """The exception for one of the host's words."""
    kind = REASONS.get(reason)
    if kind is None:
        other = Failed(f"{reason}: {text}", message=message, correlation=correlation)
        other.reason = reason
        return other
    return kind(text, message=message, correlation=correlation)
