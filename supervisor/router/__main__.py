"""`python -m supervisor.router`: fd 3 the supervisor, fd 4 the listening socket for control, fd 5 that for clients."""

import logging
import resource
import socket
import sys

from sandbox import walls
from sandbox.kernel import process
from sandbox.kernel.confine import confine_in_place
from supervisor.router import main

MEMORY = 2 << 30
"""Bytes of private memory the router may use: all mailboxes at their bounds, and as much again."""

if __name__ == "__main__":
    process.no_dump()
    process.die_with_parent()
    # The last of the bounds: everything a worker or control can make it hold is bounded one by one.
    process.set_limit(resource.RLIMIT_DATA, MEMORY)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Before libzmq starts its threads: Landlock binds the thread that asks for it and those made later.
    confine_in_place("airssys-router", "router", lost=walls.parse(sys.argv[3]))
    clients = socket.socket(fileno=5)
    sys.exit(main.run(socket.socket(fileno=3), 4, sys.argv[1], int(sys.argv[2]), clients))
