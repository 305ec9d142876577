"""`send`, `request` and `publish`: messages from outside."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from supervisor.cli.app import Command
from supervisor.cli.components import target_name
from supervisor.cli.globals import Globals
from supervisor.cli.payloads import as_json, milliseconds, order, payload, payload_options, pretty, unreadable

if TYPE_CHECKING:
    from supervisor.cli.client import Exchange


@click.command("request", cls=Command)
@click.argument("component")
@click.argument("dash", metavar="[-]", required=False)
@payload_options
@click.option("--key", metavar="KEY", help="Messages of one key go to one instance of a group.")
@click.option("--timeout", default="5s", metavar="SPAN", help="How long to wait. Default: 5s.")
@click.option("--pretty", "prettily", is_flag=True, help="Show JSON, CBOR and MessagePack as indented JSON.")
@click.pass_obj
def request_(
    options: Globals,
    component: str,
    dash: str | None,
    data: str | None,
    text: str | None,
    file: str | None,
    codec: str | None,
    content_type: str | None,
    priority: str | None,
    ttl: str | None,
    key: str | None,
    timeout: str,
    prettily: bool,
) -> None:
    """Send a message and print the reply's bytes, nothing else. `-` reads the payload from standard input.

    On a terminal, and with `--pretty`, a reply in JSON, or with a multicodec number in front, is shown as indented
    JSON. `acme/worker/*` is one instance of all. With `--output json` the reply is {"text"} where it is UTF-8, else
    {"base64"}, and {"value"} where it has a multicodec number. `--verbose` tells the message's id, for `airssys trace`.

    \b
    Example:
      airssys request acme/echo --data hello --timeout 2s
      airssys request 'acme/worker/*' --json '{"job": 7}' --codec cbor --priority high --pretty
    """
    name = target_name(component)
    sent = payload(data=data, text=text, file=file, dash=dash, codec=codec, content_type=content_type)
    more = order(priority, ttl, key)
    with options.client() as client:
        reply = client.exchange(name, "request", sent.data, milliseconds(timeout), sent.content_type, **more)
    if options.json:
        ids = {"message": reply.message, "correlation": reply.correlation}
        options.result({"id": name} | ids | as_json(reply.payload), "")
        return
    _tell(options, reply)
    if prettily or (options.fancy and sys.stdout.isatty()):
        if lack := unreadable(reply.payload):
            click.echo(lack, err=True)
        click.echo(pretty(reply.payload))
        return
    sys.stdout.buffer.write(reply.payload)
    sys.stdout.buffer.flush()


@click.command("send", cls=Command)
@click.argument("component")
@click.argument("dash", metavar="[-]", required=False)
@payload_options
@click.option("--key", metavar="KEY", help="Messages of one key go to one instance of a group.")
@click.pass_obj
def send_(
    options: Globals,
    component: str,
    dash: str | None,
    data: str | None,
    text: str | None,
    file: str | None,
    codec: str | None,
    content_type: str | None,
    priority: str | None,
    ttl: str | None,
    key: str | None,
) -> None:
    """Put a message into a component's mailbox and return. `acme/worker/*` is one instance of all.

    \b
    Example:
      airssys send acme/echo --data hello
      airssys send 'acme/worker/*' --json '{"job": 7}' --ttl 10s --key customer-42
    """
    name = target_name(component)
    sent = payload(data=data, text=text, file=file, dash=dash, codec=codec, content_type=content_type)
    with options.client() as client:
        told = client.exchange(name, "send", sent.data, 5_000, sent.content_type, **order(priority, ttl, key))
    _tell(options, told)
    value = {"id": name, "sent": len(sent.data), "message": told.message}
    options.result(value, f"sent {len(sent.data)} bytes to {name}")


@click.command("publish", cls=Command)
@click.argument("topic")
@click.argument("dash", metavar="[-]", required=False)
@payload_options
@click.pass_obj
def publish_(
    options: Globals,
    topic: str,
    dash: str | None,
    data: str | None,
    text: str | None,
    file: str | None,
    codec: str | None,
    content_type: str | None,
    priority: str | None,
    ttl: str | None,
) -> None:
    """Publish a message under a topic; says how many subscribers take it.

    \b
    Example:
      airssys publish orders.eu.new --json '{"order": 7}'
    """
    sent = payload(data=data, text=text, file=file, dash=dash, codec=codec, content_type=content_type)
    with options.client() as client:
        told = client.publish(topic, sent.data, sent.content_type, **order(priority, ttl))
    number = told["subscribers"]
    options.result(told, f"published {len(sent.data)} bytes under {topic}: {number} subscribers")


def _tell(options: Globals, told: Exchange) -> None:
    if options.verbose and not options.json:
        correlation = f", correlation {told.correlation}" if told.correlation else ""
        click.echo(f"message {told.message}{correlation}", err=True)
