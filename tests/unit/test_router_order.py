"""What must hold whatever comes between: one message in hand, rights at the moment of delivery, shares of all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bridge.capabilities import MAX_TOPIC_PARTS, InvalidPattern, validate_topic, validate_topic_pattern
from sandbox.types import Limits
from sandbox.wire.router_frames import (
    FAILURES,
    AskTrace,
    Dead,
    DeadLetters,
    Defer,
    Mailing,
    MessagingRule,
    Options,
    Publish,
    Request,
    Respond,
    Send,
    SetTimer,
    Settings,
    TargetPolicy,
    Trace,
    Unroute,
)
from supervisor.router import timers
from supervisor.router.mailbox import Account
from supervisor.router.topics import Trie
from tests.unit.router_host import LIMITS, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

OPEN = [
    MessagingRule("acme/*", ["send", "request"]),
    MessagingRule(source="acme/*"),
    MessagingRule(source="host/client/*"),
    MessagingRule(topic="news.>", access=["publish", "subscribe"]),
]


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


def test_an_expired_request_of_its_own_gives_a_worker_nothing_second(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback for a request that is found expired comes after the message that is handed over, not beside it."""
    open_, run = threading.Event(), timers.Timers.run
    open_.set()
    # Only to be sure of the moment between the time's end and its timer.
    monkeypatch.setattr(timers.Timers, "run", lambda self: run(self) if open_.is_set() else None)
    worker = working(host, host.start("acme/w", OPEN))
    assert 0 == worker.ask(Request(1, cid("acme/w"), 20_000, Options(ttl_ms=30))).case
    for number in range(3):
        assert 0 == worker.ask(Send(10 + number, cid("acme/w")), b"%d" % number).case
    open_.clear()
    time.sleep(0.05)  # the request's time, not luck: it is over after 30 ms
    worker.reply(worker.hand)  # type: ignore[attr-defined]
    found = []
    for _ in range(4):
        frame, payload = worker.recv()
        found.append((type(frame).__name__, payload if payload.isdigit() else b""))
        open_.set()
        worker.reply(frame)  # type: ignore[arg-type]
    assert {("Callback", b"")} | {("Deliver", b"%d" % number) for number in range(3)} == set(found)
    host.nothing_asked()


def test_a_retry_does_not_reach_who_is_installed_anew(host: Host) -> None:
    """A request between two attempts fails when its target is removed; the next of that name hears nothing of it."""
    host.control.send(Settings(targets=[TargetPolicy("acme/b", attempts=3, retry_first_ms=5_000)]))
    target = host.start("acme/b", OPEN)
    asker = working(host, host.start("acme/a", OPEN))
    assert 0 == asker.ask(Request(1, cid("acme/b"), 20_000), b"old").case
    target.message()
    host.died(target)
    host.control.send(Unroute(cid("acme/b")))
    host.settle()
    host.route("acme/b", [MessagingRule(source="other/*")])
    asker.reply(asker.hand)  # type: ignore[attr-defined]
    assert "target-not-found" == asker.callback()[0].failure
    assert 0 == next(route.depth for route in host.settle().routes if route.component == cid("acme/b"))


def test_a_replay_asks_for_rights_again(host: Host) -> None:
    """A letter whose sender lost its right, whose target lets others in by now, or whose sender is gone, stays one."""
    host.route("acme/b", OPEN)
    asker = working(host, host.start("acme/a", OPEN))
    assert 0 == asker.ask(Send(1, cid("acme/b"), Options(ttl_ms=1)), b"x").case
    host.until(lambda state: sum(route.dead for route in state.routes) == 1)

    def replayed() -> tuple[int, str]:
        host.control.send(Dead(7, "replay"))
        answer, _ = host.control.submitted()
        assert isinstance(answer, DeadLetters)
        return answer.count, answer.error

    host.route("acme/a", OPEN[1:3])
    assert (0, "denied") == replayed()
    host.route("acme/a", OPEN)
    host.route("acme/b", [MessagingRule(source="other/*")])
    assert (0, "denied") == replayed()
    host.route("acme/b", OPEN)
    assert (1, "") == replayed()


def test_at_least_once_holds_for_an_abandoned_request(host: Host) -> None:
    """Its requester is dead; the message was accepted, and is delivered again when the next worker dies with it."""
    mailing = Mailing(at_least_once=True)
    host.route("acme/b", OPEN, mailing=mailing)
    asker = working(host, host.start("acme/a", OPEN))
    assert 0 == asker.ask(Request(1, cid("acme/b"), 20_000), b"q").case
    host.died(asker)
    first = host.start("acme/b", OPEN, mailing=mailing)
    assert b"q" == first.message()[1]
    host.died(first)
    frame, payload = host.start("acme/b", route=False).message()
    assert (b"q", 2) == (payload, frame.deliveries)


