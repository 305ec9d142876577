"""Topics in the router: who may publish and subscribe, who gets what, and that subscriptions outlive workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.capabilities import topic_covers
from sandbox.types import Limits
from sandbox.wire.router_frames import (
    FAILURES,
    Ack,
    Mailing,
    MessagingRule,
    Options,
    Publication,
    Publish,
    Subscribe,
    Unroute,
    Unsubscribe,
)
from supervisor.router.topics import Trie
from tests.unit.router_host import LIMITS, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

OUTSIDE = MessagingRule(source="host/client/*")
READER = [MessagingRule(topic="orders.>", access=["subscribe"]), MessagingRule(source="acme/*"), OUTSIDE]
WRITER = [MessagingRule(topic="orders.>", access=["publish"]), OUTSIDE]
DENIED, FULL, INVALID = (1 + FAILURES.index(reason) for reason in ("denied", "queue-full", "invalid"))

WORDS = st.sampled_from(["a", "b", "c"])
TOPICS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda parts, end: ".".join([*parts, *end]) or "*",
    st.lists(WORDS | st.just("*"), max_size=4),
    st.sampled_from([[], [">"]]),
)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def working(host: Host, worker: FakeWorker) -> FakeWorker:
    """The worker with an operator's message in hand, so that it may ask."""
    host.control.submit(f"{worker.component.package}/{worker.component.instance}", request=False)
    assert "" == host.control.submitted()[0].error
    worker.message()
    return worker


def subscriptions(host: Host, name: str) -> list[str]:
    return next(route.subscriptions for route in host.settle().routes if route.component == cid(name))


# -- the tree of patterns ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(PATTERNS, st.integers(0, 3)), max_size=12), st.lists(TOPICS, max_size=6), st.data())
def test_the_tree_finds_what_the_plain_matcher_finds(
    subscribed: list[tuple[str, int]], topics: list[str], data: st.DataObject
) -> None:
    """Whatever is added and removed, a topic reaches exactly those with a pattern that covers it, each once."""
    trie, model = Trie(), set(subscribed)
    for pattern, who in subscribed:
        trie.add(pattern, who)
    for pattern, who in data.draw(st.lists(st.tuples(PATTERNS, st.integers(0, 3)))):
        trie.remove(pattern, who)
        model.discard((pattern, who))
    for topic in topics:
        found = trie.match(topic)
        assert sorted({who for pattern, who in model if topic_covers(pattern, topic)}) == sorted(found)
    for pattern, who in model:
        trie.remove(pattern, who)
    assert 0 == len(trie)


def test_a_tree_does_not_look_at_what_cannot_match() -> None:
    """With ten thousand other patterns a topic is found as with none: only the parts on its way are visited."""
    trie = Trie()
    for number in range(10_000):
        trie.add(f"other.n{number}.*", number)
    trie.add("orders.*", "me")
    assert ["me"] == trie.match("orders.new")
    assert [77] == trie.match("other.n77.x")
    assert [] == trie.match("orders.new.late")


# -- rights -----------------------------------------------------------------------------------------------------------


def test_publishing_needs_the_right(host: Host) -> None:
    """Without `publish` on the topic it is denied, on record before it is told; with it (positive control) it goes."""
    worker = working(host, host.start("acme/mute", [MessagingRule(topic="orders.>", access=["subscribe"]), OUTSIDE]))
    worker.send(Publish(1, "orders.new"), b"x")
    record = host.auditor.next()
    assert ("messaging.publish", "acme/mute/0", "denied", "orders.new") == (
        record.event,
        record.component,
        record.decision,
        record.object,
    )
    host.settle()
    worker.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        worker.sock.recv(1)
    worker.sock.settimeout(20)
    host.auditor.written(record)
    assert DENIED == worker.take(Ack)[0].case
    assert Ack(2, 0) == working(host, host.start("acme/writer", WRITER)).ask(Publish(2, "orders.new"), b"x")


