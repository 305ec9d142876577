"""What control asks of the router about messages: publications, dead letters, traces, groups, and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec
import pytest

from sandbox.types import ComponentId, Limits
from sandbox.wire.router_frames import (
    AskTrace,
    Dead,
    DeadLetters,
    Mailing,
    MessagingRule,
    Options,
    Publication,
    Route,
    Settings,
    Submit,
    Submitted,
    SubmitTopic,
    Subscribe,
    Trace,
)
from tests.unit.router_host import TALK, Host, cid

pytestmark = pytest.mark.block5_messaging

T = TypeVar("T")


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def ask(host: Host, frame: msgspec.Struct, kind: type[T]) -> tuple[T, bytes]:
    """Control's question and its answer."""
    host.control.send(frame)
    answer, payload = host.control.submitted()
    assert isinstance(answer, kind), answer
    return answer, payload


def dead(host: Host, action: str, **more: object) -> DeadLetters:
    return ask(host, Dead(900, action, **more), DeadLetters)[0]  # type: ignore[arg-type]


def expired(host: Host, *targets: str) -> None:
    """A dead letter for each target."""
    for target in targets:
        host.route(target)
        host.control.send(Submit(1, "ann", cid(target), False, 0, Options(ttl_ms=1, content_type="t/x")), b"payload")
        assert "" == host.control.submitted()[0].error
    host.until(lambda state: sum(route.dead for route in state.routes) >= len(targets))


def test_publish(host: Host) -> None:
    """A publication of an operator goes to each subscriber that accepts him; what is no topic is refused."""
    rules = [*TALK, MessagingRule(source="host/*"), MessagingRule(topic=">", access=["subscribe"])]
    worker = host.start("acme/a", rules)
    host.control.submit("acme/a")
    frame, _ = worker.message()
    assert 0 == worker.ask(Subscribe(1, "news.*")).case
    worker.reply(frame)
    host.control.submitted()
    host.control.send(SubmitTopic(7, "ann", "news.eu", Options(priority=3)), b"x")
    told, payload = worker.take(Publication)
    assert ("news.eu", "host/client/ann", 3, b"x") == (told.topic, str(told.sender), told.priority, payload)
    answer, _ = host.control.submitted()
    assert (7, "", 1) == (answer.id, answer.error, answer.number)
    answer, _ = ask(host, SubmitTopic(8, "ann", "news..eu"), Submitted)
    assert "invalid" == answer.error


def test_a_group(host: Host) -> None:
    """`acme/a/*` is one of its instances; without any there is no target."""
    answer, _ = ask(host, Submit(1, "ann", ComponentId("acme", "a", "*"), True, 1000), Submitted)
    assert "target-not-found" == answer.error
    worker = host.start("acme/a/7")
    host.control.send(Submit(2, "ann", ComponentId("acme", "a", "*"), True, 20_000))
    worker.reply(worker.message()[0], b"seven")
    assert b"seven" == host.control.submitted()[1]


def test_dead_letters(host: Host) -> None:
    """They are listed, shown with payload, replayed and purged, one or those of some targets."""
    expired(host, "acme/a", "acme/b", "other/a")
    listed = dead(host, "list", component="acme/*")
    assert (2, ["acme/a/0", "acme/b/0"]) == (listed.count, [str(letter.target) for letter in listed.letters])
    newest = dead(host, "list", most=1)
    assert (3, 1) == (newest.count, len(newest.letters))
    first = listed.letters[0]
    shown, payload = ask(host, Dead(1, "show", first.id), DeadLetters)
    assert ([first], b"payload") == (shown.letters, payload)
    assert ("expired", "host/client/ann", "t/x", 7) == (first.reason, str(first.sender), first.content_type, first.size)
    worker = host.start("acme/a", route=False)
    assert 1 == dead(host, "replay", letter=first.id).count
    frame, payload = worker.message()
    assert ("host/client/ann", b"payload", "t/x") == (str(frame.sender), payload, frame.content_type)
    worker.reply(frame)
    assert [] == dead(host, "show", letter=first.id).letters
    assert 0 == dead(host, "replay", letter=first.id).count
    assert 1 == dead(host, "purge", component="other/a").count
    assert 1 == dead(host, "list").count


def test_settings_bound_the_dead_letters(host: Host) -> None:
    """What the configuration says takes effect at once, and what a control that comes back says is the same."""
    expired(host, "acme/a", "acme/b", "acme/c")
    for _ in range(2):
        host.control.send(Settings(dead_letters=1))
        host.settle()
        left = dead(host, "list")
        assert (1, ["acme/c/0"]) == (left.count, [str(letter.target) for letter in left.letters])
        host.new_control()


def test_trace(host: Host) -> None:
    """By its id or its correlation id; who is not known has no steps."""
    worker = host.start("acme/a")
    host.control.submit("acme/a")
    frame, _ = worker.message()
    worker.reply(frame, b"x")
    answer, _ = host.control.submitted()
    for name in (str(answer.message), answer.correlation):
        trace, _ = ask(host, AskTrace(77, name), Trace)
        assert (77, answer.message, answer.correlation) == (trace.id, trace.message, trace.correlation)
        assert ["sent", "queued", "delivered", "replied"] == [step.what for step in trace.steps]
    for name in ("999999", "", "x" * 64, "-1"):
        assert [] == ask(host, AskTrace(78, name), Trace)[0].steps


def test_requests_from_outside_wait_for_room(host: Host) -> None:
    """Where the mailbox lets its senders wait, an answer comes when there is room, or when the time is over."""
    host.control.send(Route(cid("acme/a"), Limits(mailbox=1), [], "acme/a", "1.0", mailing=Mailing(overflow="block")))
    host.settle()
    first = host.control.submit("acme/a", b"1", request=False)
    assert first == host.control.submitted()[0].id
    host.control.send(Submit(50, "ann", cid("acme/a"), True, 50), b"2")
    answer, _ = host.control.submitted()
    assert (50, "timeout") == (answer.id, answer.error)
    waiting = host.control.submit("acme/a", b"3", request=False)
    worker = host.start("acme/a", route=False)
    worker.reply(worker.message()[0])
    assert waiting == host.control.submitted()[0].id
    assert b"3" == worker.message()[1]
