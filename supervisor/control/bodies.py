"""What the API takes and gives, as strict structures: one place for control, its OpenAPI document and its client."""

from __future__ import annotations

import msgspec


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    pass


class _Answer(msgspec.Struct, frozen=True, rename="kebab"):
    pass


# -- asked ----------------------------------------------------------------------------------------------------


class InstallRequest(_Body, frozen=True):
    """Install a package that was uploaded and planned. `plan` is the id its plan carries.

    `env` and `args` are what the component is told; without one of them an instance keeps what it has.
    """

    plan: str
    bindings: dict[str, str] = {}
    env: dict[str, str] | None = None
    args: list[str] | None = None
    instance: str = "0"
    consent: bool = False
    start: bool = True


class TrustRequest(_Body, frozen=True):
    """Believe a publisher's keys (PEM) for these scopes."""

    name: str
    keys: list[str]
    scopes: list[str]
    level: str = "review"
    threshold: int = 1


class RotateRequest(_Body, frozen=True):
    """Replace a publisher's key by another (PEM)."""

    name: str
    old: str
    new: str


class RevokeRequest(_Body, frozen=True):
    """Never believe this key, or these bytes, again."""

    keyid: str = ""
    digest: str = ""
    reason: str = ""


class ComponentQuery(_Body, frozen=True):
    """Which components to show."""

    package: str = ""


class StopQuery(_Body, frozen=True):
    """`drain` delivers what waits in the mailbox first."""

    drain: bool = False


class RemoveQuery(_Body, frozen=True):
    """`purge` drops the component's stored values too."""

    purge: bool = False


class MessageQuery(_Body, frozen=True):
    """A message from outside; the body is its payload, Content-Type its content type."""

    target: str
    kind: str = "request"
    timeout: int = 5_000
    priority: str = "normal"
    ttl: int = 0
    key: str = ""


class PublishQuery(_Body, frozen=True):
    """A publication from outside; the body is its payload, Content-Type its content type."""

    topic: str
    priority: str = "normal"
    ttl: int = 0


class DeadLettersQuery(_Body, frozen=True):
    """Which dead letters: `component` is a pattern of their targets."""

    component: str = "*"
    limit: int = 100


class DeadLettersRequest(_Body, frozen=True):
    """One dead letter by its id, or all whose target the pattern `component` covers."""

    letter: int = 0
    component: str = ""


class LinesQuery(_Body, frozen=True):
    """Which lines; `after` is a sequence number, -1 for the newest `limit`."""

    component: str = ""
    after: int = -1
    limit: int = 100
    follow: bool = False
    denied: bool = False


class NoQuery(_Body, frozen=True):
    """Nothing."""


# -- answered -------------------------------------------------------------------------------------------------


class ErrorBody(_Answer, frozen=True):
    """What went wrong: stable code, sentence, object, and what to do."""

    code: str
    message: str
    subject: str = ""
    hint: str = ""


class ErrorAnswer(_Answer, frozen=True):
    """Every answer that is not a success."""

    error: ErrorBody


class ProcessStatus(_Answer, frozen=True):
    """One process of the host."""

    name: str
    pid: int
    uid: int
    restarts: int
    ready: bool


class HostStatus(_Answer, frozen=True):
    """The host. `profile`, `spawn` and `pool` are as configured; `walls_lost` names each wall that it runs without,
    `limits_held_by` who holds each limit on this machine. `mail`: what the router counted since it began, as
    `late-replies`, `dead-expired` or `violations`; what never happened is not in it."""

    version: str
    state: str
    uptime: float
    profile: str
    spawn: str
    pool: int
    processes: list[ProcessStatus]
    walls_lost: dict[str, str]
    limits_held_by: dict[str, list[str]]
    mail: dict[str, int]


class ComponentStatus(_Answer, frozen=True):
    """One instance. Seconds and bytes; `outcome` is how its last worker ended, "" when none has.

    `ready`: it runs and does not call itself unhealthy, so that groups route to it. `supervisor` is the one it belongs
    to, `quarantine` the cause of its quarantine. `mailbox` to `dead` count messages, `rate` those delivered a second;
    all of them are null while the router is away, and begin with it. `breaker` is closed, open, half-open or "".
    """

    id: str
    state: str
    health: str
    pid: int | None
    uid: int | None
    restarts: int
    uptime: float | None
    memory: int | None
    mailbox: int | None
    delivered: int | None
    failed: int | None
    denied: int | None
    outcome: str
    detail: str
    version: str
    release: int
    digest: str
    next_start: float | None
    lost_wall: str
    supervisor: str
    quarantine: str
    ready: bool
    busy: bool | None
    waiting_bytes: int | None
    sent: int | None
    dropped: int | None
    expired: int | None
    redelivered: int | None
    dead: int | None
    rate: float | None
    timers: int | None
    subscriptions: list[str] | None
    breaker: str


class SupervisorStatus(_Answer, frozen=True):
    """One supervisor. `children` are components that are installed and supervisors, in start order; `restarts` are
    those within its window (seconds), `gave_up` how often it had more than `max_restarts` and its own supervisor had to
    act. `state` is running, restarting, quarantined, stopped, or degraded where some of it runs and some does not. The
    root has no limits of its own: each of its children has."""

    name: str
    parent: str
    strategy: str
    state: str
    children: list[str]
    restarts: int
    max_restarts: int | None
    window: float | None
    gave_up: int


