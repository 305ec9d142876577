"""Traffic and misfortune for a live host: requests from outside that are accounted for, and a killer of processes."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import probes
from live_host import GUESTS, Host, wait_until

from sandbox.errors import AirssysError
from supervisor.cli.packages import parts_of
from supervisor.packages import envelope
from supervisor.packages.keys import load_private
from supervisor.packages.package import read_package

LEDGER = '[{ path = "/data/**", access = ["read", "write", "list"] }]'
"""Files of a target that writes down what it handles."""


class Ledger:
    """A probe that appends a line to a file for each message it handles, and the file."""

    def __init__(self, host: Host, name: str, values: dict[str, str] | None = None, mailing: str = "") -> None:
        self.place = host.out / f"{name}-data"
        self.place.mkdir()
        self.place.chmod(0o777)
        values = {"filesystem": LEDGER, "mailbox": "20000", **probes.OFTEN, **(values or {})}
        package = probes.pack(host, name, values, mailing=mailing)
        status = probes.install(host, package, {"/data": self.place})
        assert "running" == status["state"], status

    def handled(self) -> Counter[int]:
        """How often each number was written down."""
        file = self.place / "ledger"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()


def storm(host: Host, name: str = "storm") -> None:
    """Install the guest that makes many requests as test/`name`."""
    target = host.out / name
    target.mkdir()
    (target / "component.wasm").write_bytes((GUESTS / "storm" / "component.wasm").read_bytes())
    text = (GUESTS / "storm" / "component.toml").read_text().replace("test/storm", f"test/{name}")
    (target / "component.toml").write_text(text)
    envelope.sign(str(target), load_private(str(host.key)))
    with host.api() as client:
        plan = client.upload(parts_of(read_package(str(target))))["plan"]
        body = {"plan": plan, "bindings": {}, "instance": "0", "consent": True, "start": True}
        assert "running" == client.post("/v1/install", body, timeout=60.0)["state"]


class Answers:
    """What became of requests and sends from outside, by their number: "ok" or an error's code and message."""

    def __init__(self) -> None:
        self.by_number: dict[int, str] = {}
        self.slowest = 0.0

    def count(self, start: str) -> int:
        """How many answers begin so."""
        return sum(answer.startswith(start) for answer in self.by_number.values())


def ask_all(
    host: Host,
    target: str,
    numbers: range,
    *,
    text: str = "append /data/ledger {}\n",
    kind: str = "request",
    threads: int = 4,
    seconds: float = 30.0,
) -> Answers:
    """Ask once for each number, some at a time; every one is answered, or the test fails."""
    answers = Answers()

    def some(mine: range) -> None:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(host.api())
            for number in mine:
                began = time.monotonic()
                try:
                    client.message(target, kind, text.format(number).encode(), int(seconds * 1000), "text/plain")
                    answer = "ok"
                except AirssysError as error:
                    answer = f"{error.code} {error.message}"
                assert number not in answers.by_number
                answers.by_number[number] = answer
                answers.slowest = max(answers.slowest, time.monotonic() - began)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, [numbers[number::threads] for number in range(threads)]))
    assert set(numbers) == set(answers.by_number)
    return answers


def dead_letters(host: Host, target: str) -> list[tuple[str, bytes]]:
    """Reason and payload of each dead letter to a component."""
    with host.api() as client:
        letters = client.get("/v1/deadletters", component=target, limit=1000)["letters"]
        whole = [client.get(f"/v1/deadletters/{letter['id']}") for letter in letters]
    return [(letter["reason"], base64.b64decode(letter["payload"])) for letter in whole]


class Killer:
    """SIGKILL for a component's worker, at random moments, while the context lasts; `deaths` counts them."""

    def __init__(self, host: Host, component: str, *, every: float, seed: int) -> None:
        self._host, self._component, self._every = host, component, every
        self._random = random.Random(seed)
        self._over = threading.Event()
        self.deaths = 0
        self._last: int | None = None
        self.states: Counter[str] = Counter()
        """States of the component that a death came in."""

    def _run(self) -> None:
        while not self._over.wait(self._random.uniform(0, 2 * self._every)):
            with contextlib.suppress(AirssysError):
                status = self._host.component(self._component)
                if kill(self._host, self._component, status["pid"]):
                    self.deaths += 1
                    self._last = status["pid"]
                    self.states[status["state"]] += 1

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Killer]:
        """Kill meanwhile; returns when there is a worker again, and its last death is known to all."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()
        wait_until("another worker", self._whole)

    def _whole(self) -> bool:
        try:
            status = self._host.component(self._component)
        except AirssysError:
            return False
        return status["state"] == "running" and status["pid"] not in (self._last, None)


def kill(host: Host, component: str, pid: int | None) -> bool:
    """SIGKILL of a component's worker if it still is this process."""
    if not pid or not Path(f"/proc/{pid}").exists():
        return False
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The number might be another's by now; what the descriptor stands for does not change.
        if host.component(component)["pid"] != pid:
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True
