"""Replies that come later, and the answers of airssys:messaging: each failure has its own word."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sandbox.types import ComponentId, Limits
from sandbox.wire.router_frames import (
    FAILURES,
    Ack,
    Broadcast,
    Callback,
    Cancel,
    Defer,
    MessagingRule,
    Options,
    Publish,
    Request,
    Respond,
    Send,
    SetTimer,
    Settings,
    Stop,
)
from supervisor.router import asks
from tests.unit.router_host import LIMITS, TALK, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

OPERATOR = MessagingRule(source="host/client/*")
CASE = {reason: 1 + number for number, reason in enumerate(FAILURES)}
B = ComponentId("acme", "b", "0")


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def working(host: Host, name: str = "acme/a", rules: list[MessagingRule] | None = None) -> FakeWorker:
    """A worker with an operator's message in hand, so that it may ask."""
    worker = host.start(name, [*(TALK if rules is None else rules), OPERATOR])
    host.control.submit(name, request=False)
    assert "" == host.control.submitted()[0].error
    worker.hand = worker.message()[0]  # type: ignore[attr-defined]
    return worker


def finish(worker: FakeWorker) -> None:
    worker.reply(worker.hand)  # type: ignore[attr-defined]


def deferred(host: Host, timeout_ms: int = 20_000) -> tuple[FakeWorker, FakeWorker, str, str]:
    """acme/a asked acme/b, which deferred its reply: both workers, the correlation id and the token."""
    b, a = host.start("acme/b", TALK), working(host)
    correlation = a.ask(Request(1, B, timeout_ms), b"question").text
    finish(a)
    frame, _ = b.message()
    token = b.ask(Defer(1)).text
    b.reply(frame, b"what a handler returns is not the reply then")
    return a, b, correlation, token


def next_message(host: Host, worker: FakeWorker) -> None:
    host.control.submit(str(worker.component), request=False, user="ann")
    worker.hand = worker.message()[0]  # type: ignore[attr-defined]


# -- later -------------------------------------------------------------------------------------------------------------


def test_a_reply_comes_later(host: Host) -> None:
    """Nothing comes when the handler returns; the reply is what is given in a later call, once."""
    a, b, correlation, token = deferred(host)
    b_rules = [*TALK, OPERATOR]
    host.route("acme/b", b_rules)
    next_message(host, b)
    a.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        a.sock.recv(1)
    a.sock.settimeout(20)
    assert Ack(2, 0) == b.ask(Respond(2, token), b"the answer")
    frame, payload = a.callback()
    assert (correlation, b"the answer", "", B) == (frame.correlation, payload, frame.failure, frame.sender)
    assert CASE["invalid"] == b.ask(Respond(3, token), b"again").case
    assert 1 == host.settle().counters["late-replies"]


def test_a_reply_within_the_same_call(host: Host) -> None:
    """It may be given at once, too; what the handler then returns is nobody's."""
    b, a = host.start("acme/b", TALK), working(host)
    a.ask(Request(1, B, 20_000), b"question")
    finish(a)
    frame, _ = b.message()
    token = b.ask(Defer(1)).text
    assert token == b.ask(Defer(2)).text
    assert Ack(3, 0) == b.ask(Respond(3, token), b"now")
    b.reply(frame, b"then")
    found, payload = a.callback()
    assert b"now" == payload
    a.reply(found)
    host.nothing_asked()


def test_an_error_comes_later(host: Host) -> None:
    """A deferred error is `guest-error` with its text."""
    a, b, _, token = deferred(host)
    host.route("acme/b", [*TALK, OPERATOR])
    next_message(host, b)
    assert Ack(2, 0) == b.ask(Respond(2, token, "out of ink"))
    frame, payload = a.callback()
    assert "guest-error" == frame.failure
    assert b"out of ink" in payload


def test_an_error_after_deferring_is_the_answer(host: Host) -> None:
    """A handler that defers and then fails has failed: the request is answered, and its token is worth nothing."""
    b, a = host.start("acme/b", [*TALK, OPERATOR]), working(host)
    a.ask(Request(1, B, 20_000), b"question")
    finish(a)
    frame, _ = b.message()
    token = b.ask(Defer(1)).text
    b.reply(frame, error="runtime-error: broken")
    assert "guest-error" == a.callback()[0].failure
    next_message(host, b)
    assert CASE["invalid"] == b.ask(Respond(2, token), b"late").case


