"""`docs/reference/cli.md`, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from supervisor.cli.app import COMMANDS, root
from supervisor.cli.exit_codes import EXIT_CODES, MEANINGS

_INTRODUCTION = """\
# The command line

Generated from the commands by `scripts/make-reference cli`; change the commands, not this page.

`airssys` is a client of the host's API; `keygen`, `sign`, `verify --key`, `inspect` and `audit verify` work without a
host. Results go to standard output, everything else to standard error; with `--output json` results and errors are
JSON. Control characters in anything that comes from a package, a component or a log are shown as escapes.
"""


def markdown() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_globals(), *_exit_codes(), *_commands()]) + "\n"


def _globals() -> Iterator[str]:
    yield "## Global options\n"
    yield "They may stand before or after a command's name.\n"
    yield "| Option | Meaning |"
    yield "|---|---|"
    for parameter in root.params:
        if isinstance(parameter, click.Option):
            yield _option(parameter)
    yield ""


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| Code | Meaning | Errors |"
    yield "|---|---|---|"
    for number, meaning in MEANINGS.items():
        codes = sorted(code for code, exit_code in EXIT_CODES.items() if exit_code == number)
        shown = "every other" if number == 1 else ", ".join(codes)
        yield f"| {number} | {meaning} | {shown} |"
    yield ""


def _commands() -> Iterator[str]:
    context = click.Context(root, info_name="airssys")
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        yield from _command(command, f"airssys {name}")


def _command(command: click.Command, path: str) -> Iterator[str]:
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
    yield f"## {path}\n"
    yield text.strip() + "\n"
    if not isinstance(command, click.Group):
        arguments = " ".join(_argument(p) for p in command.params if isinstance(p, click.Argument))
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        usage = f"{path} [OPTIONS] {arguments}" if options else f"{path} {arguments}"
        yield f"    {usage.strip()}\n"
        if options:
            yield "| Option | Meaning |"
            yield "|---|---|"
            yield from map(_option, options)
            yield ""
    if example:
        yield "Example:\n"
        yield "\n".join(f"    {line.strip()}" for line in example.strip().splitlines()) + "\n"
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _command(command.commands[name], f"{path} {name}")


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: click.Option) -> str:
    value = "" if option.is_flag else " " + (option.metavar or _choices(option) or option.type.name.upper())
    names = ", ".join(option.opts).replace("|", "\\|")
    return f"| `{names}{value.replace('|', '/')}` | {option.help or ''}{' Required.' if option.required else ''} |"


def _choices(option: click.Option) -> str:
    return "/".join(option.type.choices) if isinstance(option.type, click.Choice) else ""