class StatusAnswer(_Answer, frozen=True):
    """Host, components, and the tree they stand in: the root first, then as declared."""

    host: HostStatus
    components: list[ComponentStatus]
    supervisors: list[SupervisorStatus]


class ComponentsAnswer(_Answer, frozen=True):
    """Components."""

    components: list[ComponentStatus]


class EndAnswer(_Answer, frozen=True):
    """How one worker ended; `at` is seconds since 1970."""

    incarnation: int
    at: float
    outcome: str
    detail: str


class CapabilityAnswer(_Answer, frozen=True):
    """One capability, its risk (low, medium, high) and the reason for the grade."""

    text: str
    risk: str
    why: str


class LimitAnswer(_Answer, frozen=True):
    """One limit of an instance: bytes, milliseconds or a count; as the manifest spells it; who holds it here."""

    key: str
    value: int
    text: str
    held_by: list[str]


class CrossingAnswer(_Answer, frozen=True):
    """How values cross the component's wasm boundary since its last start: `path` is "fast" or "general". On the fast
    path `exports` are the functions of its lifecycle that are called in bulk, `imports` those of the host; the others
    take the general path. `reason` is why all do."""

    path: str
    exports: list[str]
    imports: dict[str, list[str]]
    reason: str


class ComponentInfo(_Answer, frozen=True):
    """All about one instance."""

    status: ComponentStatus
    package: str
    keyid: str
    publisher: str
    installed_at: float
    installed_by: str
    bindings: dict[str, str]
    env: dict[str, str]
    args: list[str]
    consent_by: str
    consent_at: float
    capabilities: list[CapabilityAnswer]
    imports: dict[str, list[str]]
    crossing: CrossingAnswer
    manifest: msgspec.Raw
    limits: list[LimitAnswer]
    operations: list[str]
    ends: list[EndAnswer]


class PlanAnswer(_Answer, frozen=True):
    """What installing an uploaded package would mean."""

    plan: str
    name: str
    version: str
    release: int
    description: str
    digest: str
    size: int
    keyid: str
    publisher: str
    level: str
    consent_needed: bool
    world: str
    capabilities: list[CapabilityAnswer]
    widened: list[str]
    roots: list[str]
    imports: dict[str, list[str]]
    exports: list[str]
    instances: list[str]


class PublisherAnswer(_Answer, frozen=True):
    """One publisher this host believes."""

    name: str
    keyids: list[str]
    scopes: list[str]
    level: str
    threshold: int
    added: str


class PublishAnswer(_Answer, frozen=True):
    """How many subscribers take a publication."""

    topic: str
    subscribers: int


class DeadLetterAnswer(_Answer, frozen=True):
    """A message that was not delivered or not dealt with. `reason` is expired, poisoned, dropped or undeliverable;
    times are seconds since 1970; `payload` is base64, of a single letter alone."""

    id: int
    reason: str
    sender: str
    target: str
    at: float
    sent_at: float
    size: int
    deliveries: int
    priority: str
    topic: str
    content_type: str | None
    correlation: str
    text: str
    payload: str


class DeadLettersAnswer(_Answer, frozen=True):
    """Dead letters, the oldest first; `count` is how many there are."""

    letters: list[DeadLetterAnswer]
    count: int


class DeadLettersChanged(_Answer, frozen=True):
    """How many were replayed or purged; `error` is why the first of the others could not be replayed."""

    count: int
    error: str


class StepAnswer(_Answer, frozen=True):
    """One station of a message, as sent, queued, delivered, replied, dead; `at` is seconds since 1970."""

    what: str
    at: float
    component: str
    text: str


class TraceAnswer(_Answer, frozen=True):
    """The way of one message; of a request with its callback."""

    message: int
    correlation: str
    steps: list[StepAnswer]


class TrustAnswer(_Answer, frozen=True):
    """The trust store."""

    publishers: list[PublisherAnswer]
    revoked_keys: list[str]
    revoked_digests: list[str]


class TrustChanged(_Answer, frozen=True):
    """A change of the trust store, and the components it stopped."""

    changed: str
    stopped: list[str]


class ProcessConfinement(_Answer, frozen=True):
    """What confines one process, read in /proc by the supervisor: the host's own, compilers, and workers by component.

    `capabilities` and `bounding` are masks in hexadecimal; `namespaces` the kinds it does not share with the
    supervisor, null where that cannot be seen; `limits` hard resource limits, -1 for none. `calls` (how many its policy
    lets through) and `landlock` are not to be read from outside: they are what it put up before it was ready.
    """

    name: str
    pid: int
    uid: int
    gid: int
    groups: int
    capabilities: str
    bounding: str
    no_new_privileges: bool
    filters: int
    threads: int
    namespaces: list[str] | None
    root: str
    limits: dict[str, int]
    calls: int
    landlock: str


class DoctorAnswer(_Answer, frozen=True):
    """The walls as they run: name to "on" or to what is lost. `more` when there are more workers than are listed."""

    walls: dict[str, str]
    processes: list[ProcessStatus]
    confinement: list[ProcessConfinement]
    more: bool


class Accepted(_Answer, frozen=True):
    """Done, or begun."""

    done: str
