"""`wasi:cli`: environment and arguments as the operator gave them, the standard streams, exit; no terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Err, Ok
from sandbox.host.links import GuestStopped
from sandbox.host.wasi.handles import Kind, handles
from sandbox.host.wasi.io import STDERR, STDIN, STDOUT
from sandbox.types import Outcome

_environment: list[tuple[str, str]] = []
_arguments: list[str] = []


def begin(environment: list[tuple[str, str]], arguments: list[str]) -> None:
    """What the next guest is told."""
    _environment[:] = environment
    _arguments[:] = arguments


def _get_environment() -> list[tuple[str, str]]:
    return _environment


def _get_arguments() -> list[str]:
    return _arguments


def _exit(status: Ok | Err) -> None:
    if isinstance(status, Ok):
        raise GuestStopped(Outcome.EXITED, "exit status 0")
    raise GuestStopped(Outcome.TRAP, "exit status 1")


def _get_stdin() -> int:
    return handles.give(Kind.INPUT_STREAM, STDIN)


def _get_stdout() -> int:
    return handles.give(Kind.OUTPUT_STREAM, STDOUT)


def _get_stderr() -> int:
    return handles.give(Kind.OUTPUT_STREAM, STDERR)


def _none() -> None:
    return None


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "cli/environment": {
        "get-environment": _get_environment,
        "get-arguments": _get_arguments,
        "initial-cwd": _none,
    },
    "cli/exit": {"exit": _exit},
    "cli/stdin": {"get-stdin": _get_stdin},
    "cli/stdout": {"get-stdout": _get_stdout},
    "cli/stderr": {"get-stderr": _get_stderr},
    "cli/terminal-input": {},
    "cli/terminal-output": {},
    "cli/terminal-stdin": {"get-terminal-stdin": _none},
    "cli/terminal-stdout": {"get-terminal-stdout": _none},
    "cli/terminal-stderr": {"get-terminal-stderr": _none},
}
RESOURCES = {
    "cli/terminal-input": {"terminal-input": Kind.TERMINAL_INPUT},
    "cli/terminal-output": {"terminal-output": Kind.TERMINAL_OUTPUT},
}
