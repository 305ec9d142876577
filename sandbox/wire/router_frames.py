"""The vocabulary of ZeroMQ: worker and router (fd 4), control and router (the bus).

A message is two ZeroMQ frames: a MessagePack structure from here, tagged by its class, and the payload bytes
(empty where there are none).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sandbox.types import ComponentId, Limits


# Frames, and what they carry by the thousand, can be in no cycle: the collector need not look at them.
class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass


PRIORITIES = ("low", "normal", "high", "critical")
"""Priorities of a message, by the number that stands for them on the wire; the order of `messaging.priority` in WIT."""
NORMAL = PRIORITIES.index("normal")
FAILURES = (
    "timeout",
    "target-not-found",
    "target-ended",
    "denied",
    "queue-full",
    "too-large",
    "guest-error",
    "stopping",
    "expired",
    "circuit-open",
    "rate-limited",
    "invalid",
)
"""Why a message or request failed, in the order of `failure-reason` of `airssys:messaging`; one list from the router to
the guest, the client library and the command line."""
Priority = Annotated[int, msgspec.Meta(ge=0, le=3)]
MAX_TTL_MS = 30 * 24 * 3600 * 1000
MAX_TOPIC = 256
"""Longest topic or topic pattern, characters."""
MAX_KEY = 256
"""Longest key of sticky routing, characters."""
MAX_CONTENT_TYPE = 128


class Options(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What a sender may say about one message beside its payload; the record `options` of `airssys:messaging`."""

    priority: Priority = NORMAL
    ttl_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TTL_MS)] = 0
    """Milliseconds after which it is not delivered any more; 0: none."""
    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY)] = ""
    """Messages of one key go to one replica of a group with sticky routing."""
    content_type: Annotated[str, msgspec.Meta(max_length=MAX_CONTENT_TYPE)] | None = None


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
    deliveries: int = 1  # how often it was delivered, this time included
    priority: int = NORMAL


class Publication(_Frame, frozen=True):
    """One message for `topic-handler.handle-topic`; fields as in `Deliver`; answered by `Reply`."""

    id: int
    sender: ComponentId
    seconds: int
    nanoseconds: int
    topic: str
    content_type: str | None = None
    deliveries: int = 1
    priority: int = NORMAL


class Callback(_Frame, frozen=True):
    """One message for `handle-callback`; fields as in `Deliver`; answered by `Reply`."""

    id: int
    sender: ComponentId
    seconds: int
    nanoseconds: int
    correlation: str | None = None
    reply_to: ComponentId | None = None
    content_type: str | None = None
    failure: str = ""  # one of FAILURES; "" for a reply
    priority: int = NORMAL  # its request's


class Health(_Frame, frozen=True):
    """Call `health`; answered by `HealthReply`. Sent only while no message is in hand."""

    id: int


class Shutdown(_Frame, frozen=True):
    """Call `shutdown`, then exit 0; answered by `Ended`."""


class Ack(_Frame, frozen=True):
    """The answer to what the worker asked while it works.

    `case` is 0 for ok, else 1 + the index in `messaging-error` (for `GetMetadata`, in `component-error`; for what
    belongs to `airssys:messaging`, in `FAILURES`); `text` is the case's text, an id or token, or "".
    """

    ask: int
    case: int
    text: str = ""
    components: list[ComponentId] = []
    info: tuple[str, str, str] | None = None  # name, version, health
    number: int = 0  # subscribers that a publication reached


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
    """The end of one `Deliver` or `Callback`. `some` and the payload frame are the value; `error` a wasm-error, or
    with `too_large` what the worker says in place of a reply over the component's message size."""

    id: int
    some: bool
    error: str = ""
    fuel: int = 0  # used by this message
    memory_refused: int = 0  # bytes of all memories together that memory.grow asked for and did not get; 0: none
    too_large: bool = False


class HealthReply(_Frame, frozen=True):
    """healthy, degraded, unhealthy or unknown."""

    id: int
    health: str


class Send(_Frame, frozen=True):
    """`host-messaging.send`; with options `messaging.send`. Payload frame is the payload."""

    ask: int
    target: ComponentId
    options: Options | None = None


class Request(_Frame, frozen=True):
    """`host-messaging.request`; with options `messaging.request`. The ack's text is the correlation id."""

    ask: int
    target: ComponentId
    timeout_ms: int
    options: Options | None = None


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


