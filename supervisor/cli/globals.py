"""Options every command takes, before or after its name, and what follows from them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.escape import clean

if TYPE_CHECKING:
    from supervisor.cli.client import Client
    from supervisor.config import HostConfig


@dataclass
class Globals:
    """The values of the global options."""

    host: str | None = None
    config: str | None = None
    output: str = "text"
    color: bool = True
    quiet: bool = False
    verbose: bool = False

    @property
    def json(self) -> bool:
        """Whether the output is JSON."""
        return self.output == "json"

    def load_config(self) -> HostConfig:
        """The host's configuration. Raises ConfigError."""
        from supervisor.config import load

        return load(self.config)

    def socket(self) -> str:
        """The API's socket: `--host`, else the configuration's."""
        return self.host or self.load_config().api_socket

    def client(self) -> Client:
        """A client of the host."""
        from supervisor.cli.client import Client

        return Client(self.socket())

    @property
    def fancy(self) -> bool:
        """Whether standard output is a terminal that may be decorated."""
        return sys.stdout.isatty() and not self.json

    @property
    def colored(self) -> bool:
        """Whether colours may be used (https://no-color.org)."""
        return self.fancy and self.color and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """A line for people; nothing when quiet or when the output is JSON."""
        if not self.quiet and not self.json:
            click.echo(clean(text, lines=True))

    def result(self, value: Any, text: str) -> None:
        """The result of a command: `value` as JSON, or `text`."""
        if self.json:
            click.echo(json.dumps(value, ensure_ascii=True, indent=2))
        else:
            self.say(text)

    def table(self, columns: list[str], rows: list[list[str]]) -> None:
        """Rows for people: a table on a terminal, aligned columns elsewhere. Says so when there are none."""
        cells = [[clean(cell) for cell in row] for row in rows]
        if self.fancy:
            _rich_table(columns, cells, colored=self.colored)
            return
        widths = [max(len(line[index]) for line in [columns, *cells]) for index in range(len(columns))]
        for line in [columns, *cells]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: list[str], rows: list[list[str]], *, colored: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, not str: a component's words are no markup.
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(no_color=not colored, highlight=False).print(table)


_STYLES = {
    "running": "green",
    "healthy": "green",
    "on": "green",
    "ready": "green",
    "backoff": "yellow",
    "lost": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "degraded": "yellow",
    "medium": "yellow",
    "failed": "red",
    "quarantined": "red",
    "unhealthy": "red",
    "high": "red",
    "missing": "red",
}


def _set(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # Given before the command's name and again after it, the latter counts; not given, it changes nothing.
    options = context.ensure_object(Globals)
    if value is None:
        return
    if parameter.name == "no_color":
        options.color = not value
    else:
        setattr(options, str(parameter.name), value)


def global_options(*, hidden: bool) -> list[click.Option]:
    """The options, once per command."""

    def option(*names: str, help: str, **more: Any) -> click.Option:
        return click.Option(names, help=help, callback=_set, expose_value=False, hidden=hidden, default=None, **more)

    return [
        option("--host", metavar="SOCKET", help="The host's API socket."),
        option("--config", metavar="FILE", help="The host's configuration."),
        option("--output", type=click.Choice(["text", "json"]), help="How results are printed."),
        option("--no-color", is_flag=True, help="No colours."),
        option("--quiet", is_flag=True, help="Only what was asked for, and errors."),
        option("--verbose", is_flag=True, help="Errors with everything that is known."),
    ]
