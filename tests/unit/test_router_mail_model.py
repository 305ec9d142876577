"""The router's mail against a plain model of it, under any interleaving of what can happen to a message."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandbox.types import Limits
from sandbox.wire.router_frames import (
    Deliver,
    Initialize,
    Mailing,
    Metadata,
    Ready,
    Reply,
    Route,
    Settings,
    Shutdown,
    TargetPolicy,
)
from sandbox.wire.supervisor_frames import AttachRouter, Detach
from supervisor.router import deadlines, delivery, mailbox, requests, retries, timers, waiting
from supervisor.router.channels import Sent
from supervisor.router.correlation import Pending, Result
from supervisor.router.delivery import Delivery, outside
from supervisor.router.mailbox import Message
from supervisor.router.routes import Phase
from tests.unit import mail_model
from tests.unit.mail_model import OVERHEAD, Breaker, Mail, Model, Target
from tests.unit.router_host import cid

pytestmark = pytest.mark.block5_messaging

NAMES = ("acme/a",)
"""One component is enough: what several have in common, their account, is looked at too."""
FOREVER_MS = 10**9
METADATA = Metadata("t", "1", "", "", "", [], False)
ANN = outside("ann")
# Instants stay apart: times to live are odd, timeouts are no multiples of the pauses between attempts (30, 60, 120),
# and every step moves the clock by a little that no other step has.
TTLS = (0, 0, 0, 25, 205)
TIMEOUTS = (10, 50, 250, 8000)
PAUSES = (1, 20, 100, 700, 6000)
POLICIES = (
    None,
    TargetPolicy("*", attempts=3, retry_first_ms=40, retry_most_ms=160),
    TargetPolicy("*", breaker_failures=2, breaker_open_ms=300, breaker_successes=2),
    TargetPolicy("*", attempts=2, retry_first_ms=40, breaker_failures=1, breaker_open_ms=60),
)


class Clock:
    """The time, for every module that asks for it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


class Channel:
    """A worker that takes everything."""

    class Inbound:
        payload_limit = 0

    def __init__(self) -> None:
        self.inbound = self.Inbound()
        self.owner: Any = None
        self.got: list[Any] = []

    def send(self, frame: Any, payload: bytes = b"") -> Sent:
        self.got.append((frame, payload))
        return Sent.OK

    def shut(self) -> None: ...

    def close(self) -> None: ...


class Nobody:
    """Bus, supervisor and auditor: they hear, and say nothing."""

    def send(self, *frame: Any) -> int:
        return 0

    def record(self, *args: Any, **details: Any) -> int:
        return 0


mailings = st.builds(
    Mailing,
    overflow=st.sampled_from(["error", "block", "block", "block", "drop-oldest", "drop-oldest", "drop-newest"]),
    at_least_once=st.booleans(),
    max_deliveries=st.integers(1, 3),
    ttl_ms=st.sampled_from((0, 0, 85)),
)
capacities = st.sampled_from((1, 2, 3, 20))
sizes = st.sampled_from((1500, 2500, 1 << 20))
names = st.sampled_from(NAMES)