def test_only_a_request_in_hand_can_be_deferred(host: Host) -> None:
    """A message nobody waits for is `invalid`, and so is a request that was cancelled meanwhile."""
    b, a = host.start("acme/b", TALK), working(host)
    assert CASE["invalid"] == a.ask(Defer(1)).case
    correlation = a.ask(Request(2, B, 20_000), b"question").text
    b.message()
    assert 0 == a.ask(Cancel(3, correlation)).case
    assert CASE["invalid"] == b.ask(Defer(1)).case


def test_a_timeout_takes_the_token_along(host: Host) -> None:
    """Who waited hears `timeout`, once; the reply that comes then is late and counted."""
    a, b, correlation, token = deferred(host, timeout_ms=30)
    frame, _ = a.callback()
    assert (correlation, "timeout") == (frame.correlation, frame.failure)
    a.reply(frame)
    host.route("acme/b", [*TALK, OPERATOR])
    next_message(host, b)
    assert CASE["invalid"] == b.ask(Respond(2, token), b"late").case
    assert 1 == host.settle().counters["late-replies"]


def test_the_end_of_the_worker_fails_what_it_deferred(host: Host) -> None:
    """The token was the worker's: with its end each such request fails with `target-ended`, and the next worker's
    word for it is worth nothing."""
    a, b, correlation, token = deferred(host)
    host.died(b)
    frame, payload = a.callback()
    assert (correlation, "target-ended") == (frame.correlation, frame.failure)
    assert b"that was to give the reply" in payload
    host.route("acme/b", [*TALK, OPERATOR])
    again = host.start("acme/b", route=False)
    next_message(host, again)
    assert CASE["invalid"] == again.ask(Respond(1, token), b"x").case


def test_another_worker_cannot_answer(host: Host) -> None:
    """A token is good for its own worker alone."""
    a, b, _, token = deferred(host)
    thief = working(host, "acme/thief")
    assert CASE["invalid"] == thief.ask(Respond(1, token), b"stolen").case
    host.route("acme/b", [*TALK, OPERATOR])
    next_message(host, b)
    assert 0 == b.ask(Respond(1, token), b"mine").case
    assert b"mine" == a.callback()[1]


def test_deferred_replies_are_bounded(host: Host) -> None:
    """More than `requests` of them are `queue-full`; one that is answered makes room."""
    b = host.start("acme/b", TALK, limits=Limits(deadline_ms=LIMITS.deadline_ms, requests=2))
    a = working(host)
    tokens = []
    for number in range(3):
        a.ask(Request(number, B, 20_000), b"question")
        frame, _ = b.message()
        ack = b.ask(Defer(number))
        tokens.append(ack)
        if ack.case:
            assert 0 == b.ask(Respond(10, tokens[0].text), b"x").case
            assert 0 == b.ask(Defer(11)).case
        b.reply(frame)
    assert [0, 0, CASE["queue-full"]] == [ack.case for ack in tokens]


def test_a_person_waits_for_a_deferred_reply(host: Host) -> None:
    """The same for a request from outside."""
    b = host.start("acme/b", [OPERATOR])
    host.control.submit("acme/b", b"question")
    frame, _ = b.message()
    token = b.ask(Defer(1)).text
    b.reply(frame)
    next_message(host, b)
    assert 0 == b.ask(Respond(2, token), b"for ann").case
    answers = [host.control.submitted() for _ in range(2)]
    assert b"for ann" in [payload for _, payload in answers]


# -- with a word for each failure ------------------------------------------------------------------------------------


def test_failures_of_the_ask_have_their_words(host: Host) -> None:
    """Where the core knows five cases, airssys:messaging has a word each."""
    plain = Options()
    host.start("acme/small", TALK, message_size=10)
    host.route("acme/full", TALK, limits=Limits(mailbox=0))
    stopping = host.start("acme/stopping", TALK)
    a = working(host)
    host.control.send(Stop(stopping.component, drain=True))
    host.settle()
    asked = {
        "target-not-found": Send(1, cid("acme/none"), plain),
        "too-large": Send(2, cid("acme/small"), plain),
        "queue-full": Send(3, cid("acme/full"), plain),
        "stopping": Send(4, cid("acme/stopping"), plain),
    }
    for reason, frame in asked.items():
        ack = a.ask(frame, bytes(11))
        assert CASE[reason] == ack.case, reason
        assert ack.text
        request = a.ask(Request(9, frame.target, 1_000, plain), bytes(11))
        assert (CASE[reason], ack.text) == (request.case, request.text)
    a.send(Send(5, cid("other/x"), plain), b"")
    host.auditor.record()
    assert Ack(5, CASE["denied"], "denied") == a.take(Ack)[0]


