"""The root of every error airssys raises on purpose.

An error has a stable code (`E_...`), says what happened, on which object, and what to do next. Subclasses in
the other folders only add codes; nothing outside this module decides how an error is shown.
"""

from __future__ import annotations


class AirssysError(Exception):
    """An expected failure with a stable code.

    Attributes:
        code: stable identifier, `E_` and capitals; documented in `docs/reference/errors.md`.
        message: one sentence, what happened.
        subject: the object it happened to (a path, a component id, a key), or "".
        hint: what to do next, or "".
    """

    code = "E_INTERNAL"

    def __init__(self, message: str, *, subject: str = "", hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        if self.subject:
            text += f" [{self.subject}]"
        if self.hint:
            text += f"; {self.hint}"
        return text


class ProtocolViolation(AirssysError):
    """A peer sent a frame of wrong length, kind or order. The channel is closed; the peer ends."""

    code = "E_PROTOCOL"


class KernelFeatureMissing(AirssysError):
    """The kernel (or its configuration) lacks something a wall needs."""

    code = "E_KERNEL"


class SetupFailed(AirssysError):
    """A hardening step failed; the process it was meant for never runs."""

    code = "E_SETUP"
