"""WASI 0.2 as host functions of ours: what standard toolchains expect of the world, without any power behind it.

The engine's own WASI cannot be used: its first write or poll starts threads and an event loop, which the seal forbids.
So each package of WASI is a module here, in plain Python, within the 11 calls of a sealed worker:

    io          waiting and streams: the two log streams, an input that is at its end
    clocks      the vDSO's clocks; sleeping is one request to the bridge
    random      getrandom(2)
    cli         environment and arguments from the operator, standard streams, exit
    filesystem  no open directory, so no descriptor
    sockets     refused with WASI's own errors

What a guest can hold, it holds through `handles`, which counts. Files and sockets that the bridge mediates can stand
behind the same names later: a descriptor is then one more kind of thing in the table of handles, its streams are
further classes beside `io.LogStream` and `io.EndedStream` (docs/adr/0009-wasi.md).

One version is defined. The Component Model links any `0.2.x` a guest names to any other, so the list of functions is
what decides, and `sandbox.contract` compares that at install.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.wasi import cli, clocks, filesystem, io, random, sockets
from sandbox.host.wasi.handles import Kind, handles
from sandbox.host.wasi.io import LogStream

VERSION = "0.2.12"
_MODULES = (io, clocks, random, cli, filesystem, sockets)

INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    f"wasi:{name}@{VERSION}": functions for module in _MODULES for name, functions in module.INTERFACES.items()
}
"""Every function, by full interface name."""
RESOURCES: dict[str, dict[str, Kind]] = {
    f"wasi:{name}@{VERSION}": kinds for module in _MODULES for name, kinds in module.RESOURCES.items()
}
"""The resources each interface defines; one that only uses a resource does not define it."""


def begin(environment: list[tuple[str, str]], arguments: list[str]) -> None:
    """Start anew for one instance, before its first instruction.

    Args:
        environment: what `get-environment` tells.
        arguments: what `get-arguments` tells, the program's name first.
    """
    handles.clear()
    clocks.begin()
    cli.begin(environment, arguments)


def end_of_call() -> None:
    """The guest has returned or ended: what it printed goes to the log, an incomplete line too.

    Raises:
        ChannelClosed: the bridge is gone.
        ProtocolViolation: it answered what is no answer.
    """
    LogStream.end_of_call()
