"""The way of messages through the router: start, delivery, answers, failures, deadlines, ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest

from sandbox.types import Limits
from sandbox.wire import zmtp
from sandbox.wire.router_frames import (
    Ack,
    Cancel,
    CheckHealth,
    Ended,
    Health,
    HealthReply,
    Initialize,
    ListComponents,
    MessagingRule,
    Ready,
    Request,
    Rest,
    Route,
    RouteState,
    Send,
    Shutdown,
    Stop,
    Submitted,
    Unroute,
)
from sandbox.wire.supervisor_frames import Detach
from supervisor.router import lives
from supervisor.router.requests import ERROR_TYPE
from tests.unit.router_host import LIMITS, METADATA, TALK, FakeWorker, Host, cid, encode

pytestmark = pytest.mark.block5_messaging


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def route_state(host: Host, name: str) -> RouteState:
    return next(route for route in host.settle().routes if route.component == cid(name))


def failure(worker: FakeWorker, correlation: str) -> str:
    """The kind of failure the next callback tells."""
    frame, payload = worker.callback()
    assert (correlation, ERROR_TYPE) == (frame.correlation, frame.content_type)
    worker.reply(frame)
    return str(msgspec.json.decode(payload)["error"])


# -- start ----------------------------------------------------------------------------------------------------


def test_start(host: Host) -> None:
    """An attached worker gets its environment and limits, and control learns that it is ready."""
    host.route("acme/a", limits=Limits(message_size=77))
    worker = host.connect("acme/a")
    host.attach(worker)
    assert Initialize([("A", "1")], Limits(message_size=77)) == worker.ready()
    event = host.control.event("ready")
    assert (cid("acme/a"), 1, METADATA, "healthy") == (event.component, event.incarnation, event.metadata, event.text)
    state = route_state(host, "acme/a")
    assert (1, True, "healthy") == (state.attached, state.ready, state.health)


def test_attached_before_its_route(host: Host) -> None:
    """Supervisor and control use different channels: a worker may be attached before its route is known."""
    worker = host.connect("acme/a")
    host.attach(worker)
    host.settle()
    host.route("acme/a")
    worker.ready()
    assert "ready" == host.control.event("ready").kind


def test_dead_before_it_is_attached(host: Host) -> None:
    """A worker that is gone when the router hears of it is waited for, and replaced like any other."""
    host.route("acme/a", limits=Limits(deadline_ms=50))
    worker = host.connect("acme/a")
    worker.sock.close()
    host.attach(worker)
    end = host.end_asked()
    assert (1, "killed", "closed its channel") == (end.incarnation, end.outcome, end.detail)
    host.died(worker)
    host.start("acme/a", route=False)


def test_initialisation_failed(host: Host) -> None:
    """A guest that cannot start is told to control, and not killed while it ends by itself."""
    host.route("acme/a")
    worker = host.connect("acme/a")
    host.attach(worker)
    worker.take(Initialize)
    worker.send(Ready(None, "unknown", "initialization-failed: no"))
    worker.send(Ended("setup-error", "bye"))
    assert "initialization-failed: no" == host.control.event("init-failed").text
    assert "bye" == host.control.event("ended").text
    host.nothing_asked()


@pytest.mark.parametrize("routed", [True, False])
def test_never_ready(host: Host, monkeypatch: pytest.MonkeyPatch, routed: bool) -> None:
    """A worker that is not ready in time, or whose route never comes, is ended once."""
    monkeypatch.setattr(lives, "START_SECONDS", 0.05)
    if routed:
        host.route("acme/a", limits=Limits(deadline_ms=10))
    worker = host.connect("acme/a")
    host.attach(worker)
    end = host.end_asked()
    assert (1, "deadline" if routed else "killed") == (end.incarnation, end.outcome)
    host.nothing_asked()


# -- from outside ---------------------------------------------------------------------------------------------


def test_request_from_outside(host: Host) -> None:
    """The component sees who asks, when, and the payload; the asker gets the reply's bytes."""
    worker = host.start("acme/a")
    number = host.control.submit("acme/a", b"ping")
    frame, payload = worker.message()
    assert ("host/client/ann", b"ping") == (str(frame.sender), payload)
    assert abs(time.time() - frame.seconds) < 60
    assert frame.correlation is not None
    worker.reply(frame, b"pong")
    answer, payload = host.control.submitted()
    expected = Submitted(number, some=True, message=frame.id, correlation=frame.correlation)
    assert (expected, b"pong") == (answer, payload)
    state = route_state(host, "acme/a")
    assert (1, 0, 0, False) == (state.delivered, state.failed, state.depth, state.busy)