class Publish(_Frame, frozen=True):
    """`messaging.publish`; payload frame is the payload; the ack's number is how many subscribers it goes to."""

    ask: int
    topic: Annotated[str, msgspec.Meta(max_length=MAX_TOPIC)]
    options: Options = Options()


class Subscribe(_Frame, frozen=True):
    """`messaging.subscribe`: from now until `Unsubscribe` or the component's removal, restarts included."""

    ask: int
    pattern: Annotated[str, msgspec.Meta(max_length=MAX_TOPIC)]


class Unsubscribe(_Frame, frozen=True):
    """`messaging.unsubscribe`."""

    ask: int
    pattern: Annotated[str, msgspec.Meta(max_length=MAX_TOPIC)]


class Defer(_Frame, frozen=True):
    """`messaging.defer`: the reply to the request in hand comes later; the ack's text is the token that gives it."""

    ask: int


class Respond(_Frame, frozen=True):
    """`messaging.reply` and `messaging.fail`: the deferred reply; payload frame is the payload."""

    ask: int
    token: Annotated[str, msgspec.Meta(max_length=64)]
    error: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class SetTimer(_Frame, frozen=True):
    """`timers.send-after` and `send-every`; payload frame is the payload; the ack's text is the timer's id."""

    ask: int
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TTL_MS)]
    every: bool = False


class CancelTimer(_Frame, frozen=True):
    """`timers.cancel`."""

    ask: int
    timer: Annotated[str, msgspec.Meta(max_length=64)]


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


ToWorker = Initialize | Deliver | Publication | Callback | Health | Shutdown | Ack
FromWorker = (
    Ready
    | Reply
    | HealthReply
    | Send
    | Request
    | Cancel
    | Broadcast
    | Publish
    | Subscribe
    | Unsubscribe
    | Defer
    | Respond
    | SetTimer
    | CancelTimer
    | ListComponents
    | GetMetadata
    | Ended
)

# -- control to router ----------------------------------------------------------------------------------------


