"""Messages from people outside, whichever way they came: through control's API, or over the clients' socket.

Both ways lead through the same checks and the same mailboxes as a component's messages do. Whoever asks hears exactly
one `Result` for each message, at once or later. A denial is in the audit log before he hears of it; what is allowed is
counted, and recorded too where the host's configuration wants that.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from bridge.capabilities import InvalidPattern, may_publish, may_send, validate_topic
from sandbox.types import ComponentId
from sandbox.wire.router_frames import MessagingRule, Options
from supervisor.router.correlation import MAX_SUBMITS, MAX_TIMEOUT_MS, Answer, Pending, Result
from supervisor.router.delivery import Delivery
from supervisor.router.groups import EVERY, Groups
from supervisor.router.mailbox import NEVER, Account, Message
from supervisor.router.permissions import Permissions
from supervisor.router.routes import Component
from supervisor.router.topics import Topics

REASONS = {
    "queue-full": "its mailbox is full",
    "stopping": "it is shutting down",
    "circuit-open": "too many requests to it have failed lately",
}
"""Why a mailbox did not take a message, said of the target."""


class Outside:
    """The way in for everybody who is no component."""

    def __init__(self, delivery: Delivery, permissions: Permissions, topics: Topics, groups: Groups) -> None:
        self._delivery = delivery
        self._permissions = permissions
        self._topics = topics
        self._groups = groups
        self._table = delivery.table
        self.on_denied: Callable[[ComponentId], None] | None = None
        """Told of each denial, at once."""

    # -- to one -----------------------------------------------------------------------------------------------

    def post(
        self,
        sender: ComponentId,
        rules: Sequence[MessagingRule] | None,
        target: ComponentId,
        payload: bytes,
        answer: Answer,
        *,
        timeout_ms: int = 0,
        wait_ms: int | None = None,
        options: Options,
    ) -> Pending | None:
        """Put one message into its target's mailbox.

        Args:
            sender: `host/client/<user>`.
            rules: what the sender may do; None for who may do everything.
            target: a component, or with `*` for its instance one of its instances.
            timeout_ms: of a request, how long to wait for the reply; 0 for a plain send.
            wait_ms: of a plain send, how long to wait for room; None for the usual time.
            options: priority, time to live, key and content type.

        Returns:
            The open request, which may be settled to abandon it; None for a send, and where it failed at once.
        """
        action = "request" if timeout_ms else "send"
        if rules is not None and not may_send(rules, target, action):
            self._deny(action, sender, str(target), f"{sender} may not {action} to {target}", answer, "sender")
            return None
        if target.instance == EVERY:
            component = self._groups.pick(target, sender, options.key)
        else:
            component = self._table.components.get(target)
        if component is None:
            there = target.instance == EVERY and self._table.replicas(target.package)
            text = f"no replica of {target.package} is ready" if there else f"there is no {target}"
            answer(Result("target-not-found", text))
        elif not self._permissions.accepts_outside(component, sender):
            component.denied += 1
            self._deny(action, sender, str(component.id), f"{component.id} does not accept {sender}", answer, "target")
        elif len(payload) > component.limits.message_size:
            answer(Result("too-large", f"{component.id} takes {component.limits.message_size} bytes"))
        elif timeout_ms and self._delivery.correlations.submits >= MAX_SUBMITS:
            answer(Result("queue-full", "too many requests from outside are open"))
        elif timeout_ms:
            return self._request(sender, component, payload, answer, min(timeout_ms, MAX_TIMEOUT_MS), options)
        else:
            self._send(sender, component, payload, answer, options, None if wait_ms is None else wait_ms / 1000)
        return None

    def _send(
        self,
        sender: ComponentId,
        component: Component,
        payload: bytes,
        answer: Answer,
        options: Options,
        patience: float | None,
    ) -> None:
        message = self._message(sender, payload, options)

        def done(refused: str) -> None:
            if refused:
                answer(Result(refused, _why(refused, component), message=message.id))
            else:
                told = functools.partial(answer, Result(message=message.id))
                self._allowed("send", sender, component.id, str(component.id), told)

        self._delivery.submit(component, message, done, patience)

    def _request(
        self,
        sender: ComponentId,
        component: Component,
        payload: bytes,
        answer: Answer,
        timeout_ms: int,
        options: Options,
    ) -> Pending:
        delivery, message = self._delivery, self._message(sender, payload, options)
        pending = delivery.correlations.open(component.id, outside=answer)
        pending.message, pending.priority = message.id, message.priority
        message.pending, message.correlation = pending, pending.correlation
        delivery.timeout(pending, timeout_ms)

        def done(refused: str) -> None:
            if refused:
                delivery.fail(pending, refused, _why(refused, component))
            else:
                self._allowed("request", sender, component.id, str(component.id))

        delivery.submit(component, message, done)
        return pending

    def _message(self, sender: ComponentId, payload: bytes, options: Options) -> Message:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        message = Message(
            self._delivery.message_id(),
            False,
            sender,
            seconds,
            nanoseconds,
            payload,
            content_type=options.content_type,
            priority=options.priority,
            expires=time.monotonic() + options.ttl_ms / 1000 if options.ttl_ms else NEVER,
        )
        message.waits = True
        return message

    # -- to many ----------------------------------------------------------------------------------------------

    def publish(
        self,
        sender: ComponentId,
        rules: Sequence[MessagingRule] | None,
        topic: str,
        payload: bytes,
        options: Options,
        answer: Answer,
        *,
        room: Account | None = None,
        spent: Callable[[int], None] | None = None,
    ) -> None:
        """Put one publication into the mailbox of each subscriber.

        Args:
            room: where it counts while many are written to; the mailboxes' account unless told.
            spent: hears how many subscribers it went to.

        The others as in `post`.
        """
        try:
            validate_topic(topic)
        except InvalidPattern as error:
            answer(Result("invalid", f"{error.message}: {error.hint}"))
            return
        if rules is not None and not may_publish(rules, topic):
            self._deny("publish", sender, topic, f"{sender} may not publish under {topic}", answer, "sender")
            return

        def told(taken: int, there: int) -> None:
            if spent is not None:
                spent(there)
            self._allowed("publish", sender, None, topic, functools.partial(answer, Result(number=taken)))

        if not self._topics.publish(sender, topic, payload, options, told, room or self._table.account):
            answer(Result("queue-full", "too many publications are under way"))

    # -- what is written down -----------------------------------------------------------------------------------

    def _allowed(
        self,
        action: str,
        sender: ComponentId,
        target: ComponentId | None,
        shown: str,
        then: functools.partial[None] | None = None,
    ) -> None:
        """Count it, and record it where that is wanted; `then` is called when it is on record."""
        self._table.counters["allowed"] += 1
        if self._table.settings.record and self._permissions.recorded(sender, target):
            self._delivery.audit.record(
                f"messaging.{action}",
                str(sender),
                "allowed",
                shown,
                "",
                on_recorded=None if then is None else lambda _seq: then(),
            )
        elif then is not None:
            then()

    def _deny(self, action: str, sender: ComponentId, shown: str, text: str, answer: Answer, why: str) -> None:
        if self.on_denied is not None:
            self.on_denied(sender)
        self._delivery.audit.record(
            f"messaging.{action}",
            str(sender),
            "denied",
            shown,
            "denied",
            detail={"why": why},
            on_recorded=lambda _seq: answer(Result("denied", text)),
        )


def _why(reason: str, component: Component) -> str:
    if reason == "target-not-found" and component.resting:
        return f"{component.id} {component.resting}"
    return f"{component.id}: {REASONS.get(reason, reason)}"