def test_reply_none_is_an_empty_reply(host: Host) -> None:
    """`none` is told apart from `some` of no bytes."""
    worker = host.start("acme/a")
    for payload in (None, b""):
        number = host.control.submit("acme/a")
        worker.reply(worker.message()[0], payload)
        answer, data = host.control.submitted()
        assert (number, payload is not None, "", b"") == (answer.id, answer.some, answer.error, data)


def test_large_payloads(host: Host) -> None:
    """A payload of exactly the message size passes both ways; one byte more is refused with a reason."""
    size = 1 << 20
    worker = host.start("acme/a", message_size=size)
    host.control.submit("acme/a", bytes(size))
    frame, payload = worker.message()
    worker.reply(frame, payload)
    assert bytes(size) == host.control.submitted()[1]
    host.control.submit("acme/a", bytes(size + 1))
    assert "too-large" == host.control.submitted()[0].error


def test_unknown_target_and_guest_error(host: Host) -> None:
    """A target that does not exist, and a handler that fails, are told by name."""
    worker = host.start("acme/a")
    host.control.submit("acme/none")
    assert "target-not-found" == host.control.submitted()[0].error
    host.control.submit("acme/a")
    worker.reply(worker.message()[0], error="runtime-error: x")
    answer, _ = host.control.submitted()
    assert ("guest-error", "runtime-error: x") == (answer.error, answer.text)
    assert 1 == route_state(host, "acme/a").failed


def test_thousand_wait_in_order(host: Host) -> None:
    """A mailbox takes its 1000 messages without a worker, refuses the next, and delivers all in order."""
    host.route("acme/a", limits=Limits(mailbox=1000))
    for number in range(1001):
        host.control.submit("acme/a", str(number).encode(), request=False)
    answers = [host.control.submitted()[0].error for _ in range(1001)]
    assert [""] * 1000 + ["queue-full"] == answers
    assert 1000 == route_state(host, "acme/a").depth
    worker = host.start("acme/a", route=False)
    seen = []
    for _ in range(1000):
        frame, payload = worker.message()
        seen.append(int(payload))
        worker.reply(frame)
    assert list(range(1000)) == seen
    state = route_state(host, "acme/a")
    assert (0, 1000) == (state.depth, state.delivered)


def test_timeout_from_outside(host: Host) -> None:
    """The wait in the queue counts: the answer is `timeout`, exactly once, and the message is not delivered."""
    host.route("acme/a")
    began = time.monotonic()
    number = host.control.submit("acme/a", b"late", timeout_ms=150)
    assert (number, "timeout") == (host.control.submitted()[0].id, "timeout")
    assert time.monotonic() - began >= 0.149
    assert 0 == route_state(host, "acme/a").depth
    worker = host.start("acme/a", route=False)
    host.control.submit("acme/a", b"next", request=False)
    assert b"next" == worker.message()[1]


def test_late_reply_is_discarded(host: Host) -> None:
    """A reply after the deadline reaches nobody and is counted; the worker goes on."""
    worker = host.start("acme/a")
    host.control.submit("acme/a", timeout_ms=30)
    frame, _ = worker.message()
    assert "timeout" == host.control.submitted()[0].error
    worker.reply(frame, b"too late")
    number = host.control.submit("acme/a")
    worker.reply(worker.message()[0], b"in time")
    answer, payload = host.control.submitted()
    assert (number, b"in time") == (answer.id, payload)
    assert 1 == host.settle().counters["late-replies"]


# -- between components ---------------------------------------------------------------------------------------


def working(host: Host, name: str, rules: list[MessagingRule] | None = None) -> FakeWorker:
    """A worker with a message of an operator in hand, so that it may ask; the message's answer is of no interest."""
    worker = host.start(name, rules or [*TALK, MessagingRule(source="host/client/*")])
    host.control.submit(name, b"go", request=False)
    assert "" == host.control.submitted()[0].error
    worker.message()
    return worker


