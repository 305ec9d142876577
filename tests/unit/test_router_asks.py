"""Who may talk to whom through the router, and that a denial is on record before it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.types import ComponentId
from sandbox.wire import zmtp
from sandbox.wire.router_frames import (
    Ack,
    Broadcast,
    Cancel,
    GetMetadata,
    ListComponents,
    MessagingRule,
    Request,
    Send,
    Unroute,
)
from supervisor.router import asks, turns
from tests.unit.router_host import TALK, FakeWorker, Host, cid, encode

pytestmark = pytest.mark.block5_messaging

OPERATOR = MessagingRule(source="host/client/*")


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


def working(host: Host, name: str, rules: list[MessagingRule]) -> FakeWorker:
    """A worker with an operator's message in hand, so that it may ask."""
    worker = host.start(name, [*rules, OPERATOR])
    host.control.submit(name, request=False)
    assert "" == host.control.submitted()[0].error
    worker.message()
    return worker


def denied(host: Host, worker: FakeWorker, event: str, target: str, ask: int, why: str = "") -> Ack:
    """The denial is recorded first; until it is written, the worker hears nothing."""
    record = host.auditor.next()
    assert (event, str(worker.component), "denied", target) == (
        record.event,
        record.component,
        record.decision,
        record.object,
    )
    assert why in ("", record.detail["why"])
    host.settle()
    worker.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        worker.sock.recv(1)
    worker.sock.settimeout(20)
    host.auditor.written(record)
    ack, _ = worker.take(Ack)
    assert ask == ack.ask
    return ack


@pytest.mark.parametrize("action", ["send", "request", "broadcast"])
def test_sender_needs_the_action(host: Host, action: str) -> None:
    """Each action needs its own right; with it (positive control) the same ask is granted."""
    target = cid("acme/b")
    frame = {"send": Send(1, target), "request": Request(1, target, 5000), "broadcast": Broadcast(1, [target])}[action]
    others = [other for other in ("send", "request", "broadcast") if other != action]
    host.start("acme/b", TALK)
    worker = working(host, "acme/without", [MessagingRule("acme/b", others)])
    worker.send(frame)
    ack = denied(host, worker, f"messaging.{action}", "acme/b/0", 1, "sender")
    assert (1, "denied") == (ack.case, ack.text)
    assert 0 == working(host, "acme/with", [MessagingRule("acme/b", [action])]).ask(frame).case
    routes = {route.component: route for route in host.settle().routes}
    assert (1, 0) == (routes[cid("acme/without")].denied, routes[cid("acme/with")].denied)
    assert 1 == routes[target].delivered


def test_target_must_accept(host: Host) -> None:
    """A target that does not name the sender is not reached; one that does (positive control) is."""
    worker = working(host, "acme/a", TALK)
    host.start("acme/closed", [MessagingRule(source="acme/other")])
    host.start("acme/open", [MessagingRule(source="acme/a")])
    worker.send(Send(1, cid("acme/closed")))
    assert "denied" == denied(host, worker, "messaging.send", "acme/closed/0", 1, "target").text
    assert Ack(2, 0) == worker.ask(Send(2, cid("acme/open")))


def test_no_right_no_knowledge(host: Host) -> None:
    """Without a right, existing and missing targets look the same; with it, a missing one is told as missing."""
    host.start("other/there", [MessagingRule(source="*")])
    worker = working(host, "acme/a", TALK)
    answers = []
    for ask, name in enumerate(("other/there", "other/missing")):
        worker.send(Send(ask, cid(name)))
        ack = denied(host, worker, "messaging.send", f"{name}/0", ask)
        answers.append((ack.case, ack.text))
    assert [(1, "denied")] * 2 == answers
    assert Ack(9, 5, "acme/missing/0") == worker.ask(Send(9, cid("acme/missing")))


def test_rights_change_at_once(host: Host) -> None:
    """A new Route replaces the rules: what was allowed is denied from the next ask on."""
    host.start("acme/b", TALK)
    worker = working(host, "acme/a", TALK)
    assert 0 == worker.ask(Send(1, cid("acme/b"))).case
    host.route("acme/a", [OPERATOR])
    worker.send(Send(2, cid("acme/b")))
    assert "denied" == denied(host, worker, "messaging.send", "acme/b/0", 2).text


