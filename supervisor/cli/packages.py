"""`install`, `uninstall`, `list`, `info`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.app import Command
from supervisor.cli.components import component_path, outcome_of
from supervisor.cli.errors import ConsentMissingError, OperatorError
from supervisor.cli.globals import Globals
from supervisor.cli.host import last_end, seconds

if TYPE_CHECKING:
    from supervisor.packages.package import PackageFiles


def parts_of(files: PackageFiles) -> dict[str, bytes]:
    """A package's files as the parts of an upload."""
    parts = {"wasm": files.wasm, "envelope": files.envelope, "manifest": files.manifest}
    return {name: data for name, data in parts.items() if data is not None}


@click.command("install", cls=Command)
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option("--yes", is_flag=True, help="Agree to the capabilities without being asked.")
@click.option(
    "--bind", "binds", metavar="GUEST=HOST", multiple=True, help="A guest directory's real place; may be repeated."
)
@click.option(
    "--env",
    "variables",
    metavar="NAME=VALUE",
    multiple=True,
    help="An environment variable, no secret; may be repeated.",
)
@click.option("--no-env", is_flag=True, help="No environment variables, whatever it had before.")
@click.option("--arg", "args", metavar="TEXT", multiple=True, help="A program argument; may be repeated.")
@click.option("--no-args", is_flag=True, help="No arguments, whatever it had before.")
@click.option("--instance", default="0", help="Name of the instance. Default: 0.")
@click.option("--no-start", is_flag=True, help="Install only.")
@click.pass_obj
def install_(
    options: Globals,
    directory: str,
    yes: bool,
    binds: tuple[str, ...],
    variables: tuple[str, ...],
    no_env: bool,
    args: tuple[str, ...],
    no_args: bool,
    instance: str,
    no_start: bool,
) -> None:
    """Verify a package, show what it asks for, install it and start it.

    A package of a publisher of level "review" needs consent: an answer at the terminal, or --yes.

    Environment variables and arguments replace what an instance had before; without any of them it keeps what it has.
    They are shown by `airssys info` and are no place for secrets.

    \b
    Example:
      airssys install ./package --bind /logs=/srv/logs --yes
      airssys install ./package --env MODE=fast --arg --verbose --yes
    """
    from supervisor.packages.package import read_package

    bindings = dict(_binding(bind) for bind in binds)
    if len(bindings) != len(binds):
        raise OperatorError("a guest directory is bound twice", subject=" ".join(binds))
    if (variables and no_env) or (args and no_args):
        raise OperatorError("none and some are asked for at once", subject="--no-env" if no_env else "--no-args")
    env = dict(_variable(variable) for variable in variables)
    if len(env) != len(variables):
        raise OperatorError("an environment variable is given twice", subject=" ".join(sorted(env)))
    for argument in args:
        _is_text(argument)
    files = read_package(directory)
    with options.client() as client:
        plan = client.upload(parts_of(files))
        _show_plan(options, plan)
        for guest, place in sorted(bindings.items()):
            options.say(f"  bound {guest} to {place}")
        agreed = yes or _agreed(options, plan)
        body = {
            "plan": plan["plan"],
            "bindings": bindings,
            "env": env if env or no_env else None,
            "args": list(args) if args or no_args else None,
            "instance": instance,
            "consent": agreed,
            "start": not no_start,
        }
        status = client.post("/v1/install", body, timeout=300.0)
    outcome_of(options, status, "installed", wanted="stopped" if no_start else "running")


def _binding(text: str) -> tuple[str, str]:
    guest, separator, host = text.partition("=")
    if not separator or not guest.startswith("/") or not host:
        raise OperatorError("a binding is GUEST=HOST", subject=text, hint="as in --bind /logs=/srv/logs")
    # The host's processes may not see this directory; whoever stands here can say at once that it is not there.
    real = os.path.realpath(host)
    if not os.path.isdir(real):
        raise OperatorError("the host directory does not exist", subject=f"{guest}={host}", hint="make it first")
    return guest, real


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise OperatorError("an environment variable is NAME=VALUE", subject=text, hint="as in --env MODE=fast")
    _is_text(text)
    return name, value


def _is_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OperatorError("not UTF-8", subject=ascii(text)) from None


def _show_plan(options: Globals, plan: dict[str, Any]) -> None:
    options.say(f"{plan['name']} {plan['version']} (release {plan['release']}), {plan['world']}")
    if plan["description"]:
        options.say(plan["description"])
    options.say(f"signed by {plan['publisher']} ({plan['level']}), sha256 {plan['digest']}")
    for line in plan["capabilities"]:
        new = " NEW" if line["text"] in plan["widened"] else ""
        options.say(f"  asks for {line['text']}  [{line['risk']}: {line['why']}]{new}")
    if not plan["capabilities"]:
        options.say("  asks for nothing")
    wasi = sorted(
        {name.partition("/")[0].removeprefix("wasi:") for name in plan["imports"] if name.startswith("wasi:")}
    )
    if wasi:
        options.say(f"  uses WASI ({', '.join(wasi)}), which grants nothing here")