def test_send_between_components(host: Host) -> None:
    """`send` is acknowledged when the message is in the mailbox; sender and time are the router's."""
    a, b = working(host, "acme/a"), host.start("acme/b", TALK)
    assert Ack(7, 0) == a.ask(Send(7, cid("acme/b")), b"hello")
    frame, payload = b.message()
    assert (cid("acme/a"), b"hello", None, None) == (frame.sender, payload, frame.correlation, frame.reply_to)


def test_request_between_components(host: Host) -> None:
    """The requester hears an id; the target sees it; the reply comes back as a callback with the same id."""
    a = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")])
    b = host.start("acme/b", TALK)
    host.control.submit("acme/a", request=False)
    first, _ = a.message()
    ack = a.ask(Request(1, cid("acme/b"), 5000), b"question")
    assert (1, 0, 32) == (ack.ask, ack.case, len(ack.text))
    frame, payload = b.message()
    assert (b"question", ack.text, cid("acme/a"), cid("acme/a")) == (
        payload,
        frame.correlation,
        frame.sender,
        frame.reply_to,
    )
    b.reply(frame, b"answer")
    a.reply(first)
    back, payload = a.callback()
    assert (b"answer", ack.text, cid("acme/b"), None) == (payload, back.correlation, back.sender, back.content_type)
    a.reply(back, b"answers of callbacks go nowhere")
    host.control.submit("acme/a")
    a.reply(a.message()[0], b"alive")
    host.control.submitted()
    assert b"alive" == host.control.submitted()[1]


class Pair:
    """`a` has a message in hand and has asked `b`, which has the question in hand unless it is not `running`."""

    def __init__(self, host: Host, *, running: bool = True, timeout_ms: int = 20_000, limits: Limits = LIMITS) -> None:
        self.a = host.start("acme/a", [*TALK, MessagingRule(source="host/client/*")], limits=limits)
        if running:
            self.b = host.start("acme/b", TALK)
        else:
            host.route("acme/b", TALK)
        host.control.submit("acme/a", request=False)
        assert "" == host.control.submitted()[0].error
        self.first, _ = self.a.message()
        self.id = self.a.ask(Request(1, cid("acme/b"), timeout_ms), b"question").text
        if running:
            self.question, _ = self.b.message()


def test_failure_timeout(host: Host) -> None:
    """No answer in time is a callback that says `timeout`; the question is taken out of the mailbox."""
    pair = Pair(host, running=False, timeout_ms=50)
    pair.a.reply(pair.first)
    assert "timeout" == failure(pair.a, pair.id)
    assert 0 == route_state(host, "acme/b").depth


def test_failure_target_ended(host: Host) -> None:
    """The message in hand fails with its worker; nobody delivers it again."""
    pair = Pair(host)
    host.died(pair.b, "killed", "because")
    pair.a.reply(pair.first)
    assert "target-ended" == failure(pair.a, pair.id)
    state = route_state(host, "acme/b")
    assert (None, 1, 0) == (state.attached, state.failed, state.depth)


def test_failure_guest_error(host: Host) -> None:
    """A handler's error is the requester's `guest-error`."""
    pair = Pair(host)
    pair.b.reply(pair.question, error="runtime-error: no")
    pair.a.reply(pair.first)
    assert "guest-error" == failure(pair.a, pair.id)


def test_failure_too_large(host: Host) -> None:
    """A reply larger than the requester takes is not delivered; one of exactly its size is."""
    pair = Pair(host, limits=Limits(message_size=100))
    pair.b.reply(pair.question, bytes(101))
    pair.a.reply(pair.first)
    frame, payload = pair.a.callback()
    assert "too-large" == msgspec.json.decode(payload)["error"]
    assert pair.id == frame.correlation
    again = pair.a.ask(Request(2, cid("acme/b"), 5000)).text
    pair.b.reply(pair.b.message()[0], bytes(100))
    pair.a.reply(frame)
    frame, payload = pair.a.callback()
    assert (again, bytes(100)) == (frame.correlation, payload)


