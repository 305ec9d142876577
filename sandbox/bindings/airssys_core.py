"""airssys:core@1.0.0 in Python. Made by `scripts/make-bindings` from the WIT: change that, not this file."""

# fmt: off
from __future__ import annotations

import enum

import msgspec

from sandbox.abi.types import (
    BOOL,
    BYTES,
    STRING,
    U32,
    U64,
    EnumType,
    Function,
    ListType,
    OptionType,
    Primitive,
    RecordType,
    ResultType,
    TupleType,
    VariantType,
)


class FilesystemAction(enum.Enum):
    """What may be done to files."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    LIST_DIR = "list-dir"


FILESYSTEM_ACTION = EnumType(
    (
        "read",
        "write",
        "delete",
        "list-dir",
    ),
    "airssys:core/capabilities@1.0.0#filesystem-action",
)


class FilesystemPermission(msgspec.Struct, frozen=True, gc=False):
    """One right to files."""

    action: FilesystemAction
    path_pattern: str


FILESYSTEM_PERMISSION = RecordType(
    (
        ("action", FILESYSTEM_ACTION),
        ("path-pattern", STRING),
    ),
    "airssys:core/capabilities@1.0.0#filesystem-permission",
)


class NetworkAction(enum.Enum):
    """Which way a connection goes."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


NETWORK_ACTION = EnumType(
    (
        "outbound",
        "inbound",
    ),
    "airssys:core/capabilities@1.0.0#network-action",
)


class NetworkPermission(msgspec.Struct, frozen=True, gc=False):
    """One right to the network."""

    action: NetworkAction
    host_pattern: str
    port: int | None


NETWORK_PERMISSION = RecordType(
    (
        ("action", NETWORK_ACTION),
        ("host-pattern", STRING),
        ("port", OptionType(Primitive("u16"))),
    ),
    "airssys:core/capabilities@1.0.0#network-permission",
)


class StorageAction(enum.Enum):
    """What may be done to stored values."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


STORAGE_ACTION = EnumType(
    (
        "read",
        "write",
        "delete",
    ),
    "airssys:core/capabilities@1.0.0#storage-action",
)


class StoragePermission(msgspec.Struct, frozen=True, gc=False):
    """One right to storage."""

    action: StorageAction
    namespace_pattern: str


STORAGE_PERMISSION = RecordType(
    (
        ("action", STORAGE_ACTION),
        ("namespace-pattern", STRING),
    ),
    "airssys:core/capabilities@1.0.0#storage-permission",
)


class MessagingAction(enum.Enum):
    """Ways to address others."""

    SEND = "send"
    REQUEST = "request"
    BROADCAST = "broadcast"


MESSAGING_ACTION = EnumType(
    (
        "send",
        "request",
        "broadcast",
    ),
    "airssys:core/capabilities@1.0.0#messaging-action",
)


class MessagingPermission(msgspec.Struct, frozen=True, gc=False):
    """One right to send."""

    action: MessagingAction
    target_pattern: str


MESSAGING_PERMISSION = RecordType(
    (
        ("action", MESSAGING_ACTION),
        ("target-pattern", STRING),
    ),
    "airssys:core/capabilities@1.0.0#messaging-permission",
)


class RequestedPermissions(msgspec.Struct, frozen=True, gc=False):
    """Everything a component asks for; empty means nothing is granted."""

    filesystem: list[FilesystemPermission]
    network: list[NetworkPermission]
    storage: list[StoragePermission]
    messaging: list[MessagingPermission]


REQUESTED_PERMISSIONS = RecordType(
    (
        ("filesystem", ListType(FILESYSTEM_PERMISSION)),
        ("network", ListType(NETWORK_PERMISSION)),
        ("storage", ListType(STORAGE_PERMISSION)),
        ("messaging", ListType(MESSAGING_PERMISSION)),
    ),
    "airssys:core/capabilities@1.0.0#requested-permissions",
)


class ComponentId(msgspec.Struct, frozen=True, gc=False):
    """Who a component is, as `acme/redactor/0`. Each part is lower-case letters, digits and single dashes, at most
    64 characters. The host sets a sender's id itself; no component can pass for another.
    """

    namespace: str
    name: str
    instance: str


COMPONENT_ID = RecordType(
    (
        ("namespace", STRING),
        ("name", STRING),
        ("instance", STRING),
    ),
    "airssys:core/types@1.0.0#component-id",
)


class CapabilityGrant(msgspec.Struct, frozen=True, gc=False):
    """What one component was granted."""

    component: ComponentId
    permissions: RequestedPermissions
    granted_at: int
    expires_at: int | None


CAPABILITY_GRANT = RecordType(
    (
        ("component", COMPONENT_ID),
        ("permissions", REQUESTED_PERMISSIONS),
        ("granted-at", U64),
        ("expires-at", OptionType(U64)),
    ),
    "airssys:core/capabilities@1.0.0#capability-grant",
)


class ComponentMetadata(msgspec.Struct, frozen=True, gc=False):
    """A component's word about itself."""

    name: str
    version: str
    description: str
    author: str
    license: str
    supported_operations: list[str]
    stateful: bool


