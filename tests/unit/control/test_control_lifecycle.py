"""The tree: starts, restarts, backoff, quarantine, health, stops, and control's own return."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sandbox.types import ComponentId
from sandbox.wire import router_frames as bus
from sandbox.wire import supervisor_frames as sup

pytestmark = pytest.mark.block7_lifecycle

ECHO = ComponentId("acme", "echo")


async def running(play, **changes):
    play.trust()
    answer = await play.install(play.package(**changes))
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "running", answer.text


def test_install_starts_and_is_recorded(playground):
    """A trusted package is compiled, started with the compiled bytes, becomes ready, and every step is recorded."""

    async def main():
        async with playground() as play:
            await running(play)
            assert play.cwasm == b"native \0asm\x0d\0\1\0"
            assert [["package.plan", "package.install", "worker.start", "worker.ready"]] == [
                [r.event for r in play.records]
            ]
            await play.until(lambda: [ECHO] == list(play.routes))
            assert 1 == play.compiles
            await play.client.post("/v1/components/acme/echo/0/restart")
            assert 1 == play.compiles, "the second start takes the cached component"

    asyncio.run(main())


def test_restarts_then_quarantine_then_start(playground):
    """Ends restart it up to max-restarts within the window; then it is quarantined with its cause; start ends that."""

    async def main():
        async with playground() as play:
            await running(play, max_restarts=2)
            for expected in (1, 2):
                play.end_all("trap", "unreachable")
                await play.until(lambda expected=expected: len(play.order) == expected + 1)
                status = await play.until_state("running")
                assert [expected, "trap"] == [status["restarts"], status["outcome"]]
            play.end_all("fuel", "out of fuel")
            status = await play.until_state("quarantined")
            assert ["fuel", "out of fuel", None] == [status["outcome"], status["detail"], status["pid"]]
            await play.until(lambda: play.events("component.quarantined"))
            assert [ECHO] == list(play.routes), "its mailbox stays"
            assert 3 == len(play.order)
            await play.stop_control()
            await play.start_control()
            await play.until_state("quarantined")
            assert 3 == len(play.order), "a new control does not take the quarantine back"
            answer = await play.client.post("/v1/components/acme/echo/0/start")
            assert "running" == answer.json()["state"]
            await play.stop_control()
            await play.start_control()
            await play.until_state("running")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("restart", "outcome", "expected"),
    [
        ("permanent", "exited", "running"),
        ("transient", "exited", "stopped"),
        ("transient", "trap", "running"),
        ("temporary", "trap", "stopped"),
    ],
)
def test_restart_types(playground, restart, outcome, expected):
    """permanent restarts after any end, transient after an abnormal one, temporary never."""

    async def main():
        async with playground() as play:
            await running(play, restart=restart)
            play.end_all(outcome)
            if expected == "running":
                await play.until(lambda: len(play.order) == 2)
            status = await play.until_state(expected)
            assert outcome == status["outcome"]
            assert (2 if expected == "running" else 1) == len(play.order)

    asyncio.run(main())


def test_unhealthy_is_restarted(playground):
    """The router hears how often to ask for health; an unhealthy component is killed and started again."""

    async def main():
        async with playground() as play:
            await running(play, health="100ms")
            assert [100] == [route.health_interval_ms for route in play.routes.values()]
            (incarnation,) = play.workers
            play.event("health", incarnation, "degraded")
            async with asyncio.timeout(5):
                while (await play.state_of())["health"] != "degraded":
                    await asyncio.sleep(0.01)
            assert [] == play.asked(sup.KillWorker), "degraded is shown, no more"
            play.event("health", incarnation, "unhealthy")
            await play.until(lambda: len(play.order) == 2)
            status = await play.until_state("running")
            assert ["killed", "it called itself unhealthy", 1] == [
                status[key] for key in ("outcome", "detail", "restarts")
            ]

    asyncio.run(main())


def test_stop_asks_first_then_kills(playground):
    """stop lets the worker shut down; one that does not is killed after its deadline; both end routed nowhere."""

    async def main():
        async with playground() as play:
            await running(play)
            answer = await play.client.post("/v1/components/acme/echo/0/stop?drain=true")
            assert ["stopped", "exited"] == [answer.json()["state"], answer.json()["outcome"]]
            assert [True] == [frame.drain for frame in play.asked(bus.Stop)]
            assert [] == play.asked(sup.KillWorker)
            # The bus is a channel of its own: what was sent before the answer may arrive after it.
            await play.until(lambda: not play.routes)
            assert 1 == len(play.asked(sup.DropPolicy))
            play.obedient = False
            await play.client.post("/v1/components/acme/echo/0/start")
            answer = await play.client.post("/v1/components/acme/echo/0/stop")
            assert ["stopped", "killed"] == [answer.json()["state"], answer.json()["outcome"]]
            assert 1 == len(play.asked(sup.KillWorker))

    asyncio.run(main())


def test_failed_starts(playground):
    """A start the supervisor refuses counts as an end; one for want of a host process is tried again uncounted."""

    async def main():
        async with playground() as play:
            await running(play, max_restarts=2)
            play.start_error = sup.Failed(0, "E_NOT_READY", "not ready: bridge", "setup-error")
            play.end_all("killed", "the bridge ended")
            await play.until(lambda: len(play.asked(sup.StartWorker)) >= 4)
            assert "starting" == (await play.state_of())["state"]
            play.start_error = None
            status = await play.until_state("running")
            assert [1, "killed"] == [status["restarts"], status["outcome"]]
            play.tell(sup.ProcessRestarted("bridge"))
            play.start_error = sup.Failed(0, "E_SETUP", "no uid left", "setup-error")
            play.end_all("trap")
            status = await play.until_state("quarantined")
            assert "no uid left" in status["detail"]

    asyncio.run(main())


def test_host_faults_do_not_count(playground):
    """Ends that a router's restart caused leave room in the window, and a quarantine they brought is lifted."""

    async def main():
        async with playground() as play:
            await running(play, max_restarts=1)
            for starts in (2, 3, 4):
                play.end_all("killed", "the router ended")
                await play.until(lambda starts=starts: len(play.order) == starts)
                await play.until_state("running")
                before = len(play.asked(bus.Route))
                play.tell(sup.ProcessRestarted("router"))
                await play.until(lambda before=before: len(play.asked(bus.Route)) > before)
            play.end_all("trap")
            await play.until(lambda: len(play.order) == 5)
            await play.until_state("running")
            play.end_all("killed", "the bridge ended")
            await play.until_state("quarantined")
            policies = len(play.asked(sup.SetPolicy))
            play.tell(sup.ProcessRestarted("bridge"))
            await play.until_state("running")
            assert len(play.asked(sup.SetPolicy)) > policies

    asyncio.run(main())