def test_failure_reply_too_large_for_its_sender(host: Host) -> None:
    """A reply over its own component's message size, which the worker keeps, is the requester's `too-large`."""
    pair = Pair(host)
    pair.b.reply(pair.question, error="reply of 2000 bytes is over the limit of 1000", too_large=True)
    pair.a.reply(pair.first)
    assert "too-large" == failure(pair.a, pair.id)


def test_failure_cancelled(host: Host) -> None:
    """Cancelling closes a request once, without a callback; its late reply is discarded; a stranger's id is refused."""
    pair = Pair(host)
    assert Ack(1, 2, pair.id) == pair.b.ask(Cancel(1, pair.id))
    assert Ack(2, 0) == pair.a.ask(Cancel(2, pair.id))
    assert Ack(3, 2, pair.id) == pair.a.ask(Cancel(3, pair.id))
    pair.b.reply(pair.question, b"too late")
    pair.a.reply(pair.first)
    host.until(lambda state: state.counters.get("late-replies") == 1)


def test_failure_unrouted(host: Host) -> None:
    """When a component is removed, what waits for it fails; requests from outside likewise."""
    pair = Pair(host, running=False)
    pair.a.reply(pair.first)
    host.route("acme/c")
    host.control.submit("acme/c")
    host.control.send(Unroute(cid("acme/c")))
    assert "target-not-found" == host.control.submitted()[0].error
    host.control.send(Unroute(cid("acme/b")))
    assert "target-not-found" == failure(pair.a, pair.id)
    assert [cid("acme/a")] == [route.component for route in host.settle().routes]


def test_failure_says_why(host: Host) -> None:
    """Who waits for a component that an operator stopped hears so, and so does its dead letter."""
    host.route("acme/c", [MessagingRule(source="host/client/*")])
    host.control.submit("acme/c")
    host.control.send(Unroute(cid("acme/c"), "was stopped"))
    answer = host.control.submitted()[0]
    assert ("target-not-found", "acme/c/0 was stopped") == (answer.error, answer.text)


def test_rest(host: Host) -> None:
    """A component that rests takes mail of nobody, and everybody hears so at once and alike, also who waits for
    an answer; what else waits for it is delivered when it is routed and started again."""
    rules = [*TALK, MessagingRule(source="host/client/*")]
    asker = host.start("acme/a", rules)
    host.control.submit("acme/a", request=False)
    host.control.submitted()
    asker.message()
    host.route("acme/b", rules)
    host.control.submit("acme/b", b"kept", request=False)
    assert "" == host.control.submitted()[0].error
    host.control.submit("acme/b", b"waits")
    host.settle()
    host.control.send(Rest(cid("acme/b"), "is quarantined"))
    answer = host.control.submitted()[0]
    assert ("target-not-found", "acme/b/0 is quarantined") == (answer.error, answer.text)
    for request in (True, False):
        host.control.submit("acme/b", b"lost", request=request)
        answer = host.control.submitted()[0]
        assert ("target-not-found", "acme/b/0 is quarantined") == (answer.error, answer.text)
    assert (5, "acme/b/0") == ((ack := asker.ask(Send(1, cid("acme/b")))).case, ack.text)
    assert (5, "acme/b/0") == ((ack := asker.ask(Request(2, cid("acme/b"), 20_000))).case, ack.text)
    assert [1] == [route.depth for route in host.settle().routes if route.component == cid("acme/b")]
    worker = host.start("acme/b", rules)
    assert b"kept" == worker.message()[1]
    assert Ack(3, 0) == asker.ask(Send(3, cid("acme/b")))


def test_dead_requester(host: Host) -> None:
    """What a dead worker asked for is not given to the next one: late replies and waiting callbacks are discarded."""
    pair = Pair(host)
    waiting = pair.a.ask(Request(2, cid("acme/b"), 5000)).text
    assert waiting
    pair.b.reply(pair.question, b"answer")
    second, _ = pair.b.message()
    # One callback waits in the mailbox of `a`, one request is open; an operator's message waits behind them.
    host.control.submit("acme/a", b"kept", request=False)
    host.control.submitted()
    host.died(pair.a)
    host.settle()
    pair.b.reply(second, b"answer")
    again = host.start("acme/a", route=False)
    assert b"kept" == again.message()[1]
    counters = host.settle().counters
    assert (
        counters["discarded-callbacks"],
        counters["abandoned-requests"],
        counters["late-replies"],
    ) == (1, 1, 1)