def test_failures_of_requests_have_their_words(host: Host) -> None:
    """What comes to handle-callback says why: timeout, target-ended, guest-error, too-large."""
    b = host.start("acme/b", TALK)
    a = host.start("acme/a", [*TALK, OPERATOR], message_size=100)
    next_message(host, a)

    def ask(timeout_ms: int = 20_000) -> None:
        a.ask(Request(1, B, timeout_ms, Options(priority=3)), b"question")

    def told() -> Callback:
        frame, _ = a.callback()
        a.reply(frame)
        next_message(host, a)
        assert 3 == frame.priority
        return frame

    ask()
    frame, _ = b.message()
    assert 3 == frame.priority
    finish(a)
    b.reply(frame, error="runtime-error: no")
    assert "guest-error" == told().failure
    ask()
    finish(a)
    b.reply(b.message()[0], bytes(101))
    assert "too-large" == told().failure
    ask()
    finish(a)
    b.reply(b.message()[0], b"fine")
    assert "" == told().failure
    ask(20)
    finish(a)
    assert "timeout" == told().failure
    b.reply(b.message()[0])  # late
    ask()
    finish(a)
    b.message()
    host.died(b)
    assert "target-ended" == told().failure


def test_options_reach_the_receiver(host: Host) -> None:
    """Priority and content type are in what is delivered; sender and time are the router's."""
    b, a = host.start("acme/b", TALK), working(host)
    assert Ack(1, 0) == a.ask(Send(1, B, Options(priority=0, content_type="application/cbor")), b"x")
    frame, _ = b.message()
    assert (cid("acme/a"), 0, "application/cbor", 1) == (
        frame.sender,
        frame.priority,
        frame.content_type,
        frame.deliveries,
    )


def test_allowed_messages_are_recorded_where_the_host_wants_it(host: Host) -> None:
    """Of a component that `record` covers, as sender or target, each allowed message is in the audit log before it is
    answered; of others (control) none is."""
    host.control.send(Settings(record=["acme/b", "acme/watched"]))
    host.start("acme/b", TALK)
    host.start("acme/c", TALK)
    a = working(host)
    assert Ack(1, 0) == a.ask(Send(1, cid("acme/c")), b"x")
    a.send(Send(2, B), b"x")
    record = host.auditor.record()
    assert ("messaging.send", "acme/a/0", "allowed", "acme/b/0") == (
        record.event,
        record.component,
        record.decision,
        record.object,
    )
    assert Ack(2, 0) == a.take(Ack)[0]
    assert 2 == next(route.sent for route in host.settle().routes if route.component == cid("acme/a"))


def test_a_component_is_held_to_its_rate(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its burst every kind of message is `rate-limited`, `queue-full` in the core's words, and is asked of
    nobody; timers do not count, and another component (control) is not held up."""
    bounds = Limits(deadline_ms=LIMITS.deadline_ms, message_rate=4)
    host.start("acme/b", TALK)
    rules = [*TALK, MessagingRule(topic="t.>", access=["publish"]), OPERATOR]
    a, other = host.start("acme/a", rules, limits=bounds), working(host, "acme/c")
    next_message(host, a)
    plain, now = Options(), time.monotonic()
    # Not a moment passes, so nothing flows back into the bucket.
    monkeypatch.setattr(asks, "time", SimpleNamespace(monotonic=lambda: now, time_ns=time.time_ns))
    assert Ack(1, 0) == a.ask(Broadcast(1, [B, cid("acme/c")]))
    assert [0, 0] == [a.ask(Send(2, B, plain)).case, a.ask(Publish(3, "t.x")).case]
    limited = CASE["rate-limited"]
    wanted = [Send(4, B, plain), Request(5, B, 1_000, plain), Publish(6, "t.x"), Send(7, cid("other/x"), plain)]
    assert [limited] * 4 == [a.ask(frame).case for frame in wanted]
    assert [4, 4, 4] == [a.ask(frame).case for frame in (Send(8, B), Request(9, B, 1_000), Broadcast(10, [B]))]
    assert 0 == a.ask(SetTimer(11, 60_000)).case
    assert 0 == other.ask(Send(1, B, plain)).case
    assert 7 == host.settle().counters["rate-limited"]