def test_bridge_restart_sends_policies_again(playground):
    """The policy of every instance that runs goes to a new bridge."""

    async def main():
        async with playground() as play:
            await running(play)
            play.tell(sup.ProcessRestarted("bridge"))
            await play.until(lambda: len(play.asked(sup.SetPolicy)) == 2)
            assert 1 == len({frame.policy for frame in play.asked(sup.SetPolicy)})

    asyncio.run(main())


def test_not_ready_in_time_is_killed(playground):
    """A worker of which the router never says ready is killed after the start timeout and started again."""

    async def main():
        async with playground() as play:
            play.ready = False
            play.trust()
            task = asyncio.create_task(play.install(play.package(max_restarts=1)))
            await play.until(lambda: play.workers)
            (incarnation,) = play.workers
            play._emit(bus.Event("init-failed", ECHO, incarnation, "missing config"))
            await asyncio.sleep(0.02)
            play.end(incarnation, "exited")
            await play.until(lambda: len(play.order) == 2)
            assert "missing config" in (await play.state_of())["detail"]
            play.end_all("exited")
            status = (await task).json()
            assert status["state"] in ("starting", "quarantined")

    asyncio.run(main())


def test_why_it_could_not_be_initialised(playground):
    """Whoever waits for a start hears the component's own reason, though the supervisor's word that it is dead comes
    first, and nothing beside it."""

    async def main():
        async with playground() as play:
            play.ready = False
            play.trust()
            task = asyncio.create_task(play.install(play.package(max_restarts=0)))
            await play.until(lambda: play.workers)
            (incarnation,) = play.workers
            play.end(incarnation, "exited")
            while not (await play.client.get("/v1/components/acme/echo/0")).json()["ends"]:
                pass  # until the end is known
            play._emit(bus.Event("init-failed", ECHO, incarnation, "initialization-failed: no!"))
            status = (await task).json()
            assert ("quarantined", "exited", "initialization-failed: no!") == (
                status["state"],
                status["outcome"],
                status["detail"],
            )
            assert "exited: initialization-failed: no!" == (await play.state_of())["quarantine"]

    asyncio.run(main())


