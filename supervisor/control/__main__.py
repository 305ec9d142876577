"""`python -m supervisor.control BUS STATE_DIR OWNER LOST`: 3 the supervisor, 4 the API's socket, 5 the settings."""

from __future__ import annotations

import logging
import os
import socket
import sys

import msgspec

from sandbox import walls
from sandbox.errors import AirssysError
from sandbox.kernel import process
from sandbox.kernel.confine import confine_in_place
from supervisor.config import HostConfig
from supervisor.control.main import run


def main() -> None:
    """Take what the supervisor left at its fixed places and be control."""
    process.no_dump()
    process.die_with_parent()
    bus_path, state_dir, owner, lost = sys.argv[1:]
    with open(5, "rb") as file:
        file.seek(0)
        config = msgspec.msgpack.decode(file.read(), type=HostConfig)
    # Before any thread exists: Landlock binds the thread that asks for it and those made later.
    confine_in_place("airssys-control", "control", reads=["/proc"], owns=[state_dir], lost=walls.parse(lost))
    for fd in (3, 4):
        os.set_inheritable(fd, False)
    try:
        run(socket.socket(fileno=3), socket.socket(fileno=4), bus_path, None, state_dir, config, owner=int(owner))
    except (AirssysError, OSError) as error:
        # One line instead of a traceback; while the host is starting, a status that says not to try again.
        logging.getLogger("airssys.control").critical("%s", error)
        sys.exit(78)


if __name__ == "__main__":
    main()
