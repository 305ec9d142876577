"""`trace`: the way of one message."""

from __future__ import annotations

import time

import click

from supervisor.cli.app import Command
from supervisor.cli.errors import OperatorError
from supervisor.cli.globals import Globals


@click.command("trace", cls=Command)
@click.argument("message", metavar="ID")
@click.pass_obj
def trace_(options: Globals, message: str) -> None:
    """Follow one message, by its id or its correlation id, through send, queue, delivery and reply.

    The router remembers what is under way and the last 10,000 that have ended. AFTER is the time since it was sent.

    \b
    Example:
      airssys trace 1234
    """
    if not message.isascii() or not message.isalnum() or len(message) > 64:
        raise OperatorError("not the id of a message", subject=message[:64], hint="airssys request --verbose tells it")
    with options.client() as client:
        found = client.get(f"/v1/trace/{message}")
    if options.json:
        options.result(found, "")
        return
    steps = found["steps"]
    begin = steps[0]["at"]
    rows = [
        [
            time.strftime("%H:%M:%S", time.localtime(step["at"])) + f".{int(step['at'] % 1 * 1e6):06d}",
            f"{(step['at'] - begin) * 1000:.3f} ms",
            step["what"],
            step["component"],
            step["text"],
        ]
        for step in steps
    ]
    correlation = f", correlation {found['correlation']}" if found["correlation"] else ""
    options.say(f"message {found['message']}{correlation}")
    options.table(["TIME", "AFTER", "STEP", "COMPONENT", "WHAT"], rows)
