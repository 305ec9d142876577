"""`wasi:cli`: environment and arguments as the operator gave them, the standard streams, exit; no terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.links import GuestStopped
from sandbox.host.wasi.handles import Kind, handles, plain
from sandbox.host.wasi.io import STDERR, STDIN, STDOUT
from sandbox.types import Outcome
from sandbox.values import Variant

_environment: list[tuple[str, str]] = []
_arguments: list[str] = []


def begin(environment: list[tuple[str, str]], arguments: list[str]) -> None:
    """What the next guest is told."""
    _environment[:] = environment
    _arguments[:] = arguments


def _exit(status: Variant) -> None:
    if status.tag == "ok":
        raise GuestStopped(Outcome.EXITED, "exit status 0")
    raise GuestStopped(Outcome.TRAP, "exit status 1")


def _none() -> None:
    return None


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "cli/environment": {
        "get-environment": plain(lambda: _environment),
        "get-arguments": plain(lambda: _arguments),
        "initial-cwd": plain(_none),
    },
    "cli/exit": {"exit": plain(_exit)},
    "cli/stdin": {"get-stdin": plain(lambda: handles.give(Kind.INPUT_STREAM, STDIN))},
    "cli/stdout": {"get-stdout": plain(lambda: handles.give(Kind.OUTPUT_STREAM, STDOUT))},
    "cli/stderr": {"get-stderr": plain(lambda: handles.give(Kind.OUTPUT_STREAM, STDERR))},
    "cli/terminal-input": {},
    "cli/terminal-output": {},
    "cli/terminal-stdin": {"get-terminal-stdin": plain(_none)},
    "cli/terminal-stdout": {"get-terminal-stdout": plain(_none)},
    "cli/terminal-stderr": {"get-terminal-stderr": plain(_none)},
}
RESOURCES = {
    "cli/terminal-input": {"terminal-input": Kind.TERMINAL_INPUT},
    "cli/terminal-output": {"terminal-output": Kind.TERMINAL_OUTPUT},
}
