"""`start`, `stop`, `restart`, `release`."""

from __future__ import annotations

from typing import Any

import click

from sandbox.types import ComponentId
from supervisor.cli.app import Command
from supervisor.cli.errors import NotRunningError, OperatorError
from supervisor.cli.globals import Globals

LONG = 300.0
"""Seconds a start may take: a first compilation is part of it."""


def component_path(text: str) -> tuple[str, str]:
    """A component's full id and its path in the API. Raises OperatorError."""
    try:
        component = ComponentId.parse(text)
    except ValueError as error:
        raise OperatorError(str(error), hint="as in acme/echo or acme/echo/0") from error
    return str(component), f"/v1/components/{component}"


def target_name(text: str) -> str:
    """A component's full id, or `ns/name/*` for one instance of all. Raises OperatorError."""
    try:
        return str(ComponentId.parse_target(text))
    except ValueError as error:
        raise OperatorError(str(error), hint="as in acme/echo, acme/echo/0 or acme/echo/*") from error


def outcome_of(options: Globals, status: dict[str, Any], done: str, *, wanted: str) -> None:
    """Print what became of a component; raise NotRunningError when that is not what was wanted."""
    if status["state"] == wanted:
        options.result(status, f"{status['id']} {done}, {status['state']}")
        return
    # A backtrace is for `info` and the logs.
    why = ": ".join(filter(None, (status["outcome"], status["detail"].partition("\n")[0])))
    raise NotRunningError(
        f"{done}, but the component is {status['state']}: {why}".rstrip(": "),
        subject=status["id"],
        hint=f"see airssys info {status['id']} and airssys logs {status['id']}",
    )


@click.command("start", cls=Command)
@click.argument("component")
@click.pass_obj
def start_(options: Globals, component: str) -> None:
    """Start a component and wait until it runs. Ends its quarantine.

    \b
    Example:
      airssys start acme/echo
    """
    _, path = component_path(component)
    with options.client() as client:
        status = client.post(f"{path}/start", timeout=LONG)
    outcome_of(options, status, "started", wanted="running")


@click.command("stop", cls=Command)
@click.argument("component")
@click.option("--drain", is_flag=True, help="Deliver what waits in its mailbox first.")
@click.pass_obj
def stop_(options: Globals, component: str, drain: bool) -> None:
    """Stop a component and keep it stopped.

    \b
    Example:
      airssys stop acme/echo --drain
    """
    _, path = component_path(component)
    with options.client() as client:
        status = client.post(f"{path}/stop", timeout=LONG, drain=drain)
    outcome_of(options, status, "told to stop", wanted="stopped")


@click.command("restart", cls=Command)
@click.argument("component")
@click.pass_obj
def restart_(options: Globals, component: str) -> None:
    """End a component's worker and start another. Its mailbox stays.

    \b
    Example:
      airssys restart acme/echo
    """
    _, path = component_path(component)
    with options.client() as client:
        status = client.post(f"{path}/restart", timeout=LONG)
    outcome_of(options, status, "restarted", wanted="running")


@click.command("release", cls=Command)
@click.argument("what", metavar="COMPONENT|SUPERVISOR")
@click.pass_obj
def release_(options: Globals, what: str) -> None:
    """End the quarantine of a component, or of all below a supervisor, and start what it held.

    What is below a supervisor starts in its order. `airssys status` names the cause of a quarantine.

    \b
    Example:
      airssys release acme/echo
      airssys release workers
    """
    if "/" in what:
        _, path = component_path(what)
        with options.client() as client:
            status = client.post(f"{path}/release", timeout=LONG)
        outcome_of(options, status, "released", wanted="running")
        return
    with options.client() as client:
        supervisor = client.post(f"/v1/supervisors/{supervisor_name(what)}/release", timeout=LONG)
    if supervisor["state"] != "running":
        raise NotRunningError(
            f"released, but what is below it is {supervisor['state']}", subject=what, hint="see airssys status"
        )
    options.result(supervisor, f"supervisor {what} released, running")


def supervisor_name(text: str) -> str:
    """A supervisor's name as a part of a path. Raises OperatorError."""
    if not text or not all(char.isalnum() or char == "-" for char in text) or not text.isascii():
        raise OperatorError("not a supervisor's name", subject=text, hint="a component is namespace/name")
    return text