def test_queue_full_between_components(host: Host) -> None:
    """A full mailbox is told to the sender, and takes nothing; a reply is never shed by it."""
    pair = Pair(host, limits=Limits(mailbox=1))
    assert Ack(5, 0) == pair.b.ask(Send(5, cid("acme/a")))
    assert 4 == pair.b.ask(Send(6, cid("acme/a"))).case
    pair.b.reply(pair.question, b"answer")
    pair.a.reply(pair.first)
    pair.a.reply(pair.a.message()[0])
    assert b"answer" == pair.a.callback()[1]


def test_open_requests_are_bounded(host: Host) -> None:
    """Beyond the limit a request is refused as queue-full; callbacks not yet delivered count."""
    pair = Pair(host, limits=Limits(requests=2))
    assert 0 == pair.a.ask(Request(2, cid("acme/b"), 5000)).case
    assert 4 == pair.a.ask(Request(3, cid("acme/b"), 5000)).case
    pair.b.reply(pair.question)
    second, _ = pair.b.message()
    assert 4 == pair.a.ask(Request(4, cid("acme/b"), 5000)).case
    pair.a.reply(pair.first)
    callback, _ = pair.a.callback()
    assert 0 == pair.a.ask(Request(5, cid("acme/b"), 5000)).case
    pair.b.reply(second)
    pair.a.reply(callback)


def test_callbacks_hold_no_more_bytes_than_allowed(host: Host) -> None:
    """Replies that pile up beyond the bytes a mailbox may hold arrive as `queue-full`; every request is answered."""
    pair = Pair(host, limits=Limits(message_size=1000, mailbox_bytes=4 * 1512))
    ids = [pair.id, *(pair.a.ask(Request(n, cid("acme/b"), 20_000)).text for n in range(2, 8))]
    hand = pair.question
    for _ in ids[1:]:
        pair.b.reply(hand, bytes(1000))
        hand, _payload = pair.b.message()
    pair.b.reply(hand, bytes(1000))
    host.until(lambda state: not any(route.busy for route in state.routes if route.component == cid("acme/b")))
    pair.a.reply(pair.first)
    results = []
    for correlation in ids:
        frame, payload = pair.a.callback()
        assert correlation == frame.correlation
        results.append("ok" if frame.content_type is None else msgspec.json.decode(payload)["error"])
        pair.a.reply(frame)
    assert ["ok"] * 4 + ["queue-full"] * 3 == results


def test_mailbox_size(host: Host) -> None:
    """Bytes fill a mailbox that has room for many more messages; with room for the bytes the same ones are taken."""
    for name, size, told in (("acme/a", 4 << 10, "queue-full"), ("acme/b", 16 << 20, "")):
        host.start(name, limits=Limits(mailbox_bytes=size, message_size=2000))
        answers = []
        for _ in range(4):
            host.control.submit(name, b"x" * 2000, request=False)
            answers.append(host.control.submitted()[0].error)
        assert told == answers[-1]


# -- deadlines and ends ---------------------------------------------------------------------------------------


def test_cpu_time(host: Host) -> None:
    """A worker that burns its message's CPU time is ended before its deadline; one that waits is not."""
    limits = Limits(deadline_ms=20_000, cpu_ms=150)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinner:
        try:
            busy = host.start("acme/busy", limits=limits, pid=spinner.pid)
            with subprocess.Popen(["sleep", "100"]) as sleeper:
                calm = host.start("acme/calm", limits=limits, pid=sleeper.pid)
                began = time.monotonic()
                host.control.submit("acme/calm")
                calm.message()
                host.control.submit("acme/busy")
                busy.message()
                end = host.end_asked()
                sleeper.kill()
            assert (busy.incarnation, "deadline") == (end.incarnation, end.outcome)
            assert end.detail.startswith("CPU time: more than 150 ms")
            assert time.monotonic() - began < 15
        finally:
            spinner.kill()


