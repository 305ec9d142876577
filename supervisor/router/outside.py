"""Messages from people outside, whichever way they came: through control's API, or over the clients' socket.

Both ways lead through the same checks and the same mailbox as a component's messages do. Whoever asks hears exactly
one `Result` for each message, at once or later; a denial is in the audit log before he hears of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bridge.capabilities import may_send
from sandbox.types import ComponentId
from sandbox.wire.router_frames import MessagingRule, Options
from supervisor.router.correlation import MAX_SUBMITS, MAX_TIMEOUT_MS, Answer, Pending, Result
from supervisor.router.delivery import Delivery
from supervisor.router.mailbox import NEVER, Message
from supervisor.router.permissions import Permissions
from supervisor.router.routes import Component

REASONS = {
    "queue-full": "its mailbox is full",
    "stopping": "it is shutting down",
    "target-ended": "it ended",
    "expired": "the message's time was over before it was delivered",
    "circuit-open": "too many requests to it have failed lately",
}
"""Why a mailbox did not take a message, said of the target."""


class Outside:
    """The way in for everybody who is no component."""

    def __init__(self, delivery: Delivery, permissions: Permissions) -> None:
        self._delivery = delivery
        self._permissions = permissions
        self._table = delivery.table

    def post(
        self,
        sender: ComponentId,
        rules: Sequence[MessagingRule] | None,
        target: ComponentId,
        payload: bytes,
        answer: Answer,
        *,
        timeout_ms: int = 0,
        options: Options,
    ) -> Pending | None:
        """Put one message into its target's mailbox.

        Args:
            sender: `host/client/<user>`.
            rules: what the sender may do; None for who may do everything.
            timeout_ms: of a request, how long to wait for the reply; 0 for a plain send.
            options: priority, time to live, key and content type.

        Returns:
            The open request, which may be settled to abandon it; None for a send, and where it failed at once.
        """
        action = "request" if timeout_ms else "send"
        if rules is not None and not may_send(rules, target, action):
            self._deny(action, sender, target, f"{sender} may not {action} to {target}", answer)
            return None
        component = self._find(target)
        if component is None:
            answer(Result("target-not-found", f"there is no {target}"))
        elif not self._permissions.accepts_outside(component, sender):
            component.denied += 1
            self._deny(action, sender, component.id, f"{component.id} does not accept {sender}", answer)
        elif len(payload) > component.limits.message_size:
            answer(Result("too-large", f"{component.id} takes {component.limits.message_size} bytes"))
        elif timeout_ms and self._delivery.correlations.submits >= MAX_SUBMITS:
            answer(Result("queue-full", "too many requests from outside are open"))
        else:
            return self._submit(sender, component, payload, answer, timeout_ms, options)
        return None

    def _find(self, target: ComponentId) -> Component | None:
        return self._table.components.get(target)

    def _submit(
        self,
        sender: ComponentId,
        component: Component,
        payload: bytes,
        answer: Answer,
        timeout_ms: int,
        options: Options,
    ) -> Pending | None:
        delivery = self._delivery
        message = self._message(sender, payload, options)
        if not timeout_ms:

            def sent(refused: str) -> None:
                if refused:
                    answer(Result(refused, _refusal(component, refused), message=message.id))
                    return
                self._table.counters["allowed"] += 1
                answer(Result(message=message.id))

            delivery.submit(component, message, sent)
            return None
        pending = delivery.correlations.open(component.id, outside=answer)
        pending.message, pending.priority = message.id, message.priority
        message.pending, message.correlation = pending, pending.correlation
        delivery.timeout(pending, min(timeout_ms, MAX_TIMEOUT_MS))

        def queued(refused: str) -> None:
            if refused:
                delivery.fail(pending, refused, _refusal(component, refused))
            else:
                self._table.counters["allowed"] += 1

        delivery.submit(component, message, queued)
        return pending

    def _message(self, sender: ComponentId, payload: bytes, options: Options) -> Message:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        return Message(
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

    def _deny(self, action: str, sender: ComponentId, target: ComponentId, text: str, answer: Answer) -> None:
        self._delivery.audit.record(
            f"messaging.{action}",
            str(sender),
            "denied",
            str(target),
            "denied",
            on_recorded=lambda _seq: answer(Result("denied", text)),
        )


def _refusal(component: Component, reason: str) -> str:
    return f"{component.id}: {REASONS.get(reason, reason)}"