class MailMachine(RuleBasedStateMachine):
    """Both sides do the same; after each step they must agree in all that anybody can see."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        for module in (delivery, requests, waiting, deadlines, timers):
            self.patch.setattr(module, "time", self.clock)
        self.patch.setattr(mailbox, "STREAK", mail_model.STREAK)
        self.patch.setattr(retries.random, "random", lambda: 0.5)
        nobody: Any = Nobody()
        self.real = Delivery(nobody, nobody, nobody)
        self.model = Model()
        self.policy: TargetPolicy | None = None
        self.incarnation = self.label = self.steps = 0
        self.told: dict[int, list[str]] = {}
        self.delivered: list[tuple[str, int, int]] = []
        self.channels: dict[str, Channel] = {}
        self.open: dict[int, tuple[Mail, Pending]] = {}
        self.labels: dict[int, int] = {}  # by message id
        self.model.now = self.clock.now

    def teardown(self) -> None:
        self.patch.undo()

    # -- what happens -------------------------------------------------------------------------------------------

    @initialize(policy=st.sampled_from(POLICIES), data=st.data())
    def begin(self, policy: TargetPolicy | None, data: st.DataObject) -> None:
        self.policy = policy
        frame = Settings(targets=[] if policy is None else [policy])
        self.real.table.settings = frame
        for changed in self.real.table.on_settings:
            changed(frame)
        for name in NAMES:
            self._route(name, data.draw(mailings), data.draw(capacities), data.draw(sizes))
            if data.draw(st.booleans()):
                self._attach(name)

    def _route(self, name: str, mailing: Mailing, capacity: int, size: int) -> Target:
        limits = Limits(
            deadline_ms=FOREVER_MS, cpu_ms=FOREVER_MS, mailbox=capacity, mailbox_bytes=size, message_size=900
        )
        self.real.table.put(Route(cid(name), limits, [], name, "1", mailing=mailing))
        policy = self.policy
        breaker = Breaker(policy) if policy is not None and policy.breaker_failures else None
        target = Target(mailing, capacity, size, policy, breaker)
        self.model.targets.setdefault(name, target)
        return target

    @rule(
        name=names,
        priority=st.integers(0, 3),
        payload=st.sampled_from((0, 100, 900)),
        ttl=st.sampled_from(TTLS),
        timeout=st.sampled_from((0, *TIMEOUTS)),
        waits=st.sampled_from((True, True, False)),
        count=st.sampled_from((1, 1, 3, 6)),
    )
    def send(self, name: str, priority: int, payload: int, ttl: int, timeout: int, waits: bool, count: int) -> None:
        for _ in range(count):
            self._tick()
            self._send(name, priority, payload, ttl, timeout, waits)

    def _send(self, name: str, priority: int, payload: int, ttl: int, timeout: int, waits: bool) -> None:
        self.label += 1
        label, now = self.label, self.clock.now
        told = self.told[label] = []
        mail = Mail(label, payload + OVERHEAD, priority, timeout > 0, ttl=ttl / 1000, waits=waits)
        message = Message(self.real.message_id(), False, ANN, 0, 0, bytes(payload), priority=priority, waits=waits)
        self.labels[message.id] = label
        if ttl:
            message.expires = now + ttl / 1000
        component = self.real.table.components[cid(name)]
        if timeout:
            mail.deadline = now + timeout / 1000

            def answer(result: Result) -> None:
                told.append(result.error or "reply")

            pending = self.real.correlations.open(component.id, outside=answer)
            pending.message, message.pending, message.correlation = message.id, pending, pending.correlation
            self.real.timeout(pending, timeout)
            self.open[label] = mail, pending

            def queued(refused: str) -> None:
                if refused:
                    self.real.fail(pending, refused, "")

            self.real.submit(component, message, queued)
        else:
            self.real.submit(component, message, told.append)
        self.model.submit(self.model.targets[name], mail)
        self._settle()

    def reply(self, name: str, error: bool) -> None:
        target = self.model.targets[name]
        worker = self.real.table.components[cid(name)].worker
        assert (target.hand is None) == (worker is None or worker.hand is None)
        if worker is None or worker.hand is None:
            return
        self.real.reply(worker, Reply(worker.hand.id, not error, "no" if error else ""), b"")
        self.model.replied(target, error)

    @rule(name=names, error=st.sampled_from((False, False, True)), count=st.sampled_from((1, 1, 2, 8)))
    def replies(self, name: str, error: bool, count: int) -> None:
        for _ in range(count):
            self._tick()
            self.reply(name, error)
            self._settle()

    @rule(name=names)
    def attach(self, name: str) -> None:
        if not self.model.targets[name].worker:
            self._attach(name)

    def _attach(self, name: str) -> None:
        self.incarnation += 1
        channel: Any = Channel()
        self.channels[name] = channel
        self.real.lives.attach(AttachRouter(cid(name), self.incarnation, 0), channel)
        worker = self.real.table.by_incarnation[self.incarnation]
        assert isinstance(channel.got.pop(0)[0], Initialize)
        self.model.targets[name].draining = False
        self.real.lives.ready(worker, Ready(METADATA, "healthy"))
        self.model.targets[name].worker = True
        self.model.work(self.model.targets[name])

    @rule(name=names)
    def kill(self, name: str) -> None:
        worker = self.real.table.components[cid(name)].worker
        if worker is not None:
            self.real.lives.detach(Detach(worker.incarnation, "killed", ""))
            self.model.killed(self.model.targets[name])

    @rule(name=names)
    def stop(self, name: str) -> None:
        """An operator stops it: what waits is delivered first."""
        target = self.model.targets[name]
        if not target.worker or target.draining:
            return
        self.real.lives.stop(self.real.table.components[cid(name)], drain=True)
        target.draining = True
        waiting, target.waiting = target.waiting, []
        for _, mail in waiting:
            self.model.refuse(mail, "stopping")
        self.model.work(target)

    @rule(name=names, mailing=mailings, capacity=capacities, size=sizes)
    def remove(self, name: str, mailing: Mailing, capacity: int, size: int) -> None:
        """The component is removed while its worker lives, the worker dies, and another one is installed."""
        component = self.real.table.components[cid(name)]
        worker = component.worker
        self.real.lives.remove(component)
        if worker is not None:
            self.real.lives.detach(Detach(worker.incarnation, "killed", ""))
        old = self.model.targets[name]
        target = self._route(name, mailing, capacity, size)
        self.model.remove(old, target)

    @precondition(lambda self: any(mail.open for mail, _ in self.open.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from([label for label, (mail, _) in self.open.items() if mail.open]))
        mail, pending = self.open[label]
        assert self.real.settle(pending)
        self.model.close(mail, "cancelled")

    @rule()
    def purge(self) -> None:
        assert len(self.model.letters) == self.real.dead_letters.purge()
        self.model.letters.clear()

    @rule(milliseconds=st.sampled_from(PAUSES))
    def pass_time(self, milliseconds: int) -> None:
        end = self.clock.now + milliseconds / 1000
        while (due := self.model.next()) <= end:
            self.clock.now = self.model.now = max(self.clock.now, due + 1e-8)
            self.real.timers.run()
            self.model.due()
        self.clock.now = self.model.now = end
        self.real.timers.run()

    def _tick(self) -> None:
        self.steps += 1
        self.clock.now += self.steps * 1e-7
        self.model.now = self.clock.now

    def _settle(self) -> None:
        for _ in range(3):
            self.real.timers.run()
            self.model.due()

    # -- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def same(self) -> None:
        self._tick()
        self._settle()
        for name, channel in self.channels.items():
            for frame, _ in channel.got:
                if isinstance(frame, Deliver):
                    self.delivered.append((name, self.labels[frame.id], frame.deliveries))
                else:
                    assert isinstance(frame, Shutdown)
            channel.got.clear()
        assert Counter(self.model.delivered) == Counter(self.delivered)
        for name in NAMES:
            mine = [entry for entry in self.delivered if entry[0] == name]
            assert [entry for entry in self.model.delivered if entry[0] == name] == mine, "order"
        assert self.model.told == self.told
        letters, count = self.real.dead_letters.list()
        assert sorted(self.model.letters) == sorted((self.labels[letter.id], letter.reason) for letter in letters)
        assert count == len(letters)
        for name, target in self.model.targets.items():
            component = self.real.table.components[cid(name)]
            assert (len(target.queue), len(target.waiting)) == (len(component.mailbox), len(component.waiting))
            shutting = component.worker is not None and component.worker.phase is Phase.STOPPING
            assert target.stopping == shutting
        held = sum(letter.size + OVERHEAD for letter in letters)
        assert self.model.held + held == self.real.table.account.used
        assert self.model.late == self.real.table.counters["late-replies"]

    @invariant()
    def answered_at_most_once(self) -> None:
        """And, said apart from the model: nobody hears twice, and a request is open or has been answered."""
        for label, told in self.told.items():
            assert len(told) <= 1
            if label in self.open:
                mail, pending = self.open[label]
                assert mail.open == self.real.correlations.is_open(pending)


MailMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMail = MailMachine.TestCase