def test_deadline(host: Host) -> None:
    """A message not finished in time ends its worker, once, and its asker hears `target-ended`."""
    worker = host.start("acme/a", deadline_ms=80)
    host.control.submit("acme/a")
    began = time.monotonic()
    worker.message()
    end = host.end_asked()
    assert time.monotonic() - began >= 0.07
    assert (1, "deadline") == (end.incarnation, end.outcome)
    host.nothing_asked()
    host.died(worker, "deadline")
    assert "target-ended" == host.control.submitted()[0].error


def test_deadline_is_per_message(host: Host) -> None:
    """Many messages, each within the deadline, may together take longer than it."""
    worker = host.start("acme/a", deadline_ms=1000)
    began = time.monotonic()
    while time.monotonic() - began < 1.3:
        host.control.submit("acme/a")
        frame, _ = worker.message()
        time.sleep(0.1)
        worker.reply(frame)
        assert "" == host.control.submitted()[0].error
    host.nothing_asked()


def test_mailbox_survives_the_worker(host: Host) -> None:
    """What waited is delivered to the next incarnation, in order and without the message that was in hand."""
    worker = host.start("acme/a")
    for payload in (b"1", b"2", b"3"):
        host.control.submit("acme/a", payload, request=False)
        host.control.submitted()
    worker.message()
    host.died(worker)
    again = host.start("acme/a", route=False)
    for payload in (b"2", b"3"):
        frame, got = again.message()
        assert payload == got
        again.reply(frame)


def test_last_words_before_the_news_of_death(host: Host) -> None:
    """A trap's backtrace reaches control even when the supervisor is faster to tell of the death."""
    worker = host.start("acme/a")
    host.control.submit("acme/a")
    worker.message()
    before = zmtp.encode_message([encode(ListComponents(1)), b""]) * 5
    worker.sock.sendall(before + zmtp.encode_message([encode(Ended("trap", "wasm backtrace")), b""]))
    worker.close()
    host.tell(Detach(worker.incarnation, "trap", "status 10"))
    event = host.control.event("ended")
    assert ("trap", "wasm backtrace", 1) == (event.outcome, event.text, event.incarnation)
    submitted = host.control.submitted()[0]
    assert ("target-ended", "the worker ended: trap: wasm backtrace") == (submitted.error, submitted.text)
    assert None is route_state(host, "acme/a").attached


def test_no_last_words(host: Host) -> None:
    """A worker that died without a word is gone at once."""
    worker = host.start("acme/a")
    host.control.submit("acme/a")
    worker.message()
    host.died(worker, "trap")
    assert "target-ended" == host.control.submitted()[0].error


def test_says_ended_but_stays(host: Host) -> None:
    """A worker that announces its end and does not die is killed."""
    worker = host.start("acme/a", deadline_ms=50)
    worker.send(Ended("exited"))
    end = host.end_asked()
    assert (1, "killed") == (end.incarnation, end.outcome)


def test_closed_channel_keeps_the_message(host: Host) -> None:
    """A worker whose connection is gone gets no message: it stays queued, and the worker is ended if it lives on."""
    worker = host.start("acme/a", deadline_ms=100)
    worker.sock.close()
    host.control.submit("acme/a", b"kept", request=False)
    assert "" == host.control.submitted()[0].error
    end = host.end_asked()
    assert (1, "killed") == (end.incarnation, end.outcome)
    host.died(worker)
    assert b"kept" == host.start("acme/a", route=False).message()[1]


# -- health and stop ------------------------------------------------------------------------------------------


def test_health(host: Host) -> None:
    """Health is asked when idle or right after the message in hand, before the next."""
    worker = host.start("acme/a")
    host.control.send(CheckHealth(cid("acme/a")))
    worker.send(HealthReply(worker.take(Health)[0].id, "degraded"))
    assert "degraded" == host.control.event("health").text
    host.control.submit("acme/a", b"1", request=False)
    host.control.submit("acme/a", b"2", request=False)
    first, _ = worker.message()
    host.control.send(CheckHealth(cid("acme/a")))
    host.control.submitted()
    host.control.submitted()
    assert "degraded" == route_state(host, "acme/a").health
    worker.reply(first)
    worker.send(HealthReply(worker.take(Health)[0].id, "healthy"))
    assert b"2" == worker.message()[1]
    assert "healthy" == host.control.event("health").text


