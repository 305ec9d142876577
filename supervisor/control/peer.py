"""Who is calling: what the kernel says of the other end of a Unix socket (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from aiohttp import web

from supervisor.control.errors import AuthenticationError
from supervisor.users import user_name

__all__ = ["Peer", "peer_of", "user_name"]
_UCRED = struct.Struct("3i")


class Peer(NamedTuple):
    """A caller; `name` is fit to be the last part of `host/client/<user>`."""

    uid: int
    pid: int
    name: str


def peer_of(request: web.Request) -> Peer:
    """The caller of a request. Raises AuthenticationError when the connection has none."""
    sock = request.get_extra_info("socket")
    if sock is None:
        raise AuthenticationError("the caller hung up")
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError as error:
        raise AuthenticationError("the caller cannot be identified") from error
    pid, uid, _ = _UCRED.unpack(raw)
    return Peer(uid, pid, user_name(uid))
