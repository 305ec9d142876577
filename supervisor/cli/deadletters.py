"""`deadletters`: messages that were not delivered or not dealt with."""

from __future__ import annotations

import base64
import time
from typing import Any

import click

from supervisor.cli.app import Group
from supervisor.cli.errors import OperatorError
from supervisor.cli.globals import Globals
from supervisor.cli.payloads import as_json, pretty


@click.group("deadletters", cls=Group)
def deadletters_() -> None:
    """Messages that were not delivered or not dealt with: what they are, and sending them again.

    The router keeps the newest of them in memory; they are lost with it.

    \b
    Example:
      airssys deadletters list --component acme/orders
    """


@deadletters_.command("list")
@click.option("--component", default="*", metavar="PATTERN", help="Of these targets only, as acme/* or acme/echo.")
@click.option("--limit", type=click.IntRange(1, 4000), default=100, help="The newest of them. Default: 100.")
@click.pass_obj
def list_letters(options: Globals, component: str, limit: int) -> None:
    """List them, the oldest first.

    \b
    Example:
      airssys deadletters list --component 'acme/*' --output json
    """
    with options.client() as client:
        found = client.get("/v1/deadletters", component=component, limit=limit)
    if options.json:
        options.result(found, "")
        return
    rows = [
        [
            str(letter["id"]),
            _time(letter["at"]),
            letter["reason"],
            letter["sender"],
            letter["target"],
            letter["topic"],
            str(letter["size"]),
            str(letter["deliveries"]),
            letter["text"],
        ]
        for letter in found["letters"]
    ]
    options.table(["ID", "DIED", "REASON", "FROM", "TO", "TOPIC", "BYTES", "DELIVERIES", "WHY"], rows)
    if found["count"] > len(rows):
        options.say(f"{found['count']} in all")


@deadletters_.command("show")
@click.argument("letter", metavar="ID", type=click.IntRange(1))
@click.pass_obj
def show(options: Globals, letter: int) -> None:
    """Show one with its payload.

    \b
    Example:
      airssys deadletters show 17
    """
    with options.client() as client:
        found = client.get(f"/v1/deadletters/{letter}")
    data = base64.b64decode(found.pop("payload"))
    if options.json:
        options.result(found | {"payload": as_json(data)}, "")
        return
    for name, value in found.items():
        if value not in (None, ""):
            options.say(f"{name}: {_time(value) if name in ('at', 'sent-at') else value}")
    click.echo(pretty(data))


@deadletters_.command("replay")
@click.argument("letter", metavar="[ID]", required=False, type=click.IntRange(1))
@click.option("--component", metavar="PATTERN", help="All with these targets, as acme/* or acme/echo; * for all.")
@click.pass_obj
def replay(options: Globals, letter: int | None, component: str | None) -> None:
    """Send one again, or all to some targets: as the same sender, to the same target, and nobody waits for a reply.

    \b
    Example:
      airssys deadletters replay --component acme/orders
    """
    _change(options, "replay", letter, component, "replayed")


@deadletters_.command("purge")
@click.argument("letter", metavar="[ID]", required=False, type=click.IntRange(1))
@click.option("--component", metavar="PATTERN", help="All with these targets, as acme/* or acme/echo; * for all.")
@click.pass_obj
def purge(options: Globals, letter: int | None, component: str | None) -> None:
    """Forget one, or all to some targets.

    \b
    Example:
      airssys deadletters purge 17
    """
    _change(options, "purge", letter, component, "purged")


def _change(options: Globals, action: str, letter: int | None, component: str | None, done: str) -> None:
    if (letter is None) == (component is None):
        raise click.UsageError("Name one dead letter by its ID, or some by --component PATTERN.")
    body: dict[str, Any] = {"letter": letter} if letter is not None else {"component": component}
    with options.client() as client:
        changed = client.post(f"/v1/deadletters/{action}", body)
    options.result(changed, f"{done} {changed['count']}")
    if changed["error"]:
        raise OperatorError(f"not all could be {done}: {changed['error']}", hint="see airssys deadletters list")


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1000):03d}"
