"""Replicas under one name: how one is picked, that only ready ones are, and whose rights count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from sandbox.types import ComponentId
from sandbox.wire.router_frames import (
    FAILURES,
    Ack,
    CheckHealth,
    Group,
    Health,
    HealthReply,
    MessagingRule,
    Options,
    Request,
    Rest,
    Route,
    Send,
    Settings,
    Stop,
    Submit,
)
from supervisor.router.groups import Groups
from supervisor.router.mailbox import Message
from supervisor.router.routes import Table
from tests.unit.router_host import LIMITS, TALK, FakeWorker, Host, cid

pytestmark = pytest.mark.block5_messaging

OPERATOR = MessagingRule(source="host/client/*")
GROUP = ComponentId("acme", "worker", "*")
SENDER = ComponentId("acme", "a", "0")
MISSING = 1 + FAILURES.index("target-not-found")


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


def depths(host: Host) -> dict[str, int]:
    return {route.component.instance: route.depth for route in host.settle().routes if route.component.name == "worker"}


# -- picking, without a router ---------------------------------------------------------------------------------------


def table(count: int, routing: str = "") -> Table:
    """Replicas without workers: none is ready, so all may be picked."""
    made = Table()
    for number in range(count):
        made.put(Route(ComponentId("acme", "worker", str(number)), LIMITS, [], "acme/worker", "1.0"))
    if routing:
        made.settings = Settings(groups=[Group("acme/worker", routing)])  # type: ignore[arg-type]
    return made


def picked(groups: Groups, key: str = "") -> str:
    found = groups.pick(GROUP, SENDER, key)
    assert found is not None
    return found.id.instance


def test_round_robin_is_the_usual_way() -> None:
    """Each gets as many as every other, in turn."""
    groups = Groups(table(3))
    assert ["0", "1", "2", "0", "1", "2"] == [picked(groups) for _ in range(6)]


def test_random_reaches_all() -> None:
    """Of three hundred each of three gets some."""
    groups = Groups(table(3, "random"))
    assert {"0", "1", "2"} == {picked(groups) for _ in range(300)}


def test_least_loaded_goes_where_least_waits() -> None:
    """A mailbox with mail is passed over until the others have as much; among equals it is in turn."""
    there = table(3, "least-loaded")
    for number in (0, 1):
        replica = there.components[ComponentId("acme", "worker", str(number))]
        assert replica.mailbox.put(Message(number, False, SENDER, 0, 0, b""))
    groups = Groups(there)
    assert ["2", "2"] == [picked(groups) for _ in range(2)]
    there.components[ComponentId("acme", "worker", "2")].mailbox.put(Message(9, False, SENDER, 0, 0, b""))
    assert {"0", "1", "2"} == {picked(groups) for _ in range(3)}


def test_sticky_keeps_a_key_together() -> None:
    """A key has its replica; when one goes only its own keys move, and each of the others keeps its."""
    there = table(5, "sticky")
    groups = Groups(there)
    keys = [f"k{number}" for number in range(500)]
    before = {key: picked(groups, key) for key in keys}
    assert before == {key: picked(groups, key) for key in keys}
    assert all(count > 50 for count in Counter(before.values()).values())
    there.forget(there.components[ComponentId("acme", "worker", "3")])
    after = {key: picked(groups, key) for key in keys}
    assert {key for key in keys if before[key] == "3"} == {key for key in keys if before[key] != after[key]}


def test_without_a_key_a_sender_is_the_key() -> None:
    """What one sender sends stays together; another's goes elsewhere."""
    groups = Groups(table(8, "sticky"))
    assert 1 == len({picked(groups) for _ in range(20)})
    others = {groups.pick(GROUP, ComponentId("acme", f"s{number}", "0"), "") for number in range(50)}
    assert len(others) > 1


def test_nobody_there() -> None:
    """A package without components has no replica."""
    assert None is Groups(table(0)).pick(GROUP, SENDER, "")


# -- in the router -----------------------------------------------------------------------------------------------------