def test_subscribing_needs_the_right(host: Host) -> None:
    """One rule must cover all of the pattern; a wider one is denied and on record, a narrower one is fine."""
    worker = working(host, host.start("acme/reader", READER))
    worker.send(Subscribe(1, ">"))
    record = host.auditor.record()
    assert ("messaging.subscribe", "denied", ">") == (record.event, record.decision, record.object)
    assert DENIED == worker.take(Ack)[0].case
    assert Ack(2, 0) == worker.ask(Subscribe(2, "orders.*.new"))
    assert ["orders.*.new"] == subscriptions(host, "acme/reader")


def test_a_subscriber_must_accept_the_publisher(host: Host) -> None:
    """`from` decides, as for every message: one that names others gets nothing; its neighbour (control) does."""
    listed = Mailing(subscribe=["orders.>"])
    closed = host.start("acme/closed", [READER[0], MessagingRule(source="other/*"), OUTSIDE], mailing=listed)
    opened = host.start("acme/open", READER, mailing=listed)
    writer = working(host, host.start("acme/writer", WRITER))
    assert Ack(1, 0, number=1) == writer.ask(Publish(1, "orders.new"), b"x")
    assert "orders.new" == opened.publication()[0].topic
    closed.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        closed.sock.recv(1)


def test_a_right_that_is_taken_away_ends_subscriptions(host: Host) -> None:
    """When a later Route no longer covers a pattern, it is dropped, on record; one that is covered stays."""
    worker = working(host, host.start("acme/reader", READER))
    for number, pattern in enumerate(("orders.eu.*", "orders.us.*")):
        assert 0 == worker.ask(Subscribe(number, pattern)).case
    host.route("acme/reader", [MessagingRule(topic="orders.us.>", access=["subscribe"]), *READER[1:]])
    assert ["orders.us.*"] == subscriptions(host, "acme/reader")
    record = host.auditor.record()
    assert ("messaging.subscribe", "acme/reader/0", "denied", "orders.eu.*", "revoked") == (
        record.event,
        record.component,
        record.decision,
        record.object,
        record.result,
    )


@pytest.mark.parametrize("topic", ["", ".", "a..b", "a b", "a.*", "a.>", "é", "a." + "b" * 255])
def test_what_is_no_topic(host: Host, topic: str) -> None:
    """A malformed topic or pattern is `invalid`, and nothing is recorded of it; a good one goes (control)."""
    worker = working(host, host.start("acme/both", [*READER, *WRITER]))
    if len(topic) <= 256:
        assert INVALID == worker.ask(Publish(1, topic), b"").case
        if "*" not in topic and ">" not in topic:
            assert INVALID == worker.ask(Subscribe(2, topic)).case
    assert 0 == worker.ask(Publish(3, "orders.a"), b"").case


# -- delivery ---------------------------------------------------------------------------------------------------------


def test_a_publication_goes_once_to_each(host: Host) -> None:
    """However many patterns match: once; with topic, publisher, priority and content type as they were told."""
    many = host.start("acme/many", READER, mailing=Mailing(subscribe=["orders.>", "orders.*", "orders.new"]))
    other = host.start("acme/other", READER, mailing=Mailing(subscribe=["orders.old"]))
    writer = working(host, host.start("acme/writer", WRITER))
    options = Options(priority=2, content_type="text/plain")
    assert Ack(1, 0, number=1) == writer.ask(Publish(1, "orders.new", options), b"x")
    frame, payload = many.publication()
    assert isinstance(frame, Publication)
    assert ("orders.new", cid("acme/writer"), 2, "text/plain", 1, b"x") == (
        frame.topic,
        frame.sender,
        frame.priority,
        frame.content_type,
        frame.deliveries,
        payload,
    )
    many.reply(frame)
    assert Ack(2, 0, number=2) == writer.ask(Publish(2, "orders.old"), b"y")
    assert b"y" == many.publication()[1]
    assert b"y" == other.publication()[1]


def test_a_full_mailbox_does_not_hold_up_a_publication(host: Host) -> None:
    """What one subscriber has no room for the others get; the count says how many took it, even where it may wait."""
    small = Limits(deadline_ms=20_000, mailbox=1)
    mailing = Mailing(overflow="block", subscribe=["orders.>"])
    host.route("acme/slow", READER, limits=small, mailing=mailing)
    quick = host.start("acme/quick", READER, mailing=Mailing(subscribe=["orders.>"]))
    writer = working(host, host.start("acme/writer", WRITER))
    assert [2, 1, 1] == [writer.ask(Publish(number, "orders.a"), b"x").number for number in range(3)]
    for _ in range(3):
        quick.reply(quick.publication()[0])


