"""`wasi:sockets`: refused where a guest would begin, so that nothing behind it can be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.host.wasi.handles import Kind, handles, on_handles, plain, unreachable

REFUSED = "access-denied"
"""The `error-code` for what this host does not let a guest do."""


class Network:
    """What `instance-network` gives: nothing can be done with it."""


_NETWORK = Network()
_OPTIONS = (
    *("receive-buffer-size", "set-receive-buffer-size", "send-buffer-size", "set-send-buffer-size"),
    *("start-bind", "finish-bind", "local-address", "remote-address", "address-family", "subscribe"),
)

INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "sockets/network": {},
    "sockets/instance-network": {"instance-network": plain(lambda: handles.give(Kind.NETWORK, _NETWORK))},
    "sockets/ip-name-lookup": {
        "resolve-addresses": on_handles(lambda _network, _name: REFUSED),
        **unreachable("resolve-address-stream", "resolve-next-address", "subscribe"),
    },
    "sockets/tcp-create-socket": {"create-tcp-socket": plain(lambda _family: REFUSED)},
    "sockets/udp-create-socket": {"create-udp-socket": plain(lambda _family: REFUSED)},
    "sockets/tcp": unreachable(
        "tcp-socket",
        *_OPTIONS,
        *("start-connect", "finish-connect", "start-listen", "finish-listen", "accept", "is-listening", "shutdown"),
        *("set-listen-backlog-size", "keep-alive-enabled", "set-keep-alive-enabled", "keep-alive-idle-time"),
        *("set-keep-alive-idle-time", "keep-alive-interval", "set-keep-alive-interval", "keep-alive-count"),
        *("set-keep-alive-count", "hop-limit", "set-hop-limit"),
    ),
    "sockets/udp": {
        **unreachable("udp-socket", *_OPTIONS, "stream", "unicast-hop-limit", "set-unicast-hop-limit"),
        **unreachable("incoming-datagram-stream", "receive", "subscribe"),
        **unreachable("outgoing-datagram-stream", "check-send", "send", "subscribe"),
    },
}
RESOURCES = {
    "sockets/network": {"network": Kind.NETWORK},
    "sockets/ip-name-lookup": {"resolve-address-stream": Kind.RESOLVE_ADDRESS_STREAM},
    "sockets/tcp": {"tcp-socket": Kind.TCP_SOCKET},
    "sockets/udp": {
        "udp-socket": Kind.UDP_SOCKET,
        "incoming-datagram-stream": Kind.INCOMING_DATAGRAM_STREAM,
        "outgoing-datagram-stream": Kind.OUTGOING_DATAGRAM_STREAM,
    },
}