def test_only_ready_ones_are_picked(host: Host) -> None:
    """An unhealthy replica and one that is shutting down get nothing; when none is ready the mail waits."""
    workers = [host.start(f"acme/worker/{number}", TALK) for number in range(3)]
    asker = working(host, "acme/a", TALK)
    host.control.send(CheckHealth(workers[0].component))
    workers[0].send(HealthReply(workers[0].take(Health)[0].id, "unhealthy"))
    host.control.event("health")
    host.control.send(Stop(workers[1].component, drain=True))
    host.settle()
    for number in range(4):
        assert Ack(number, 0) == asker.ask(Send(number, GROUP), b"x")
    assert {"0": 0, "1": 0, "2": 3} == depths(host)  # and one in hand
    host.control.send(CheckHealth(workers[0].component))
    workers[0].send(HealthReply(workers[0].take(Health)[0].id, "degraded"))
    host.control.event("health")
    assert Ack(8, 0) == asker.ask(Send(8, GROUP), b"again")
    assert Ack(9, 0) == asker.ask(Send(9, GROUP), b"again")
    assert b"again" == workers[0].message()[1]
    host.died(workers[2])
    host.died(workers[0])
    before = sum(depths(host).values())
    assert Ack(10, 0) == asker.ask(Send(10, GROUP), b"x")
    assert before + 1 == sum(depths(host).values())


def test_nobody_is_ready(host: Host) -> None:
    """A group whose replicas all call themselves unhealthy, or rest, takes nothing; one that is being started again
    does."""
    workers = [host.start(f"acme/worker/{number}", [*TALK, OPERATOR]) for number in range(2)]
    asker = working(host, "acme/a", TALK)
    assert Ack(1, 0) == asker.ask(Send(1, GROUP))  # the positive control
    workers[0].reply(workers[0].message()[0])
    for worker in workers:
        host.control.send(CheckHealth(worker.component))
        worker.send(HealthReply(worker.take(Health)[0].id, "unhealthy"))
        host.control.event("health")
    assert Ack(2, 5, "acme/worker/*") == asker.ask(Send(2, GROUP))
    host.control.send(Submit(99, "ann", GROUP, True, 20_000))
    answer = host.control.submitted()[0]
    assert ("target-not-found", "no replica of acme/worker is ready") == (answer.error, answer.text)
    host.died(workers[1])
    assert Ack(3, 0) == asker.ask(Send(3, GROUP))
    assert {"0": 0, "1": 1} == depths(host)
    host.control.send(Rest(workers[1].component, "is quarantined"))
    host.settle()
    assert Ack(4, 5, "acme/worker/*") == asker.ask(Send(4, GROUP))


def test_requests_go_to_one(host: Host) -> None:
    """The reply comes from the replica that was picked, under its own name."""
    workers = {str(n): host.start(f"acme/worker/{n}", TALK) for n in range(2)}
    asker = working(host, "acme/a", TALK)
    correlation = asker.ask(Request(1, GROUP, 20_000, Options(key="k")), b"x").text
    (busy,) = [route.component.instance for route in host.settle().routes if route.busy and route.component.name != "a"]
    frame, _ = workers[busy].message()
    assert (correlation, SENDER) == (frame.correlation, frame.reply_to)


def test_rights_to_a_group(host: Host) -> None:
    """A right to one instance is none to the group; one to every instance is (positive control). The member that is
    picked must accept the sender, and where there is none it is not found."""
    host.start("acme/worker/0", [MessagingRule(source="acme/a")])
    one = working(host, "acme/one", [MessagingRule("acme/worker/0", ["send"])])
    one.send(Send(1, GROUP), b"x")
    assert ("denied", "acme/worker/*") == ((record := host.auditor.record()).decision, record.object)
    assert "denied" == one.take(Ack)[0].text
    assert Ack(1, 0) == working(host, "acme/a", [MessagingRule("acme/worker", ["send"])]).ask(Send(1, GROUP), b"x")
    other = working(host, "acme/b", [MessagingRule("acme/*", ["send"])])
    other.send(Send(1, GROUP, Options()), b"x")
    host.auditor.record()
    assert 1 + FAILURES.index("denied") == other.take(Ack)[0].case
    assert MISSING == other.ask(Send(2, ComponentId("acme", "nobody", "*"), Options()), b"x").case


def test_how_is_told_by_the_settings(host: Host) -> None:
    """`[[group]]` takes effect with the next message."""
    for number in range(4):
        host.route(f"acme/worker/{number}", TALK)
    asker = working(host, "acme/a", TALK)
    for number in range(4):
        asker.ask(Send(number, GROUP, Options(key="k")), b"x")
    assert {1} == set(depths(host).values())
    host.control.send(Settings(groups=[Group("acme/worker", "sticky")]))
    host.settle()
    for number in range(4):
        asker.ask(Send(number, GROUP, Options(key="k")), b"x")
    assert [1, 1, 1, 5] == sorted(depths(host).values())
    assert {cid(f"acme/worker/{n}") for n in range(4)} <= {route.component for route in host.settle().routes}
