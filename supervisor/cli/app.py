"""The command `airssys`: which module holds which command, and how errors become messages and exit codes.

The root knows every command's name and one line about it; a command's module is imported when the command is called.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
from typing import Any

import click

from sandbox.errors import AirssysError
from supervisor.cli.errors import UsageError
from supervisor.cli.escape import clean
from supervisor.cli.exit_codes import FAILURE, OK, USAGE, exit_code
from supervisor.cli.globals import Globals, global_options

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("host", "Start the host."),
    "down": ("host", "Stop the host and every component."),
    "status": ("host", "Show the host and its components."),
    "doctor": ("doctor", "Show which walls stand here and which do not."),
    "selftest": ("selftest", "Attack the cage on this machine, and see what stops it."),
    "keygen": ("signing", "Make a signing key."),
    "sign": ("signing", "Sign a package."),
    "verify": ("signing", "Verify a package."),
    "inspect": ("signing", "Show what a package says, believed or not."),
    "trust": ("trust", "Publishers this host believes."),
    "install": ("packages", "Install a package and start it."),
    "uninstall": ("packages", "Remove a component."),
    "list": ("packages", "List components."),
    "info": ("packages", "Show everything about a component."),
    "start": ("components", "Start a component."),
    "stop": ("components", "Stop a component."),
    "restart": ("components", "End a component's worker and start another."),
    "release": ("components", "End a quarantine."),
    "send": ("messages", "Send a message to a component."),
    "request": ("messages", "Send a message and print the reply's bytes."),
    "publish": ("messages", "Publish a message under a topic."),
    "deadletters": ("deadletters", "Messages that were not delivered: list, show, replay or purge them."),
    "trace": ("tracing", "Follow one message."),
    "logs": ("lines", "Show what a component logged."),
    "audit": ("lines", "Show or verify the audit log."),
}
"""Name to module and help, in the order in which they are shown."""


class Command(click.Command):
    """A command that takes the global options after its name too."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params.extend(global_options(hidden=True))


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class Root(click.Group):
    """The commands by name, loaded when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import the command's module."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"supervisor.cli.{entry[0]}")
        command = getattr(module, f"{cmd_name}_")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """The list of commands, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, without loading every module to suggest names."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, 1)
            ctx.fail(f"No such command {clean(name)!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return name, command, args[1:]


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"airssys {version('airssys-wasm')}")
        context.exit()


root = Root(
    "airssys",
    help="Run signed WebAssembly components nobody has to trust.\n\n"
    "\b\nairssys up --detach\nairssys install ./package --yes\nairssys request acme/echo --data hello",
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Version."
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line; return its exit code."""
    options = Globals()
    try:
        result = root.main(arguments, prog_name="airssys", standalone_mode=False, obj=options)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        if not _wants_json(options, arguments):
            error.show()
        else:
            command = error.ctx.command_path if error.ctx is not None else "airssys"
            report(options, UsageError(error.format_message(), hint=f"{command} --help"))
        return USAGE
    except click.ClickException as error:
        error.show()
        return FAILURE
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader has what it wanted; the interpreter must not complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except AirssysError as error:
        report(options, error)
        return exit_code(error.code)
    except OSError as error:
        report(options, AirssysError(error.strerror or str(error), subject=str(error.filename or ""), code="E_IO"))
        return FAILURE
    return result if isinstance(result, int) else OK


def _wants_json(options: Globals, arguments: list[str] | None) -> bool:
    """Whether errors are to be JSON, also where the line was not understood as far as the option."""
    words = sys.argv[1:] if arguments is None else arguments
    if "--output=json" in words or ("--output", "json") in itertools.pairwise(words):
        options.output = "json"
    return options.json


def report(options: Globals, error: AirssysError) -> None:
    """Say on standard error what happened, why, and what to do."""
    if options.json:
        body = {"code": error.code, "message": error.message, "subject": error.subject, "hint": error.hint}
        click.echo(json.dumps({"error": body}), err=True)
        return
    line = f"error: {clean(error.message)}"
    if error.subject:
        line += f" [{clean(error.subject)}]"
    click.echo(f"{line} ({error.code})", err=True)
    if error.hint:
        click.echo(f"hint: {clean(error.hint)}", err=True)
    if options.verbose and error.__cause__ is not None:
        click.echo(f"cause: {clean(str(error.__cause__))}", err=True)
