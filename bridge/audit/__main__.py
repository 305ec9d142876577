"""`python -m bridge.audit`: fd 3 the supervisor, fd 4 the log directory; everything is imported, then the cage closes."""

import logging
import socket
import sys

from bridge.audit import main
from sandbox.kernel import process
from sandbox.kernel.confine import confine

if __name__ == "__main__":
    process.die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    confine("airssys-audit", 256)
    main.run(socket.socket(fileno=3), 4, sys.argv[1], rotate_size=int(sys.argv[2]))