def test_recurring_timers_have_a_rate(host: Host) -> None:
    """All of one component's together come at most a thousand times a second."""
    bounds = Limits(deadline_ms=LIMITS.deadline_ms, timers=100)
    worker = working(host, host.start("acme/a", OPEN, limits=bounds))
    cases = [worker.ask(SetTimer(number, 10, True), b"").case for number in range(12)]
    assert [0] * 10 + [1 + FAILURES.index("queue-full")] * 2 == cases


def test_topics_have_a_depth() -> None:
    """So that a publication looks at few places, however many patterns there are and whoever made them."""
    deep = ".".join("a" * MAX_TOPIC_PARTS)
    assert deep == validate_topic(deep) == validate_topic_pattern(deep)
    for check in (validate_topic, validate_topic_pattern):
        with pytest.raises(InvalidPattern):
            check(deep + ".a")
    trie = Trie()
    for number in range(2**MAX_TOPIC_PARTS):
        pattern = ".".join("*" if number >> bit & 1 else "a" for bit in range(MAX_TOPIC_PARTS))
        trie.add(pattern, number)
    assert 2**MAX_TOPIC_PARTS == len(trie.match(deep))


def test_a_publication_to_many_counts_while_it_is_under_way(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for it the publisher hears so, and nobody gets it; to a few it needs no room."""
    for number in range(20):
        host.route(f"acme/t{number}", OPEN, mailing=Mailing(subscribe=["news.a"]))
    host.route("acme/one", OPEN, mailing=Mailing(subscribe=["news.b"]))
    writer = working(host, host.start("acme/writer", OPEN))
    with monkeypatch.context() as patch:
        patch.setattr(Account, "has_room", lambda self, size: False)
        full = writer.ask(Publish(1, "news.a"), b"x")
        assert (1 + FAILURES.index("queue-full"), 0) == (full.case, full.number)
        assert (0, 1) == ((few := writer.ask(Publish(2, "news.b"), b"x")).case, few.number)
    assert {0, 1} == {route.depth for route in host.settle().routes if route.component != cid("acme/one")} | {1}
    assert 20 == writer.ask(Publish(3, "news.a"), b"x").number


def test_a_publication_is_paid_for_each_subscriber(host: Host) -> None:
    """A component that may send little publishes to many and has to wait before it sends again."""
    for number in range(30):
        host.route(f"acme/t{number}", OPEN, mailing=Mailing(subscribe=["news.a"]))
    bounds = Limits(deadline_ms=LIMITS.deadline_ms, message_rate=20)
    writer = working(host, host.start("acme/writer", OPEN, limits=bounds))
    assert 30 == writer.ask(Publish(1, "news.a"), b"x").number
    assert 1 + FAILURES.index("rate-limited") == writer.ask(Publish(2, "news.a"), b"x").case


# -- what a trace tells -----------------------------------------------------------------------------------------------


def trace(host: Host, correlation: str) -> list[tuple[str, str]]:
    """The steps of a request's own message and of its callback."""
    host.control.send(AskTrace(3, correlation))
    answer, _ = host.control.submitted()
    assert isinstance(answer, Trace)
    return [(step.what, step.text) for step in answer.steps if step.text != "normal" and "callback" not in step.text]


def test_a_trace_of_a_late_reply(host: Host) -> None:
    """It says that the requester heard of the timeout, and that the reply was discarded."""
    target = host.start("acme/b", OPEN)
    asker = working(host, host.start("acme/a", OPEN))
    correlation = asker.ask(Request(1, cid("acme/b"), 20), b"q").text
    frame, _ = target.message()
    host.until(lambda state: any(route.depth for route in state.routes))  # the callback waits
    target.reply(frame, b"late")
    host.settle()
    steps = trace(host, correlation)
    assert steps.index(("failed", "timeout")) < steps.index(("replied", "too late, discarded"))


def test_a_trace_of_a_deferred_reply(host: Host) -> None:
    """The handler's end and the reply are told apart."""
    target = host.start("acme/b", OPEN)
    asker = working(host, host.start("acme/a", OPEN))
    correlation = asker.ask(Request(1, cid("acme/b"), 20_000), b"q").text
    frame, _ = target.message()
    token = target.ask(Defer(1)).text
    target.reply(frame)
    host.settle()
    assert ("deferred", "") == trace(host, correlation)[-1]
    working(host, target)
    assert 0 == target.ask(Respond(2, token), b"answer").case
    assert ("replied", "") in trace(host, correlation)


def test_a_trace_of_a_retried_request(host: Host) -> None:
    """Each delivery is in it, not the last alone."""
    host.control.send(Settings(targets=[TargetPolicy("acme/b", attempts=3, retry_first_ms=10)]))
    asker = working(host, host.start("acme/a", OPEN))
    host.route("acme/b", OPEN)
    correlation = asker.ask(Request(1, cid("acme/b"), 20_000), b"q").text
    for _ in range(3):
        target = host.start("acme/b", route=False)
        target.message()
        host.died(target)
    told = [text for what, text in trace(host, correlation) if what == "delivered"]
    assert ["delivery 1", "delivery 2", "delivery 3"] == told[:3]
