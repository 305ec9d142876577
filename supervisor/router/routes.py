"""Who there is: components with their mailboxes and rights, and the workers attached to them.

A component is known from its first `Route` to its `Unroute`; its worker comes and goes. While a new version is made
ready there are two workers: `worker`, which gets the messages, and `successor`, which takes over when it is ready.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Callable

from sandbox.types import ComponentId, Limits
from sandbox.wire.router_frames import MessagingRule, Route, Settings, TargetPolicy
from supervisor.router.breaker import Breaker
from supervisor.router.channels import Channel
from supervisor.router.mailbox import NEVER, Account, Mailbox, Message
from supervisor.router.rates import Meter, bucket
from supervisor.router.timers import Timer
from supervisor.router.waiting import Waiter


class Phase(enum.Enum):
    """Where a worker is; it may ask in the phases in which guest code runs."""

    WAITING = "waiting"  # attached; its route is not there yet
    INITIALIZING = "initializing"
    IDLE = "idle"
    WORKING = "working"  # a message or callback in hand
    HEALTH = "health"
    STOPPING = "stopping"  # Shutdown was sent
    CLOSED = "closed"  # nothing is sent to it any more; its end is to come


GUEST_RUNS = frozenset({Phase.INITIALIZING, Phase.WORKING, Phase.HEALTH, Phase.STOPPING})


class Component:
    """One component the router routes to."""

    __slots__ = (
        "alarms",
        "args",
        "breaker",
        "bucket",
        "dead",
        "delivered",
        "denied",
        "draining",
        "dropped",
        "env",
        "expired",
        "failed",
        "health",
        "health_interval",
        "health_ms",
        "id",
        "limits",
        "mailbox",
        "mailing",
        "meter",
        "name",
        "policy",
        "redelivered",
        "removed",
        "resting",
        "rules",
        "sent",
        "subscriptions",
        "successor",
        "version",
        "visible",
        "waiting",
        "worker",
    )

    def __init__(self, route: Route, account: Account) -> None:
        self.id = route.component
        limits = route.limits
        self.mailbox = Mailbox(account, limits.mailbox, limits.mailbox_bytes, limits.message_size)
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.health = "unknown"
        self.delivered = self.failed = self.denied = 0
        self.dropped = 0  # shed by the overflow policy
        self.expired = self.redelivered = 0
        self.dead = 0  # messages to it that became dead letters
        self.meter = Meter()
        self.policy: TargetPolicy | None = None
        """Of requests to it: `[[target]]` of the host."""
        self.breaker: Breaker | None = None
        self.waiting: OrderedDict[int, Waiter] = OrderedDict()
        """Senders whose messages wait for room in the mailbox, by message; kept by `waiting`."""
        self.sent = 0  # of its own messages, those that were allowed and taken
        self.subscriptions: dict[str, bool] = {}
        """Topic patterns, and whether each is from its manifest; kept by `topics`."""
        self.alarms = 0
        """Messages to itself that wait for their time; kept by `alarms`."""
        self.draining = self.removed = False
        self.resting = ""  # why it takes no mail, though its mailbox stays: see `Rest`
        self.visible: tuple[int, list[ComponentId]] = (-1, [])
        self.bucket = bucket(route.limits.message_rate)
        """What it may send."""
        self.update(route)

    @property
    def ready(self) -> bool:
        """Whether groups give messages to it: its worker takes them, does not call itself unhealthy, and stays."""
        worker = self.worker
        return (
            worker is not None
            and worker.accepts_messages
            and not worker.stop
            and not self.draining
            and not self.resting
            and self.health != "unhealthy"
        )

    def update(self, route: Route) -> None:
        """Take new rights and limits; workers and mailbox stay as they are."""
        self.limits: Limits = route.limits
        self.resting = ""
        self.rules: list[MessagingRule] = route.messaging
        self.mailing = route.mailing
        self.health_interval = route.health_interval_ms / 1000
        self.health_ms = route.health_timeout_ms
        self.bucket.resize(self.limits.message_rate, self.limits.message_rate)
        self.name, self.version, self.env, self.args = route.name, route.version, route.env, route.args
        self.mailbox.resize(self.limits.mailbox, self.limits.mailbox_bytes, self.limits.message_size)


class Worker:
    """One attached worker: one incarnation of a component, behind one channel."""

    __slots__ = (
        "channel",
        "check_health",
        "closing",
        "component",
        "cpu_end",
        "deadline",
        "drain",
        "end_asked",
        "ended",
        "hand",
        "health_at",
        "health_ms",
        "home",
        "incarnation",
        "limits",
        "number",
        "phase",
        "pid",
        "refusal_noted",
        "stop",
        "stop_ms",
        "timer",
        "told_stopped",
        "waiter",
        "withheld",
        "words",
    )

    def __init__(self, channel: Channel[Worker], component: ComponentId, incarnation: int, pid: int) -> None:
        self.channel, self.component, self.incarnation = channel, component, incarnation
        channel.owner = self
        self.pid = pid
        self.home: Component | None = None
        self.phase = Phase.WAITING
        self.limits = Limits()
        self.hand: Message | None = None
        self.number = 0  # of the health check in hand
        self.health_at: Timer | None = None  # the next one
        self.withheld: int | None = None  # ask whose answer waits for the auditor
        self.waiter: Waiter | None = None  # its question waits for room in a mailbox
        self.deadline = NEVER
        self.cpu_end = NEVER  # reading of its CPU clock at which the message's CPU time is used up
        self.timer: Timer | None = None
        self.check_health = self.stop = self.drain = False
        self.health_ms = self.stop_ms = 0  # how long `health` and `shutdown` may take; 0: the deadline
        self.ended = self.end_asked = False
        self.refusal_noted = False  # that memory was refused to it is in the audit log
        self.told_stopped = False  # a Stop was asked for; its end is told as "stopped"
        self.words = ""  # first line of its last words
        self.closing = ""  # why CLOSED, for a worker that does not end

    @property
    def accepts_messages(self) -> bool:
        """Whether it is ready and not on its way out."""
        return self.phase in (Phase.IDLE, Phase.WORKING, Phase.HEALTH)


class Table:
    """Components by id, workers by incarnation, what the host's configuration says, and what was counted."""

    __slots__ = (
        "_packages",
        "_packages_of",
        "account",
        "by_incarnation",
        "components",
        "counters",
        "generation",
        "on_forget",
        "on_route",
        "on_settings",
        "settings",
    )

    def __init__(self) -> None:
        self.account = Account()
        self.components: dict[ComponentId, Component] = {}
        self.by_incarnation: dict[int, Worker] = {}
        self.generation = 0
        """Grows with every change of routes or rights; what is derived from them is cached under it."""
        self.counters: Counter[str] = Counter()
        self.settings = Settings()
        """What the host's configuration says of messages."""
        self.on_settings: list[Callable[[Settings], None]] = []
        """Called with each new `settings`, after the table has them."""
        self.on_route: list[Callable[[Component], None]] = []
        """Called when a component is new, and when its rights or limits are."""
        self.on_forget: list[Callable[[Component], None]] = []
        """Called when a component is gone."""
        self._packages: dict[str, list[Component]] = {}
        self._packages_of = -1

    def put(self, route: Route) -> tuple[Component, bool]:
        """Make or update a component; whether it is new."""
        component = self.components.get(route.component)
        self.generation += 1
        new = component is None
        if component is None:
            component = self.components[route.component] = Component(route, self.account)
        else:
            component.update(route)
        for told in self.on_route:
            told(component)
        return component, new

    def forget(self, component: Component) -> None:
        """Drop a component and its rights."""
        component.removed = True
        component.rules = []
        del self.components[component.id]
        self.generation += 1
        for told in self.on_forget:
            told(component)

    def replicas(self, package: str) -> list[Component]:
        """The components of a package, by id."""
        if self._packages_of != self.generation:
            self._packages = {}
            for component in sorted(self.components.values(), key=lambda each: each.id):
                self._packages.setdefault(component.id.package, []).append(component)
            self._packages_of = self.generation
        return self._packages.get(package, [])

    def add(self, worker: Worker) -> None:
        """A worker attached."""
        self.by_incarnation[worker.incarnation] = worker

    def discard(self, worker: Worker) -> None:
        """A worker is gone."""
        self.by_incarnation.pop(worker.incarnation, None)

    def waiting_for(self, component: ComponentId) -> list[Worker]:
        """Attached workers whose route had not come."""
        return [w for w in self.by_incarnation.values() if w.home is None and w.component == component]
