"""One half of a ZMTP handshake, for tests that have libzmq at the other end."""

from __future__ import annotations

import socket

from sandbox.wire import zmtp


def dealer(sock: socket.socket, identity: bytes) -> None:
    """Greet a ROUTER and claim `identity`; bounded by the socket's timeout, which goes off afterwards."""
    _shake(sock, zmtp.encode_ready(b"DEALER", identity), b"ROUTER")


def router(sock: socket.socket) -> bytes:
    """Greet a DEALER; the routing id it claims."""
    return _shake(sock, zmtp.encode_ready(b"ROUTER"), b"DEALER")


def _shake(sock: socket.socket, ready: bytes, peer: bytes) -> bytes:
    zmtp.greet(sock)
    zmtp.expect_greeting(sock)
    sock.sendall(ready)
    identity = zmtp.expect_ready(sock, peer)
    sock.settimeout(None)
    return identity
