"""Parts of the router's mail by themselves: order, breaker, retries, dead letters; and some of it together."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.types import Limits
from sandbox.wire.router_frames import (
    Ack,
    AskTrace,
    Cancel,
    Deliver,
    Mailing,
    MessagingRule,
    Options,
    Request,
    Route,
    RouteState,
    Send,
    Settings,
    Stop,
    Submit,
    TargetPolicy,
    Trace,
    Unroute,
)
from supervisor.router import waiting
from supervisor.router.breaker import Breaker
from supervisor.router.dead_letters import DROPPED, DeadLetters
from supervisor.router.mailbox import MAX_WHY, OVERHEAD, STREAK, Account, Mailbox, Message
from supervisor.router.retries import again, pause
from supervisor.router.traces import KEPT, Traces
from tests.unit.router_host import TALK, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

LOW, NORMAL, HIGH, CRITICAL = range(4)
ME = cid("acme/a")


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def message(number: int, priority: int = NORMAL, size: int = 0, *, callback: bool = False) -> Message:
    return Message(number, callback, ME, 0, 0, bytes(size), priority=priority, target=ME)


# -- order ----------------------------------------------------------------------------------------------------


def box(capacity: int = 1000) -> Mailbox:
    return Mailbox(Account(), capacity, 16 << 20, 1000)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_order(messages: list[tuple[int, bool]]) -> None:
    """Of one priority in order; higher before lower, but after a streak whoever waits longest of the lower ones."""
    mailbox = box()
    waiting_ = []
    for number, (priority, callback) in enumerate(messages):
        new = message(number, priority, callback=callback)
        assert mailbox.put_callback(new) if callback else mailbox.put(new)
        waiting_.append((priority, number))
    streak = 0
    while waiting_:
        top = max(priority for priority, _ in waiting_)
        lower = [number for priority, number in waiting_ if priority < top]
        if lower and streak == STREAK:
            expected, streak = min(lower), 0
        else:
            expected = min(number for priority, number in waiting_ if priority == top)
            streak = streak + 1 if lower else 0
        taken = mailbox.take()
        assert taken is not None
        assert expected == taken.id
        waiting_.remove((taken.priority, taken.id))
    assert None is mailbox.take()


def test_nobody_starves() -> None:
    """While critical messages come without end, one of each lower priority is served all the same."""
    mailbox = box()
    for number, priority in enumerate((LOW, NORMAL, HIGH)):
        assert mailbox.put(message(number, priority))
    served = []
    for number in range(100, 140):
        assert mailbox.put(message(number, CRITICAL))
        taken = mailbox.take()
        assert taken is not None
        served.append(taken.priority)
    assert [LOW, NORMAL, HIGH] == [priority for priority in served if priority != CRITICAL]


def test_pushing_out() -> None:
    """The oldest of the lowest priority go, none above the newcomer's own, and nobody where that makes no room."""
    mailbox = box(3)
    for number, priority in enumerate((HIGH, NORMAL, LOW)):
        assert mailbox.put(message(number, priority))
    assert mailbox.put_callback(message(50, LOW, callback=True))
    assert [2] == [each.id for each in mailbox.push_out(message(9, NORMAL)) or []]
    assert mailbox.put(message(9, NORMAL))
    assert None is mailbox.push_out(message(10, LOW))
    assert 3 == mailbox.messages
    assert [1] == [each.id for each in mailbox.push_out(message(11, CRITICAL)) or []]
    assert [0, 9, 50] == [each.id for each in mailbox.drain()]


# -- breaker and retries --------------------------------------------------------------------------------------


def test_the_breaker_opens_tries_and_closes() -> None:
    """Failures in a row open it, a success between them does not; half open it lets one through at a time."""
    breaker = Breaker(TargetPolicy("*", breaker_failures=2, breaker_open_ms=1000, breaker_successes=2))
    for good in (False, True, False):
        breaker.result(breaker.admit(0.0), 0.0, good)
    assert "closed" == breaker.state(0.0)
    old = breaker.admit(0.0)
    breaker.result(breaker.admit(0.0), 0.0, False)
    assert ("open", 0) == (breaker.state(0.9), breaker.admit(0.9))
    trial = breaker.admit(1.0)
    assert ("half-open", 0) == (breaker.state(1.0), breaker.admit(1.1))
    breaker.result(old, 1.1, False)  # from before it opened: says nothing now
    breaker.result(trial, 1.2, True)
    trial = breaker.admit(1.3)
    breaker.result(trial, 1.4, None)  # cancelled: neither good nor bad
    breaker.result(breaker.admit(1.5), 1.5, True)
    assert "closed" == breaker.state(1.5)