def test_health_at_intervals(host: Host) -> None:
    """A worker is asked again and again as its route says, within the time it says, and its successor likewise."""
    route = Route(cid("acme/a"), LIMITS, [], "acme/a", "1.0", health_interval_ms=30, health_timeout_ms=400)
    host.control.send(route)
    worker = host.start("acme/a", route=False)
    for _ in range(3):
        worker.send(HealthReply(worker.take(Health)[0].id, "healthy"))
    worker.take(Health)
    end = host.end_asked()
    assert ("deadline", "health not told within 400 ms") == (end.outcome, end.detail)
    host.died(worker)
    again = host.start("acme/a", route=False)
    again.send(HealthReply(again.take(Health)[0].id, "degraded"))
    assert "degraded" == host.control.event("health").text


def test_health_that_is_no_news(host: Host) -> None:
    """Control hears of a health that has changed, and of each "unhealthy", which it counts; of nothing else."""
    worker = host.start("acme/a")
    for told in ("healthy", "degraded", "degraded", "unhealthy", "unhealthy", "healthy", "healthy", "unknown"):
        host.control.send(CheckHealth(cid("acme/a")))
        worker.send(HealthReply(worker.take(Health)[0].id, told))
    heard = [host.control.event("health").text for _ in range(5)]
    assert ["degraded", "unhealthy", "unhealthy", "healthy", "unknown"] == heard


def test_health_deadline(host: Host) -> None:
    """A worker that does not tell its health is ended; a component without a worker is not asked."""
    host.route("acme/b")
    host.control.send(CheckHealth(cid("acme/b")))
    worker = host.start("acme/a", deadline_ms=50)
    host.control.send(CheckHealth(cid("acme/a")))
    worker.take(Health)
    end = host.end_asked()
    assert (worker.incarnation, "deadline") == (end.incarnation, end.outcome)


def test_stop_after_the_message_in_hand(host: Host) -> None:
    """Without drain the worker shuts down after the message in hand; the mailbox keeps the rest for the next."""
    worker = host.start("acme/a")
    for payload in (b"1", b"2"):
        host.control.submit("acme/a", payload, request=False)
        host.control.submitted()
    first, _ = worker.message()
    host.control.send(Stop(cid("acme/a")))
    host.settle()
    worker.reply(first)
    worker.take(Shutdown)
    worker.send(Ended("exited"))
    assert "exited" == host.control.event("ended").outcome
    host.died(worker, "exited")
    stopped = host.control.event("stopped")
    assert (1, "exited") == (stopped.incarnation, stopped.outcome)
    assert b"2" == host.start("acme/a", route=False).message()[1]


def test_stop_with_drain(host: Host) -> None:
    """With drain what waits is delivered first and new messages are refused until the next worker attaches."""
    worker = host.start("acme/a")
    for payload in (b"1", b"2", b"3"):
        host.control.submit("acme/a", payload, request=False)
        host.control.submitted()
    host.control.send(Stop(cid("acme/a"), drain=True))
    host.control.submit("acme/a", b"4")
    assert "stopping" == host.control.submitted()[0].error
    for payload in (b"1", b"2", b"3"):
        frame, got = worker.message()
        assert payload == got
        worker.reply(frame)
    worker.take(Shutdown)
    host.died(worker, "exited")
    host.control.event("stopped")
    again = host.start("acme/a", route=False)
    host.control.submit("acme/a", b"5", request=False)
    assert b"5" == again.message()[1]


def test_stop_too_slow_and_without_worker(host: Host) -> None:
    """A shutdown over its deadline is a kill; a component without a worker is stopped at once."""
    worker = host.start("acme/a", deadline_ms=50)
    host.control.send(Stop(cid("acme/a")))
    worker.take(Shutdown)
    end = host.end_asked()
    assert ("killed", "shutdown took too long") == (end.outcome, end.detail)
    host.died(worker)
    host.control.event("stopped")
    host.control.send(Stop(cid("acme/a")))
    assert 0 == host.control.event("stopped").incarnation


