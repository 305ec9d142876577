"""What the tests of this suite share."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest


class Listener:
    """A TCP server on 127.0.0.1 that counts who connected."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connected = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if connection.recv(5) == b"leave":
                    return
                self.connected += 1

    def close(self) -> None:
        """End it."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"leave")
        self._thread.join()
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A server that an attacker would like to reach."""
    server = Listener()
    yield server
    server.close()