def test_a_failed_trial_opens_again() -> None:
    """And a trial that never ends does not keep it open for ever."""
    breaker = Breaker(TargetPolicy("*", breaker_failures=1, breaker_open_ms=1000))
    breaker.result(breaker.admit(0.0), 0.0, False)
    breaker.result(breaker.admit(1.0), 1.0, False)
    assert "open" == breaker.state(1.9)
    assert breaker.admit(2.0)
    assert not breaker.admit(2.9)
    assert breaker.admit(3.0)


@given(st.integers(1, 60), st.floats(0, 1))
def test_pauses_double_up_to_the_most(attempts: int, roll: float) -> None:
    """Each at least half and at most the whole of what the policy says."""
    policy = TargetPolicy("*", attempts=100, retry_first_ms=100, retry_most_ms=5000)
    whole = min(0.1 * 2.0 ** (attempts - 1), 5.0)
    assert whole / 2 - 1e-9 <= pause(policy, attempts, roll) <= whole + 1e-9


def test_what_is_tried_again() -> None:
    """What may do better another time, while attempts and time are left."""
    policy = TargetPolicy("*", attempts=3, retry_first_ms=100)
    assert again(policy, "target-ended", 1, 0.0, 10.0) is not None
    assert again(policy, "guest-error", 1, 0.0, 10.0) is None
    assert again(policy, "target-ended", 3, 0.0, 10.0) is None
    assert again(policy, "target-ended", 1, 0.0, 0.01) is None
    assert again(None, "target-ended", 1, 0.0, 10.0) is None


# -- dead letters ---------------------------------------------------------------------------------------------


class Post:
    """Where replayed messages go."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.refuse = ""

    def __call__(self, message: Message) -> str:
        self.got.append(message)
        return self.refuse


def ring() -> tuple[DeadLetters, Post, Account, Counter[str]]:
    account, counters, post = Account(), Counter[str](), Post()
    return DeadLetters(account, counters, post, iter(range(1000, 2000)).__next__), post, account, counters


def test_the_ring_is_bounded_by_number_and_bytes() -> None:
    """The oldest go, are counted, and give their bytes back."""
    letters, _, account, counters = ring()
    letters.resize(3, 4 * OVERHEAD)
    for number in range(5):
        letters.add(ME, message(number), DROPPED, "")
    assert [2, 3, 4] == [letter.id for letter in letters.list()[0]]
    letters.add(ME, message(5, size=2 * OVERHEAD), DROPPED, "")
    assert [4, 5] == [letter.id for letter in letters.list()[0]]
    assert 4 * OVERHEAD == account.used
    assert (4, 6) == (counters["dead-letters-evicted"], counters["dead-dropped"])
    letters.resize(0, 0)
    assert (0, 0) == (len(letters), account.used)


def test_list_show_purge() -> None:
    """By the target's pattern, the newest; one whole, with its payload."""
    letters, _, account, _ = ring()
    for number, name in enumerate(("acme/a", "acme/b", "other/a")):
        letters.add(cid(name), message(number, size=number), DROPPED, "why")
    found, count = letters.list("acme/*", 1)
    assert ([1], 2) == ([letter.id for letter in found], count)
    shown = letters.show(2)
    assert shown is not None
    assert ("other/a/0", "why", b"\0\0") == (str(shown[0].target), shown[0].text, shown[1])
    assert None is letters.show(9)
    assert [1, 0] == [letters.purge(2), letters.purge(2)]
    assert 2 == letters.purge(component="acme/*")
    assert (0, 0) == (len(letters), account.used)


