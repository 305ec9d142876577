"""`logs` and `audit`: what components logged, what was decided, and whether that log is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import click

from supervisor.cli.app import Command, Group
from supervisor.cli.components import component_path
from supervisor.cli.errors import OperatorError
from supervisor.cli.escape import clean
from supervisor.cli.globals import Globals


@click.command("logs", cls=Command)
@click.argument("component", required=False)
@click.option("--follow", is_flag=True, help="Go on as lines come.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="Lines to begin with. Default: 100.")
@click.pass_obj
def logs_(options: Globals, component: str | None, follow: bool, limit: int) -> None:
    """Show what a component (or all of them) logged.

    \b
    Example:
      airssys logs acme/echo --follow
    """
    name = component_path(component)[0] if component else ""
    with options.client() as client, client.lines("/v1/logs", component=name, follow=follow, limit=limit) as lines:
        _print(options, lines, _log_line)


def _log_line(line: dict[str, Any]) -> str:
    context = "".join(f" {key}={value}" for key, value in line.get("context", []))
    head = f"{line.get('time', '')} {line.get('component', '')} {line.get('level', '')}"
    return f"{head}: {line.get('message', '')}{context}"


def _audit_line(line: dict[str, Any]) -> str:
    detail = "".join(f" {key}={value}" for key, value in sorted(line.get("detail", {}).items()))
    who = line.get("component") or "host"
    lost = line.get("lost", [])
    without = f" (without {', '.join(lost)})" if lost else ""
    return (
        f"{line.get('seq', '')} {line.get('time', '')} {line.get('decision', '')} {line.get('event', '')} {who} "
        f"{line.get('object', '')} {line.get('result', '')}{detail}{without}"
    )


def _print(options: Globals, lines: Iterable[str], render: Any) -> None:
    for line in lines:
        if not line:
            continue
        # In JSON the lines stay as they stand in the file: escaped already, and signed for in the audit log.
        click.echo(line if options.json else clean(render(json.loads(line))))


@click.group("audit", cls=Group)
def audit_() -> None:
    """Every decision: show it, or verify that none is missing or changed.

    \b
    Example:
      airssys audit tail --denied
    """


@audit_.command("tail")
@click.option("--component", help="Only of this component.")
@click.option("--denied", is_flag=True, help="Only what was denied.")
@click.option("--follow", is_flag=True, help="Go on as lines come.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="Lines to begin with. Default: 20.")
@click.pass_obj
def tail(options: Globals, component: str | None, denied: bool, follow: bool, limit: int) -> None:
    """Show the newest lines of the audit log.

    \b
    Example:
      airssys audit tail --component acme/echo --denied --output json
    """
    name = component_path(component)[0] if component else ""
    with (
        options.client() as client,
        client.lines("/v1/audit", component=name, denied=denied, follow=follow, limit=limit) as lines,
    ):
        _print(options, lines, _audit_line)


@audit_.command("verify")
@click.option("--dir", "directory", metavar="DIR", help="The log's directory; the host's own by default.")
@click.option("--key", metavar="FILE", help="The log's public key; audit.pub beside the log by default.")
@click.option("--checkpoint", metavar="SEQ:HASH", help="A line that must be there, from a checkpoint kept elsewhere.")
@click.pass_obj
def verify(options: Globals, directory: str | None, key: str | None, checkpoint: str | None) -> None:
    """Verify the chain and the signed checkpoints of the whole log, from its files.

    \b
    Example:
      airssys audit verify
    """
    from bridge.audit import chain, files

    directory = directory or options.load_config().audit_dir
    with open(key or os.path.join(directory, files.PUBLIC_KEY), "rb") as file:
        public = files.load_public_key(file.read())
    verified = chain.verify(_audit_lines(directory), public, _checkpoint(checkpoint))
    options.result(
        {
            "lines": verified.lines,
            "last": verified.last_seq,
            "head": verified.head,
            "checkpoints": verified.checkpoints,
            "signed": verified.signed_seq,
        },
        f"{verified.lines} lines are whole; {verified.checkpoints} checkpoints cover them up to {verified.signed_seq}\n"
        f"keep this elsewhere: {verified.last_seq}:{verified.head}",
    )


def _audit_lines(directory: str) -> Iterator[bytes]:
    from bridge.audit import files

    dirfd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = [*files.rotated(dirfd), files.AUDIT]
    finally:
        os.close(dirfd)
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # the last one may be half written at this moment
                    yield line[:-1]


def _checkpoint(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, head = text.partition(":")
    if not number.isdecimal() or len(head) != 64:
        raise OperatorError("a checkpoint is SEQ:HASH", subject=text[:100], hint="as audit verify prints it")
    return int(number), head
