"""airssys:messaging@0.1.0 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import enum

import msgspec

from sandbox.abi.types import BYTES, STRING, U32, U64, EnumType, Function, OptionType, RecordType, ResultType
from sandbox.bindings import airssys_core


class Priority(enum.Enum):
    """Higher ones are delivered first; of one sender and one priority, in order. None starves."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


PRIORITY = EnumType(
    (
        "low",
        "normal",
        "high",
        "critical",
    ),
    "airssys:messaging/messaging@0.1.0#priority",
)


class Options(msgspec.Struct, frozen=True, gc=False):
    """What may be said of a message beside its payload."""

    priority: Priority
    ttl_ms: int
    key: str
    content_type: str | None


OPTIONS = RecordType(
    (
        ("priority", PRIORITY),
        ("ttl-ms", U64),
        ("key", STRING),
        ("content-type", OptionType(STRING)),
    ),
    "airssys:messaging/messaging@0.1.0#options",
)


class FailureReason(enum.Enum):
    """Why it did not work."""

    TIMEOUT = "timeout"
    TARGET_NOT_FOUND = "target-not-found"
    TARGET_ENDED = "target-ended"
    DENIED = "denied"
    QUEUE_FULL = "queue-full"
    TOO_LARGE = "too-large"
    GUEST_ERROR = "guest-error"
    STOPPING = "stopping"
    EXPIRED = "expired"
    CIRCUIT_OPEN = "circuit-open"
    RATE_LIMITED = "rate-limited"
    INVALID = "invalid"


FAILURE_REASON = EnumType(
    (
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
    ),
    "airssys:messaging/messaging@0.1.0#failure-reason",
)


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A failure, and what it was, for people."""

    reason: FailureReason
    text: str


FAILURE = RecordType(
    (
        ("reason", FAILURE_REASON),
        ("text", STRING),
    ),
    "airssys:messaging/messaging@0.1.0#failure",
)


class MessageInfo(msgspec.Struct, frozen=True, gc=False):
    """About the message in hand."""

    id: int
    priority: Priority
    deliveries: int
    failure: Failure | None


MESSAGE_INFO = RecordType(
    (
        ("id", U64),
        ("priority", PRIORITY),
        ("deliveries", U32),
        ("failure", OptionType(FAILURE)),
    ),
    "airssys:messaging/messaging@0.1.0#message-info",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "airssys:messaging/messaging@0.1.0#priority": Priority,
    "airssys:messaging/messaging@0.1.0#options": Options,
    "airssys:messaging/messaging@0.1.0#failure-reason": FailureReason,
    "airssys:messaging/messaging@0.1.0#failure": Failure,
    "airssys:messaging/messaging@0.1.0#message-info": MessageInfo,
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "airssys:messaging/messaging@0.1.0": {
        "send": Function(
            "send",
            (
                ("target", airssys_core.COMPONENT_ID),
                ("payload", BYTES),
                ("options", OPTIONS),
            ),
            ResultType(None, FAILURE),
        ),
        "request": Function(
            "request",
            (
                ("target", airssys_core.COMPONENT_ID),
                ("payload", BYTES),
                ("timeout-ms", U64),
                ("options", OPTIONS),
            ),
            ResultType(STRING, FAILURE),
        ),
        "publish": Function(
            "publish",
            (
                ("topic", STRING),
                ("payload", BYTES),
                ("options", OPTIONS),
            ),
            ResultType(U32, FAILURE),
        ),
        "subscribe": Function(
            "subscribe",
            (("pattern", STRING),),
            ResultType(None, FAILURE),
        ),
        "unsubscribe": Function(
            "unsubscribe",
            (("pattern", STRING),),
            ResultType(None, FAILURE),
        ),
        "defer": Function(
            "defer",
            (),
            ResultType(STRING, FAILURE),
        ),
        "reply": Function(
            "reply",
            (
                ("token", STRING),
                ("payload", BYTES),
            ),
            ResultType(None, FAILURE),
        ),
        "fail": Function(
            "fail",
            (
                ("token", STRING),
                ("message", STRING),
            ),
            ResultType(None, FAILURE),
        ),
        "current": Function(
            "current",
            (),
            OptionType(MESSAGE_INFO),
        ),
    },
    "airssys:messaging/timers@0.1.0": {
        "send-after": Function(
            "send-after",
            (
                ("delay-ms", U64),
                ("payload", BYTES),
            ),
            ResultType(STRING, FAILURE),
        ),
        "send-every": Function(
            "send-every",
            (
                ("interval-ms", U64),
                ("payload", BYTES),
            ),
            ResultType(STRING, FAILURE),
        ),
        "cancel": Function(
            "cancel",
            (("timer", STRING),),
            ResultType(None, FAILURE),
        ),
    },
    "airssys:messaging/topic-handler@0.1.0": {
        "handle-topic": Function(
            "handle-topic",
            (
                ("topic", STRING),
                ("msg", airssys_core.COMPONENT_MESSAGE),
            ),
            ResultType(None, airssys_core.WASM_ERROR),
        ),
    },
}
