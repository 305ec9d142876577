"""Exceptions across the boundary: one that a host function raises ends the guest's call and is raised where it began.

The engine sees an error object without content; the exception waits here. One process has one guest at a time and one
thread (`sandbox.marshal.reentrance`), so one place is enough.
"""

from __future__ import annotations

from typing import NoReturn

from sandbox.errors import AirssysError
from sandbox.marshal import capi


class BadValue(AirssysError):
    """A value that is not of its WIT type, an argument's or a host function's result; names the part that is not."""

    code = "E_VALUE"


class TooLong(AirssysError):
    """A list that the engine would refuse to copy; what it would take to hand it over is not made first."""

    code = "E_VALUE"


class TypesDiffer(AirssysError):
    """The engine's value is not of the type the function's plan was made for: the host's fault, not a guest's."""

    code = "E_ENGINE"


class _Waiting:
    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: BaseException | None = None


_waiting = _Waiting()
_spare = 0
"""An error object for the case that none can be made any more."""


def prepare() -> None:
    """Make what a failure without memory needs. Once, before the first call."""
    global _spare
    _spare = _spare or int(capi.error_new(b"a host function failed, and no memory is left to say so"))


def stop(error: BaseException) -> int:
    """Remember what a host function raised; the address of the error object that the engine is to be given."""
    _waiting.error = error
    try:
        return int(capi.error_new(b"exception of a host function"))
    except BaseException:  # whatever it is, the engine must hear of a failure
        return _spare


def forget() -> None:
    """Before a guest is entered: what may have been left by a call that was never heard of again."""
    _waiting.error = None


def raise_waiting() -> None:
    """Raise a host function's exception, if one waits."""
    waiting, _waiting.error = _waiting.error, None
    try:
        if waiting is not None:
            raise waiting
    finally:
        del waiting  # or it would hold this frame, and the frame it: a guest's memory would outlive its end


def raise_of(address: int) -> NoReturn:
    """Raise what a failed call means: a host function's own exception, or the engine's error at this address."""
    error = capi.error_at(address)
    try:
        raise_waiting()
        raise error
    finally:
        del error  # as above
