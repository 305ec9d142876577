"""wasi:sockets@0.2.12 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import enum

import msgspec

from sandbox.abi.types import (
    BOOL,
    BYTES,
    STRING,
    U8,
    U32,
    U64,
    EnumType,
    Function,
    HandleType,
    ListType,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    VariantType,
)


class ErrorCode(enum.Enum):
    """`error-code`."""

    UNKNOWN = "unknown"
    ACCESS_DENIED = "access-denied"
    NOT_SUPPORTED = "not-supported"
    INVALID_ARGUMENT = "invalid-argument"
    OUT_OF_MEMORY = "out-of-memory"
    TIMEOUT = "timeout"
    CONCURRENCY_CONFLICT = "concurrency-conflict"
    NOT_IN_PROGRESS = "not-in-progress"
    WOULD_BLOCK = "would-block"
    INVALID_STATE = "invalid-state"
    NEW_SOCKET_LIMIT = "new-socket-limit"
    ADDRESS_NOT_BINDABLE = "address-not-bindable"
    ADDRESS_IN_USE = "address-in-use"
    REMOTE_UNREACHABLE = "remote-unreachable"
    CONNECTION_REFUSED = "connection-refused"
    CONNECTION_RESET = "connection-reset"
    CONNECTION_ABORTED = "connection-aborted"
    DATAGRAM_TOO_LARGE = "datagram-too-large"
    NAME_UNRESOLVABLE = "name-unresolvable"
    TEMPORARY_RESOLVER_FAILURE = "temporary-resolver-failure"
    PERMANENT_RESOLVER_FAILURE = "permanent-resolver-failure"


ERROR_CODE = EnumType(
    (
        "unknown",
        "access-denied",
        "not-supported",
        "invalid-argument",
        "out-of-memory",
        "timeout",
        "concurrency-conflict",
        "not-in-progress",
        "would-block",
        "invalid-state",
        "new-socket-limit",
        "address-not-bindable",
        "address-in-use",
        "remote-unreachable",
        "connection-refused",
        "connection-reset",
        "connection-aborted",
        "datagram-too-large",
        "name-unresolvable",
        "temporary-resolver-failure",
        "permanent-resolver-failure",
    ),
    "wasi:sockets/network@0.2.12#error-code",
)


class IpAddressFamily(enum.Enum):
    """`ip-address-family`."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"


IP_ADDRESS_FAMILY = EnumType(
    (
        "ipv4",
        "ipv6",
    ),
    "wasi:sockets/network@0.2.12#ip-address-family",
)


class IpAddressIpv4(msgspec.Struct, frozen=True, gc=False):
    """`ipv4`."""

    value: tuple[int, int, int, int]


class IpAddressIpv6(msgspec.Struct, frozen=True, gc=False):
    """`ipv6`."""

    value: tuple[int, int, int, int, int, int, int, int]


IpAddress = IpAddressIpv4 | IpAddressIpv6
"""`ip-address`."""
IP_ADDRESS = VariantType(
    (
        ("ipv4", TupleType((U8, U8, U8, U8))),
        ("ipv6", TupleType((Primitive("u16"), Primitive("u16"), Primitive("u16"), Primitive("u16"), Primitive("u16"),
            Primitive("u16"), Primitive("u16"), Primitive("u16")))),
    ),
    "wasi:sockets/network@0.2.12#ip-address",
)


class Ipv4SocketAddress(msgspec.Struct, frozen=True, gc=False):
    """`ipv4-socket-address`."""

    port: int
    address: tuple[int, int, int, int]


IPV4_SOCKET_ADDRESS = RecordType(
    (
        ("port", Primitive("u16")),
        ("address", TupleType((U8, U8, U8, U8))),
    ),
    "wasi:sockets/network@0.2.12#ipv4-socket-address",
)


class Ipv6SocketAddress(msgspec.Struct, frozen=True, gc=False):
    """`ipv6-socket-address`."""

    port: int
    flow_info: int
    address: tuple[int, int, int, int, int, int, int, int]
    scope_id: int


IPV6_SOCKET_ADDRESS = RecordType(
    (
        ("port", Primitive("u16")),
        ("flow-info", U32),
        ("address", TupleType((Primitive("u16"), Primitive("u16"), Primitive("u16"), Primitive("u16"),
            Primitive("u16"), Primitive("u16"), Primitive("u16"), Primitive("u16")))),
        ("scope-id", U32),
    ),
    "wasi:sockets/network@0.2.12#ipv6-socket-address",
)