class MessagingRule(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line of `[capabilities] messaging`: `target` or `topic` with access, or `source` (the manifest's `from`)."""

    target: str = ""
    access: list[str] = []  # send, request, broadcast; of a topic publish, subscribe
    source: str = ""
    topic: str = ""


class Mailing(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[messaging]` of a manifest: how a component's mail is kept and delivered."""

    overflow: Literal["error", "block", "drop-oldest", "drop-newest"] = "error"
    at_least_once: bool = False
    max_deliveries: int = 5  # with at_least_once: after so many it is a dead letter
    ttl_ms: int = 0  # of messages that come without one; 0: none
    subscribe: list[str] = []  # topic patterns


Routing = Literal["round-robin", "random", "least-loaded", "sticky"]


class Group(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[[group]]` of the host: how `package/*` picks a replica."""

    package: str
    routing: Routing


class TargetPolicy(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[[target]]` of the host: retries of, and a circuit breaker for, requests to the components a pattern covers."""

    component: str
    attempts: int = 1  # deliveries of one request, the first included
    retry_first_ms: int = 100
    retry_most_ms: int = 5_000
    breaker_failures: int = 0  # consecutive ones that open it; 0: no breaker
    breaker_open_ms: int = 30_000
    breaker_successes: int = 1  # consecutive ones that close it when half open


class ClientRights(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[[client]]` of the host: an operating system's user that may talk to components, `host/client/<user>`."""

    uid: int
    user: str
    messaging: list[MessagingRule]
    rate: int = 10_000  # messages a second


class Settings(_Frame, frozen=True):
    """What the host's configuration says of messages; sent by control before any `Route`, and again with changes."""

    groups: list[Group] = []
    targets: list[TargetPolicy] = []
    clients: list[ClientRights] = []
    record: list[str] = []  # component patterns whose allowed messages are recorded one by one
    dead_letters: int = 1_000
    dead_letter_bytes: int = 16 << 20


class Route(_Frame, frozen=True):
    """A component exists: make its mailbox, know its rights. Idempotent; a later one replaces rules and limits."""

    component: ComponentId
    limits: Limits
    messaging: list[MessagingRule]
    name: str
    version: str
    env: list[tuple[str, str]] = []
    args: list[str] = []
    mailing: Mailing = Mailing()
    health_interval_ms: int = 0  # between two health checks; 0: none
    health_timeout_ms: int = 0  # that `health` may take; 0: the deadline


class Unroute(_Frame, frozen=True):
    """The component is gone: fail what waits for it, drop its mailbox. `why`, as "was stopped", is for who waits."""

    component: ComponentId
    why: str = "was removed"


class Rest(_Frame, frozen=True):
    """The component is not going to run: refuse its mail until its next `Route`; what waits in its mailbox stays."""

    component: ComponentId
    why: str  # as "is quarantined"


class Stop(_Frame, frozen=True):
    """Send `Shutdown` to the component's worker once its message in hand is done; the worker exits by itself."""

    component: ComponentId
    drain: bool = False  # deliver what is in the mailbox first
    timeout_ms: int = 0  # for `shutdown` alone; 0: the component's deadline


class Submit(_Frame, frozen=True):
    """A message from outside. `user` was told to control by the operating system. Answered by `Submitted`."""

    id: int
    user: str
    target: ComponentId
    request: bool
    timeout_ms: int
    options: Options = Options()


class SubmitTopic(_Frame, frozen=True):
    """A publication from outside. Answered by `Submitted`, whose number says how many subscribers it goes to."""

    id: int
    user: str
    topic: Annotated[str, msgspec.Meta(max_length=MAX_TOPIC)]
    options: Options = Options()


class CheckHealth(_Frame, frozen=True):
    """Ask the component's worker for `health` now, beside the checks at its route's interval. As those it is told by
    an `Event` of kind "health" when the answer is new, or unhealthy."""

    component: ComponentId
    timeout_ms: int = 0  # 0: the component's deadline


class Dead(_Frame, frozen=True):
    """About dead letters: list them, one whole, replay or purge; answered by `DeadLetters`."""

    id: int
    action: Literal["list", "show", "replay", "purge"]
    letter: int = 0  # its id; 0: all that `component` covers
    component: str = "*"  # component pattern of the target
    most: int = 1_000  # of a list; the newest


class AskTrace(_Frame, frozen=True):
    """The way of one message, by its id or its correlation id; answered by `Trace`."""

    id: int
    message: str


class Query(_Frame, frozen=True):
    """State of every route; answered by `State`."""

    id: int


ToRouter = Settings | Route | Unroute | Rest | Stop | Submit | SubmitTopic | CheckHealth | Dead | AskTrace | Query

# -- router to control ----------------------------------------------------------------------------------------


class Submitted(_Frame, frozen=True):
    """Answer to `Submit`: `error` is "" or one of FAILURES; `text` explains. Payload frame is the reply."""

    id: int
    error: str = ""
    text: str = ""
    some: bool = False
    message: int = 0  # its id, for a trace; 0: there was none
    correlation: str = ""
    number: int = 0
    content_type: str | None = None  # of the reply


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
    waiting_bytes: int = 0
    sent: int = 0  # messages of its own that were allowed
    dropped: int = 0  # shed by its overflow policy
    expired: int = 0
    redelivered: int = 0
    dead: int = 0  # of its messages, now dead letters
    rate: float = 0.0  # deliveries a second, over the last seconds
    subscriptions: list[str] = []
    timers: int = 0
    breaker: str = ""  # closed, open, half-open; "" without one


class DeadLetter(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message that was not delivered, or not dealt with."""

    id: int
    reason: str  # expired, poisoned, dropped, undeliverable
    sender: ComponentId
    target: ComponentId
    at: float  # when it died, seconds since 1970
    sent_at: float
    size: int
    deliveries: int
    priority: int
    topic: str = ""
    content_type: str | None = None
    correlation: str = ""
    text: str = ""


class DeadLetters(_Frame, frozen=True):
    """Answer to `Dead`. Payload frame is the payload of the one letter of a "show"."""

    id: int
    letters: list[DeadLetter] = []
    count: int = 0  # replayed or purged; of a list, how many there are
    error: str = ""


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One station of a message: sent, queued, delivered, deferred, replied, failed, redelivered, dead."""

    what: str
    at: float  # seconds since 1970
    component: str
    text: str = ""


class Trace(_Frame, frozen=True):
    """Answer to `AskTrace`; no steps where the message is not known, or not any more."""

    id: int
    message: int = 0
    correlation: str = ""
    steps: list[Step] = []


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


FromRouter = Submitted | State | Event | DeadLetters | Trace
