"""`doctor`: every wall with its state, what was configured, who holds which limit, the host's processes as they are.

The walls are tried on this machine; the processes are read from `/proc/PID/status`, which is open to everybody
(proc(5)), and not believed from the host. What only the supervisor can read (namespaces, above all) it is asked for.
"""

from __future__ import annotations

from typing import Any

import click

from sandbox.errors import AirssysError
from supervisor.cli.app import Command
from supervisor.cli.errors import UnreachableError
from supervisor.cli.globals import Globals
from supervisor.config import HostConfig

_OF_A_HOST = ("running", "limits-held-by", "processes", "confinement")
"""What is null where no host runs."""


@click.command("doctor", cls=Command)
@click.pass_obj
def doctor_(options: Globals) -> None:
    """Show every wall: whether it stands here, what it stops, and what to do where it is missing.

    Reads the configuration, and asks the running host if there is one. Exits with 1 when a wall is missing without
    which a host of the configured profile refuses to start.

    \b
    Example:
      airssys doctor --output json
    """
    from sandbox.kernel.probe import probe
    from sandbox.walls import WALLS
    from supervisor.parent.consent import judge

    config = options.load_config()
    walls = [
        {
            "name": wall.name,
            "state": wall.state,
            "detail": wall.detail,
            "stops": WALLS[wall.name].stops,
            "remedy": "" if wall.state == "on" else WALLS[wall.name].remedy,
        }
        for wall in judge(probe(config.uid_range_start), config)
    ]
    missing = [wall["name"] for wall in walls if wall["state"] == "missing"]
    running = _running(options)
    report = {"config": _chosen(config), "kernel": walls, "missing": missing}
    if options.json:
        options.result(
            report | (running or dict.fromkeys(("running", "limits-held-by", "processes", "confinement"))), ""
        )
    else:
        _print(options, config, walls, running)
    if missing:
        raise AirssysError(
            "the host cannot start here", subject=", ".join(missing), hint="see the details above", code="E_KERNEL"
        )


def _chosen(config: HostConfig) -> dict[str, Any]:
    return {
        "profile": config.profile,
        "accept-lost": list(config.accept_lost),
        "spawn": config.spawn,
        "path": config.path,
        "pool": config.pool,
        "overrides": [
            {"component": item.component, "spawn": item.spawn, "path": item.path} for item in config.overrides
        ],
    }


def _running(options: Globals) -> dict[str, Any] | None:
    """What the running host says of its walls and limits, and what its processes are; None when there is none."""
    try:
        with options.client() as client:
            doctor = client.get("/v1/doctor")
            host = client.get("/v1/status")["host"]
    except UnreachableError:
        return None  # that there is no host is an answer, not a failure
    processes = [{"name": p["name"], "pid": p["pid"]} | _measured(p["pid"]) for p in host["processes"]]
    return {
        "running": doctor["walls"],
        "limits-held-by": host["limits-held-by"],
        "processes": processes,
        "confinement": doctor["confinement"],
    }