class IpSocketAddressIpv4(msgspec.Struct, frozen=True, gc=False):
    """`ipv4`."""

    value: Ipv4SocketAddress


class IpSocketAddressIpv6(msgspec.Struct, frozen=True, gc=False):
    """`ipv6`."""

    value: Ipv6SocketAddress


IpSocketAddress = IpSocketAddressIpv4 | IpSocketAddressIpv6
"""`ip-socket-address`."""
IP_SOCKET_ADDRESS = VariantType(
    (
        ("ipv4", IPV4_SOCKET_ADDRESS),
        ("ipv6", IPV6_SOCKET_ADDRESS),
    ),
    "wasi:sockets/network@0.2.12#ip-socket-address",
)


class ShutdownType(enum.Enum):
    """`shutdown-type`."""

    RECEIVE = "receive"
    SEND = "send"
    BOTH = "both"


SHUTDOWN_TYPE = EnumType(
    (
        "receive",
        "send",
        "both",
    ),
    "wasi:sockets/tcp@0.2.12#shutdown-type",
)


class IncomingDatagram(msgspec.Struct, frozen=True, gc=False):
    """`incoming-datagram`."""

    data: bytes
    remote_address: IpSocketAddress


INCOMING_DATAGRAM = RecordType(
    (
        ("data", BYTES),
        ("remote-address", IP_SOCKET_ADDRESS),
    ),
    "wasi:sockets/udp@0.2.12#incoming-datagram",
)


class OutgoingDatagram(msgspec.Struct, frozen=True, gc=False):
    """`outgoing-datagram`."""

    data: bytes
    remote_address: IpSocketAddress | None


