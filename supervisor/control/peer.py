"""Who is calling: what the kernel says of the other end of a Unix socket (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import pwd
import re
import socket
import struct
from typing import NamedTuple

from aiohttp import web

from supervisor.control.errors import AuthenticationError

_UCRED = struct.Struct("3i")
_PLAIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")


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


def user_name(uid: int) -> str:
    """A user's name, or `uid-<number>` where it has none that a component id could carry."""
    try:
        name = pwd.getpwuid(uid).pw_name.lower()
    except KeyError:
        return f"uid-{uid}"
    return name if _PLAIN.match(name) and len(name) <= 32 else f"uid-{uid}"
