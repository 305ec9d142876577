"""`wasi:sockets`: refused where a guest would begin, so that nothing behind it can be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.abi.types import Err
from sandbox.bindings import wasi_sockets as wit
from sandbox.host.wasi.handles import Kind, handles, unreachable

REFUSED = Err(wit.ErrorCode.ACCESS_DENIED)
"""What this host does not let a guest do."""


class Network:
    """What `instance-network` gives: nothing can be done with it."""


_NETWORK = Network()
_OPTIONS = (
    *("receive-buffer-size", "set-receive-buffer-size", "send-buffer-size", "set-send-buffer-size"),
    *("start-bind", "finish-bind", "local-address", "remote-address", "address-family", "subscribe"),
)


def _instance_network() -> int:
    return handles.give(Kind.NETWORK, _NETWORK)


def _resolve_addresses(_network: int, _name: str) -> Err:
    return REFUSED


def _create_socket(_family: wit.IpAddressFamily) -> Err:
    return REFUSED


INTERFACES: dict[str, dict[str, Callable[..., Any]]] = {
    "sockets/network": {},
    "sockets/instance-network": {"instance-network": _instance_network},
    "sockets/ip-name-lookup": {
        "resolve-addresses": _resolve_addresses,
        **unreachable("resolve-address-stream", "resolve-next-address", "subscribe"),
    },
    "sockets/tcp-create-socket": {"create-tcp-socket": _create_socket},
    "sockets/udp-create-socket": {"create-udp-socket": _create_socket},
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
