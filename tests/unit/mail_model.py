"""What the router's mail is to do, said as plainly as possible: lists, loops, and nothing shared with the router.

One model of mailboxes, waiting senders, requests, retries, breakers and dead letters. `now` is brought by the test;
what is due is done by `due`. The order of what happens at one instant is not modelled: the test keeps instants apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.wire.router_frames import Mailing, TargetPolicy

OVERHEAD = 512
STREAK = 2
OUTSIDE_SECONDS = 5.0
RETRIED = ("target-ended", "queue-full", "stopping")
BAD = ("timeout", "target-ended", "guest-error", "queue-full")
NEVER = float("inf")


@dataclass
class Mail:
    """One message, and the request it carries."""

    label: int
    size: int
    priority: int
    request: bool
    deadline: float = NEVER
    ttl: float = 0.0
    expires: float = NEVER
    waits: bool = False
    deliveries: int = 0
    attempts: int = 0
    open: bool = False
    breaker: Breaker | None = None
    epoch: int = 0


@dataclass
class Breaker:
    policy: TargetPolicy
    state: str = "closed"
    bad: int = 0
    good: int = 0
    opened: float = 0.0
    trial: float = -NEVER
    epoch: int = 0

    def move(self, state: str) -> None:
        self.state, self.bad, self.good, self.trial = state, 0, 0, -NEVER
        self.epoch += 1

    def admit(self, now: float) -> bool:
        pause = self.policy.breaker_open_ms / 1000
        if self.state == "closed":
            return True
        if now < self.opened + pause or now < self.trial + pause:
            return False
        self.trial = now
        return True

    def result(self, epoch: int, now: float, good: bool | None) -> None:
        if epoch != self.epoch:
            return
        self.trial = -NEVER
        if good is None:
            return
        if self.state == "closed":
            self.bad = 0 if good else self.bad + 1
            if self.bad == self.policy.breaker_failures:
                self.opened = now
                self.move("open")
        elif good:
            self.good += 1
            if self.good == self.policy.breaker_successes:
                self.move("closed")
        else:
            self.opened = now
            self.move("open")


@dataclass
class Target:
    """One component."""

    mailing: Mailing
    capacity: int
    size: int
    policy: TargetPolicy | None
    breaker: Breaker | None
    queue: list[Mail] = field(default_factory=list)
    waiting: list[tuple[float, Mail]] = field(default_factory=list)
    asleep: list[tuple[float, Mail]] = field(default_factory=list)
    worker: bool = False
    hand: Mail | None = None
    draining: bool = False
    stopping: bool = False  # the worker is told to shut down
    streak: int = 0

    def fits(self, mail: Mail, without: list[Mail] | None = None) -> bool:
        rest = [each for each in self.queue if each not in (without or [])]
        return len(rest) < self.capacity and sum(each.size for each in rest) + mail.size <= self.size


class Model:
    """All of it. `told` is what each sender or requester heard; `delivered` what workers got; `letters` what died."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.told: dict[int, list[str]] = {}
        self.delivered: list[tuple[str, int, int]] = []
        self.letters: list[tuple[int, str]] = []
        self.late = 0
        self.now = 0.0

    # -- answers ------------------------------------------------------------------------------------------------

    def tell(self, mail: Mail, word: str) -> None:
        self.told[mail.label].append(word)

    def close(self, mail: Mail, word: str) -> None:
        """A request has its answer; `cancelled` is told to nobody."""
        if not mail.open:
            return
        mail.open = False
        if mail.breaker is not None:
            good = True if word == "reply" else False if word in BAD else None
            mail.breaker.result(mail.epoch, self.now, good)
        if word != "cancelled":
            self.tell(mail, word)
        for target in self.targets.values():
            target.waiting = [each for each in target.waiting if each[1] is not mail]
            target.asleep = [each for each in target.asleep if each[1] is not mail]
            if mail in target.queue:
                target.queue.remove(mail)
            self.admit(target)

    def refuse(self, mail: Mail, word: str) -> None:
        if mail.request:
            self.close(mail, word)
        else:
            self.tell(mail, word)

    def take(self, target: Target, mail: Mail) -> None:
        """It is in the mailbox; who sends hears so, who asks hears later."""
        if mail.expires == NEVER and not mail.deliveries:
            ttl = mail.ttl or target.mailing.ttl_ms / 1000
            mail.expires = self.now + ttl if ttl else NEVER
        target.queue.append(mail)

    # -- in -----------------------------------------------------------------------------------------------------

    def submit(self, target: Target, mail: Mail) -> None:
        self.told[mail.label] = []
        mail.open = mail.request
        if mail.ttl:
            mail.expires = self.now + mail.ttl
        if mail.request and target.breaker is not None:
            if not target.breaker.admit(self.now):
                self.refuse(mail, "circuit-open")
                return
            mail.breaker, mail.epoch = target.breaker, target.breaker.epoch
        block = target.mailing.overflow == "block" and mail.waits and not target.draining
        if block and (target.waiting or not target.fits(mail)):
            until = mail.deadline if mail.request else self.now + OUTSIDE_SECONDS
            target.waiting.append((until, mail))
            return
        refused = self.offer(target, mail)
        if refused and not self.again(target, mail, refused):
            self.refuse(mail, refused)
            return
        if not mail.request:
            self.tell(mail, "")

    def offer(self, target: Target, mail: Mail) -> str:
        if target.draining:
            return "stopping"
        if not target.waiting and target.fits(mail):
            self.take(target, mail)
            self.work(target)
            return ""
        overflow = target.mailing.overflow
        if overflow in ("error", "block"):
            return "queue-full"
        if overflow == "drop-oldest":
            mine = [each for each in target.queue if each.priority <= mail.priority]
            if target.fits(mail, without=mine):
                gone: list[Mail] = []
                mine.sort(key=lambda each: each.priority)  # stable: of one priority the oldest first
                while not target.fits(mail):
                    gone.append(mine.pop(0))
                    target.queue.remove(gone[-1])
                self.take(target, mail)
                for each in gone:
                    self.die(target, each, "dropped", "queue-full")
                self.work(target)
                return ""
        self.die(target, mail, "dropped", "queue-full")
        return ""

    def admit(self, target: Target) -> None:
        while target.waiting and not target.draining and target.fits(target.waiting[0][1]):
            _, mail = target.waiting.pop(0)
            self.take(target, mail)
            if not mail.request:
                self.tell(mail, "")
            self.work(target)

    # -- out ----------------------------------------------------------------------------------------------------

    def work(self, target: Target) -> None:
        """Hand the next one to an idle worker."""
        if not target.worker or target.hand is not None or target.stopping:
            return
        while target.queue:
            priorities = sorted({each.priority for each in target.queue}, reverse=True)
            lower = [each for each in target.queue if each.priority != priorities[0]]
            if not lower:
                target.streak = 0
            elif target.streak < STREAK:
                target.streak += 1
                lower = []
            else:
                target.streak = 0
            # Of one priority, the first; of several lower ones, whichever first one was sent first.
            heads = {each.priority: each for each in reversed(lower or target.queue)}
            mail = min(heads.values(), key=lambda each: each.label) if lower else heads[priorities[0]]
            target.queue.remove(mail)
            if mail.expires > self.now:
                mail.deliveries += 1
                target.hand = mail
                self.delivered.append((self.name(target), mail.label, mail.deliveries))
                self.admit(target)
                return
            self.die(target, mail, "expired", "expired")
        if target.draining:
            target.stopping = True

    def name(self, target: Target) -> str:
        return next(name for name, each in self.targets.items() if each is target)

    def replied(self, target: Target, error: bool) -> None:
        mail, target.hand = target.hand, None
        assert mail is not None
        if mail.request:
            if not mail.open and not error:
                self.late += 1
            self.close(mail, "guest-error" if error else "reply")
        self.work(target)

    def killed(self, target: Target) -> None:
        mail, target.hand = target.hand, None
        target.worker = target.stopping = False
        if mail is None or (mail.request and not mail.open):
            return
        if not target.mailing.at_least_once:
            self.die(target, mail, "undeliverable", "target-ended")
        elif mail.deliveries >= target.mailing.max_deliveries:
            self.die(target, mail, "poisoned", "target-ended", final=True)
        else:
            target.queue.insert(0, mail)

    def die(self, target: Target, mail: Mail, reason: str, word: str, *, final: bool = False) -> None:
        if not final and self.again(target, mail, word):
            return
        self.letters.append((mail.label, reason))
        if mail.request:
            self.close(mail, word)

    def again(self, target: Target, mail: Mail, word: str) -> bool:
        if not mail.open or target.policy is None or word not in RETRIED:
            return False
        mail.attempts += 1
        if mail.attempts >= target.policy.attempts:
            return False
        whole = min(target.policy.retry_first_ms * 2 ** (mail.attempts - 1), target.policy.retry_most_ms)
        when = self.now + whole / 1000 * 0.75
        if when >= mail.deadline:
            return False
        target.asleep.append((when, mail))
        return True

    def remove(self, target: Target, successor: Target) -> None:
        """The component is gone, and there is a new one of its name, which gets nothing of what was for the old one."""
        name = self.name(target)
        waiting, target.waiting = target.waiting, []
        for _, mail in waiting:
            self.refuse(mail, "target-not-found")
        for _, mail in list(target.asleep):
            self.close(mail, "target-not-found")
        queue, target.queue, target.policy = target.queue, [], None
        for mail in sorted(queue, key=lambda each: -each.priority):
            self.die(target, mail, "undeliverable", "target-not-found")
        if target.hand is not None:
            target.mailing = Mailing()
            self.killed(target)
        self.targets[name] = successor

    # -- time ---------------------------------------------------------------------------------------------------

    def next(self) -> float:
        """When something is due next."""
        times = [NEVER]
        for target in self.targets.values():
            times += [each.expires for each in target.queue]
            times += [until for until, _ in target.waiting]
            times += [when for when, _ in target.asleep]
            for mail in [
                *target.queue,
                *(mail for _, mail in target.waiting),
                *(mail for _, mail in target.asleep),
                *([target.hand] if target.hand else []),
            ]:
                if mail.open:
                    times.append(mail.deadline)
        return min(times)

    def due(self) -> None:
        """Do the one thing that is due now."""
        for target in self.targets.values():
            everything = [
                *target.queue,
                *(mail for _, mail in target.waiting),
                *(mail for _, mail in target.asleep),
                *([target.hand] if target.hand else []),
            ]
            for mail in everything:
                if mail.open and mail.deadline <= self.now:
                    self.close(mail, "timeout")
            for mail in list(target.queue):
                if mail.expires <= self.now:
                    target.queue.remove(mail)
                    self.die(target, mail, "expired", "expired")
                    self.admit(target)
            for entry in list(target.waiting):
                if entry[0] <= self.now:
                    target.waiting.remove(entry)
                    self.refuse(entry[1], "queue-full")
                    self.admit(target)
            for entry in list(target.asleep):
                if entry[0] <= self.now:
                    target.asleep.remove(entry)
                    mail = entry[1]
                    refused = self.offer(target, mail)
                    if refused and not self.again(target, mail, refused):
                        self.close(mail, refused)

    @property
    def held(self) -> int:
        """Bytes of all messages that are kept, letters aside."""
        total = 0
        for target in self.targets.values():
            total += sum(each.size for each in target.queue)
            total += sum(mail.size for _, mail in target.waiting) + sum(mail.size for _, mail in target.asleep)
            total += target.hand.size if target.hand else 0
        return total
