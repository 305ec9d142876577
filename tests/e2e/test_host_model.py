"""A whole host against a plain model of it: random schedules of commands, messages and deaths.

The model knows of each component whether it should run, and of each numbered message how often it may have been
handled: once when its sender heard ok, at most once when it heard a failure, never when it was refused. A message that
nobody waits for may be lost when its worker dies, one with each death, and with the router. With `at-least-once` none
is lost with a worker, and nobody hears of its death. Each component writes down what it handles, so the two can be
compared message by message; subscribers count what was published. A failing schedule is named by its seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import probes
import pytest
import traffic
from live_host import CHECKOUT, Host, wait_until
from traffic import Ledger

from sandbox.errors import AirssysError

pytestmark = [pytest.mark.block3_actors, pytest.mark.block5_messaging]

NAMES = ("ann", "ben", "cem", "dov")
REPEATED = "dov"
"""The one whose mail is delivered at least once."""
SUBSCRIBERS = (0, 1)
TOPIC = CHECKOUT / "examples" / "bench" / "topic"
REFUSED = frozenset({"E_NOT_FOUND", "E_QUEUE_FULL"})
"""Codes of a message that was put into no mailbox."""


class World:
    """The host, the model, and what can be done to both."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host = host
        self.random = random.Random(seed)
        mailing = 'delivery = "at-least-once"\nmax-deliveries = 100'
        self.ledgers = {name: Ledger(host, name, mailing=mailing if name == REPEATED else "") for name in NAMES}
        often = '[supervision]\nmax-restarts = 1000\nwindow = "1s"\nbackoff = ["10ms", "10ms"]\n\n[messaging]'
        package = host.package(TOPIC, edit=lambda text: text.replace("[messaging]", often))
        for number in SUBSCRIBERS:
            probes.install(host, package, instance=str(number))
        self.listens = dict.fromkeys(SUBSCRIBERS, True)
        self.published = dict.fromkeys(SUBSCRIBERS, 0)
        """Publications that each subscriber's worker should have counted."""
        self.runs = dict.fromkeys(NAMES, True)
        self.bounds: dict[str, dict[int, tuple[int, int]]] = {name: {} for name in NAMES}
        self.waiting: dict[str, list[int]] = {name: [] for name in NAMES}
        """Messages nobody waits for, of which it is not known yet that they were handled."""
        self.at_risk: dict[str, list[list[int]]] = {name: [] for name in NAMES}
        """Those of which one may have been lost with a worker."""
        self.trace: list[str] = []
        self.number = 0

    # -- the model ------------------------------------------------------------------------------------------------

    def outcome(self, name: str, number: int, code: str, *, disturbed: bool = False) -> None:
        """What the sender of a message heard, and so how often it may have been handled."""
        self.trace.append(f"{name} {number}: {code}")
        if not disturbed:
            assert ("ok" == code) == self.runs[name], self.trace[-10:]
        most = 3 if disturbed and name == REPEATED else 1
        if code == "ok":
            self.bounds[name][number] = (1, most)
        else:
            self.bounds[name][number] = (0, 0 if code in REFUSED else most)

    def death(self, name: str, *, of_all: bool = False) -> None:
        """A worker dies: with it at most one message in hand; with the router (`of_all`) all that wait."""
        waiting, self.waiting[name] = self.waiting[name], []
        repeated = name == REPEATED
        for number in waiting:
            self.bounds[name][number] = (int(repeated and not of_all), 1 + repeated)
        if waiting and not of_all:
            self.at_risk[name].append(waiting)

    def compare(self) -> None:
        """The host has done what the model says, and is in the state that the model is in."""
        for name in NAMES:
            if self.runs[name]:
                assert "settled" == self.host.ask(f"test/{name}", "echo settled", seconds=30)
                self.waiting[name].clear()
            handled = self.ledgers[name].handled()
            for number, (least, most) in self.bounds[name].items():
                assert least <= handled[number] <= most, (name, number, handled[number], self.trace)
            for numbers in self.at_risk[name]:
                assert sum(not handled[number] for number in numbers) <= 1, (name, numbers, self.trace)
            assert handled.keys() <= self.bounds[name].keys()
            state = self.host.component(f"test/{name}/0")["state"]
            assert ("running" if self.runs[name] else "stopped") == state, (name, self.trace)
        for number in SUBSCRIBERS:
            if self.listens[number]:
                counted = json.loads(self.host.ask(f"bench/topic/{number}", "counted"))["count"]
                assert self.published[number] == counted, (number, self.trace)
                self.published[number] = 0

    # -- what can happen ------------------------------------------------------------------------------------------

    def numbers(self, count: int) -> list[int]:
        self.number += count
        return list(range(self.number - count, self.number))

    def tell(self, name: str, number: int, kind: str) -> str:
        """One message from outside; "ok" or the code it failed with."""
        try:
            with self.host.api() as client:
                client.message(f"test/{name}", kind, f"append /data/ledger {number}\n".encode(), 20_000, "text/plain")
        except AirssysError as error:
            return error.code
        return "ok"

    def message(self, name: str) -> None:
        """A request or a plain message, while nothing else happens."""
        (number,) = self.numbers(1)
        kind = self.random.choice(["request", "send"])
        code = self.tell(name, number, kind)
        self.outcome(name, number, code)
        if kind == "send" and code == "ok":
            self.waiting[name].append(number)
        elif code == "ok":
            self.waiting[name].clear()  # they were before it

    def between(self, name: str) -> None:
        """A component asks another: one callback, or an error at once when there is no such component."""
        other = self.random.choice(NAMES)
        if not self.runs[name]:
            return
        (number,) = self.numbers(1)
        before = int(self.host.ask(f"test/{name}", "callbacks"))
        told = self.host.ask(f"test/{name}", f"forward test/{other} append /data/ledger {number}\n")
        if self.runs[other]:
            wait_until("its callback", lambda: int(self.host.ask(f"test/{name}", "callbacks")) > before)
            assert f"{told}|-|ok" == self.host.ask(f"test/{name}", "last")
            self.outcome(other, number, "ok")
        else:
            assert f"error target-not-found: test/{other}/0" == told
            self.outcome(other, number, "E_NOT_FOUND")
        after = before + self.runs[other]
        assert after == int(self.host.ask(f"test/{name}", "callbacks"))

    def start(self, name: str) -> None:
        """An operator's start; one that runs already is left as it is."""
        if not self.runs[name]:
            self.host.cli("start", f"test/{name}")
            self.runs[name] = True

    def stop(self, name: str) -> None:
        """An operator's stop, behind messages that wait: those are handled first."""
        numbers = self.numbers(5)
        codes = [self.tell(name, number, "send") for number in numbers]
        with self.host.api() as client:
            client.post(f"/v1/components/test/{name}/0/stop", drain=True, timeout=60.0)
        for number, code in zip(numbers, codes, strict=True):
            self.outcome(name, number, code)
        self.waiting[name].clear()
        self.runs[name] = False

    def restart(self, name: str) -> None:
        """An operator's restart, under requests: the mailbox survives it, what is in hand is finished."""
        if self.runs[name]:
            codes = self.disturbed(name, lambda: self.host.cli("restart", f"test/{name}"))
            assert {"ok"} == set(codes), self.trace[-20:]

    def killed(self, name: str) -> None:
        """A worker's death under requests."""
        if self.runs[name]:
            pid = self.host.component(f"test/{name}/0")["pid"]
            self.death(name)
            codes = self.disturbed(name, lambda: traffic.kill(self.host, f"test/{name}/0", pid))
            assert name != REPEATED or {"ok"} == set(codes), self.trace[-20:]
            self.another(f"test/{name}/0", pid)

    def killed_quietly(self, name: str) -> None:
        """A worker's death with nothing in hand, unless it is a message nobody waits for."""
        if self.runs[name]:
            pid = self.host.component(f"test/{name}/0")["pid"]
            self.death(name)
            traffic.kill(self.host, f"test/{name}/0", pid)
            self.another(f"test/{name}/0", pid)

    def another(self, component: str, pid: int) -> None:
        """Until the death is known and there is a new worker: what comes before may be given to the dead one."""

        def fresh() -> bool:
            status = self.host.component(component)
            return status["state"] == "running" and status["pid"] not in (pid, None)

        wait_until(f"a new worker of {component}", fresh)

    def publish(self, _name: str) -> None:
        """A publication from outside reaches each subscriber that runs, once."""
        with self.host.api() as client:
            reached = client.publish("bench.tick", b"tick", "text/plain")["subscribers"]
        assert sum(self.listens.values()) == reached, self.trace[-10:]
        for number, listens in self.listens.items():
            self.published[number] += listens

    def subscriber(self, _name: str) -> None:
        """A subscriber is stopped, started, or its worker killed; its subscription is the manifest's and stays."""
        number = self.random.choice(SUBSCRIBERS)
        component = f"bench/topic/{number}"
        if not self.listens[number]:
            self.host.cli("start", component)
        elif self.random.random() < 0.5:
            self.host.cli("stop", component)
        else:
            pid = self.host.component(component)["pid"]
            self.host.ask(component, "counted")  # behind all that was published
            traffic.kill(self.host, component, pid)
            self.another(component, pid)
            self.published[number] = 0
            return
        self.listens[number] = not self.listens[number]
        self.published[number] = 0

    def service_killed(self, name: str) -> None:
        """The death of control, router, zygote or bridge under requests; it is whole again before the next step."""
        service = self.random.choice(["control", "router", "zygote", "bridge"])
        pid = self.host.processes()[service]
        self.trace.append(service)
        if service in ("router", "bridge"):
            for each in NAMES:
                self.death(each, of_all=service == "router")
            for number in SUBSCRIBERS:
                if self.listens[number]:
                    self.host.ask(f"bench/topic/{number}", "counted")  # behind all that was published
                    self.published[number] = 0
        self.disturbed(name, lambda: os.kill(pid, signal.SIGKILL))

        def whole() -> bool:
            with contextlib.suppress(AirssysError):
                status = self.host.status()
                services = {p["name"]: p for p in status["host"]["processes"]}
                up = all(p["ready"] for p in services.values()) and services[service]["pid"] != pid
                states = {c["id"]: c["state"] for c in status["components"]}
                listening = all(states[f"bench/topic/{n}"] == "running" for n in SUBSCRIBERS if self.listens[n])
                return up and listening and all(states[f"test/{n}/0"] == "running" for n in NAMES if self.runs[n])
            return False

        wait_until(f"a new {service}", whole)

    def disturbed(self, name: str, what: Callable[[], object]) -> list[str]:
        """Requests from several people, and something that happens in their midst."""
        numbers = self.numbers(12)
        with ThreadPoolExecutor(4) as pool:
            telling = [pool.submit(self.tell, name, number, "request") for number in numbers]
            telling[self.random.randrange(4)].result()
            what()
            codes = [future.result() for future in telling]
        for number, code in zip(numbers, codes, strict=True):
            self.outcome(name, number, code, disturbed=True)
        return codes

    def step(self) -> None:
        """One of all that, to one of all."""
        steps: list[tuple[Callable[[str], None], int]] = [
            (self.message, 8),
            (self.between, 6),
            (self.start, 4),
            (self.stop, 2),
            (self.restart, 2),
            (self.killed, 3),
            (self.killed_quietly, 3),
            (self.publish, 6),
            (self.subscriber, 2),
            (self.service_killed, 1),
        ]
        (what,) = self.random.choices([step for step, _ in steps], [weight for _, weight in steps])
        name = self.random.choice(NAMES)
        self.trace.append(f"{what.__name__} {name}")
        what(name)


@pytest.mark.parametrize(
    ("seed", "steps"),
    [(1, 30), *(pytest.param(seed, 400, marks=pytest.mark.long) for seed in range(2, 6))],
)
def test_host_does_as_the_model(host: Host, seed: int, steps: int) -> None:
    """Whatever happens in whatever order, the host has handled and answered what the model says."""
    host.trust("test/*", "bench/*")
    world = World(host, seed)
    for number in range(steps):
        world.step()
        if number % 25 == 24:
            world.compare()
    world.compare()
    host.cli("audit", "verify")
