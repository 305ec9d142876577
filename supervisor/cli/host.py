"""`up`, `down`, `status`."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from typing import Any

import click

from sandbox.errors import AirssysError
from supervisor.cli.app import Command
from supervisor.cli.errors import StillRunningError, UnreachableError
from supervisor.cli.globals import Globals

READY_TIMEOUT = 30.0
"""Seconds `up --detach` waits for the API beyond the launch itself."""


@click.command("up", cls=Command)
@click.option("--detach", is_flag=True, help="Return once the host serves, and leave it running.")
@click.pass_obj
def up_(options: Globals, detach: bool) -> None:
    """Start the host, in the foreground unless told otherwise.

    \b
    Example:
      airssys up --detach
    """
    from supervisor.parent.launch import launch

    config = options.load_config()
    log = os.path.join(config.run_dir, "host.log")
    before = os.path.getsize(log) if os.path.exists(log) else 0
    if not detach:
        options.say(f"the host starts; its API will be at {config.api_socket}")
    try:
        launch(config, detach)
    except AirssysError as error:
        reason = _last_words(log, before)
        if reason and not error.subject:
            raise AirssysError(error.message, code=error.code, subject=reason, hint=error.hint) from error
        raise
    status = _wait_ready(options)
    text = f"the host is {status['host']['state']}: {config.api_socket}"
    for name, lost in sorted(status["host"]["walls-lost"].items()):
        text += f"\nwall lost: {name}: {lost}"
    options.result(status | {"socket": config.api_socket}, text)


def _wait_ready(options: Globals) -> dict[str, Any]:
    until = time.monotonic() + READY_TIMEOUT
    while True:
        try:
            with options.client() as client:
                status: dict[str, Any] = client.get("/v1/status")
            if status["host"]["state"] == "ready" or time.monotonic() > until:
                return status
        except UnreachableError:
            if time.monotonic() > until:
                raise
        time.sleep(0.05)


def _last_words(path: str, before: int) -> str:
    """The last line that tells of an error in the host's log after its first `before` bytes; "" where there is none."""
    try:
        with open(path, "rb") as file:
            size_now = os.fstat(file.fileno()).st_size
            file.seek(max(before if before <= size_now else 0, size_now - 16384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if "ERROR" in line]
    return (errors or [""])[-1][:500]


@click.command("down", cls=Command)
@click.pass_obj
def down_(options: Globals) -> None:
    """Stop every component, then the host, and wait until it is gone.

    \b
    Example:
      airssys down
    """
    config = options.load_config()
    with options.client() as client:
        processes = client.get("/v1/status")["host"]["processes"]
        pid = next((process["pid"] for process in processes if process["name"] == "supervisor"), None)
        pidfd = None if pid is None else _pidfd(pid)
        client.post("/v1/host/down")
    # All components together get the time the configuration gives them; the processes of the host a little more.
    timeout = config.shutdown_timeout_ms / 1000 + 10
    try:
        gone = _wait_end(pidfd, timeout) if pidfd is not None else _wait_silence(options, timeout)
    finally:
        if pidfd is not None:
            os.close(pidfd)
    if not gone:
        raise StillRunningError(
            f"the host has not ended within {timeout:.0f} s", subject=f"pid {pid}", hint="see the host's log"
        )
    options.result({"down": True, "pid": pid}, "the host is gone")


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _wait_end(pidfd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _wait_silence(options: Globals, timeout: float) -> bool:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            with options.client() as client:
                client.get("/v1/status")
        except AirssysError:
            return True
        time.sleep(0.1)
    return False


@click.command("status", cls=Command)
@click.pass_obj
def status_(options: Globals) -> None:
    """Show the host's processes, the walls it lost, and every component in its place in the supervision tree.

    A component's READY is no while it calls itself unhealthy or does not run; RATE is messages delivered a second; LAST
    END is how its last worker ended. The restarts of a supervisor are those within its window, of as many as it may.

    \b
    Example:
      airssys status --output json
    """
    with options.client() as client:
        status = client.get("/v1/status")
    if options.json:
        options.result(status, "")
        return
    host = status["host"]
    options.say(f"host {host['state']}, up {seconds(host['uptime'])}, airssys {host['version']}")
    options.say(f"profile {host['profile']}, spawn {host['spawn']}, pool {host['pool']}")
    options.table(
        ["PROCESS", "PID", "UID", "RESTARTS", "READY"],
        [[p["name"], str(p["pid"]), str(p["uid"]), str(p["restarts"]), _yes(p["ready"])] for p in host["processes"]],
    )
    for name, lost in sorted(host["walls-lost"].items()):
        options.say(f"wall lost: {name}: {lost}")
    kernel = [
        f"{key} ({name.partition(' ')[2]})"
        for key, names in host["limits-held-by"].items()
        for name in names
        if name.startswith("cgroup ")
    ]
    options.say(f"limits that control groups hold too: {', '.join(kernel) or 'none'}")
    if not status["components"]:
        options.say("no components")
        return
    columns = [
        "COMPONENT",
        "STATE",
        "HEALTH",
        "READY",
        "PID",
        "RESTARTS",
        "UPTIME",
        "MEMORY",
        "MAILBOX",
        "RATE",
        "LAST END",
    ]
    options.table(columns, list(_tree(status)))
    for component in status["components"]:
        if component["quarantine"]:
            options.say(f"quarantined: {component['id']}: {component['quarantine'].splitlines()[0]}")
        if component["breaker"] not in ("", "closed"):
            options.say(f"circuit breaker {component['breaker']}: {component['id']}")
        if component["lost-wall"]:
            options.say(f"wall lost for {component['id']}: {component['lost-wall']}")


def _tree(status: dict[str, Any]) -> Iterator[list[str]]:
    """A row for each supervisor and component, each below its supervisor and indented."""
    components = {component["id"]: component for component in status["components"]}
    supervisors = {supervisor["name"]: supervisor for supervisor in status["supervisors"]}

    def below(name: str, depth: int) -> Iterator[list[str]]:
        for child in supervisors[name]["children"]:
            if child in supervisors:
                yield _supervisor_row(supervisors[child], depth)
                yield from below(child, depth + 1)
            elif child in components:
                yield _row(components[child], depth)

    yield from below("root", 0)


def _supervisor_row(supervisor: dict[str, Any], depth: int) -> list[str]:
    name = f"{'  ' * depth}{supervisor['name']} ({supervisor['strategy']})"
    restarts = f"{supervisor['restarts']}/{supervisor['max-restarts']}"
    return [name, supervisor["state"], "-", "-", "-", restarts, "-", "-", "-", "-", "-"]


def _row(component: dict[str, Any], depth: int) -> list[str]:
    return [
        "  " * depth + component["id"],
        component["state"],
        component["health"],
        _yes(component["ready"]),
        _or_dash(component["pid"]),
        str(component["restarts"]),
        "-" if component["uptime"] is None else seconds(component["uptime"]),
        "-" if component["memory"] is None else size(component["memory"]),
        _or_dash(component["mailbox"]),
        "-" if component["rate"] is None else f"{component['rate']:.1f}/s",
        last_end(component),
    ]


def last_end(component: dict[str, Any]) -> str:
    """How a component's last worker ended, in one line."""
    text: str = component["outcome"] or "-"
    if component["detail"]:
        text += f": {component['detail'].splitlines()[0][:80]}"
    return text


def seconds(value: float) -> str:
    """A time span as people read it."""
    whole = int(value)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{value:.1f}s"


def size(value: int) -> str:
    """Bytes as people read them."""
    return f"{value / 1024:.0f} KiB" if value < 1 << 20 else f"{value / (1 << 20):.1f} MiB"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