def test_successor_takes_over_when_ready(host: Host) -> None:
    """An update: the old worker serves until the new one is ready, then finishes its message and shuts down."""
    old = host.start("acme/a")
    new = host.connect("acme/a")
    host.attach(new)
    new.take(Initialize)
    host.control.submit("acme/a", b"1")
    first, _ = old.message()
    new.send(Ready(METADATA, "healthy"))
    assert 2 == host.control.event("ready").incarnation
    host.control.submit("acme/a", b"2")
    second, payload = new.message()
    assert b"2" == payload
    new.reply(second, b"from new")
    assert b"from new" == host.control.submitted()[1]
    old.reply(first, b"from old")
    assert b"from old" == host.control.submitted()[1]
    old.take(Shutdown)
    host.died(old, "exited")
    assert 2 == route_state(host, "acme/a").attached


def test_a_retired_worker_asks_nothing_more(host: Host) -> None:
    """One that still has a message in hand when its successor is ready may send, but makes no request: the answer would
    come to the successor, which never asked. The successor may (positive control)."""
    rules = [*TALK, MessagingRule(source="host/client/*")]
    host.start("acme/b", rules)
    old = host.start("acme/a", rules)
    host.control.submit("acme/a", request=False)
    old.message()
    assert 0 == old.ask(Request(1, cid("acme/b"), 20_000)).case
    new = host.connect("acme/a")
    host.attach(new)
    new.ready()
    host.control.event("ready")
    assert Ack(2, 1, "stopping") == old.ask(Request(2, cid("acme/b"), 20_000))
    assert Ack(3, 0) == old.ask(Send(3, cid("acme/b")))
    host.control.submit("acme/a", request=False)
    new.message()
    assert 0 == new.ask(Request(1, cid("acme/b"), 20_000)).case


def test_successor_of_a_dead_worker(host: Host) -> None:
    """The new worker may attach before the old one's death is told; what waits is delivered once it is ready."""
    old = host.start("acme/a")
    host.control.submit("acme/a", b"1")
    old.message()
    host.control.submit("acme/a", b"2", request=False)
    assert "" == host.control.submitted()[0].error
    new = host.connect("acme/a")
    host.attach(new)
    new.take(Initialize)
    host.died(old)
    assert "target-ended" == host.control.submitted()[0].error
    new.send(Ready(METADATA, "healthy"))
    assert b"2" == new.message()[1]


def test_unready_successor_dies(host: Host) -> None:
    """An update whose new worker does not come up leaves the old one as it was."""
    old = host.start("acme/a")
    new = host.connect("acme/a")
    host.attach(new)
    new.take(Initialize)
    host.died(new, "setup-error")
    host.control.submit("acme/a", b"1")
    frame, payload = old.message()
    old.reply(frame, payload)
    assert b"1" == host.control.submitted()[1]
    host.nothing_asked()


# -- control --------------------------------------------------------------------------------------------------


def test_control_restarts(host: Host) -> None:
    """A new control sends its routes again: workers, mailboxes and messages in hand notice nothing."""
    worker = host.start("acme/a")
    for payload in (b"1", b"2"):
        host.control.submit("acme/a", payload, request=False)
        host.control.submitted()
    first, _ = worker.message()
    host.control.close()
    host.control = host.new_control()
    state = route_state(host, "acme/a")
    assert (1, True, 1, True) == (state.attached, state.ready, state.depth, state.busy)
    host.control.send(Route(cid("acme/a"), Limits(), [], "acme/a", "1.0"))
    worker.reply(first)
    frame, payload = worker.message()
    assert b"2" == payload
    worker.reply(frame)
    host.control.send(CheckHealth(cid("acme/a")))
    worker.send(HealthReply(worker.take(Health)[0].id, "degraded"))
    assert "degraded" == host.control.event("health").text
    host.nothing_asked()


def test_malformed_frames_on_the_bus_are_counted(host: Host) -> None:
    """What control sends and nobody understands is dropped and counted."""
    host.control.sock.send_multipart([b"\xc1", b""])
    host.control.sock.send_multipart([b"\x92\xa5Query\xa1\xff", b""])
    host.control.sock.send(b"alone")
    host.control.send(Unroute(cid("acme/none")))
    counters = host.settle().counters
    assert (3, 1) == (counters["malformed-on-bus"], counters["unknown-on-bus"])


def test_supervisor_hangs_up(host: Host) -> None:
    """The supervisor's end is the router's end, with status 0."""
    host.start("acme/a")
    assert 0 == host.hang_up()