COMPONENT_METADATA = RecordType(
    (
        ("name", STRING),
        ("version", STRING),
        ("description", STRING),
        ("author", STRING),
        ("license", STRING),
        ("supported-operations", ListType(STRING)),
        ("stateful", BOOL),
    ),
    "airssys:core/component-lifecycle@1.0.0#component-metadata",
)


class WasmErrorComponentNotFound(msgspec.Struct, frozen=True, gc=False):
    """`component-not-found`."""

    value: str


class WasmErrorInstantiationFailed(msgspec.Struct, frozen=True, gc=False):
    """`instantiation-failed`."""

    value: str


class WasmErrorExportNotFound(msgspec.Struct, frozen=True, gc=False):
    """`export-not-found`."""

    value: str


class WasmErrorTimeout(msgspec.Struct, frozen=True, gc=False):
    """`timeout`."""


class WasmErrorResourceLimitExceeded(msgspec.Struct, frozen=True, gc=False):
    """`resource-limit-exceeded`."""

    value: str


class WasmErrorInvalidComponent(msgspec.Struct, frozen=True, gc=False):
    """`invalid-component`."""

    value: str


class WasmErrorRuntimeError(msgspec.Struct, frozen=True, gc=False):
    """`runtime-error`."""

    value: str


WasmError = (
    WasmErrorComponentNotFound
    | WasmErrorInstantiationFailed
    | WasmErrorExportNotFound
    | WasmErrorTimeout
    | WasmErrorResourceLimitExceeded
    | WasmErrorInvalidComponent
    | WasmErrorRuntimeError
)
"""A component could not do what it was called for."""
WASM_ERROR = VariantType(
    (
        ("component-not-found", STRING),
        ("instantiation-failed", STRING),
        ("export-not-found", STRING),
        ("timeout", None),
        ("resource-limit-exceeded", STRING),
        ("invalid-component", STRING),
        ("runtime-error", STRING),
    ),
    "airssys:core/errors@1.0.0#wasm-error",
)


class ComponentErrorInitializationFailed(msgspec.Struct, frozen=True, gc=False):
    """`initialization-failed`."""

    value: str


class ComponentErrorAlreadyInitialized(msgspec.Struct, frozen=True, gc=False):
    """`already-initialized`."""


class ComponentErrorNotInitialized(msgspec.Struct, frozen=True, gc=False):
    """`not-initialized`."""


class ComponentErrorShutdownFailed(msgspec.Struct, frozen=True, gc=False):
    """`shutdown-failed`."""

    value: str


class ComponentErrorInvalidState(msgspec.Struct, frozen=True, gc=False):
    """`invalid-state`."""

    value: str


ComponentError = (
    ComponentErrorInitializationFailed
    | ComponentErrorAlreadyInitialized
    | ComponentErrorNotInitialized
    | ComponentErrorShutdownFailed
    | ComponentErrorInvalidState
)
"""A component's lifecycle went wrong."""
COMPONENT_ERROR = VariantType(
    (
        ("initialization-failed", STRING),
        ("already-initialized", None),
        ("not-initialized", None),
        ("shutdown-failed", STRING),
        ("invalid-state", STRING),
    ),
    "airssys:core/errors@1.0.0#component-error",
)


