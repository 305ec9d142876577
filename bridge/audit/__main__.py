"""`python -m bridge.audit`: fd 3 the supervisor, fd 4 the log directory; all is imported, then the cage closes."""

import logging
import socket
import sys

from bridge.audit import main
from sandbox import walls
from sandbox.errors import AirssysError
from sandbox.kernel import process
from sandbox.kernel.confine import confine

if __name__ == "__main__":
    process.die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    lost = walls.parse(sys.argv[3])
    confine("airssys-audit", "auditor", 256, keeps=[4], lost=lost)
    try:
        main.run(socket.socket(fileno=3), 4, sys.argv[1], rotate_size=int(sys.argv[2]), lost=sorted(lost))
    except AirssysError as error:
        # A broken chain or key is there tomorrow as well: one line, and a status that says not to try again.
        logging.getLogger("airssys.auditor").critical("%s", error)
        sys.exit(78)
