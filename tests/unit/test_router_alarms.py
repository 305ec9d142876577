"""Timers of components: when they come, that they outlive workers, and their bounds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sandbox.types import Limits
from sandbox.wire.router_frames import FAILURES, CancelTimer, MessagingRule, SetTimer, Unroute
from tests.unit.router_host import LIMITS, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

OUTSIDE = [MessagingRule(source="host/client/*")]
FULL, INVALID = (1 + FAILURES.index(reason) for reason in ("queue-full", "invalid"))


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def working(host: Host, worker: FakeWorker) -> FakeWorker:
    """The worker with an operator's message in hand, so that it may ask."""
    host.control.submit(str(worker.component), request=False)
    assert "" == host.control.submitted()[0].error
    worker.hand = worker.message()[0]  # type: ignore[attr-defined]
    return worker


def finish(worker: FakeWorker) -> None:
    worker.reply(worker.hand)  # type: ignore[attr-defined]


def timers(host: Host, name: str) -> int:
    return next(route.timers for route in host.settle().routes if route.component == cid(name))


def test_a_message_to_oneself(host: Host) -> None:
    """It comes to handle-message once, not before its time, from the component itself."""
    worker = working(host, host.start("acme/a", OUTSIDE))
    asked = time.monotonic()
    assert 0 == worker.ask(SetTimer(1, 50), b"later").case
    assert 1 == timers(host, "acme/a")
    finish(worker)
    frame, payload = worker.message()
    assert time.monotonic() - asked >= 0.05
    assert (cid("acme/a"), b"later", None) == (frame.sender, payload, frame.correlation)
    worker.reply(frame)
    assert 0 == timers(host, "acme/a")


def test_timers_outlive_the_worker(host: Host) -> None:
    """A worker that dies leaves its timers to the next one; a component that is removed takes them along."""
    worker = working(host, host.start("acme/a", OUTSIDE))
    assert 0 == worker.ask(SetTimer(1, 60), b"once").case
    assert 0 == worker.ask(SetTimer(2, 60, True), b"often").case
    host.died(worker)
    again = host.start("acme/a", route=False)
    found = []
    for _ in range(4):
        frame, payload = again.message()
        found.append(payload)
        again.reply(frame)
    assert {b"once", b"often"} == set(found)
    assert 1 == found.count(b"once")
    host.control.send(Unroute(cid("acme/a")))
    host.route("acme/a", OUTSIDE)
    assert 0 == timers(host, "acme/a")


def test_cancel(host: Host) -> None:
    """A cancelled timer does not come; cancelling again, or what was never set, or another's, is `invalid`."""
    worker, other = working(host, host.start("acme/a", OUTSIDE)), working(host, host.start("acme/b", OUTSIDE))
    once, often = worker.ask(SetTimer(1, 20), b"x").text, worker.ask(SetTimer(2, 20, True), b"y").text
    assert INVALID == other.ask(CancelTimer(1, once)).case
    assert [0, 0] == [worker.ask(CancelTimer(3, timer)).case for timer in (once, often)]
    assert [INVALID] * 3 == [worker.ask(CancelTimer(4, timer)).case for timer in (once, often, "nonsense")]
    assert 0 == worker.ask(SetTimer(5, 40), b"the only one").case
    finish(worker)
    assert b"the only one" == worker.message()[1]


def test_recurring_ones_do_not_pile_up(host: Host) -> None:
    """While the last one waits no further one is added; once it is handled they go on in their rhythm."""
    worker = working(host, host.start("acme/a", OUTSIDE))
    assert 0 == worker.ask(SetTimer(1, 10, True), b"tick").case
    host.until(lambda state: state.routes[0].depth == 1)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        assert 1 == host.settle().routes[0].depth
    finish(worker)
    for _ in range(3):
        frame, payload = worker.message()
        assert b"tick" == payload
        worker.reply(frame)


def test_a_timer_that_finds_no_room_is_not_lost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mailbox full it comes again until there is room."""
    monkeypatch.setattr("supervisor.router.alarms.AGAIN", 0.02)
    bounds = Limits(deadline_ms=LIMITS.deadline_ms, mailbox=1)
    worker = working(host, host.start("acme/a", OUTSIDE, limits=bounds))
    host.control.submit("acme/a", b"in the way", request=False)
    host.control.submitted()
    assert 0 == worker.ask(SetTimer(1, 1), b"kept").case
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        assert 1 == timers(host, "acme/a")
    finish(worker)
    frame, payload = worker.message()
    assert b"in the way" == payload
    worker.reply(frame)
    assert b"kept" == worker.message()[1]


def test_timers_are_bounded(host: Host) -> None:
    """More than the limit are `queue-full`, and so is one too many byte; one that came or was cancelled makes room."""
    bounds = Limits(deadline_ms=LIMITS.deadline_ms, timers=3, message_size=1 << 20, mailbox_bytes=1 << 20)
    worker = working(host, host.start("acme/a", OUTSIDE, limits=bounds))
    first = worker.ask(SetTimer(0, 60_000), b"x")
    assert [0, 0, FULL] == [worker.ask(SetTimer(number, 60_000), b"x").case for number in range(1, 4)]
    assert 0 == worker.ask(CancelTimer(5, first.text)).case
    assert 0 == worker.ask(SetTimer(6, 60_000), b"x").case
    assert FULL == worker.ask(SetTimer(7, 60_000), b"x").case
    other = working(host, host.start("acme/b", OUTSIDE, limits=bounds))
    assert [0, FULL] == [other.ask(SetTimer(number, 60_000), bytes(1 << 19)).case for number in range(2)]


def test_a_rhythm_has_its_bound(host: Host) -> None:
    """A recurring timer comes every 10 ms at most; less is `invalid`, and that much is fine."""
    worker = working(host, host.start("acme/a", OUTSIDE))
    assert [INVALID, INVALID, 0] == [worker.ask(SetTimer(n, wait, True), b"").case for n, wait in enumerate((0, 9, 10))]


def test_a_timer_longer_than_there_can_be(host: Host) -> None:
    """It is no frame: the worker is ended for it."""
    worker = working(host, host.start("acme/a", OUTSIDE))
    worker.send(SetTimer(1, (30 * 24 * 3600 * 1000) + 1), b"")
    assert "undecodable" in host.violated(worker).detail