class SecurityErrorCapabilityDenied(msgspec.Struct, frozen=True, gc=False):
    """`capability-denied`."""

    value: str


class SecurityErrorPolicyViolation(msgspec.Struct, frozen=True, gc=False):
    """`policy-violation`."""

    value: str


class SecurityErrorInvalidContext(msgspec.Struct, frozen=True, gc=False):
    """`invalid-context`."""

    value: str


class SecurityErrorPermissionDenied(msgspec.Struct, frozen=True, gc=False):
    """`permission-denied`."""

    value: str


SecurityError = (
    SecurityErrorCapabilityDenied
    | SecurityErrorPolicyViolation
    | SecurityErrorInvalidContext
    | SecurityErrorPermissionDenied
)
"""A right was missing."""
SECURITY_ERROR = VariantType(
    (
        ("capability-denied", STRING),
        ("policy-violation", STRING),
        ("invalid-context", STRING),
        ("permission-denied", STRING),
    ),
    "airssys:core/errors@1.0.0#security-error",
)


class MessagingErrorDeliveryFailed(msgspec.Struct, frozen=True, gc=False):
    """`delivery-failed`."""

    value: str


class MessagingErrorCorrelationTimeout(msgspec.Struct, frozen=True, gc=False):
    """`correlation-timeout`."""

    value: str


class MessagingErrorInvalidMessage(msgspec.Struct, frozen=True, gc=False):
    """`invalid-message`."""

    value: str


class MessagingErrorQueueFull(msgspec.Struct, frozen=True, gc=False):
    """`queue-full`."""


class MessagingErrorTargetNotFound(msgspec.Struct, frozen=True, gc=False):
    """`target-not-found`."""

    value: ComponentId


MessagingError = (
    MessagingErrorDeliveryFailed
    | MessagingErrorCorrelationTimeout
    | MessagingErrorInvalidMessage
    | MessagingErrorQueueFull
    | MessagingErrorTargetNotFound
)
"""A message was not taken."""
MESSAGING_ERROR = VariantType(
    (
        ("delivery-failed", STRING),
        ("correlation-timeout", STRING),
        ("invalid-message", STRING),
        ("queue-full", None),
        ("target-not-found", COMPONENT_ID),
    ),
    "airssys:core/errors@1.0.0#messaging-error",
)


class StorageErrorNotFound(msgspec.Struct, frozen=True, gc=False):
    """`not-found`."""

    value: str


class StorageErrorAlreadyExists(msgspec.Struct, frozen=True, gc=False):
    """`already-exists`."""

    value: str


class StorageErrorQuotaExceeded(msgspec.Struct, frozen=True, gc=False):
    """`quota-exceeded`."""


class StorageErrorInvalidKey(msgspec.Struct, frozen=True, gc=False):
    """`invalid-key`."""

    value: str


class StorageErrorIoError(msgspec.Struct, frozen=True, gc=False):
    """`io-error`."""

    value: str


StorageError = (
    StorageErrorNotFound
    | StorageErrorAlreadyExists
    | StorageErrorQuotaExceeded
    | StorageErrorInvalidKey
    | StorageErrorIoError
)
"""Storage did not do it."""
STORAGE_ERROR = VariantType(
    (
        ("not-found", STRING),
        ("already-exists", STRING),
        ("quota-exceeded", None),
        ("invalid-key", STRING),
        ("io-error", STRING),
    ),
    "airssys:core/errors@1.0.0#storage-error",
)


class ExecutionErrorInvalidOperation(msgspec.Struct, frozen=True, gc=False):
    """`invalid-operation`."""

    value: str


class ExecutionErrorOperationFailed(msgspec.Struct, frozen=True, gc=False):
    """`operation-failed`."""

    value: str


class ExecutionErrorUnsupportedCodec(msgspec.Struct, frozen=True, gc=False):
    """`unsupported-codec`."""

    value: str