def test_outside_needs_acceptance(host: Host) -> None:
    """A component that names its sources takes no others from outside; one that names none takes the operator."""
    host.route("acme/closed", [MessagingRule(source="acme/*")])
    host.route("acme/bob", [MessagingRule(source="host/client/bob")])
    host.route("acme/open")
    number = host.control.submit("acme/closed", request=False)
    record = host.auditor.next()
    assert ("messaging.send", "host/client/ann", "denied", "acme/closed/0") == (
        record.event,
        record.component,
        record.decision,
        record.object,
    )
    host.control.submit("acme/open", request=False)
    assert number + 1 == host.control.submitted()[0].id
    host.auditor.written(record)
    answer, _ = host.control.submitted()
    assert (number, "denied") == (answer.id, answer.error)
    host.control.submit("acme/bob", user="bob", request=False)
    assert "" == host.control.submitted()[0].error
    host.control.submit("acme/bob", user="ann")
    host.auditor.record()
    assert "denied" == host.control.submitted()[0].error


def test_broadcast_partly_denied(host: Host) -> None:
    """Each target is checked; the permitted ones get it once, and the first failure of the list is the answer."""
    b, c = host.start("acme/b", TALK), host.start("acme/c", TALK)
    host.start("acme/closed", [MessagingRule(source="acme/other")])
    worker = working(host, "acme/a", TALK)
    targets = [cid("acme/b"), cid("acme/missing"), cid("acme/closed"), cid("acme/c"), cid("acme/b")]
    worker.send(Broadcast(3, targets), b"all")
    ack = denied(host, worker, "messaging.broadcast", "acme/closed/0", 3, "target")
    assert (5, "acme/missing/0", [cid("acme/missing")]) == (ack.case, ack.text, ack.components)
    for receiver in (b, c):
        frame, payload = receiver.message()
        assert (cid("acme/a"), b"all") == (frame.sender, payload)
        receiver.reply(frame)
    assert Ack(4, 0) == worker.ask(Broadcast(4, [cid("acme/b"), cid("acme/c")]))
    assert Ack(5, 0) == worker.ask(Broadcast(5, []))


def test_broadcast_to_many(host: Host) -> None:
    """A broadcast that takes several turns reaches everybody once, and is answered when its denials are on record."""
    names = [f"acme/t{number}" for number in range(3 * turns.SLICE + 1)]
    for number, name in enumerate(names):
        host.route(name, [MessagingRule(source="acme/other")] if number % 10 == 5 else TALK)
    worker = working(host, "acme/a", TALK)
    worker.send(Broadcast(3, [cid(name) for name in names]), b"all")
    refused = [f"{name}/0" for number, name in enumerate(names) if number % 10 == 5]
    records = [host.auditor.next() for _ in refused]
    assert refused == [record.object for record in records]
    for record in records[:-1]:
        host.auditor.written(record)
    worker.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        worker.sock.recv(1)
    worker.sock.settimeout(20)
    host.auditor.written(records[-1])
    assert Ack(3, 1, "denied", [cid(names[5])]) == worker.take(Ack)[0]
    depths = {str(route.component): route.depth for route in host.settle().routes}
    assert {name: int(f"{name}/0" not in refused) for name in names} == {name: depths[f"{name}/0"] for name in names}
    assert 0 == worker.ask(Broadcast(4, [cid(names[0])])).case