def test_replay() -> None:
    """As the same sender to the same target, under a new id; one that is refused stays a letter."""
    letters, post, _, _ = ring()
    first = message(1, HIGH, 3)
    first.topic, first.deliveries, first.content_type = "news", 4, "text/plain"
    letters.add(ME, first, DROPPED, "")
    post.refuse = "queue-full"
    assert (0, "queue-full") == letters.replay(1)
    assert 1 == len(letters)
    post.refuse = ""
    assert (1, "") == letters.replay()
    assert 0 == len(letters)
    again_ = post.got[-1]
    assert (True, ME, ME, HIGH, 0, "news", "text/plain", b"\0\0\0") == (
        again_.id >= 1000,
        again_.sender,
        again_.target,
        again_.priority,
        again_.deliveries,
        again_.topic,
        again_.content_type,
        again_.payload,
    )


# -- together -------------------------------------------------------------------------------------------------


def route(host: Host, name: str, mailing: Mailing, mailbox: int = 1000) -> None:
    host.control.send(Route(cid(name), Limits(deadline_ms=20_000, mailbox=mailbox), TALK, name, "1", mailing=mailing))
    host.settle()


def state(host: Host, name: str) -> RouteState:
    return next(each for each in host.settle().routes if each.component == cid(name))


def outside(host: Host, name: str, payload: bytes, options: Options, *, request: bool = False) -> int:
    host.control.number += 1
    host.control.send(Submit(host.control.number, "ann", cid(name), request, 20_000, options), payload)
    return host.control.number


def operated(host: Host, name: str, mailing: Mailing, mailbox: int = 1000) -> None:
    """A route that takes messages from outside."""
    rules = [*TALK, MessagingRule(source="host/client/*")]
    limits = Limits(deadline_ms=20_000, mailbox=mailbox)
    host.control.send(Route(cid(name), limits, rules, name, "1", mailing=mailing))
    host.settle()


def test_priorities_reorder_what_waits(host: Host) -> None:
    """A critical message overtakes those that wait; the guest is told the priority."""
    operated(host, "acme/a", Mailing())
    for payload, priority in ((b"low", LOW), (b"normal", NORMAL), (b"critical", CRITICAL)):
        outside(host, "acme/a", payload, Options(priority=priority))
        assert "" == host.control.submitted()[0].error
    worker = host.start("acme/a", route=False)
    seen = []
    for _ in range(3):
        frame, payload = worker.message()
        seen.append((payload, frame.priority))
        worker.reply(frame)
    assert [(b"critical", CRITICAL), (b"normal", NORMAL), (b"low", LOW)] == seen


def test_time_to_live(host: Host) -> None:
    """An expired message is not delivered; its requester hears `expired` in time, and it is a dead letter."""
    operated(host, "acme/a", Mailing(ttl_ms=40))
    number = outside(host, "acme/a", b"x", Options(), request=True)
    answer, _ = host.control.submitted()
    assert (number, "expired") == (answer.id, answer.error)
    outside(host, "acme/a", b"x", Options(ttl_ms=1))
    host.until(lambda _: state(host, "acme/a").expired == 2)
    assert (0, 2, 2) == (
        state(host, "acme/a").depth,
        state(host, "acme/a").dead,
        host.settle().counters["dead-expired"],
    )


def test_at_least_once(host: Host) -> None:
    """What was in hand of a dead worker comes first to the next one, with a count, and its request stays open; when
    workers died of it too often it is poisoned."""
    operated(host, "acme/a", Mailing(at_least_once=True, max_deliveries=2))
    number = outside(host, "acme/a", b"deadly", Options(), request=True)
    for deliveries in (1, 2):
        worker = host.start("acme/a", route=False)
        assert deliveries == worker.message()[0].deliveries
        if deliveries == 1:
            outside(host, "acme/a", b"behind", Options())
            assert "" == host.control.submitted()[0].error
        host.died(worker)
    answer, _ = host.control.submitted()
    assert (number, "target-ended") == (answer.id, answer.error)
    assert b"behind" == host.start("acme/a", route=False).message()[1]
    found = state(host, "acme/a")
    assert (1, 1) == (found.redelivered, found.dead)
    assert 1 == host.settle().counters["dead-poisoned"]


def test_at_most_once_positive_control(host: Host) -> None:
    """Without at-least-once the same message is not delivered again, and is a dead letter."""
    operated(host, "acme/a", Mailing())
    outside(host, "acme/a", b"deadly", Options())
    worker = host.start("acme/a", route=False)
    worker.message()
    host.died(worker)
    outside(host, "acme/a", b"behind", Options())
    assert b"behind" == host.start("acme/a", route=False).message()[1]
    assert 1 == host.settle().counters["dead-undeliverable"]