class ExecutionErrorSerializationError(msgspec.Struct, frozen=True, gc=False):
    """`serialization-error`."""

    value: str


ExecutionError = (
    ExecutionErrorInvalidOperation
    | ExecutionErrorOperationFailed
    | ExecutionErrorUnsupportedCodec
    | ExecutionErrorSerializationError
)
"""An operation was refused or failed."""
EXECUTION_ERROR = VariantType(
    (
        ("invalid-operation", STRING),
        ("operation-failed", STRING),
        ("unsupported-codec", STRING),
        ("serialization-error", STRING),
    ),
    "airssys:core/errors@1.0.0#execution-error",
)


class ComponentInfo(msgspec.Struct, frozen=True, gc=False):
    """What the host tells about a component."""

    id: ComponentId
    name: str
    version: str
    health: str


COMPONENT_INFO = RecordType(
    (
        ("id", COMPONENT_ID),
        ("name", STRING),
        ("version", STRING),
        ("health", STRING),
    ),
    "airssys:core/host-services@1.0.0#component-info",
)


class StorageUsage(msgspec.Struct, frozen=True, gc=False):
    """Bytes are those of keys and values together."""

    used_bytes: int
    quota_bytes: int
    key_count: int


STORAGE_USAGE = RecordType(
    (
        ("used-bytes", U64),
        ("quota-bytes", U64),
        ("key-count", U64),
    ),
    "airssys:core/storage@1.0.0#storage-usage",
)


class Timestamp(msgspec.Struct, frozen=True, gc=False):
    """A moment in time, UTC."""

    seconds: int
    nanoseconds: int


TIMESTAMP = RecordType(
    (
        ("seconds", U64),
        ("nanoseconds", U32),
    ),
    "airssys:core/types@1.0.0#timestamp",
)


class MessageMetadata(msgspec.Struct, frozen=True, gc=False):
    """What the host says about a message."""

    correlation_id: str | None
    reply_to: ComponentId | None
    timestamp: Timestamp
    content_type: str | None


MESSAGE_METADATA = RecordType(
    (
        ("correlation-id", OptionType(STRING)),
        ("reply-to", OptionType(COMPONENT_ID)),
        ("timestamp", TIMESTAMP),
        ("content-type", OptionType(STRING)),
    ),
    "airssys:core/types@1.0.0#message-metadata",
)


class ComponentMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as it is delivered."""

    sender: ComponentId
    payload: bytes
    metadata: MessageMetadata


COMPONENT_MESSAGE = RecordType(
    (
        ("sender", COMPONENT_ID),
        ("payload", BYTES),
        ("metadata", MESSAGE_METADATA),
    ),
    "airssys:core/types@1.0.0#component-message",
)


class ResourceLimits(msgspec.Struct, frozen=True, gc=False):
    """What this instance may use. Told, not asked: the host enforces it whatever the component does."""

    max_memory_bytes: int
    max_execution_time_ms: int
    max_fuel: int | None


RESOURCE_LIMITS = RecordType(
    (
        ("max-memory-bytes", U64),
        ("max-execution-time-ms", U64),
        ("max-fuel", OptionType(U64)),
    ),
    "airssys:core/types@1.0.0#resource-limits",
)


class ComponentConfig(msgspec.Struct, frozen=True, gc=False):
    """What a component learns when it starts."""

    env_vars: list[tuple[str, str]]
    config_data: bytes | None
    resource_limits: ResourceLimits


COMPONENT_CONFIG = RecordType(
    (
        ("env-vars", ListType(TupleType((STRING, STRING)))),
        ("config-data", OptionType(BYTES)),
        ("resource-limits", RESOURCE_LIMITS),
    ),
    "airssys:core/types@1.0.0#component-config",
)


class LogLevel(enum.Enum):
    """How important a log line is, from the least."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


LOG_LEVEL = EnumType(
    (
        "trace",
        "debug",
        "info",
        "warn",
        "error",
    ),
    "airssys:core/types@1.0.0#log-level",
)


