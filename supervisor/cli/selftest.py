"""`selftest`: what the host's walls are worth on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from supervisor.cli.app import Group
from supervisor.cli.exit_codes import FAILURE, OK
from supervisor.cli.globals import Globals

if TYPE_CHECKING:
    from supervisor.selftest.runner import Progress


@click.group("selftest", cls=Group)
def selftest_() -> None:
    """Attack the cage on this machine, and see what stops it.

    \b
    Example:
      airssys selftest escape
    """


@selftest_.command("escape")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON; the same as --output json.")
@click.option("--only", metavar="T01,T02", help="Only these attacks.")
@click.option("--jobs", type=click.IntRange(1, 64), default=4, help="Components that attack at once. Default: 4.")
@click.option("--profile", type=click.Choice(["paranoid", "standard"]), default="paranoid", help="Default: paranoid.")
@click.option("--spawn", type=click.Choice(["zygote", "exec"]), default="zygote", help="Default: zygote.")
@click.option("--cases", is_flag=True, help="Show every case, not only each attack.")
@click.pass_obj
def escape(options: Globals, as_json: bool, only: str | None, jobs: int, profile: str, spawn: str, cases: bool) -> int:
    """Run machine code of an attacker's in real workers of a throw-away host; a running host is not touched.

    The throw-away host's workers are made by --profile and --spawn, as [workers] in airssys.toml has them.

    Each attack must be stopped there, and must work in a process without the wall. Exits with 1 when one of both is not
    so, or on a processor whose machine code is not covered.

    \b
    Example:
      airssys selftest escape --only T05,T09
    """
    from supervisor.selftest import report, runner

    if as_json:
        options.output = "json"
    ids = frozenset(part.strip().upper() for part in (only or "").split(",") if part.strip())
    if only is not None and not ids:
        raise click.UsageError("--only names no attack; leave it out to try all of them")
    with _progress(options) as progress:
        configuration = f'[workers]\nprofile = "{profile}"\nspawn = "{spawn}"\n'
        result = runner.run(ids, jobs, progress, configuration=configuration)
    if options.json:
        options.result(report.as_json(result), "")
        return OK if result.good else FAILURE
    options.table(report.COLUMNS, report.table(result))
    if cases:
        rows = [
            [row.id, case.name, case.how, f"{case.shown}: {case.control}"] for row in result.rows for case in row.cases
        ]
        options.table(["ID", "CASE", "IN THE CAGE", "WITHOUT THE WALL"], rows)
    if result.columns:
        options.say("\n".join(["", *report.matrix(result), ""]))
    for line in report.complaints(result):
        click.echo(line)
    options.say(report.sentence(result))
    return OK if result.good else FAILURE


@selftest_.command("serve")
def serve() -> int:
    """Serve a throw-away host, attack programs and their controls to another program, by JSON lines.

    Requests come on standard input, answers go to standard output (docs/reference/selftest-serve.md). The host is
    removed when standard input ends. The plugin for pytest works this way.

    \b
    Example:
      airssys selftest serve
    """
    from supervisor.selftest.serve import serve as run

    return run()


@contextmanager
def _progress(options: Globals) -> Iterator[Progress]:
    if options.json or options.quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, no_color=not options.color)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield show
