"""Where a host's sockets lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

CLIENTS = os.path.join("clients", "router.sock")
"""The clients' socket, below the run-time directory."""
API = "api.sock"
"""The control API's socket, below the run-time directory."""


def run_directories(environ: Mapping[str, str] | None = None) -> list[str]:
    """Run-time directories that a host could have, the likeliest first.

    `AIRSSYS_ROOT` alone where it is set; else one's own host (XDG base directories), then the machine's.
    """
    env = os.environ if environ is None else environ
    root = env.get("AIRSSYS_ROOT", "")
    if root:
        return [os.path.join(os.path.abspath(root), "run")]
    found = []
    runtime, state, home = (env.get(name, "") for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "HOME"))
    if runtime.startswith("/"):
        found.append(os.path.join(runtime, "airssys"))
    if state.startswith("/"):
        found.append(os.path.join(state, "airssys", "run"))
    elif home.startswith("/"):
        found.append(os.path.join(home, ".local", "state", "airssys", "run"))
    return [*found, "/run/airssys"]


def find(name: str, environ: Mapping[str, str] | None = None) -> str:
    """The path of a host's socket: the first that is there, else the last one looked for."""
    paths = [os.path.join(directory, name) for directory in run_directories(environ)]
    return next((path for path in paths if os.path.exists(path)), paths[-1])
