"""What the patch adds to a component, by name, and which functions cross the wasm boundary through it.

`x-airssys-` belongs to the host. A component that uses the prefix itself is refused: its name could be taken for one
of ours, or make the patched component invalid.
"""

from __future__ import annotations

from sandbox.abi.types import Function
from sandbox.bindings import FUNCTIONS
from sandbox.errors import AirssysError
from sandbox.types import FastExport

PREFIX = "x-airssys-"
RESERVE = PREFIX + "reserve"
"""Makes room in the scratch memory, and marks it; at the component's root."""
TAKE = PREFIX + "take"
"""Copies a large result that waits; likewise. The fast exports are `PREFIX` and the function's name."""

RESERVE_TYPE, FAST_TYPE = "func(nonce: u32, bytes: u32) -> u32", "func()"
"""The types of `RESERVE`, and of every other function with the prefix."""

LIFECYCLE = "airssys:core/component-lifecycle@1.0.0"
TOPIC_HANDLER = "airssys:messaging/topic-handler@0.1.0"
FAST_EXPORTS: dict[FastExport, str] = {
    "handle-message": LIFECYCLE,
    "handle-callback": LIFECYCLE,
    "handle-topic": TOPIC_HANDLER,
}
"""Functions that are called through the adapter, each with its interface. The first makes a component fast; the others
may not be there, or not be fast."""
FAST_IMPORTS: dict[str, tuple[str, ...]] = {
    "airssys:core/storage@1.0.0": ("get", "set", "delete", "exists", "list-keys", "usage"),
    "airssys:core/host-messaging@1.0.0": ("send", "request", "cancel-request", "broadcast", "self-id"),
    "airssys:core/host-services@1.0.0": ("log",),
    "airssys:messaging/messaging@0.1.0": (
        "send",
        "request",
        "publish",
        "subscribe",
        "unsubscribe",
        "defer",
        "reply",
        "fail",
        "current",
    ),
    "airssys:osl/filesystem@0.1.0": (
        "read",
        "read-range",
        "write",
        "append",
        "delete",
        "make-directory",
        "list",
        "stat",
        "rename",
    ),
}
"""Host functions that the adapter may intercept, by interface."""


class ReservedName(AirssysError):
    """The component uses a name that is the host's own. `subject` is the name."""

    code = "E_RESERVED_NAME"


def reserved(name: str) -> bool:
    """Whether a name holds the prefix: upper and lower case are one to the Component Model, and parts have names too,
    as in `[method]thing.x-airssys-get`."""
    return PREFIX in name.lower()


def fast(name: str) -> str:
    """What the function's fast form is called."""
    return PREFIX + name


def functions() -> dict[str, dict[str, Function]]:
    """Every fast function with its types: interface -> name -> function."""
    wanted: dict[str, tuple[str, ...]] = dict(FAST_IMPORTS)
    for name, interface in FAST_EXPORTS.items():
        wanted[interface] = (*wanted.get(interface, ()), name)
    return {interface: {name: FUNCTIONS[interface][name] for name in names} for interface, names in wanted.items()}
