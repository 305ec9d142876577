"""What is said over the clients' socket: two ZeroMQ frames, a structure in MessagePack and the payload's bytes.

The host's own definitions are in `sandbox.wire.client_frames`, which this library does not import; a test of the host
compares the two.
"""

from __future__ import annotations

import msgspec

PRIORITIES = ("low", "normal", "high", "critical")
"""By the number that stands for them on the wire."""
# What the host takes: a frame beyond it ends the connection, so none is sent.
MAX_ID = 194
MAX_TOPIC = 256
MAX_KEY = 256
MAX_CONTENT_TYPE = 128
MAX_TIMEOUT_MS = 24 * 3600 * 1000
MAX_TTL_MS = 30 * 24 * 3600 * 1000


class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    pass


class Options(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a sender may say about one message beside its payload."""

    priority: int = 1
    ttl_ms: int = 0
    key: str = ""
    content_type: str | None = None


class ClientSend(_Frame, frozen=True):
    """A message nobody waits for; `wait_ms` is how long it may wait for room."""

    ask: int
    target: str
    options: Options = Options()
    wait_ms: int = 5_000


class ClientRequest(_Frame, frozen=True):
    """A request."""

    ask: int
    target: str
    timeout_ms: int
    options: Options = Options()


class ClientCancel(_Frame, frozen=True):
    """Nobody waits for this request any more; not answered."""

    ask: int


class ClientPublish(_Frame, frozen=True):
    """A publication."""

    ask: int
    topic: str
    options: Options = Options()


class ClientSubscribe(_Frame, frozen=True):
    """Have what is published under topics that the pattern covers."""

    ask: int
    pattern: str


class ClientUnsubscribe(_Frame, frozen=True):
    """Undo `ClientSubscribe`."""

    ask: int
    pattern: str


class ClientWelcome(_Frame, frozen=True):
    """The first frame of a connection."""

    client: str
    router: str
    requests: int
    subscriptions: int
    message_size: int


class ClientAnswer(_Frame, frozen=True):
    """What became of what was asked."""

    ask: int
    error: str = ""
    text: str = ""
    some: bool = False
    message: int = 0
    correlation: str = ""
    number: int = 0


class ClientEvent(_Frame, frozen=True):
    """A publication."""

    topic: str
    sender: str
    message: int
    seconds: int
    nanoseconds: int
    content_type: str | None = None
    priority: int = 1


class ClientLost(_Frame, frozen=True):
    """Here so many events are missing."""

    count: int


FromClient = ClientSend | ClientRequest | ClientCancel | ClientPublish | ClientSubscribe | ClientUnsubscribe
ToClient = ClientWelcome | ClientAnswer | ClientEvent | ClientLost