OUTGOING_DATAGRAM = RecordType(
    (
        ("data", BYTES),
        ("remote-address", OptionType(IP_SOCKET_ADDRESS)),
    ),
    "wasi:sockets/udp@0.2.12#outgoing-datagram",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "wasi:sockets/network@0.2.12#error-code": ErrorCode,
    "wasi:sockets/network@0.2.12#ip-address-family": IpAddressFamily,
    "wasi:sockets/network@0.2.12#ip-address": {
        "ipv4": IpAddressIpv4,
        "ipv6": IpAddressIpv6,
    },
    "wasi:sockets/network@0.2.12#ipv4-socket-address": Ipv4SocketAddress,
    "wasi:sockets/network@0.2.12#ipv6-socket-address": Ipv6SocketAddress,
    "wasi:sockets/network@0.2.12#ip-socket-address": {
        "ipv4": IpSocketAddressIpv4,
        "ipv6": IpSocketAddressIpv6,
    },
    "wasi:sockets/tcp@0.2.12#shutdown-type": ShutdownType,
    "wasi:sockets/udp@0.2.12#incoming-datagram": IncomingDatagram,
    "wasi:sockets/udp@0.2.12#outgoing-datagram": OutgoingDatagram,
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "wasi:sockets/instance-network@0.2.12": {
        "instance-network": Function(
            "instance-network",
            (),
            HandleType("wasi:sockets/network.network", borrowed=False),
        ),
    },
    "wasi:sockets/ip-name-lookup@0.2.12": {
        "resolve-addresses": Function(
            "resolve-addresses",
            (
                ("network", HandleType("wasi:sockets/network.network", borrowed=True)),
                ("name", STRING),
            ),
            ResultType(HandleType("wasi:sockets/ip-name-lookup.resolve-address-stream", borrowed=False), ERROR_CODE),
        ),
        "[method]resolve-address-stream.resolve-next-address": Function(
            "[method]resolve-address-stream.resolve-next-address",
            (("self", HandleType("wasi:sockets/ip-name-lookup.resolve-address-stream", borrowed=True)),),
            ResultType(OptionType(IP_ADDRESS), ERROR_CODE),
        ),
        "[method]resolve-address-stream.subscribe": Function(
            "[method]resolve-address-stream.subscribe",
            (("self", HandleType("wasi:sockets/ip-name-lookup.resolve-address-stream", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
    },
    "wasi:sockets/tcp-create-socket@0.2.12": {
        "create-tcp-socket": Function(
            "create-tcp-socket",
            (("address-family", IP_ADDRESS_FAMILY),),
            ResultType(HandleType("wasi:sockets/tcp.tcp-socket", borrowed=False), ERROR_CODE),
        ),
    },
    "wasi:sockets/udp-create-socket@0.2.12": {
        "create-udp-socket": Function(
            "create-udp-socket",
            (("address-family", IP_ADDRESS_FAMILY),),
            ResultType(HandleType("wasi:sockets/udp.udp-socket", borrowed=False), ERROR_CODE),
        ),
    },
    "wasi:sockets/tcp@0.2.12": {
        "[method]tcp-socket.start-bind": Function(
            "[method]tcp-socket.start-bind",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("network", HandleType("wasi:sockets/network.network", borrowed=True)),
                ("local-address", IP_SOCKET_ADDRESS),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.finish-bind": Function(
            "[method]tcp-socket.finish-bind",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.start-connect": Function(
            "[method]tcp-socket.start-connect",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("network", HandleType("wasi:sockets/network.network", borrowed=True)),
                ("remote-address", IP_SOCKET_ADDRESS),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.finish-connect": Function(
            "[method]tcp-socket.finish-connect",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(TupleType((HandleType("wasi:io/streams.input-stream", borrowed=False),
                HandleType("wasi:io/streams.output-stream", borrowed=False))), ERROR_CODE),
        ),
        "[method]tcp-socket.start-listen": Function(
            "[method]tcp-socket.start-listen",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.finish-listen": Function(
            "[method]tcp-socket.finish-listen",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.accept": Function(
            "[method]tcp-socket.accept",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(TupleType((HandleType("wasi:sockets/tcp.tcp-socket", borrowed=False),
                HandleType("wasi:io/streams.input-stream", borrowed=False), HandleType("wasi:io/streams.output-stream",
                borrowed=False))), ERROR_CODE),
        ),
        "[method]tcp-socket.local-address": Function(
            "[method]tcp-socket.local-address",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(IP_SOCKET_ADDRESS, ERROR_CODE),
        ),
        "[method]tcp-socket.remote-address": Function(
            "[method]tcp-socket.remote-address",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(IP_SOCKET_ADDRESS, ERROR_CODE),
        ),
        "[method]tcp-socket.is-listening": Function(
            "[method]tcp-socket.is-listening",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            BOOL,
        ),
        "[method]tcp-socket.address-family": Function(
            "[method]tcp-socket.address-family",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            IP_ADDRESS_FAMILY,
        ),
        "[method]tcp-socket.set-listen-backlog-size": Function(
            "[method]tcp-socket.set-listen-backlog-size",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.keep-alive-enabled": Function(
            "[method]tcp-socket.keep-alive-enabled",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(BOOL, ERROR_CODE),
        ),
        "[method]tcp-socket.set-keep-alive-enabled": Function(
            "[method]tcp-socket.set-keep-alive-enabled",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", BOOL),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.keep-alive-idle-time": Function(
            "[method]tcp-socket.keep-alive-idle-time",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]tcp-socket.set-keep-alive-idle-time": Function(
            "[method]tcp-socket.set-keep-alive-idle-time",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.keep-alive-interval": Function(
            "[method]tcp-socket.keep-alive-interval",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]tcp-socket.set-keep-alive-interval": Function(
            "[method]tcp-socket.set-keep-alive-interval",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.keep-alive-count": Function(
            "[method]tcp-socket.keep-alive-count",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(U32, ERROR_CODE),
        ),
        "[method]tcp-socket.set-keep-alive-count": Function(
            "[method]tcp-socket.set-keep-alive-count",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U32),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.hop-limit": Function(
            "[method]tcp-socket.hop-limit",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(U8, ERROR_CODE),
        ),
        "[method]tcp-socket.set-hop-limit": Function(
            "[method]tcp-socket.set-hop-limit",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U8),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.receive-buffer-size": Function(
            "[method]tcp-socket.receive-buffer-size",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]tcp-socket.set-receive-buffer-size": Function(
            "[method]tcp-socket.set-receive-buffer-size",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.send-buffer-size": Function(
            "[method]tcp-socket.send-buffer-size",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]tcp-socket.set-send-buffer-size": Function(
            "[method]tcp-socket.set-send-buffer-size",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]tcp-socket.subscribe": Function(
            "[method]tcp-socket.subscribe",
            (("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
        "[method]tcp-socket.shutdown": Function(
            "[method]tcp-socket.shutdown",
            (
                ("self", HandleType("wasi:sockets/tcp.tcp-socket", borrowed=True)),
                ("shutdown-type", SHUTDOWN_TYPE),
            ),
            ResultType(None, ERROR_CODE),
        ),
    },
    "wasi:sockets/udp@0.2.12": {
        "[method]udp-socket.start-bind": Function(
            "[method]udp-socket.start-bind",
            (
                ("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),
                ("network", HandleType("wasi:sockets/network.network", borrowed=True)),
                ("local-address", IP_SOCKET_ADDRESS),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]udp-socket.finish-bind": Function(
            "[method]udp-socket.finish-bind",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            ResultType(None, ERROR_CODE),
        ),
        "[method]udp-socket.stream": Function(
            "[method]udp-socket.stream",
            (
                ("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),
                ("remote-address", OptionType(IP_SOCKET_ADDRESS)),
            ),
            ResultType(TupleType((HandleType("wasi:sockets/udp.incoming-datagram-stream", borrowed=False),
                HandleType("wasi:sockets/udp.outgoing-datagram-stream", borrowed=False))), ERROR_CODE),
        ),
        "[method]udp-socket.local-address": Function(
            "[method]udp-socket.local-address",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            ResultType(IP_SOCKET_ADDRESS, ERROR_CODE),
        ),
        "[method]udp-socket.remote-address": Function(
            "[method]udp-socket.remote-address",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            ResultType(IP_SOCKET_ADDRESS, ERROR_CODE),
        ),
        "[method]udp-socket.address-family": Function(
            "[method]udp-socket.address-family",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            IP_ADDRESS_FAMILY,
        ),
        "[method]udp-socket.unicast-hop-limit": Function(
            "[method]udp-socket.unicast-hop-limit",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            ResultType(U8, ERROR_CODE),
        ),
        "[method]udp-socket.set-unicast-hop-limit": Function(
            "[method]udp-socket.set-unicast-hop-limit",
            (
                ("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),
                ("value", U8),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]udp-socket.receive-buffer-size": Function(
            "[method]udp-socket.receive-buffer-size",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]udp-socket.set-receive-buffer-size": Function(
            "[method]udp-socket.set-receive-buffer-size",
            (
                ("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]udp-socket.send-buffer-size": Function(
            "[method]udp-socket.send-buffer-size",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]udp-socket.set-send-buffer-size": Function(
            "[method]udp-socket.set-send-buffer-size",
            (
                ("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),
                ("value", U64),
            ),
            ResultType(None, ERROR_CODE),
        ),
        "[method]udp-socket.subscribe": Function(
            "[method]udp-socket.subscribe",
            (("self", HandleType("wasi:sockets/udp.udp-socket", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
        "[method]incoming-datagram-stream.receive": Function(
            "[method]incoming-datagram-stream.receive",
            (
                ("self", HandleType("wasi:sockets/udp.incoming-datagram-stream", borrowed=True)),
                ("max-results", U64),
            ),
            ResultType(ListType(INCOMING_DATAGRAM), ERROR_CODE),
        ),
        "[method]incoming-datagram-stream.subscribe": Function(
            "[method]incoming-datagram-stream.subscribe",
            (("self", HandleType("wasi:sockets/udp.incoming-datagram-stream", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
        "[method]outgoing-datagram-stream.check-send": Function(
            "[method]outgoing-datagram-stream.check-send",
            (("self", HandleType("wasi:sockets/udp.outgoing-datagram-stream", borrowed=True)),),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]outgoing-datagram-stream.send": Function(
            "[method]outgoing-datagram-stream.send",
            (
                ("self", HandleType("wasi:sockets/udp.outgoing-datagram-stream", borrowed=True)),
                ("datagrams", ListType(OUTGOING_DATAGRAM)),
            ),
            ResultType(U64, ERROR_CODE),
        ),
        "[method]outgoing-datagram-stream.subscribe": Function(
            "[method]outgoing-datagram-stream.subscribe",
            (("self", HandleType("wasi:sockets/udp.outgoing-datagram-stream", borrowed=True)),),
            HandleType("wasi:io/poll.pollable", borrowed=False),
        ),
    },
}
