"""How a worker is told what became of its ask: at once, or when the auditor has it on record or there is room.

While an answer is withheld the worker has nothing to say; one that goes on breaks the protocol (`loop`). The words for
failures are those of `airssys:messaging`; a core function hears the case of `messaging-error` that comes nearest.
"""

from __future__ import annotations

import enum

from sandbox.types import MAX_NAME, ComponentId
from sandbox.wire.router_frames import FAILURES, Ack
from supervisor.router.delivery import Delivery
from supervisor.router.routes import Phase, Worker


class MessagingError(enum.IntEnum):
    """Cases of `airssys:core/errors.messaging-error`, 1 + index."""

    DELIVERY_FAILED = 1
    CORRELATION_TIMEOUT = 2
    INVALID_MESSAGE = 3
    QUEUE_FULL = 4
    TARGET_NOT_FOUND = 5


INVALID_STATE = 5
"""Case `invalid-state` of `airssys:core/errors.component-error`, 1 + index."""
_CASES = {reason: case for case, reason in enumerate(FAILURES, 1)}


def failed(ask: int, reason: str, text: str, *, typed: bool) -> Ack:
    """The answer for a failure.

    Args:
        ask: the ask's number.
        reason: one of FAILURES.
        text: for people; of `target-not-found` the target.
        typed: whether the guest used `airssys:messaging`, which has a word for each.
    """
    if typed:
        return Ack(ask, _CASES[reason], text)
    match reason:
        case "target-not-found":
            return Ack(ask, MessagingError.TARGET_NOT_FOUND, text)
        case "queue-full":
            return Ack(ask, MessagingError.QUEUE_FULL, text)
        case "rate-limited":
            return Ack(ask, MessagingError.QUEUE_FULL, reason)
        case "too-large" | "invalid":
            return Ack(ask, MessagingError.INVALID_MESSAGE, text)
        case _:
            return Ack(ask, MessagingError.DELIVERY_FAILED, reason)


def shown(target: ComponentId) -> str:
    """The target as the worker named it, cut: nobody has checked it."""
    return "/".join(part[: MAX_NAME + 1] for part in (target.namespace, target.name, target.instance))


class Answer:
    """One that is not given yet: `ack` is set when it is known, `unwritten` counts records not yet written."""

    __slots__ = ("ack", "unwritten", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ack: Ack | None = None
        self.unwritten = 0


class Answers:
    """Gives answers to workers."""

    __slots__ = ("_delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def give(self, worker: Worker, ack: Ack) -> None:
        """Answer at once."""
        self._delivery.to_worker(worker, ack)

    def withhold(self, worker: Worker, ask: int) -> Answer:
        """Answer later: see `release`."""
        worker.withheld = ask
        return Answer(worker)

    def release(self, answer: Answer) -> None:
        """Give the answer if it is known and all it stands for is on record; its worker may be gone."""
        worker = answer.worker
        if answer.ack is None or answer.unwritten or worker.phase is Phase.CLOSED:
            return
        worker.withheld = None
        self._delivery.to_worker(worker, answer.ack)

    def record(self, answer: Answer, event: str, sender: str, object_: str, refused: str = "", why: str = "") -> None:
        """Record what was decided; the answer waits for it.

        Args:
            answer: to whoever asked.
            event: as `messaging.send`.
            sender: who asked.
            object_: the target or topic.
            refused: the reason of a denial; "" when it was allowed.
            why: whose rules a denial follows from, `sender` or `target`; it is not told to the worker.
        """
        if refused and answer.worker.home is not None:
            answer.worker.home.denied += 1
        answer.unwritten += 1

        def recorded(_seq: int) -> None:
            answer.unwritten -= 1
            self.release(answer)

        decision, result = ("denied", refused) if refused else ("allowed", "ok")
        self._delivery.audit.record(
            event, sender, decision, object_, result, detail={"why": why} if why else None, on_recorded=recorded
        )

    def deny(
        self, worker: Worker, event: str, object_: str, ack: Ack, result: str = "denied", why: str = "sender"
    ) -> None:
        """Answer with a denial, which is on record before."""
        answer = self.withhold(worker, ack.ask)
        answer.ack = ack
        self.record(answer, event, str(worker.component), object_, result, why)
