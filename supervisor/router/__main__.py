"""`python -m supervisor.router`: fd 3 the supervisor, fd 4 and 5 the listening sockets for workers and for control."""

import logging
import socket
import sys

from sandbox.kernel import process
from supervisor.router import main

if __name__ == "__main__":
    process.set_name("airssys-router")
    process.no_dump()
    process.die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    sys.exit(main.run(socket.socket(fileno=3), 4, sys.argv[1], 5, sys.argv[2]))