class HealthStatus(enum.Enum):
    """How a component feels."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


HEALTH_STATUS = EnumType(
    (
        "healthy",
        "degraded",
        "unhealthy",
        "unknown",
    ),
    "airssys:core/types@1.0.0#health-status",
)


class ExecutionStatus(enum.Enum):
    """How a piece of work ended."""

    SUCCESS = "success"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


EXECUTION_STATUS = EnumType(
    (
        "success",
        "failed",
        "timeout",
        "cancelled",
    ),
    "airssys:core/types@1.0.0#execution-status",
)

CLASSES: dict[str, type | dict[str, type]] = {
    "airssys:core/capabilities@1.0.0#filesystem-action": FilesystemAction,
    "airssys:core/capabilities@1.0.0#filesystem-permission": FilesystemPermission,
    "airssys:core/capabilities@1.0.0#network-action": NetworkAction,
    "airssys:core/capabilities@1.0.0#network-permission": NetworkPermission,
    "airssys:core/capabilities@1.0.0#storage-action": StorageAction,
    "airssys:core/capabilities@1.0.0#storage-permission": StoragePermission,
    "airssys:core/capabilities@1.0.0#messaging-action": MessagingAction,
    "airssys:core/capabilities@1.0.0#messaging-permission": MessagingPermission,
    "airssys:core/capabilities@1.0.0#requested-permissions": RequestedPermissions,
    "airssys:core/types@1.0.0#component-id": ComponentId,
    "airssys:core/capabilities@1.0.0#capability-grant": CapabilityGrant,
    "airssys:core/component-lifecycle@1.0.0#component-metadata": ComponentMetadata,
    "airssys:core/errors@1.0.0#wasm-error": {
        "component-not-found": WasmErrorComponentNotFound,
        "instantiation-failed": WasmErrorInstantiationFailed,
        "export-not-found": WasmErrorExportNotFound,
        "timeout": WasmErrorTimeout,
        "resource-limit-exceeded": WasmErrorResourceLimitExceeded,
        "invalid-component": WasmErrorInvalidComponent,
        "runtime-error": WasmErrorRuntimeError,
    },
    "airssys:core/errors@1.0.0#component-error": {
        "initialization-failed": ComponentErrorInitializationFailed,
        "already-initialized": ComponentErrorAlreadyInitialized,
        "not-initialized": ComponentErrorNotInitialized,
        "shutdown-failed": ComponentErrorShutdownFailed,
        "invalid-state": ComponentErrorInvalidState,
    },
    "airssys:core/errors@1.0.0#security-error": {
        "capability-denied": SecurityErrorCapabilityDenied,
        "policy-violation": SecurityErrorPolicyViolation,
        "invalid-context": SecurityErrorInvalidContext,
        "permission-denied": SecurityErrorPermissionDenied,
    },
    "airssys:core/errors@1.0.0#messaging-error": {
        "delivery-failed": MessagingErrorDeliveryFailed,
        "correlation-timeout": MessagingErrorCorrelationTimeout,
        "invalid-message": MessagingErrorInvalidMessage,
        "queue-full": MessagingErrorQueueFull,
        "target-not-found": MessagingErrorTargetNotFound,
    },
    "airssys:core/errors@1.0.0#storage-error": {
        "not-found": StorageErrorNotFound,
        "already-exists": StorageErrorAlreadyExists,
        "quota-exceeded": StorageErrorQuotaExceeded,
        "invalid-key": StorageErrorInvalidKey,
        "io-error": StorageErrorIoError,
    },
    "airssys:core/errors@1.0.0#execution-error": {
        "invalid-operation": ExecutionErrorInvalidOperation,
        "operation-failed": ExecutionErrorOperationFailed,
        "unsupported-codec": ExecutionErrorUnsupportedCodec,
        "serialization-error": ExecutionErrorSerializationError,
    },
    "airssys:core/host-services@1.0.0#component-info": ComponentInfo,
    "airssys:core/storage@1.0.0#storage-usage": StorageUsage,
    "airssys:core/types@1.0.0#timestamp": Timestamp,
    "airssys:core/types@1.0.0#message-metadata": MessageMetadata,
    "airssys:core/types@1.0.0#component-message": ComponentMessage,
    "airssys:core/types@1.0.0#resource-limits": ResourceLimits,
    "airssys:core/types@1.0.0#component-config": ComponentConfig,
    "airssys:core/types@1.0.0#log-level": LogLevel,
    "airssys:core/types@1.0.0#health-status": HealthStatus,
    "airssys:core/types@1.0.0#execution-status": ExecutionStatus,
}

FUNCTIONS: dict[str, dict[str, Function]] = {
    "airssys:core/component-lifecycle@1.0.0": {
        "initialize": Function(
            "initialize",
            (("config", COMPONENT_CONFIG),),
            ResultType(None, COMPONENT_ERROR),
        ),
        "handle-message": Function(
            "handle-message",
            (("msg", COMPONENT_MESSAGE),),
            ResultType(OptionType(BYTES), WASM_ERROR),
        ),
        "handle-callback": Function(
            "handle-callback",
            (("msg", COMPONENT_MESSAGE),),
            ResultType(None, WASM_ERROR),
        ),
        "metadata": Function(
            "metadata",
            (),
            COMPONENT_METADATA,
        ),
        "health": Function(
            "health",
            (),
            HEALTH_STATUS,
        ),
        "shutdown": Function(
            "shutdown",
            (),
            ResultType(None, COMPONENT_ERROR),
        ),
    },
    "airssys:core/host-messaging@1.0.0": {
        "send": Function(
            "send",
            (
                ("target", COMPONENT_ID),
                ("payload", BYTES),
            ),
            ResultType(None, MESSAGING_ERROR),
        ),
        "request": Function(
            "request",
            (
                ("target", COMPONENT_ID),
                ("payload", BYTES),
                ("timeout-ms", U64),
            ),
            ResultType(STRING, MESSAGING_ERROR),
        ),
        "cancel-request": Function(
            "cancel-request",
            (("request-id", STRING),),
            ResultType(None, MESSAGING_ERROR),
        ),
        "broadcast": Function(
            "broadcast",
            (
                ("targets", ListType(COMPONENT_ID)),
                ("payload", BYTES),
            ),
            ResultType(None, MESSAGING_ERROR),
        ),
        "self-id": Function(
            "self-id",
            (),
            COMPONENT_ID,
        ),
    },
    "airssys:core/host-services@1.0.0": {
        "log": Function(
            "log",
            (
                ("level", LOG_LEVEL),
                ("message", STRING),
                ("context", OptionType(ListType(TupleType((STRING, STRING))))),
            ),
        ),
        "current-time": Function(
            "current-time",
            (),
            TIMESTAMP,
        ),
        "current-time-millis": Function(
            "current-time-millis",
            (),
            U64,
        ),
        "sleep-millis": Function(
            "sleep-millis",
            (("duration-ms", U64),),
        ),
        "list-components": Function(
            "list-components",
            (),
            ListType(COMPONENT_ID),
        ),
        "get-component-metadata": Function(
            "get-component-metadata",
            (("id", COMPONENT_ID),),
            ResultType(COMPONENT_INFO, COMPONENT_ERROR),
        ),
    },
    "airssys:core/storage@1.0.0": {
        "get": Function(
            "get",
            (("key", STRING),),
            ResultType(OptionType(BYTES), STORAGE_ERROR),
        ),
        "set": Function(
            "set",
            (
                ("key", STRING),
                ("value", BYTES),
            ),
            ResultType(None, STORAGE_ERROR),
        ),
        "delete": Function(
            "delete",
            (("key", STRING),),
            ResultType(None, STORAGE_ERROR),
        ),
        "exists": Function(
            "exists",
            (("key", STRING),),
            ResultType(BOOL, STORAGE_ERROR),
        ),
        "list-keys": Function(
            "list-keys",
            (("prefix", OptionType(STRING)),),
            ResultType(ListType(STRING), STORAGE_ERROR),
        ),
        "usage": Function(
            "usage",
            (),
            ResultType(STORAGE_USAGE, STORAGE_ERROR),
        ),
    },
}
