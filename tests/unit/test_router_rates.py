"""How much a component may send, and how much `status` says it gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.limiter import Bucket
from sandbox.types import Limits
from sandbox.wire.router_frames import FAILURES, Ack, Broadcast, MessagingRule, Options, Publish, Request, Send
from supervisor.router.rates import WINDOW, Meter
from tests.unit.router_host import TALK, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

QUEUE_FULL = 4
RATE_LIMITED = 1 + FAILURES.index("rate-limited")
RULES = [*TALK, MessagingRule(topic="news", access=["publish"]), MessagingRule(source="host/client/*")]


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


class Clock:
    """`time` as the router's rates see it: it stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


def working(host: Host, name: str, rate: int) -> FakeWorker:
    """A worker with an operator's message in hand, that may send `rate` messages a second."""
    worker = host.start(name, RULES, limits=Limits(deadline_ms=20_000, message_rate=rate))
    host.control.submit(name, request=False)
    assert "" == host.control.submitted()[0].error
    worker.message()
    return worker


def test_a_sender_is_held_to_its_rate(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many messages as its rate at once, of every kind together; then one by one as time passes. Others send on."""
    clock = Clock()
    monkeypatch.setattr("supervisor.router.asks.time", clock)
    monkeypatch.setattr("supervisor.router.rates.time", clock)
    host.start("acme/b", TALK)
    worker, other = working(host, "acme/a", 5), working(host, "acme/other", 5)
    b = cid("acme/b")
    granted = [
        Send(1, b),
        Send(2, b, Options()),
        Request(3, b, 5000),
        Broadcast(4, [b]),
        Publish(5, "news"),
    ]
    assert [0] * 5 == [worker.ask(frame).case for frame in granted]
    assert Ack(6, QUEUE_FULL, "rate-limited") == worker.ask(Send(6, b))
    assert QUEUE_FULL == worker.ask(Request(7, b, 5000)).case
    assert QUEUE_FULL == worker.ask(Broadcast(8, [b])).case
    assert RATE_LIMITED == worker.ask(Send(9, b, Options())).case
    assert RATE_LIMITED == worker.ask(Publish(10, "news")).case
    assert 0 == other.ask(Send(1, b)).case
    assert 5 == host.settle().counters["rate-limited"]
    clock.now += 0.2
    assert [0, QUEUE_FULL] == [worker.ask(Send(n, b)).case for n in (11, 12)]
    clock.now += 60
    assert [*[0] * 5, QUEUE_FULL] == [worker.ask(Send(n, b)).case for n in range(20, 26)]


def test_each_target_of_a_broadcast_counts(host: Host) -> None:
    """A broadcast goes as far as the rate reaches; the first target it did not reach is named."""
    names = [f"acme/t{number}" for number in range(4)]
    for name in names:
        host.route(name, TALK)
    worker = working(host, "acme/a", 3)
    ack = worker.ask(Broadcast(1, [cid(name) for name in names]))
    assert (QUEUE_FULL, [cid(names[3])]) == (ack.case, ack.components)
    depths = {str(route.component): route.depth for route in host.settle().routes}
    assert [1, 1, 1, 0] == [depths[f"{name}/0"] for name in names]


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 60)), max_size=60),
)
def test_a_bucket_lets_no_more_than_its_rate_through(rate: int, steps: list[tuple[float, int]]) -> None:
    """Over any stretch of time: the burst, and the rate times the time; and what it holds is never lost."""
    now, taken = 0.0, 0
    bucket = Bucket(now, rate, rate)
    passed = 0.0
    for pause, wanted in steps:
        now, passed = now + pause, passed + pause
        taken += sum(bucket.take(now) for _ in range(wanted))
        assert taken <= rate + rate * passed + 1e-6
    now += 1.001
    assert all(bucket.take(now) for _ in range(rate))


def test_a_smaller_rate_cuts_what_was_saved() -> None:
    """Rights that shrink count at once."""
    bucket = Bucket(0.0, 100, 100)
    bucket.resize(2, 2)
    assert [True, True, False] == [bucket.take(0.0) for _ in range(3)]


def test_the_shown_rate_follows_the_last_seconds() -> None:
    """Steady deliveries are shown as they are, after a pause they fade, and long after there is none."""
    meter = Meter()
    now = 100.0
    for tick in range(200):
        now = 100.0 + tick / 10
        meter.count(now)
    assert 10.0 == pytest.approx(meter.rate(now), rel=0.1)
    assert 0 < meter.rate(now + WINDOW / 2) < 10
    assert 0.0 == meter.rate(now + 3 * WINDOW)
    assert 0.0 == Meter().rate(5.0)
