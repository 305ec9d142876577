"""wasi:cli@0.2.12 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

from sandbox.abi.types import STRING, Function, HandleType, ListType, OptionType, ResultType, TupleType

CLASSES: dict[str, type | dict[str, type]] = {}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "wasi:cli/environment@0.2.12": {
        "get-environment": Function(
            "get-environment",
            (),
            ListType(TupleType((STRING, STRING))),
        ),
        "get-arguments": Function(
            "get-arguments",
            (),
            ListType(STRING),
        ),
        "initial-cwd": Function(
            "initial-cwd",
            (),
            OptionType(STRING),
        ),
    },
    "wasi:cli/exit@0.2.12": {
        "exit": Function(
            "exit",
            (("status", ResultType(None, None)),),
        ),
    },
    "wasi:cli/stdin@0.2.12": {
        "get-stdin": Function(
            "get-stdin",
            (),
            HandleType("wasi:io/streams.input-stream", borrowed=False),
        ),
    },
    "wasi:cli/stdout@0.2.12": {
        "get-stdout": Function(
            "get-stdout",
            (),
            HandleType("wasi:io/streams.output-stream", borrowed=False),
        ),
    },
    "wasi:cli/stderr@0.2.12": {
        "get-stderr": Function(
            "get-stderr",
            (),
            HandleType("wasi:io/streams.output-stream", borrowed=False),
        ),
    },
    "wasi:cli/terminal-stdin@0.2.12": {
        "get-terminal-stdin": Function(
            "get-terminal-stdin",
            (),
            OptionType(HandleType("wasi:cli/terminal-input.terminal-input", borrowed=False)),
        ),
    },
    "wasi:cli/terminal-stdout@0.2.12": {
        "get-terminal-stdout": Function(
            "get-terminal-stdout",
            (),
            OptionType(HandleType("wasi:cli/terminal-output.terminal-output", borrowed=False)),
        ),
    },
    "wasi:cli/terminal-stderr@0.2.12": {
        "get-terminal-stderr": Function(
            "get-terminal-stderr",
            (),
            OptionType(HandleType("wasi:cli/terminal-output.terminal-output", borrowed=False)),
        ),
    },
}
