"""Messages and the death of whoever handles, asks, carries or supervises them, on a real host.

Each test with many requests runs with a few by default and with ten thousand by `scripts/test --all`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import probes
import pytest
import traffic
from airssys.client import AsyncClient, ClientError
from live_host import Host, wait_until
from traffic import Killer, Ledger

from sandbox.errors import AirssysError

pytestmark = pytest.mark.block5_messaging

MANY = pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
APPEND = "append /data/ledger"
AT_LEAST_ONCE = 'delivery = "at-least-once"\nmax-deliveries = 100'
BLOCK = 'overflow = "block"'
SILENT = 10.0
"""Seconds within which an answer must come that is due at once; reached only when the test fails."""


@pytest.fixture
def net(host: Host) -> Host:
    """A host that believes test/*."""
    host.trust("test/*")
    return host


def _storm(host: Host, count: int, target: str, text: str, *, window: int = 50, timeout_ms: int = 60_000) -> None:
    assert "started" == host.ask("test/storm", f"start {count} {window} {timeout_ms} {target} {text}")


def _result(host: Host) -> dict[str, Any]:
    return dict(json.loads(host.ask("test/storm", "result")))


def _over(host: Host, count: int, seconds: float) -> dict[str, Any]:
    """The storm's account when all of it was answered."""

    def done() -> dict[str, Any] | None:
        found = _result(host)
        return found if found["asked"] == count and not found["open"] else None

    return dict(wait_until("the end of the storm", done, seconds=seconds))


@contextlib.contextmanager
def _meanwhile(call: Any, *arguments: Any) -> Iterator[Any]:
    """Have a call made in another thread; its future."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call, *arguments)


# -- workers --------------------------------------------------------------------------------------------------


@MANY
def test_target_killed_while_people_ask(net: Host, count: int) -> None:
    """Its worker is killed at random points, while starting too: one answer each, nothing handled twice.

    Whoever hears ok was handled once; the only failures are those of what was in a dying worker's hand, one each.
    """
    ledger = Ledger(net, "target")
    with Killer(net, "test/target/0", every=0.05, seed=1).at_work() as killer:
        answers = traffic.ask_all(net, "test/target", range(count), seconds=60.0)
    handled = ledger.handled()
    assert {1} == set(handled.values())
    assert [] == [n for n, answer in answers.by_number.items() if answer == "ok" and not handled[n]]
    assert killer.deaths > 3
    lost = {answer for answer in answers.by_number.values() if answer != "ok"}
    assert all("ended" in answer for answer in lost), lost
    assert count - answers.count("ok") <= killer.deaths


@MANY
def test_target_killed_while_a_component_asks(net: Host, count: int) -> None:
    """The same between components: one callback for each request, whatever became of the target."""
    ledger = Ledger(net, "target")
    traffic.storm(net)
    with Killer(net, "test/target/0", every=0.03, seed=2).at_work() as killer:
        _storm(net, count, "test/target/0", APPEND)
        account = _over(net, count, seconds=30 + count / 50)
    handled = ledger.handled()
    assert {1} == set(handled.values())
    assert killer.deaths > 1
    expected = {"asked": count, "refused": 0, "timeout": 0, "full": 0, "other": 0, "open": 0, "unknown": 0}
    assert expected == {key: account[key] for key in expected}
    assert count == account["ok"] + account["ended"]
    assert account["ended"] <= killer.deaths
    assert account["ok"] <= len(handled)


@MANY
def test_requester_killed(net: Host, count: int) -> None:
    """What a dead requester asked for is answered to nobody: its next worker hears of its own requests alone."""
    ledger = Ledger(net, "target")
    traffic.storm(net)
    with Killer(net, "test/storm/0", every=0.1, seed=3).at_work() as killer:
        for _ in range(count // 100):
            deaths = killer.deaths
            with contextlib.suppress(AirssysError):  # in hand when the worker died
                _storm(net, 100, "test/target/0", f"{APPEND} 1")
            wait_until("its death", lambda deaths=deaths: killer.deaths > deaths)
    wait_until("a worker", lambda: net.component("test/storm/0")["state"] == "running")
    _storm(net, 100, "test/target/0", f"{APPEND} 2")
    account = _over(net, 100, seconds=60)
    assert (100, 0) == (account["ok"], account["unknown"]), account
    wait_until("an empty mailbox", lambda: net.component("test/target/0")["mailbox"] == 0, seconds=60)
    lines = (ledger.place / "ledger").read_text().splitlines()
    assert [f"2 {number}" for number in range(100)] == [line for line in lines if line.startswith("2 ")]


@MANY
def test_sends_to_a_target_that_is_killed(net: Host, count: int) -> None:
    """At most once: what was accepted is handled once, but for what was in the hand of a worker that died.

    That is a dead letter, one each, and nothing else is; replayed, it is handled too.
    """
    ledger = Ledger(net, "target")
    with Killer(net, "test/target/0", every=0.03, seed=4).at_work() as killer:
        answers = traffic.ask_all(net, "test/target", range(count), kind="send", seconds=5.0)
        wait_until("an empty mailbox", lambda: net.component("test/target/0")["mailbox"] == 0, seconds=30 + count / 50)
    net.ask("test/target", "echo behind the last", seconds=60)
    handled = ledger.handled()
    assert {"ok"} == set(answers.by_number.values())
    assert {1} == set(handled.values())
    assert killer.deaths > 1
    letters = traffic.dead_letters(net, "test/target/0")
    assert len(letters) <= killer.deaths
    assert {reason for reason, _ in letters} <= {"undeliverable"}
    lost = {int(payload.split()[2]) for _, payload in letters}
    assert set(range(count)) - set(handled) <= lost
    with net.api() as client:
        assert len(lost) == client.post("/v1/deadletters/replay", {"component": "test/target/0"})["count"]
    net.ask("test/target", "echo behind the replayed", seconds=60)
    assert set(range(count)) == set(ledger.handled())
    assert [] == traffic.dead_letters(net, "test/target/0")


# -- at least once --------------------------------------------------------------------------------------------


@MANY
@pytest.mark.parametrize("kind", ["request", "send"])
def test_at_least_once(net: Host, count: int, kind: str) -> None:
    """Whatever was accepted is handled, though the worker is killed again and again; twice only what was in its hand.

    A request stays open meanwhile: nobody hears of the deaths.
    """
    ledger = Ledger(net, "target", mailing=AT_LEAST_ONCE)
    with Killer(net, "test/target/0", every=0.03, seed=5).at_work() as killer:
        answers = traffic.ask_all(net, "test/target", range(count), kind=kind, seconds=60.0)
    net.ask("test/target", "echo behind the last", seconds=60)
    handled = ledger.handled()
    assert {"ok"} == set(answers.by_number.values())
    assert set(range(count)) == set(handled)
    assert killer.deaths > 1
    assert sum(handled.values()) - count <= killer.deaths


@MANY
def test_at_least_once_between_components(net: Host, count: int) -> None:
    """A component that asks hears of no death either: one answer each, all of them good."""
    ledger = Ledger(net, "target", mailing=AT_LEAST_ONCE)
    traffic.storm(net)
    with Killer(net, "test/target/0", every=0.03, seed=6).at_work() as killer:
        _storm(net, count, "test/target/0", APPEND)
        account = _over(net, count, seconds=30 + count / 50)
    handled = ledger.handled()
    assert (count, 0) == (account["ok"], account["unknown"]), account
    assert set(range(count)) == set(handled)
    assert sum(handled.values()) - count <= killer.deaths


def test_a_message_that_kills_is_given_up(net: Host) -> None:
    """What ends each worker that gets it is delivered so often and no more; what waits behind it is handled."""
    ledger = Ledger(net, "target", mailing='delivery = "at-least-once"\nmax-deliveries = 3')
    starts = len([r for r in net.audit("test/target/0") if r["event"] == "worker.started"])
    with ThreadPoolExecutor(2) as pool:
        deadly = pool.submit(_fate, net, "test/target", "trap")
        answers = pool.submit(traffic.ask_all, net, "test/target", range(20)).result()
    assert "E_TARGET_ENDED" == deadly.result()[0]
    assert 20 == answers.count("ok")
    assert {1} == set(ledger.handled().values())
    ends = [r for r in net.audit("test/target/0") if r["event"] == "worker.started"]
    assert starts + 3 == len(ends)
    assert [("poisoned", b"trap")] == traffic.dead_letters(net, "test/target/0")


# -- control and router ---------------------------------------------------------------------------------------


@MANY
def test_control_killed_while_components_talk(net: Host, count: int) -> None:
    """The tree's own process dies: no worker ends, no message is lost; who asked through it hears an error at once."""
    ledger = Ledger(net, "target")
    traffic.storm(net)
    pids = {c["id"]: c["pid"] for c in net.status()["components"]}
    old = net.processes()["control"]
    with _meanwhile(_fate, net, "test/target", "sleep 2000") as waiting:
        wait_until("it to be in hand", lambda: net.component("test/target/0")["delivered"] == 1)
        _storm(net, count, "test/target/0", APPEND)
        began = time.monotonic()
        os.kill(old, signal.SIGKILL)
        code, _ = waiting.result()
    assert "E_UNAVAILABLE" == code
    assert SILENT > time.monotonic() - began
    wait_until("a new control", lambda: _control(net) not in (None, old))
    account = _over(net, count, seconds=30 + count / 50)
    assert (count, 0) == (account["ok"], account["unknown"]), account
    assert {1} == set(ledger.handled().values())
    assert pids == {c["id"]: c["pid"] for c in net.status()["components"]}


def test_worker_killed_while_control_is_away(net: Host) -> None:
    """An end that nobody was there to hear of is acted upon when control is back."""
    Ledger(net, "target")
    worker, control = net.component("test/target/0")["pid"], net.processes()["control"]
    os.kill(control, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until("a new worker", lambda: _pid(net, "test/target/0") not in (None, worker))
    assert "alive" == net.ask("test/target", "echo alive")


def test_router_killed_mid_flight(net: Host) -> None:
    """Everybody who waits hears an error at once, nobody silence; the tree comes back and carries messages again."""
    ledger = Ledger(net, "target")
    traffic.storm(net)
    worker, router = net.component("test/target/0")["pid"], net.processes()["router"]
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(_fate, net, "test/target", "sleep 2000") for _ in range(8)]
        wait_until("all to be there", lambda: net.component("test/target/0")["mailbox"] == 7)
        _storm(net, 100, "test/target/0", APPEND)
        os.kill(router, signal.SIGKILL)
        fates = [future.result() for future in waiting]
    assert {"E_UNAVAILABLE"} == {code for code, _ in fates}
    assert SILENT > max(seconds for _, seconds in fates)
    wait_until("a new worker", lambda: _pid(net, "test/target/0") not in (None, worker))
    _storm(net, 100, "test/target/0", APPEND)
    account = _over(net, 100, seconds=30)
    assert (100, 0) == (account["ok"], account["unknown"]), account
    assert {1} == set(ledger.handled().values())


def test_router_killed_while_people_ask(net: Host) -> None:
    """Each of many requests has one answer though the router dies under them again and again; then all is well."""
    ledger = Ledger(net, "target")
    over = threading.Event()
    killed = 0

    def ask() -> traffic.Answers:
        try:
            return traffic.ask_all(net, "test/target", range(600), seconds=10.0)
        finally:
            over.set()

    with _meanwhile(ask) as asking:
        while not over.wait(0.3) and killed < 3:
            with contextlib.suppress(AirssysError):
                os.kill(net.processes()["router"], signal.SIGKILL)
                killed += 1
        answers = asking.result()
    assert killed
    handled = ledger.handled()
    assert {1} == set(handled.values())
    assert [] == [n for n, answer in answers.by_number.items() if answer == "ok" and not handled[n]]
    wait_until("the target", lambda: _fate(net, "test/target", "echo well")[0] == "ok")


def _fate(host: Host, target: str, text: str) -> tuple[str, float]:
    """What code a request ended with ("ok" without one), and after how many seconds."""
    began = time.monotonic()
    try:
        host.ask(target, text, seconds=30)
    except AirssysError as error:
        return error.code, time.monotonic() - began
    return "ok", time.monotonic() - began


def _pid(host: Host, name: str) -> int | None:
    try:
        status = host.component(name)
    except AirssysError:
        return None
    return int(status["pid"]) if status["state"] == "running" and status["pid"] else None


def _control(host: Host) -> int | None:
    try:
        return host.processes()["control"]
    except AirssysError:
        return None


# -- programs outside -----------------------------------------------------------------------------------------


def _ask_at_once(host: Host, numbers: range, most: int = 50) -> dict[int, str]:
    """Requests of one program, many at a time; how each ended: "ok" or the error's class."""
    ended: dict[int, str] = {}

    async def ask_all() -> None:
        room = asyncio.Semaphore(most)

        async def one(client: AsyncClient, number: int) -> None:
            async with room:
                try:
                    await client.request("test/target", f"{APPEND} {number}\n", timeout=60.0)
                    answer = "ok"
                except ClientError as error:
                    answer = type(error).__name__
            assert number not in ended
            ended[number] = answer

        async with AsyncClient(str(host.root / "run" / "clients" / "router.sock")) as client:
            await asyncio.gather(*(one(client, number) for number in numbers))

    asyncio.run(ask_all())
    return ended


@MANY
def test_control_and_target_killed_while_a_program_asks(net: Host, count: int) -> None:
    """A program's requests pass control by: its death is nothing to them, and the target's is told where it is one."""
    ledger = Ledger(net, "target")
    over = threading.Event()
    killed = 0

    def ask() -> dict[int, str]:
        try:
            return _ask_at_once(net, range(count))
        finally:
            over.set()

    with Killer(net, "test/target/0", every=0.05, seed=8).at_work() as killer, _meanwhile(ask) as asking:
        while not over.wait(0.5) and killed < 1 + count // 1000:
            control = _control(net)
            if control is not None:
                os.kill(control, signal.SIGKILL)
                killed += 1
        ended = asking.result()
    wait_until("a new control", lambda: _control(net))
    handled = ledger.handled()
    assert set(range(count)) == set(ended)
    assert set(ended.values()) <= {"ok", "TargetEnded"}
    assert {1} == set(handled.values())
    assert [] == [number for number, how in ended.items() if how == "ok" and not handled[number]]
    assert sum(how != "ok" for how in ended.values()) <= killer.deaths


# -- neighbours -----------------------------------------------------------------------------------------------


def test_a_slow_consumer_blocks_nobody(net: Host) -> None:
    """Who writes to a full mailbox hears so at once; who writes to others does not notice."""
    probes.add(net, "slow", {"mailbox": "5"})
    Ledger(net, "target")
    with _meanwhile(net.ask, "test/slow", "sleep 2500") as sleeping:
        wait_until("it sleeps", lambda: net.component("test/slow/0")["delivered"] == 1)
        assert ["ok"] * 5 == [_sent(net, "test/slow") for _ in range(5)]
        began = time.monotonic()
        assert ["E_QUEUE_FULL"] * 5 == [_sent(net, "test/slow") for _ in range(5)]
        answers = traffic.ask_all(net, "test/target", range(100))
        assert 100 == answers.count("ok")
        assert not sleeping.done(), "all of it while the slow one was busy"
        assert 2.5 > time.monotonic() - began
        sleeping.result()
    wait_until("an empty mailbox", lambda: net.component("test/slow/0")["mailbox"] == 0)
    assert "5" == net.ask("test/slow", "get kept").removesuffix("x")


def _sent(host: Host, target: str) -> str:
    try:
        with host.api() as client:
            client.message(target, "send", b"set kept 5x", 1000, "text/plain")
    except AirssysError as error:
        return error.code
    return "ok"


def test_senders_that_wait_hold_up_nobody_else(net: Host) -> None:
    """With `overflow = "block"` a sender waits until there is room, and hears ok; others do not notice."""
    probes.add(net, "slow", {"mailbox": "2"}, mailing=BLOCK)
    probes.add(net, "writer", {"deadline": '"8s"'})
    ledger = Ledger(net, "target")
    with ThreadPoolExecutor(3) as pool:
        sleeping = pool.submit(net.ask, "test/slow", "sleep 2000")
        wait_until("it sleeps", lambda: net.component("test/slow/0")["delivered"] == 1)
        assert ["ok", "ok"] == [_sent(net, "test/slow") for _ in range(2)]
        writing = pool.submit(net.ask, "test/writer", "send test/slow set kept 6x")
        outside = pool.submit(_sent, net, "test/slow")
        answers = traffic.ask_all(net, "test/target", range(100))
        assert 100 == answers.count("ok") == len(ledger.handled())
        assert not (sleeping.done() or writing.done() or outside.done())
        assert "ok" == writing.result()
        assert "ok" == outside.result()


def test_senders_that_wait_for_each_other(net: Host) -> None:
    """Two with full mailboxes that write to one another are told so before their deadlines: neither is killed."""
    for name in ("left", "right"):
        probes.add(net, name, {"mailbox": "2", "deadline": '"1500ms"'}, mailing=BLOCK)
    pids = {c["id"]: c["pid"] for c in net.status()["components"]}
    with ThreadPoolExecutor(16) as pool:
        # In hand, behind it who writes to the other, and behind that as many as there is room for, and more who wait.
        sleeping = [pool.submit(net.ask, f"test/{name}", "sleep 700") for name in ("left", "right")]
        for name in ("left", "right"):
            wait_until("it sleeps", lambda name=name: net.component(f"test/{name}/0")["delivered"] == 1)
        crossed = [
            pool.submit(net.ask, f"test/{name}", f"send test/{other} echo x")
            for name, other in (("left", "right"), ("right", "left"))
        ]
        for name in ("left", "right"):
            wait_until("it waits", lambda name=name: net.component(f"test/{name}/0")["mailbox"] == 1)
        others = [pool.submit(net.ask, f"test/{name}", "echo y") for name in ("left", "right") for _ in range(4)]
        assert ["ok", "ok"] == [future.result() for future in sleeping]
        assert "error queue-full" in {future.result() for future in crossed}
        assert {"y"} == {future.result() for future in others}
    assert pids == {c["id"]: c["pid"] for c in net.status()["components"]}


def test_restart_storms_are_damped(net: Host) -> None:
    """Ten components that die at once, again and again, are started a bounded number of times; others live on."""
    loops = [f"loop{number}" for number in range(10)]
    values = {"max-restarts": "5", "window": '"60s"', "backoff": '["50ms", "200ms"]'}
    Ledger(net, "target")
    for name in loops:
        probes.add(net, name, values)
        net.ask(f"test/{name}", "set on-initialize trap")
    for name in loops:
        traffic.kill(net, f"test/{name}/0", net.component(f"test/{name}/0")["pid"])
    answers = traffic.ask_all(net, "test/target", range(100))
    assert 100 == answers.count("ok")
    for name in loops:
        wait_until("it is given up", lambda name=name: net.component(f"test/{name}/0")["state"] == "quarantined")
        starts = [record for record in net.audit(f"test/{name}/0") if record["event"] == "worker.started"]
        assert 1 + 5 >= len(starts), name
    assert "alive" == net.ask("test/target", "echo alive")