def _measured(pid: int) -> dict[str, Any]:
    """What the kernel says of a process; None for everything where it says nothing."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        return {
            "uid": int(lines["Uid"].split()[1]),
            "capabilities": _capabilities(lines["CapEff"]),
            "bounding": _capabilities(lines["CapBnd"]),
            "own-user-namespace": _id_map(str(pid)) != _id_map("self"),
            "no-new-privileges": lines["NoNewPrivs"] == "1",
            "filters": int(lines.get("Seccomp_filters", "0")) if lines["Seccomp"] == "2" else 0,
        }
    except (OSError, KeyError, ValueError):
        # Gone meanwhile, or hidden (hidepid), or of another pid namespace.
        return dict.fromkeys(("uid", "capabilities", "bounding", "own-user-namespace", "no-new-privileges", "filters"))


def _id_map(pid: str) -> str:
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
        return file.read()


def _capabilities(mask: str) -> list[str]:
    """Names of a set in hexadecimal (capabilities(7)); a number where this program knows no name."""
    value = int(mask, 16)
    return [_NAMES.get(bit, str(bit)) for bit in range(value.bit_length()) if value >> bit & 1]


_NAMES = {
    0: "chown", 1: "dac_override", 2: "dac_read_search", 3: "fowner", 4: "fsetid", 5: "kill", 6: "setgid", 7: "setuid",
    8: "setpcap", 9: "linux_immutable", 10: "net_bind_service", 11: "net_broadcast", 12: "net_admin", 13: "net_raw",
    14: "ipc_lock", 15: "ipc_owner", 16: "sys_module", 17: "sys_rawio", 18: "sys_chroot", 19: "sys_ptrace",
    20: "sys_pacct", 21: "sys_admin", 22: "sys_boot", 23: "sys_nice", 24: "sys_resource", 25: "sys_time",
    26: "sys_tty_config", 27: "mknod", 28: "lease", 29: "audit_write", 30: "audit_control", 31: "setfcap",
    32: "mac_override", 33: "mac_admin", 34: "syslog", 35: "wake_alarm", 36: "block_suspend", 37: "audit_read",
    38: "perfmon", 39: "bpf", 40: "checkpoint_restore",
}  # fmt: skip


def _print(options: Globals, config: HostConfig, walls: list[dict[str, str]], running: dict[str, Any] | None) -> None:
    options.say(f"profile {config.profile}, spawn {config.spawn}, pool {config.pool}, path {config.path}")
    if config.accept_lost:
        options.say(f"may be lost: {', '.join(config.accept_lost)}")
    for item in config.overrides:
        differs = {"spawn": item.spawn, "path": item.path}
        said = ", ".join(f"{key} {value}" for key, value in differs.items() if value is not None)
        options.say(f"{item.component}: {said}")
    options.table(
        ["WALL", "HERE", "DETAIL", "WHAT IT STOPS"],
        [[wall["name"], wall["state"], wall["detail"], wall["stops"]] for wall in walls],
    )
    for wall in walls:
        if wall["remedy"]:
            options.say(f"{wall['name']} ({wall['state']}): {wall['remedy']}")
    if running is None:
        options.say("no host is running")
        return
    options.table(["WALL", "AS IT RUNS"], [[name, state] for name, state in sorted(running["running"].items())])
    options.table(
        ["PROCESS", "PID", "UID", "CAPABILITIES", "COULD GET", "WHERE", "NO NEW PRIVILEGES", "FILTERS"],
        [_process(process) for process in running["processes"]],
    )
    options.table(
        ["PROCESS", "NAMESPACES OF ITS OWN", "ROOT", "CALLS", "LANDLOCK", "OPEN FILES", "PROCESSES", "MEMORY"],
        [_confinement(process) for process in running["confinement"]],
    )
    options.table(["LIMIT", "HELD BY"], [[key, ", ".join(by)] for key, by in sorted(running["limits-held-by"].items())])


def _process(process: dict[str, Any]) -> list[str]:
    if process["uid"] is None:
        return [process["name"], str(process["pid"]), "unreadable", "", "", "", "", ""]
    return [
        process["name"],
        str(process["pid"]),
        str(process["uid"]),
        _list(process["capabilities"]),
        _list(process["bounding"]),
        "its own namespace" if process["own-user-namespace"] else "the machine",
        "yes" if process["no-new-privileges"] else "no",
        str(process["filters"]),
    ]


def _confinement(process: dict[str, Any]) -> list[str]:
    limits = process["limits"]
    memory = [limits[name] for name in ("Max data size", "Max address space") if limits[name] >= 0]
    return [
        process["name"],
        "not visible" if process["namespaces"] is None else ", ".join(process["namespaces"]) or "none",
        process["root"],
        str(process["calls"]),
        process["landlock"],
        _limit(limits["Max open files"]),
        _limit(limits["Max processes"]),
        _limit(min(memory, default=-1)),
    ]


def _limit(value: int) -> str:
    return "no limit" if value < 0 else str(value)


def _list(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names) if len(names) < 12 else f"{len(names)} of them"
