"""The vocabulary of ZeroMQ between programs outside and the router: the clients' socket.

A message is two ZeroMQ frames: a MessagePack structure from here, tagged by its class, and the payload bytes (empty
where there are none). Whoever sends one may be anybody's program: every length is bounded by its type, what does not
decode ends the connection. `airssys.client` has these definitions, too; a test compares them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from sandbox.wire.router_frames import MAX_CONTENT_TYPE, MAX_TOPIC, Options

MAX_ID = 2 * 64 + 64 + 2
"""Longest component id, characters."""
MAX_TIMEOUT_MS = 24 * 3600 * 1000
"""Longest wait for a reply or for room, milliseconds."""
Ask = Annotated[int, msgspec.Meta(ge=1, le=(1 << 53) - 1)]
"""A number the client chooses, and finds in the answer; of requests that are open, no two the same."""
Target = Annotated[str, msgspec.Meta(max_length=MAX_ID)]
Topic = Annotated[str, msgspec.Meta(max_length=MAX_TOPIC)]


class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    pass


# -- client to router -----------------------------------------------------------------------------------------


class ClientSend(_Frame, frozen=True):
    """A message nobody waits for; payload frame is the payload; answered when it is in the mailbox, or is not.

    `wait_ms` is how long it may wait for room, where the mailbox lets its senders wait; 0: not at all.
    """

    ask: Ask
    target: Target
    options: Options = Options()
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMEOUT_MS)] = 5_000


class ClientRequest(_Frame, frozen=True):
    """A request; payload frame is the payload; answered once, by the reply or why there is none."""

    ask: Ask
    target: Target
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIMEOUT_MS)]
    options: Options = Options()


class ClientCancel(_Frame, frozen=True):
    """Nobody waits for this request any more. Not answered, and neither is the request then."""

    ask: Ask


class ClientPublish(_Frame, frozen=True):
    """A publication; payload frame is the payload; the answer's number is how many subscribers take it."""

    ask: Ask
    topic: Topic
    options: Options = Options()


class ClientSubscribe(_Frame, frozen=True):
    """Have publications under topics that the pattern covers, as `ClientEvent`, while this connection lasts."""

    ask: Ask
    pattern: Topic


class ClientUnsubscribe(_Frame, frozen=True):
    """Undo `ClientSubscribe`; an event may be on its way still."""

    ask: Ask
    pattern: Topic


FromClient = ClientSend | ClientRequest | ClientCancel | ClientPublish | ClientSubscribe | ClientUnsubscribe

# -- router to client -----------------------------------------------------------------------------------------


class ClientWelcome(_Frame, frozen=True):
    """The first frame of a connection: who the client is, and what is kept for it.

    Another `router` than before means that the router was replaced, and with it all that was asked of the old one.
    """

    client: str  # host/client/<user>
    router: str  # hexadecimal, made when the router starts
    requests: int  # most open requests of one connection
    subscriptions: int  # most patterns of one connection
    message_size: int  # largest payload, bytes


class ClientAnswer(_Frame, frozen=True):
    """What became of what was asked: `error` is "" or one of FAILURES, `text` explains; payload frame is the reply."""

    ask: int
    error: str = ""
    text: str = ""
    some: bool = False  # the handler gave a value
    message: int = 0  # its id, for a trace; 0: there was none
    correlation: str = ""
    number: int = 0  # subscribers that a publication goes to


class ClientEvent(_Frame, frozen=True):
    """A publication to a subscriber; payload frame is the payload."""

    topic: str
    sender: str
    message: int
    seconds: int  # since 1970
    nanoseconds: int
    content_type: Annotated[str, msgspec.Meta(max_length=MAX_CONTENT_TYPE)] | None = None
    priority: int = 1


class ClientLost(_Frame, frozen=True):
    """Here so many events are missing: the client did not read fast enough, or not within their time."""

    count: int


ToClient = ClientWelcome | ClientAnswer | ClientEvent | ClientLost