def test_a_retry_is_one_answer(host: Host) -> None:
    """A request whose worker dies is delivered again as the target's policy says; the asker hears the reply only."""
    host.control.send(Settings(targets=[TargetPolicy("acme/*", attempts=3, retry_first_ms=10)]))
    operated(host, "acme/a", Mailing())
    number = outside(host, "acme/a", b"q", Options(), request=True)
    worker = host.start("acme/a", route=False)
    worker.message()
    host.died(worker)
    worker = host.start("acme/a", route=False)
    frame, payload = worker.message()
    assert (b"q", 2) == (payload, frame.deliveries)
    worker.reply(frame, b"a")
    answer, payload = host.control.submitted()
    assert (number, "", b"a") == (answer.id, answer.error, payload)
    assert 1 == host.settle().counters["retries"]
    assert not host.settle().counters.get("dead-undeliverable")


def test_the_circuit_opens(host: Host) -> None:
    """After the failures of the policy, requests are answered at once, plain sends are taken, and `State` says so."""
    host.control.send(Settings(targets=[TargetPolicy("acme/a", breaker_failures=2)]))
    operated(host, "acme/a", Mailing())
    worker = host.start("acme/a", route=False)
    for _ in range(2):
        outside(host, "acme/a", b"", Options(), request=True)
        worker.reply(worker.message()[0], error="runtime-error: no")
        assert "guest-error" == host.control.submitted()[0].error
    outside(host, "acme/a", b"", Options(), request=True)
    assert "circuit-open" == host.control.submitted()[0].error
    assert "open" == state(host, "acme/a").breaker
    outside(host, "acme/a", b"plain", Options())
    assert "" == host.control.submitted()[0].error
    assert b"plain" == worker.message()[1]


# -- overflow -------------------------------------------------------------------------------------------------


def sender(host: Host, name: str, deadline_ms: int = 20_000) -> FakeWorker:
    """A worker with a message in hand, so that it may ask."""
    worker = host.start(name, [*TALK, MessagingRule(source="host/client/*")], deadline_ms=deadline_ms)
    host.control.submit(name, request=False)
    assert "" == host.control.submitted()[0].error
    worker.message()
    return worker


def silent(host: Host, worker: FakeWorker) -> None:
    """It has been told nothing."""
    host.settle()
    worker.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        worker.sock.recv(1)
    worker.sock.settimeout(20)


def test_block_waits_for_room_in_order(host: Host) -> None:
    """Senders to a full mailbox wait, first come first served; others, and other targets, are served meanwhile."""
    route(host, "acme/full", Mailing(overflow="block"), mailbox=1)
    host.route("acme/free", TALK)
    first, second, third = (sender(host, f"acme/s{number}") for number in range(3))
    full = cid("acme/full")
    assert Ack(1, 0) == first.ask(Send(1, full), b"1")
    second.send(Send(2, full), b"2")
    silent(host, second)
    third.send(Send(3, full), b"3")
    silent(host, third)
    assert Ack(4, 0) == first.ask(Send(4, cid("acme/free")))
    target = host.start("acme/full", route=False)
    frame, payload = target.message()
    assert b"1" == payload
    assert Ack(2, 0) == second.take(Ack)[0]
    silent(host, third)
    target.reply(frame)
    frame, payload = target.message()
    assert (b"2", Ack(3, 0)) == (payload, third.take(Ack)[0])
    target.reply(frame)
    assert b"3" == target.message()[1]


