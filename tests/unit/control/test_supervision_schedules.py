"""Random schedules of ends, operators, host faults and deaths of control, on a tree in a running control.

Whatever the schedule: no component ever has two workers, and when all is quiet each one that should run and is not
quarantined has one, and nothing else has any.
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from sandbox.types import ComponentId
from sandbox.wire import supervisor_frames as sup

pytestmark = pytest.mark.block3_actors

TREE = """
[[supervisor]]
name = "all"
strategy = "one-for-all"
children = ["acme/a", "rest", "acme/b"]
max-restarts = {most}
window = "1s"
backoff = ["1ms", "20ms"]
[[supervisor]]
name = "rest"
strategy = "rest-for-one"
children = ["acme/c", "pool", "acme/d"]
max-restarts = {most}
window = "1s"
backoff = ["1ms", "20ms"]
[[supervisor]]
name = "pool"
strategy = "simple-one-for-one"
template = "acme/w"
replicas = 2
max-restarts = {most}
window = "1s"
backoff = ["1ms", "20ms"]
"""
NAMES = ("a/0", "b/0", "c/0", "d/0", "w/0", "w/1", "free/0")
RESTING = {"stopped", "quarantined"}


async def one_step(play, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    path = f"/v1/components/acme/{name}"
    match chance.choices(
        ("end", "all", "stop", "start", "restart", "release", "router", "bridge", "control", "wait"),
        (12, 1, 1, 2, 1, 2, 1, 1, 1, 6),
    )[0]:
        case "end":
            play.end_of(name, chance.choice(["trap", "killed", "exited"]), "by the test")
        case "all":
            play.end_all("killed", "all")
        case "stop" | "start" | "restart" as what:
            answer = await play.client.post(f"{path}/{what}")
            assert answer.status_code == 200, answer.text
        case "release":
            where = chance.choice([path, "/v1/supervisors/all", "/v1/supervisors/pool"])
            assert (await play.client.post(f"{where}/release")).status_code in (200, 409)
        case "router" | "bridge" as process:
            play.end_all("killed", f"the {process} ended")
            peer = play.peer
            play.tell(sup.ProcessRestarted(process))
            if process == "router":  # what this one tells the old connection, the real router would not lose
                await play.until(lambda: play.peer != peer)
        case "control":
            await play.stop_control()
            play.control_restarts += 1
            await play.start_control()
        case "wait":
            await asyncio.sleep(chance.random() * 0.03)


async def quiet(play) -> dict[str, dict]:
    """The status of each once nothing moves any more."""
    async with asyncio.timeout(30):
        while True:
            answer = (await play.client.get("/v1/status")).json()
            found = {c["id"].removeprefix("acme/"): c for c in answer["components"]}
            if all(c["state"] in {"running", *RESTING} for c in found.values()):
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", range(6))
def test_any_schedule(playground, monkeypatch, seed):
    """See the module."""

    async def main():
        chance = random.Random(seed)
        async with playground(TREE.format(most=chance.choice([1, 3, 8]))) as play:
            play.trust()
            for name in ("a", "b", "c", "d", "w", "free"):
                kind = chance.choice(["permanent", "permanent", "transient"])
                await play.install(play.package(f"acme/{name}", restart=kind, max_restarts=3))
            doubles = []
            good = play._started

            def started(frame):
                if frame.component in play.workers.values():
                    doubles.append(frame.component)
                good(frame)

            monkeypatch.setattr(play, "_started", started)
            for _ in range(60):
                await one_step(play, chance)
            found = await quiet(play)
            await asyncio.sleep(0.1)
            found = await quiet(play)
            assert [] == doubles
            assert set(NAMES) == set(found)
            have = [f"{c.name}/{c.instance}" for c in play.workers.values()]
            assert sorted(have) == sorted(name for name, c in found.items() if c["state"] == "running")
            faults = play.events("supervision.fault")
            assert [] == faults, faults[0].detail
            # All that an operator wants can be had again, whatever happened.
            for where in ("/v1/supervisors/all", "/v1/components/acme/free/0"):
                await play.client.post(f"{where}/release")
            for name in NAMES:
                await play.client.post(f"/v1/components/acme/{name}/start")
            assert {"running"} == {c["state"] for c in (await quiet(play)).values()}
            assert {ComponentId.parse(f"acme/{name}") for name in NAMES} == set(play.workers.values())
            assert len(NAMES) == len(play.workers)

    asyncio.run(main())


def test_the_watch_for_doubles_works(playground, monkeypatch):
    """Positive control: a worker that is started beside a living one is seen."""

    async def main():
        async with playground() as play:
            play.trust()
            await play.install(play.package("acme/a"))
            frame = play.asked(sup.StartWorker)[-1]
            assert frame.component in play.workers.values()
            play._started(msgspec.structs.replace(frame, incarnation=frame.incarnation + 500))
            assert 2 == list(play.workers.values()).count(frame.component)
            await play.until(lambda: len(play.workers) == 1), "and control ends the stray"

    asyncio.run(main())
