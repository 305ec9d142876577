"""One flag for the whole process: a guest is running. Both ways into a guest look at it.

The engine (wasmtime 50) lets a host function call back into the instance that has called it. Neither path could bear
that: both use the same scratch memory for every call. So whoever would enter while a guest runs is refused here, and
the engine never hears of it.
"""

from __future__ import annotations

from sandbox.errors import AirssysError


class Reentered(AirssysError):
    """A guest was to be called while one is running: a host function must return first."""

    code = "E_REENTERED"


class Gate:
    """`busy` while a guest runs."""

    __slots__ = ("busy",)

    def __init__(self) -> None:
        self.busy = False

    def __enter__(self) -> None:
        """Raises: Reentered."""
        if self.busy:
            raise reentered()
        self.busy = True

    def __exit__(self, *_: object) -> None:
        self.busy = False


def reentered() -> Reentered:
    """The refusal."""
    return Reentered("a guest cannot be called while a guest is running", hint="let the host function return first")


gate = Gate()
"""One worker, one process, one thread: module state is right."""