def _agreed(options: Globals, plan: dict[str, Any]) -> bool:
    if not plan["consent-needed"]:
        return False
    if options.json or not sys.stdin.isatty():
        raise ConsentMissingError(
            "what this component asks for needs your consent", subject=plan["name"], hint="agree with --yes"
        )
    if not click.confirm("Install it with these capabilities?", default=False, err=True):
        raise ConsentMissingError("you did not agree; nothing was installed", subject=plan["name"])
    return True


@click.command("uninstall", cls=Command)
@click.argument("component")
@click.option("--purge", is_flag=True, help="Drop what it stored, too.")
@click.pass_obj
def uninstall_(options: Globals, component: str, purge: bool) -> None:
    """Stop a component and remove it.

    \b
    Example:
      airssys uninstall acme/echo --purge
    """
    name, path = component_path(component)
    with options.client() as client:
        result = client.delete(path, purge=purge)
    options.result({"id": name, "uninstalled": True, "purged": purge}, result["done"])


@click.command("list", cls=Command)
@click.pass_obj
def list_(options: Globals) -> None:
    """List installed components.

    \b
    Example:
      airssys list
    """
    with options.client() as client:
        answer = client.get("/v1/components")
    if options.json:
        options.result(answer, "")
    elif not answer["components"]:
        options.say("no components")
    else:
        options.table(
            ["COMPONENT", "VERSION", "RELEASE", "STATE", "SHA256"],
            [[c["id"], c["version"], str(c["release"]), c["state"], c["digest"][:16]] for c in answer["components"]],
        )


@click.command("info", cls=Command)
@click.argument("component")
@click.pass_obj
def info_(options: Globals, component: str) -> None:
    """Show everything about a component: publisher, bindings, capabilities, how it ended before.

    \b
    Example:
      airssys info acme/echo
    """
    _, path = component_path(component)
    with options.client() as client:
        info = client.get(path)
    status = info["status"]
    text = [
        f"{status['id']}: {status['state']}, health {status['health']}, last end {last_end(status)}",
        *([f"quarantined: {status['quarantine']}"] if status["quarantine"] else []),
        f"supervisor {status['supervisor']}, {status['restarts']} restarts, {'' if status['ready'] else 'not '}ready",
        *_mail(status),
        f"version {status['version']} (release {status['release']}), sha256 {status['digest']}",
        f"publisher {info['publisher']}, key {info['keyid']}",
        f"installed by {info['installed-by']} at {_time(info['installed-at'])}, agreed to by {info['consent-by']}",
        *(f"bound {guest} to {host}" for guest, host in sorted(info["bindings"].items())),
        *(f"environment {name}={json.dumps(value)}" for name, value in info["env"].items()),
        *([f"arguments {json.dumps(info['args'])}"] if info["args"] else []),
        *(f"may: {line['text']} ({line['risk']})" for line in info["capabilities"]),
        *(f"limit {line['key']} {line['text']}, held by {', '.join(line['held-by'])}" for line in info["limits"]),
        *(f"imports {name}: {', '.join(names)}" for name, names in sorted(info["imports"].items())),
        *_crossing(info["crossing"]),
        *(f"ended {_time(end['at'])}: {end['outcome']} {end['detail']}".rstrip() for end in info["ends"]),
    ]
    if status["uptime"] is not None:
        text.insert(1, f"up {seconds(status['uptime'])}, pid {status['pid']}")
    options.result(info, "\n".join(text))


def _mail(status: dict[str, Any]) -> Iterator[str]:
    """What the router tells of it; nothing while there is no router."""
    if status["mailbox"] is None:
        return
    hand = ", one in hand" if status["busy"] else ""
    yield f"mailbox: {status['mailbox']} waiting, {status['waiting-bytes']} bytes{hand}"
    words = ("delivered", "failed", "denied", "sent", "dropped", "expired", "redelivered", "dead")
    yield f"messages: {', '.join(f'{status[word]} {word}' for word in words)}; {status['rate']:.1f}/s"
    if status["subscriptions"]:
        yield f"subscribed to {', '.join(status['subscriptions'])}"
    if status["timers"]:
        yield f"timers: {status['timers']}"
    if status["breaker"]:
        yield f"circuit breaker: {status['breaker']}"


def _crossing(crossing: dict[str, Any]) -> Iterator[str]:
    """How values cross its boundary."""
    if crossing["path"] == "general":
        yield f"general path: {crossing['reason'] or 'unknown until it is started'}"
        return
    yield f"fast path: {', '.join(crossing['exports'])}"
    for name, functions in crossing["imports"].items():
        yield f"fast path: {name}: {', '.join(functions)}"


def _time(value: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
