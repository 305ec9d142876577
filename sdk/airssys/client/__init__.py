"""Programs that talk to components: a web application, a script, a bridge to something else.

    from airssys.client import Client

    with Client() as client:
        reply = client.request("acme/echo", b"hello", timeout=2.0)
        print(reply.text)

`Client` blocks and is for threads, `AsyncClient` is for asyncio; both speak ZeroMQ to the host's clients' socket, which
knows its callers by what the kernel says of them. What a user may do stands in the host's configuration. This package
imports nothing of the host: it needs `pyzmq` and `msgspec`, and `cbor2` for CBOR.
"""

from __future__ import annotations

from airssys.client.aio import AsyncClient
from airssys.client.aio import Subscription as AsyncSubscription
from airssys.client.errors import (
    CircuitOpen,
    ClientError,
    Closed,
    ConnectionLost,
    Denied,
    Expired,
    Failed,
    GuestError,
    Invalid,
    NotAllowed,
    NotConnected,
    QueueFull,
    RateLimited,
    Refused,
    RequestTimeout,
    Stopping,
    TargetEnded,
    TargetNotFound,
    TooLarge,
)
from airssys.client.messages import Event, Reply
from airssys.client.sync import Client, Subscription
from airssys.codecs import CodecError

__all__ = [
    "AsyncClient",
    "AsyncSubscription",
    "CircuitOpen",
    "Client",
    "ClientError",
    "Closed",
    "CodecError",
    "ConnectionLost",
    "Denied",
    "Event",
    "Expired",
    "Failed",
    "GuestError",
    "Invalid",
    "NotAllowed",
    "NotConnected",
    "QueueFull",
    "RateLimited",
    "Refused",
    "Reply",
    "RequestTimeout",
    "Stopping",
    "Subscription",
    "TargetEnded",
    "TargetNotFound",
    "TooLarge",
]
