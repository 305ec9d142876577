"""The vocabulary of ZeroMQ: worker and router (fd 4), control and router (the bus).

A message is two ZeroMQ frames: a MessagePack structure from here, tagged by its class, and the payload bytes
(empty where there are none).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from sandbox.types import ComponentId, Limits


class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    pass


# -- router to worker -----------------------------------------------------------------------------------------


class Initialize(_Frame, frozen=True):
    """First frame of all: instantiate, call `initialize`, `metadata`, `health`; answered by `Ready`."""

    env: list[tuple[str, str]]
    limits: Limits
    has_config: bool = False  # payload frame is config-data
    args: list[str] = []


class Deliver(_Frame, frozen=True):
    """One message for `handle-message`; payload frame is the payload; answered by `Reply`."""

    id: int
    sender: ComponentId
    seconds: int
    nanoseconds: int
    correlation: str | None = None
    reply_to: ComponentId | None = None
    content_type: str | None = None


class Callback(_Frame, frozen=True):
    """One message for `handle-callback`; fields as in `Deliver`; answered by `Reply`."""

    id: int
    sender: ComponentId
    seconds: int
    nanoseconds: int
    correlation: str | None = None
    reply_to: ComponentId | None = None
    content_type: str | None = None


class Health(_Frame, frozen=True):
    """Call `health`; answered by `HealthReply`. Sent only while no message is in hand."""

    id: int


class Shutdown(_Frame, frozen=True):
    """Call `shutdown`, then exit 0; answered by `Ended`."""


class Ack(_Frame, frozen=True):
    """The answer to what the worker asked while it works.

    `case` is 0 for ok, else 1 + the index in `messaging-error` (or, for `GetMetadata`, in `component-error`);
    `text` is the case's text, the correlation id, or "".
    """

    ask: int
    case: int
    text: str = ""
    components: list[ComponentId] = []
    info: tuple[str, str, str] | None = None  # name, version, health


# -- worker to router -----------------------------------------------------------------------------------------


class Metadata(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The record `component-metadata` of `airssys:core`, as the guest tells it."""

    name: str
    version: str
    description: str
    author: str
    license: str
    operations: list[str]
    stateful: bool


class Ready(_Frame, frozen=True):
    """Initialised; or `error` says which `component-error` the guest returned (the worker then ends)."""

    metadata: Metadata | None
    health: str
    error: str = ""
    memory_refused: int = 0  # see Reply


class Reply(_Frame, frozen=True):
    """The end of one `Deliver` or `Callback`. `some` and the payload frame are the value; `error` a wasm-error."""

    id: int
    some: bool
    error: str = ""
    fuel: int = 0  # used by this message
    memory_refused: int = 0  # bytes of all memories together that memory.grow asked for and did not get; 0: none


class HealthReply(_Frame, frozen=True):
    """healthy, degraded, unhealthy or unknown."""

    id: int
    health: str


class Send(_Frame, frozen=True):
    """`host-messaging.send`; payload frame is the payload."""

    ask: int
    target: ComponentId


class Request(_Frame, frozen=True):
    """`host-messaging.request`; the ack's text is the correlation id."""

    ask: int
    target: ComponentId
    timeout_ms: int


class Cancel(_Frame, frozen=True):
    """`host-messaging.cancel-request`."""

    ask: int
    correlation: str


MAX_TARGETS = 256
"""Most targets of one broadcast."""


class Broadcast(_Frame, frozen=True):
    """`host-messaging.broadcast`."""

    ask: int
    targets: Annotated[list[ComponentId], msgspec.Meta(max_length=MAX_TARGETS)]


class ListComponents(_Frame, frozen=True):
    """`host-services.list-components`: those the caller may talk to."""

    ask: int


class GetMetadata(_Frame, frozen=True):
    """`host-services.get-component-metadata`."""

    ask: int
    component: ComponentId


class Ended(_Frame, frozen=True):
    """The worker's last words: an `Outcome` value and a detail (the wasm backtrace of a trap)."""

    outcome: str
    detail: str = ""


ToWorker = Initialize | Deliver | Callback | Health | Shutdown | Ack
FromWorker = Ready | Reply | HealthReply | Send | Request | Cancel | Broadcast | ListComponents | GetMetadata | Ended

# -- control to router ----------------------------------------------------------------------------------------


class MessagingRule(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line of `[capabilities] messaging`: either `target` with access, or `source` (the manifest's `from`)."""

    target: str = ""
    access: list[str] = []  # send, request, broadcast
    source: str = ""


class Route(_Frame, frozen=True):
    """A component exists: make its mailbox, know its rights. Idempotent; a later one replaces rules and limits."""

    component: ComponentId
    limits: Limits
    messaging: list[MessagingRule]
    name: str
    version: str
    env: list[tuple[str, str]] = []
    args: list[str] = []


class Unroute(_Frame, frozen=True):
    """The component is gone: fail what waits for it, drop its mailbox."""

    component: ComponentId


class Stop(_Frame, frozen=True):
    """Send `Shutdown` to the component's worker once its message in hand is done; the worker exits by itself."""

    component: ComponentId
    drain: bool = False  # deliver what is in the mailbox first


class Submit(_Frame, frozen=True):
    """A message from outside. `user` was told to control by the operating system. Answered by `Submitted`."""

    id: int
    user: str
    target: ComponentId
    request: bool
    timeout_ms: int
    content_type: str | None = None


class CheckHealth(_Frame, frozen=True):
    """Ask the component's worker for `health`; told by `Event` of kind "health"."""

    component: ComponentId


class Query(_Frame, frozen=True):
    """State of every route; answered by `State`."""

    id: int


ToRouter = Route | Unroute | Stop | Submit | CheckHealth | Query

# -- router to control ----------------------------------------------------------------------------------------


class Submitted(_Frame, frozen=True):
    """Answer to `Submit`: `error` is "" or one of timeout, target-ended, target-not-found, denied, queue-full,
    too-large, guest-error, stopping; `text` explains. Payload frame is the reply."""

    id: int
    error: str = ""
    text: str = ""
    some: bool = False


class RouteState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One component as the router sees it."""

    component: ComponentId
    attached: int | None  # incarnation of the worker, if any
    ready: bool
    health: str
    depth: int  # messages waiting
    delivered: int
    failed: int
    denied: int
    busy: bool


class State(_Frame, frozen=True):
    """Answer to `Query`."""

    id: int
    routes: list[RouteState]
    counters: dict[str, int] = {}  # late-replies, violations, unknown-peers, ...; since the router started


class Event(_Frame, frozen=True):
    """Something control should know. kind: ready, init-failed, health, ended, stopped."""

    kind: str
    component: ComponentId
    incarnation: int
    text: str = ""
    outcome: str = ""
    metadata: Metadata | None = None


FromRouter = Submitted | State | Event