def test_control_comes_back(playground):
    """A new control adopts what lives, starts what should, ends what should not, and answers as before."""

    async def main():
        async with playground() as play:
            await running(play)
            await play.install(play.package("acme/other"))
            await play.install(play.package("acme/third"))
            await play.client.post("/v1/components/acme/third/0/stop")
            living = dict(play.workers)
            await play.stop_control()
            gone = next(number for number, component in living.items() if component.name == "other")
            del play.workers[gone]  # died meanwhile, unseen
            play.workers[9_999] = ComponentId("acme", "stranger")
            play.routes[ComponentId("acme", "stranger")] = play.routes[ECHO]
            starts = len(play.order)
            await play.start_control()
            await play.until(lambda: len(play.order) == starts + 1)
            assert "other" == play.order[-1].name
            await play.until_state("running", "acme/other/0")
            assert "running" == (await play.state_of())["state"]
            assert "stopped" == (await play.state_of("acme/third/0"))["state"]
            await play.until(lambda: 9_999 not in play.workers)
            assert {"echo", "other"} == {component.name for component in play.routes}
            kept = next(number for number, component in play.workers.items() if component.name == "echo")
            assert living[kept] == ECHO, "the worker that lived was not touched"
            play.end(kept, "trap")
            await play.until(lambda: len(play.order) == starts + 2)
            status = await play.until_state("running")
            assert [1, "trap"] == [status["restarts"], status["outcome"]]

    asyncio.run(main())


def test_a_start_that_outlived_control_is_ended(playground):
    """A worker that an earlier control asked for and nobody knows is killed."""

    async def main():
        async with playground() as play:
            await running(play)
            play.workers[7_777] = ECHO
            play.tell(sup.Started(1, 7_777, 1, 1, 1))
            await play.until(lambda: 7_777 not in play.workers)
            assert "running" == (await play.state_of())["state"]

    asyncio.run(main())


def test_drain_stops_in_reverse_order(playground):
    """down stops the last started first, answers Drained, and the registry still wants everything to run."""

    async def main():
        async with playground() as play:
            await running(play)
            await play.install(play.package("acme/other"))
            await play.install(play.package("acme/third"))
            answer = await play.client.post("/v1/host/down")
            assert 200 == answer.status_code
            await play.until(lambda: play.asked(sup.Drained))
            assert ["third", "other", "echo"] == [frame.component.name for frame in play.asked(bus.Stop)]
            answer = await play.client.post("/v1/components/acme/echo/0/start")
            assert [409, "E_CONFLICT"] == [answer.status_code, answer.json()["error"]["code"]]
            await play.stop_control()
            await play.start_control()
            await play.until(lambda: len(play.order) == 6)
            await play.until_state("running")

    asyncio.run(main())


def test_revoked_while_running(playground):
    """Revoking the key stops what ran on the strength of it, and it does not start again; control remembers why."""

    async def main():
        async with playground() as play:
            await running(play)
            answer = await play.client.post("/v1/trust/revoke", json={"keyid": play.key().public.keyid})
            assert ["acme/echo/0"] == answer.json()["stopped"]
            answer = await play.client.post("/v1/components/acme/echo/0/start")
            assert "failed" == answer.json()["state"]
            assert "E_REVOKED" in answer.json()["detail"]
            assert 1 == len(play.order)

    asyncio.run(main())


def test_update_replaces_the_worker(playground):
    """A higher release replaces the package; a lower one is refused, even after uninstalling."""

    async def main():
        async with playground() as play:
            await running(play, release=2)
            answer = await play.install(play.package(release=3))
            assert ["running", 3] == [answer.json()["state"], answer.json()["release"]]
            assert 2 == len(play.order)
            assert 1 == len(play.workers)
            lower = play.package(release=2)
            assert "E_ROLLBACK" == (await play.upload(lower)).json()["error"]["code"]
            answer = await play.client.delete("/v1/components/acme/echo/0?purge=true")
            assert 200 == answer.status_code
            assert [True] == [frame.purge for frame in play.asked(sup.DropPolicy)][-1:]
            assert "E_ROLLBACK" == (await play.upload(lower)).json()["error"]["code"]
            assert {} == play.workers
            assert [] == list((play.state / "packages").iterdir())

    asyncio.run(main())


def test_nothing_is_answered_unrecorded(playground):
    """While the auditor does not acknowledge, a change waits; a new auditor gets the record again and it goes on."""

    async def main():
        async with playground() as play:
            await running(play)
            play.acknowledge = False
            task = asyncio.create_task(play.client.post("/v1/components/acme/echo/0/stop"))
            done, _ = await asyncio.wait({task}, timeout=0.3)
            assert set() == done
            assert 1 == len(play.workers)
            play.acknowledge = True
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            play.play_auditor(ours)
            play.tell(sup.AuditChannel(), (theirs.fileno(),))
            theirs.close()
            answer = await asyncio.wait_for(task, 5)
            assert "stopped" == answer.json()["state"]
            assert 1 == len(play.events("component.stop"))
            asyncio.get_running_loop().remove_reader(ours.fileno())
            ours.close()

    asyncio.run(main())
