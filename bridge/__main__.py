"""`python -m bridge`: fd 3 the supervisor, fd 4 the storage directory; everything is imported, then the cage closes."""

import importlib.util
import logging
import socket
import sys

from bridge import main
from sandbox import walls
from sandbox.kernel import process
from sandbox.kernel.confine import confine


def _preload() -> None:
    """Import what lmdb (3.0 on) would import at the first open: in the empty root there is nothing to import from."""
    if importlib.util.find_spec("lmdb._envid") is not None:
        importlib.import_module("lmdb._envid")


if __name__ == "__main__":
    process.die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    _preload()
    # Grants come later, and files are moved between their directories: Landlock can handle neither.
    confine("airssys-bridge", "bridge", 65536, files=False, lost=walls.parse(sys.argv[2]))
    main.run(socket.socket(fileno=3), 4, map_size=int(sys.argv[1]))
