"""`send` and `request`: messages from outside."""

from __future__ import annotations

import json
import sys

import click

from supervisor.cli.app import Command
from supervisor.cli.components import component_path
from supervisor.cli.errors import OperatorError
from supervisor.cli.globals import Globals


def _payload(data: str | None, text: str | None, file: str | None, dash: str | None) -> tuple[bytes, str]:
    given = [value for value in (data, text, file, dash) if value is not None]
    if len(given) > 1:
        raise click.UsageError("Give the payload once: --data, --json, --file or -.")
    if dash is not None and dash != "-":
        raise click.UsageError(f"Unexpected argument {dash!r}; a payload is given with --data.")
    if text is not None:
        try:
            json.loads(text)
        except ValueError as error:
            raise OperatorError(f"--json is no JSON: {error}") from error
        return text.encode(), "application/json"
    if file is not None:
        with open(file, "rb") as opened:
            return opened.read(), "application/octet-stream"
    if dash is not None:
        return sys.stdin.buffer.read(), "application/octet-stream"
    return (data or "").encode("utf-8", "surrogateescape"), "application/octet-stream"


def _milliseconds(text: str) -> int:
    from supervisor.packages.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise OperatorError(f"not a time span: {text}", hint="as in 500ms, 5s or 2m") from error


@click.command("request", cls=Command)
@click.argument("component")
@click.argument("dash", metavar="[-]", required=False)
@click.option("--data", metavar="TEXT", help="The payload as text.")
@click.option("--json", "text", metavar="JSON", help="The payload as JSON, checked.")
@click.option("--file", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="The payload's file.")
@click.option("--timeout", default="5s", metavar="SPAN", help="How long to wait. Default: 5s.")
@click.pass_obj
def request_(
    options: Globals,
    component: str,
    dash: str | None,
    data: str | None,
    text: str | None,
    file: str | None,
    timeout: str,
) -> None:
    """Send a message and print the reply's bytes, nothing else. `-` reads the payload from standard input.

    With `--output json` the reply is {"text"} where it is UTF-8, else {"base64"}.

    \b
    Example:
      airssys request acme/echo --data hello --timeout 2s
    """
    name, _ = component_path(component)
    payload, content_type = _payload(data, text, file, dash)
    with options.client() as client:
        reply = client.message(name, "request", payload, _milliseconds(timeout), content_type)
    if options.json:
        options.result({"id": name} | _as_json(reply), "")
        return
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()


def _as_json(reply: bytes) -> dict[str, str]:
    import base64

    try:
        return {"text": reply.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(reply).decode()}


@click.command("send", cls=Command)
@click.argument("component")
@click.argument("dash", metavar="[-]", required=False)
@click.option("--data", metavar="TEXT", help="The payload as text.")
@click.option("--json", "text", metavar="JSON", help="The payload as JSON, checked.")
@click.option("--file", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="The payload's file.")
@click.pass_obj
def send_(
    options: Globals, component: str, dash: str | None, data: str | None, text: str | None, file: str | None
) -> None:
    """Put a message into a component's mailbox and return.

    \b
    Example:
      airssys send acme/echo --data hello
    """
    name, _ = component_path(component)
    payload, content_type = _payload(data, text, file, dash)
    with options.client() as client:
        client.message(name, "send", payload, 5_000, content_type)
    options.result({"id": name, "sent": len(payload)}, f"sent {len(payload)} bytes to {name}")