def test_a_broadcast_under_way_ends_with_its_sender(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who speaks before the answer is ended, and what is left of the list gets nothing."""
    monkeypatch.setattr(asks, "SLICE", 1)
    for number in range(200):
        host.route(f"acme/t{number}", TALK)
    worker = working(host, "acme/a", TALK)
    broadcast = zmtp.encode_message([encode(Broadcast(3, [cid(f"acme/t{number}") for number in range(200)])), b""])
    worker.sock.sendall(broadcast * 2)
    assert "Broadcast before its last question was answered" == host.violated(worker).detail
    depths = [route.depth for route in host.settle().routes]
    assert 0 < sum(depths) < 200
    assert depths == [route.depth for route in host.settle().routes], "it goes on"


def test_too_large_for_the_target(host: Host) -> None:
    """A payload the target does not take is an invalid message that says so; exactly its size passes."""
    host.start("acme/b", TALK, message_size=10)
    worker = working(host, "acme/a", TALK)
    ack = worker.ask(Send(1, cid("acme/b")), bytes(11))
    assert 3 == ack.case
    assert "too large" in ack.text
    assert Ack(2, 0) == worker.ask(Send(2, cid("acme/b")), bytes(10))


def test_list_and_metadata(host: Host) -> None:
    """A component sees those it may talk to, and no others."""
    host.start("acme/b", TALK)
    host.start("acme/closed", [MessagingRule(source="acme/other")])
    host.start("other/x", [MessagingRule(source="*")])
    worker = working(host, "acme/a", TALK)
    assert [cid("acme/a"), cid("acme/b")] == worker.ask(ListComponents(1)).components
    host.route("acme/new", TALK)
    assert [cid("acme/a"), cid("acme/b"), cid("acme/new")] == worker.ask(ListComponents(2)).components
    assert ("acme/b", "1.0", "healthy") == worker.ask(GetMetadata(3, cid("acme/b"))).info
    assert ("acme/new", "1.0", "unknown") == worker.ask(GetMetadata(4, cid("acme/new"))).info
    assert Ack(5, 5, "not found") == worker.ask(GetMetadata(5, cid("acme/none")))
    for ask, name in enumerate(("acme/closed", "other/x", "other/none")):
        worker.send(GetMetadata(ask, cid(name)))
        ack = denied(host, worker, "messaging.metadata", f"{name}/0", ask)
        assert (5, "denied") == (ack.case, ack.text)


def test_allowed_is_not_recorded(host: Host) -> None:
    """Allowed messages flow without the auditor and are counted."""
    host.auditor.close()
    host.start("acme/b", TALK)
    worker = working(host, "acme/a", TALK)
    assert 0 == worker.ask(Send(1, cid("acme/b"))).case
    assert 2 == host.settle().counters["allowed"]


def test_denial_waits_for_the_next_auditor(host: Host) -> None:
    """When the auditor dies before it wrote the denial, the answer waits and the record goes to the next one."""
    worker = working(host, "acme/a", [])
    worker.send(Send(1, cid("acme/b")))
    first = host.auditor.next()
    host.auditor.close()
    host.settle()
    second = host.new_auditor()
    again = second.next()
    assert first == again
    second.written(again)
    assert Ack(1, 1, "denied") == worker.take(Ack)[0]


def test_speaking_while_the_answer_is_withheld(host: Host) -> None:
    """A worker whose denial is being recorded has nothing to say; one that goes on breaks the protocol."""
    worker = working(host, "acme/a", [])
    worker.send(Send(1, cid("acme/b")))
    record = host.auditor.next()
    worker.send(Cancel(2, "x"))
    end = host.end_asked()
    assert ("policy", "Cancel before its last question was answered") == (end.outcome, end.detail)
    host.auditor.written(record)
    assert "protocol.violation" == host.auditor.record().event
    host.nothing_asked()


def test_after_unroute_nothing_is_allowed(host: Host) -> None:
    """A worker whose component was removed has no rights left."""
    host.start("acme/b", TALK)
    worker = working(host, "acme/a", TALK)
    host.control.send(Unroute(cid("acme/a")))
    host.settle()
    worker.send(Send(1, cid("acme/b")))
    assert "denied" == denied(host, worker, "messaging.send", "acme/b/0", 1).text
    assert [] == worker.ask(ListComponents(2)).components


def test_nonsense_target(host: Host) -> None:
    """A target that is no component id is just one no rule covers; its name is cut in the record."""
    worker = working(host, "acme/a", TALK)
    worker.send(Send(1, ComponentId("x" * 5000, "\x00", "..")))
    assert "denied" == denied(host, worker, "messaging.send", "x" * 65 + "/\x00/..", 1).text
