"""`trust`: the publishers a host believes."""

from __future__ import annotations

from typing import Any

import click

from supervisor.cli.app import Group
from supervisor.cli.errors import OperatorError
from supervisor.cli.globals import Globals


@click.group("trust", cls=Group)
def trust_() -> None:
    """Publishers this host believes, and what it believes no longer.

    \b
    Example:
      airssys trust add acme --key acme.key.pub --scope 'acme/*' --level trusted
    """


@trust_.command("add")
@click.argument("name")
@click.option("--key", "keys", metavar="FILE.pub", required=True, multiple=True, help="A public key; may be repeated.")
@click.option(
    "--scope", "scopes", required=True, multiple=True, help="What it may publish, as 'acme/*'; may be repeated."
)
@click.option(
    "--level",
    type=click.Choice(["trusted", "review", "deny"]),
    default="review",
    help="Default: review.",
)
@click.option("--threshold", type=click.IntRange(1, 64), default=1, help="Keys that must sign. Default: 1.")
@click.pass_obj
def add(
    options: Globals, name: str, keys: tuple[str, ...], scopes: tuple[str, ...], level: str, threshold: int
) -> None:
    """Believe a publisher's keys for some names.

    \b
    Example:
      airssys trust add acme --key acme.key.pub --scope 'acme/*' --level trusted
    """
    from supervisor.packages.keys import load_public

    public = [load_public(path) for path in keys]
    body = {
        "name": name,
        "keys": [key.pem().decode() for key in public],
        "scopes": list(scopes),
        "level": level,
        "threshold": threshold,
    }
    with options.client() as client:
        result = client.post("/v1/trust", body)
    shown = ", ".join(key.fingerprint for key in public)
    _changed(options, result, f"{name} may publish {', '.join(scopes)} ({level}); key {shown}")


@trust_.command("list")
@click.pass_obj
def list_(options: Globals) -> None:
    """List publishers and what is revoked.

    \b
    Example:
      airssys trust list
    """
    with options.client() as client:
        trust = client.get("/v1/trust")
    if options.json:
        options.result(trust, "")
        return
    if trust["publishers"]:
        options.table(
            ["PUBLISHER", "LEVEL", "SCOPES", "THRESHOLD", "KEYS", "ADDED"],
            [
                [p["name"], p["level"], " ".join(p["scopes"]), str(p["threshold"]), " ".join(p["keyids"]), p["added"]]
                for p in trust["publishers"]
            ],
        )
    else:
        options.say("no publishers: nothing can be installed")
    for keyid in trust["revoked-keys"]:
        options.say(f"revoked key {keyid}")
    for digest in trust["revoked-digests"]:
        options.say(f"revoked component {digest}")


@trust_.command("rotate")
@click.argument("name")
@click.option("--new", "new", metavar="FILE.pub", required=True, help="The key that comes.")
@click.option("--old", "old", metavar="FILE.pub", help="The key that goes; needed when there are several.")
@click.pass_obj
def rotate(options: Globals, name: str, new: str, old: str | None) -> None:
    """Exchange a publisher's key. What only the old key signed is stopped.

    \b
    Example:
      airssys trust rotate acme --new new.key.pub
    """
    from supervisor.packages.keys import load_public

    body = {
        "name": name,
        "new": load_public(new).pem().decode(),
        "old": load_public(old).pem().decode() if old else "",
    }
    with options.client() as client:
        _changed(options, client.post("/v1/trust/rotate", body), f"{name} has a new key")


@trust_.command("revoke")
@click.option("--key", "key", metavar="FILE.pub|KEYID", help="A key.")
@click.option("--digest", metavar="SHA256", help="One component's bytes.")
@click.option("--reason", default="", help="Why, for those who come after.")
@click.pass_obj
def revoke(options: Globals, key: str | None, digest: str | None, reason: str) -> None:
    """Never believe a key, or a component's bytes, again. What ran on the strength of it is stopped.

    \b
    Example:
      airssys trust revoke --key acme.key.pub --reason 'laptop stolen'
    """
    if (key is None) == (digest is None):
        raise click.UsageError("Give --key or --digest, one of the two.")
    keyid = "" if key is None else _keyid(key)
    body = {"keyid": keyid, "digest": digest or "", "reason": reason}
    with options.client() as client:
        _changed(options, client.post("/v1/trust/revoke", body, timeout=120.0), f"revoked {keyid or digest}")


def _keyid(key: str) -> str:
    if len(key) == 64 and all(character in "0123456789abcdef" for character in key):
        return key
    from supervisor.packages.keys import load_public

    return load_public(key).keyid


@trust_.command("remove")
@click.argument("name")
@click.pass_obj
def remove(options: Globals, name: str) -> None:
    """Believe a publisher no longer. Its components are stopped.

    \b
    Example:
      airssys trust remove acme
    """
    from urllib.parse import quote

    if not name:
        raise OperatorError("a publisher has a name")
    with options.client() as client:
        _changed(options, client.delete(f"/v1/trust/{quote(name, safe='')}"), f"{name} is not believed any more")


def _changed(options: Globals, result: dict[str, Any], text: str) -> None:
    stopped = [f"stopped {component}" for component in result["stopped"]]
    options.result(result, "\n".join([text, *stopped]))