def test_a_publication_to_many(host: Host) -> None:
    """One that takes several turns reaches everybody once and is answered with their number."""
    for number in range(100):
        host.route(f"acme/t{number}", READER, mailing=Mailing(subscribe=["orders.>"]))
    writer = working(host, host.start("acme/writer", WRITER))
    assert Ack(1, 0, number=100) == writer.ask(Publish(1, "orders.a"), b"x")
    depths = {str(route.component): route.depth for route in host.settle().routes}
    assert {1} == {depths[f"acme/t{number}/0"] for number in range(100)}


def test_too_large_for_a_subscriber(host: Host) -> None:
    """One that takes only small messages is left out and not counted; the others get it."""
    listed = Mailing(subscribe=["orders.>"])
    host.route("acme/small", READER, limits=Limits(message_size=10), mailing=listed)
    host.route("acme/large", READER, mailing=listed)
    writer = working(host, host.start("acme/writer", WRITER))
    assert [2, 1] == [writer.ask(Publish(size, "orders.a"), bytes(size)).number for size in (10, 11)]
    assert 1 == host.settle().counters["publications-too-large"]


# -- how long a subscription holds ------------------------------------------------------------------------------------


def test_subscriptions_outlive_the_worker(host: Host) -> None:
    """A new worker gets what the old one subscribed to; after the component was removed nothing is left of it."""
    worker = working(host, host.start("acme/reader", READER))
    assert 0 == worker.ask(Subscribe(1, "orders.new")).case
    host.died(worker)
    again = host.start("acme/reader", route=False)
    writer = working(host, host.start("acme/writer", WRITER))
    assert 1 == writer.ask(Publish(1, "orders.new"), b"x").number
    assert b"x" == again.publication()[1]
    host.control.send(Unroute(cid("acme/reader")))
    host.route("acme/reader", READER)
    assert [] == subscriptions(host, "acme/reader")
    assert 0 == writer.ask(Publish(2, "orders.new"), b"x").number


def test_unsubscribe(host: Host) -> None:
    """It ends one subscription; of one there is not, it is `invalid`. What the manifest says stays undone while the
    same manifest is sent again, and comes back with another life of the component."""
    listed = Mailing(subscribe=["orders.eu"])
    worker = working(host, host.start("acme/reader", READER, mailing=listed))
    assert 0 == worker.ask(Subscribe(1, "orders.us")).case
    assert 0 == worker.ask(Unsubscribe(2, "orders.eu")).case
    assert INVALID == worker.ask(Unsubscribe(3, "orders.eu")).case
    host.route("acme/reader", READER, mailing=listed)
    assert ["orders.us"] == subscriptions(host, "acme/reader")
    host.route("acme/reader", READER, mailing=Mailing(subscribe=["orders.eu", "orders.asia"]))
    assert ["orders.asia", "orders.us"] == subscriptions(host, "acme/reader")
    host.control.send(Unroute(cid("acme/reader")))
    host.route("acme/reader", READER, mailing=listed)
    assert ["orders.eu"] == subscriptions(host, "acme/reader")


def test_subscriptions_are_bounded(host: Host) -> None:
    """More patterns than the limit are `queue-full`; the same again and those of the manifest do not count, and
    undoing one makes room."""
    bounds = Limits(deadline_ms=LIMITS.deadline_ms, subscriptions=2)
    mailing = Mailing(subscribe=["orders.listed", "orders.listed-too"])
    worker = working(host, host.start("acme/reader", READER, limits=bounds, mailing=mailing))
    asked = ["orders.a", "orders.b", "orders.a", "orders.listed", "orders.c"]
    assert [0, 0, 0, 0, FULL] == [worker.ask(Subscribe(n, pattern)).case for n, pattern in enumerate(asked)]
    assert 0 == worker.ask(Unsubscribe(7, "orders.a")).case
    assert 0 == worker.ask(Subscribe(8, "orders.c")).case
    assert 4 == len(subscriptions(host, "acme/reader"))