def test_block_ends_before_the_deadline(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender hears `queue-full` before its own deadline ends it, and one outside after his time."""
    monkeypatch.setattr(waiting, "OUTSIDE_SECONDS", 0.05)
    operated(host, "acme/full", Mailing(overflow="block"), mailbox=1)
    outside(host, "acme/full", b"1", Options())
    outside(host, "acme/full", b"2", Options())
    assert ["", "queue-full"] == [host.control.submitted()[0].error for _ in range(2)]
    worker = sender(host, "acme/a", deadline_ms=400)
    assert 4 == worker.ask(Send(1, cid("acme/full"))).case
    host.nothing_asked()


def test_who_stops_waiting_lets_the_next_one_in(host: Host) -> None:
    """A sender that dies leaves the line; one that waits when its target stops hears so."""
    route(host, "acme/full", Mailing(overflow="block"), mailbox=1)
    first, second = sender(host, "acme/s1"), sender(host, "acme/s2")
    assert 0 == first.ask(Send(1, cid("acme/full")), b"1").case
    first.send(Send(2, cid("acme/full")), b"2")
    second.send(Send(3, cid("acme/full")), b"3")
    silent(host, second)
    host.died(first)
    target = host.start("acme/full", route=False)
    frame, _ = target.message()
    assert Ack(3, 0) == second.take(Ack)[0]
    second.send(Send(4, cid("acme/full")), b"4")
    silent(host, second)
    host.control.send(Stop(cid("acme/full"), drain=True))
    assert Ack(4, 1, "stopping") == second.take(Ack)[0]
    target.reply(frame)
    assert b"3" == target.message()[1]


def test_a_small_message_does_not_overtake_a_large_one(host: Host) -> None:
    """Who is second in line waits even if there were room for him; when the first one leaves, he is let in at once."""
    limits = Limits(deadline_ms=20_000, mailbox_bytes=2000, message_size=1400)
    host.control.send(Route(cid("acme/full"), limits, TALK, "acme/full", "1", mailing=Mailing(overflow="block")))
    host.settle()
    first, second = sender(host, "acme/s1"), sender(host, "acme/s2")
    assert 0 == first.ask(Send(1, cid("acme/full")), bytes(900)).case
    first.send(Send(2, cid("acme/full")), bytes(1400))
    silent(host, first)
    second.send(Send(3, cid("acme/full")), bytes(10))
    silent(host, second)
    assert 1 == state(host, "acme/full").depth
    host.died(first)
    assert Ack(3, 0) == second.take(Ack)[0]
    assert 2 == state(host, "acme/full").depth


@pytest.mark.parametrize(("overflow", "left"), [("drop-oldest", b"2"), ("drop-newest", b"1")])
def test_dropping(host: Host, overflow: str, left: bytes) -> None:
    """The sender hears that it was taken; what was shed is a dead letter, and a shed request is told."""
    operated(host, "acme/a", Mailing(overflow=overflow), mailbox=1)  # type: ignore[arg-type]
    request = outside(host, "acme/a", b"1", Options(), request=overflow == "drop-oldest")
    if overflow == "drop-newest":
        host.control.submitted()
    outside(host, "acme/a", b"2", Options())
    errors = {}
    for _ in range(2 if overflow == "drop-oldest" else 1):
        answer, _ = host.control.submitted()
        errors[answer.id] = answer.error
    expected = {request: "queue-full", request + 1: ""} if overflow == "drop-oldest" else {request + 1: ""}
    assert expected == errors
    assert left == host.start("acme/a", route=False).message()[1]
    assert 1 == state(host, "acme/a").dropped
    assert 1 == host.settle().counters["dead-dropped"]


# -- traces ---------------------------------------------------------------------------------------------------


def test_a_trace_of_a_request_shows_its_callback() -> None:
    """By the message's id or the correlation id: both ways, in the order of time, living or ended."""
    mailbox = box()
    request, callback = message(1, HIGH), message(2, callback=True)
    request.correlation = callback.correlation = "c" * 32
    now = time.monotonic()
    request.seconds, callback.seconds = int(time.time()) - 2, int(time.time()) - 1
    request.delivered, request.finished, request.end = now - 1.5, now - 1, "replied"
    request.deliveries = 2
    request.story = [("delivered", now - 1.8, "delivery 1"), ("redelivered", now - 1.6, "its worker ended")]
    assert mailbox.put_callback(callback)
    traces = Traces(mailbox.find)
    traces.keep(request)
    for text in ("1", "2", "c" * 32):
        trace = traces.find(text)
        assert (1, "c" * 32) == (trace.message, trace.correlation)
        assert sorted(step.at for step in trace.steps) == [step.at for step in trace.steps]
        expected = "sent sent queued queued delivered delivered redelivered replied"
        assert Counter(expected.split()) == Counter(step.what for step in trace.steps)
    assert [] == traces.find("3").steps == traces.find("x" * 32).steps == traces.find("9" * 400).steps


def test_traces_are_bounded() -> None:
    """The oldest are forgotten."""
    traces = Traces(lambda _wanted: ())
    for number in range(1, KEPT + 2):
        ended = message(number)
        ended.end, ended.finished = "replied", 1.0
        traces.keep(ended)
    assert [] == traces.find("1").steps
    assert [] != traces.find("2").steps
    assert [] != traces.find(str(KEPT + 1)).steps


def test_a_trace_through_the_router(host: Host) -> None:
    """What really happened to a message that was delivered twice, from a real router."""
    operated(host, "acme/a", Mailing(at_least_once=True))
    number = outside(host, "acme/a", b"x", Options(), request=True)
    worker = host.start("acme/a", route=False)
    worker.message()
    host.died(worker)
    worker = host.start("acme/a", route=False)
    worker.reply(worker.message()[0], b"y")
    answer, _ = host.control.submitted()
    assert number == answer.id
    host.control.send(AskTrace(7, str(answer.message)))
    trace, _ = host.control.submitted()
    assert isinstance(trace, Trace)
    assert ["sent", "queued", "delivered", "redelivered", "delivered", "replied"] == [step.what for step in trace.steps]
    assert (answer.message, answer.correlation) == (trace.message, trace.correlation)


def test_what_guests_say_of_an_end_is_kept_in_part(host: Host) -> None:
    """Ten thousand ends with a long error each must not fill the router."""
    operated(host, "acme/a", Mailing())
    worker = host.start("acme/a", route=False)
    outside(host, "acme/a", b"", Options(), request=True)
    worker.reply(worker.message()[0], error="e" * 100_000)
    answer, _ = host.control.submitted()
    host.control.send(AskTrace(7, str(answer.message)))
    trace, _ = host.control.submitted()
    assert isinstance(trace, Trace)
    assert "e" * MAX_WHY == trace.steps[-1].text


# -- exactly one answer -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from(["ask", "ask", "ask", "ask-short", "cancel", "reply", "reply", "fail", "kill-b", "kill-a"]),
        max_size=24,
    ),
    st.booleans(),
)
def test_a_component_hears_once_of_each_request(steps: list[str], at_least_once: bool) -> None:
    """Of each request that was acknowledged and not cancelled, one callback, while its worker lives; never a second."""
    with Host() as host:
        mailing = Mailing(at_least_once=at_least_once)
        limits = Limits(deadline_ms=20_000, mailbox=3)
        host.control.send(Route(cid("acme/b"), limits, TALK, "acme/b", "1", mailing=mailing))
        b = host.start("acme/b", route=False)
        b.sock.settimeout(0.01)
        a, hand = asking(host, TALKATIVE)
        owed: set[str] = set()
        for ask, step in enumerate(steps):
            match step:
                case "ask" | "ask-short":
                    a.send(Request(ask, cid("acme/b"), 20_000 if step == "ask" else 1))
                    ack = a.take(Ack)[0]
                    if ack.case == 0:
                        owed.add(ack.text)
                case "cancel" if owed:
                    correlation = min(owed)
                    if a.ask(Cancel(ask, correlation)).case == 0:
                        owed.discard(correlation)
                case "reply" | "fail":
                    with contextlib.suppress(TimeoutError):
                        b.reply(b.message()[0], error="runtime-error: no" if step == "fail" else "")
                case "kill-b":
                    host.died(b)
                    b = host.start("acme/b", route=False)
                    b.sock.settimeout(0.01)
                case "kill-a":
                    host.died(a)
                    a, hand = asking(host, None)  # which is not given a callback of the worker before it
                    owed.clear()
        host.control.send(Unroute(cid("acme/b")))
        host.died(b)
        a.reply(hand)
        while owed:
            back, _ = a.callback()
            assert back.correlation in owed
            owed.discard(back.correlation)
            a.reply(back)
        host.control.submit("acme/a", b"last", request=False)
        assert b"last" == a.message()[1], "one callback more"


TALKATIVE = [*TALK, MessagingRule(source="host/client/*")]


def asking(host: Host, rules: list[MessagingRule] | None) -> tuple[FakeWorker, Deliver]:
    """A new worker of `acme/a` with a message in hand; with rules the component is new, too."""
    worker = host.start("acme/a", rules, route=rules is not None)
    host.control.submit("acme/a", request=False)
    host.control.submitted()
    return worker, worker.message()[0]
