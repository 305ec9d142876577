"""Supervision trees in a running control: strategies, escalation, quarantine, release, orders, health, our own bugs."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sandbox.types import ComponentId
from sandbox.wire import router_frames as bus
from sandbox.wire import supervisor_frames as sup
from supervisor.control.instance import Instance
from supervisor.control.starter import MAX_STARTS
from supervisor.control.supervision import Tree

pytestmark = pytest.mark.block3_actors


def declared(strategy: str = "one-for-all", *, children: str = '"acme/a", "acme/b", "acme/c"', more: str = "") -> str:
    return f'[[supervisor]]\nname = "group"\nstrategy = "{strategy}"\nchildren = [{children}]\n{more}\n'


async def install(play, *names, **changes):
    if not play.events("package.install"):
        play.trust()
    for name in names:
        answer = await play.install(play.package(f"acme/{name}", **changes))
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "running", answer.text


def living(play) -> dict[str, int]:
    return {f"{c.name}/{c.instance}": number for number, c in play.workers.items()}


def stops(play) -> list[str]:
    return [frame.component.name for frame in play.asked(bus.Stop)]


async def all_running(play, *names):
    for name in names:
        await play.until_state("running", f"acme/{name}/0")


@pytest.mark.parametrize(
    ("strategy", "stopped", "started"),
    [
        ("one-for-one", [], ["b"]),
        ("one-for-all", ["c", "a"], ["a", "b", "c"]),
        ("rest-for-one", ["c"], ["b", "c"]),
    ],
)
def test_strategies(playground, strategy, stopped, started):
    """The end of one restarts those its supervisor's strategy names: stopped backwards, started in order."""

    async def main():
        async with playground(declared(strategy)) as play:
            await install(play, "a", "b", "c", "outside")
            before, starts = living(play), len(play.order)
            play.end_of("b", "trap", "unreachable")
            await play.until(lambda: len(play.order) == starts + len(started))
            await all_running(play, "a", "b", "c")
            assert stopped == stops(play)
            assert started == [component.name for component in play.order[starts:]]
            after = living(play)
            assert {"outside/0"} | {f"{n}/0" for n in {"a", "b", "c"} - set(started)} == {
                name for name in before if before[name] == after[name]
            }
            for name in ("a", "b", "c"):
                expected = 1 if name in started else 0
                assert expected == (await play.state_of(f"acme/{name}/0"))["restarts"]

    asyncio.run(main())


def test_a_done_transient_ends_nobody(playground):
    """A normal end of a transient child restarts nothing; the next abnormal end brings it back with its siblings."""

    async def main():
        async with playground(declared()) as play:
            await install(play, "a", "b", restart="transient")
            await install(play, "c")
            play.end_of("a", "exited")
            await play.until_state("stopped", "acme/a/0")
            assert {"b/0", "c/0"} == set(living(play))
            play.end_of("c", "trap")
            await all_running(play, "a", "b", "c")
            assert ["a", "b", "c"] == [component.name for component in play.order[3:]]

    asyncio.run(main())


def test_a_second_end_meanwhile_is_no_news(playground):
    """Children that end while their group is being restarted are counted once; the group comes up once."""

    async def main():
        async with playground(declared(more="max-restarts = 1")) as play:
            await install(play, "a", "b", "c")
            play.end_all("killed", "all at once")
            await play.until(lambda: len(play.order) == 6)
            await all_running(play, "a", "b", "c")
            assert 6 == len(play.order)
            assert [] == play.events("supervisor.gave-up")

    asyncio.run(main())


NESTED = (
    declared("rest-for-one", children='"acme/a", "inner", "acme/d"', more="max-restarts = 1")
    + '[[supervisor]]\nname = "inner"\nstrategy = "one-for-one"\nchildren = ["acme/b", "acme/c"]\nmax-restarts = 1\n'
)


def test_escalation_quarantine_release(playground):
    """A supervisor that restarted too often ends its subtree backwards and its parent restarts it; when that is too
    often the whole is quarantined with its cause, over control's death, and release starts it in order."""

    async def main():
        async with playground(NESTED) as play:
            await install(play, "a", "b", "c", "d", "outside")
            play.end_of("b", "trap", "first")
            await play.until(lambda: len(play.order) == 6)
            await play.until_state("running", "acme/b/0")
            play.end_of("b", "trap", "second")
            await play.until(lambda: len(play.order) == 9)
            await all_running(play, "b", "c", "d")
            assert ["c", "d"] == stops(play), "inner ends its own first, then the parent what came after it"
            assert ["b", "c", "d"] == [component.name for component in play.order[6:]]
            assert ["inner"] == [record.object for record in play.events("supervisor.gave-up")]
            play.end_of("b", "trap", "third")
            await play.until(lambda: len(play.order) == 10)
            await play.until_state("running", "acme/b/0")
            play.end_of("b", "fuel", "fourth")
            for name in "abcd":
                status = await play.until_state("quarantined", f"acme/{name}/0")
                assert "supervisor group gave up: acme/b/0 ended: fuel: fourth" == status["quarantine"]
            assert ["c", "d", "a"] == stops(play)[2:]
            assert {"outside/0"} == set(living(play))
            await play.until(lambda: play.events("supervisor.quarantined"))
            await play.stop_control()
            play.control_restarts = 1
            await play.start_control()
            await play.until_state("quarantined", "acme/d/0")
            assert 10 == len(play.order)
            tree = {node["name"]: node for node in (await play.client.get("/v1/status")).json()["supervisors"]}
            assert "quarantined" == tree["group"]["state"] == tree["inner"]["state"]
            answer = await play.client.post("/v1/supervisors/group/release")
            assert 200 == answer.status_code, answer.text
            assert "running" == answer.json()["state"]
            assert ["a", "b", "c", "d"] == [component.name for component in play.order[10:]]
            assert "" == (await play.state_of("acme/a/0"))["quarantine"]
            again = await play.client.post("/v1/supervisors/group/release")
            assert [409, "E_CONFLICT"] == [again.status_code, again.json()["error"]["code"]]
            assert 404 == (await play.client.post("/v1/supervisors/nobody/release")).status_code

    asyncio.run(main())


def test_release_of_one(playground):
    """release starts a quarantined component and nothing that is not quarantined."""

    async def main():
        async with playground() as play:
            await install(play, "a", max_restarts=0)
            answer = await play.client.post("/v1/components/acme/a/0/release")
            assert [409, "E_CONFLICT"] == [answer.status_code, answer.json()["error"]["code"]]
            play.end_of("a", "trap")
            await play.until_state("quarantined", "acme/a/0")
            answer = await play.client.post("/v1/components/acme/a/0/release")
            assert "running" == answer.json()["state"]
            assert 1 == len(play.events("component.release"))

    asyncio.run(main())


def test_release_of_one_below_a_supervisor(playground):
    """One that is released alone runs alone; its next end restarts nobody that is still quarantined."""

    async def main():
        async with playground(declared(more="max-restarts = 0")) as play:
            await install(play, "a", "b", "c")
            play.end_of("b", "trap")
            for name in "abc":
                await play.until_state("quarantined", f"acme/{name}/0")
            assert 200 == (await play.client.post("/v1/components/acme/a/0/release")).status_code
            assert {"a/0"} == set(living(play))
            play.end_of("a", "trap")
            await play.until_state("quarantined", "acme/a/0")
            assert {} == living(play)
            await play.stop_control()
            play.declare(declared(more="max-restarts = 3").replace("group", "other"))
            play.config = msgspec.structs.replace(play.config, supervisors=play.config.supervisors[-1:])
            await play.start_control()
            assert 200 == (await play.client.post("/v1/components/acme/a/0/release")).status_code
            play.end_of("a", "trap")
            await play.until(lambda: len(play.order) == 6)
            await play.until_state("running", "acme/a/0")
            assert {"a/0"} == set(living(play))

    asyncio.run(main())


def test_ordered_start_and_stop(playground):
    """At the host's start children start in declared order, each when the one before is ready or given up, nested
    supervisors in place; at its end they stop in reverse."""

    async def main():
        text = NESTED.replace('"acme/a", "inner"', '"acme/d", "inner"').replace('"acme/d"]', '"acme/a"]')
        async with playground(text) as play:
            await install(play, "a", "b", "c", "d")
            await play.client.post("/v1/host/down")
            await play.until(lambda: play.asked(sup.Drained))
            assert ["a", "c", "b", "d"] == stops(play)
            await play.stop_control()
            play.unready = {"b"}
            await play.start_control()
            await play.until(lambda: len(play.order) == 6)
            await asyncio.sleep(0.05)
            assert ["d", "b"] == [component.name for component in play.order[4:]], "c waits for b"
            assert "starting" == (await play.state_of("acme/c/0"))["state"]
            play.unready = set()
            play.event("ready", living(play)["b/0"])
            await all_running(play, "a", "b", "c", "d")
            assert ["d", "b", "c", "a"] == [component.name for component in play.order[4:]]

    asyncio.run(main())


def test_a_given_up_child_holds_nobody(playground):
    """A child that may not be started has failed for good, and the next starts all the same."""

    async def main():
        async with playground(declared()) as play:
            await install(play, "a")
            await install(play, "b", extra=b"\0\2\1x")
            await install(play, "c")
            digest = (await play.state_of("acme/b/0"))["digest"]
            answer = await play.client.post("/v1/trust/revoke", json={"digest": digest})
            assert ["acme/b/0"] == answer.json()["stopped"]
            assert {"a/0", "c/0"} == set(living(play)), "its siblings are left alone"
            await play.stop_control()
            play.workers.clear()
            await play.start_control()
            await all_running(play, "a", "c")
            assert "failed" == (await play.state_of("acme/b/0"))["state"]
            play.end_of("a", "trap")
            await play.until(lambda: len(play.order) == 7)
            await all_running(play, "a", "c")
            assert "failed" == (await play.state_of("acme/b/0"))["state"]

    asyncio.run(main())


REPLICAS = '[[supervisor]]\nname = "pool"\nstrategy = "simple-one-for-one"\ntemplate = "acme/w"\nreplicas = {}\n'


def test_replicas(playground):
    """Installing instance 0 makes the others, with its bindings, env and args; they restart one by one; an update
    reaches all; fewer remove the rest at the next start; instance 0 takes them along."""

    async def main():
        async with playground(REPLICAS.format(3)) as play:
            play.trust()
            answer = await play.install(play.package("acme/w"), env={"A": "b"}, args=["x"])
            assert "running" == answer.json()["state"]
            await play.until(lambda: {"w/0", "w/1", "w/2"} == set(living(play)))
            info = (await play.client.get("/v1/components/acme/w/2")).json()
            assert [{"A": "b"}, ["x"]] == [info["env"], info["args"]]
            play.end_of("w/1", "trap")
            await play.until(lambda: len(play.order) == 4)
            await play.until_state("running", "acme/w/1")
            assert [] == stops(play)
            answer = await play.client.delete("/v1/components/acme/w/2")
            assert [409, "E_CONFLICT"] == [answer.status_code, answer.json()["error"]["code"]]
            await play.install(play.package("acme/w", release=2), env={"A": "c"})
            for index in range(3):
                assert 2 == (await play.until_state("running", f"acme/w/{index}"))["release"]
            await play.stop_control()
            play.declare(REPLICAS.format(2))
            await play.start_control()
            await play.until(lambda: {"w/0", "w/1"} == set(living(play)))
            assert 404 == (await play.client.get("/v1/components/acme/w/2")).status_code
            assert 200 == (await play.client.delete("/v1/components/acme/w/0")).status_code
            assert {} == play.workers
            assert [] == (await play.client.get("/v1/components")).json()["components"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("shutdown", "asked", "least", "most"),
    [("immediate", 0, 0.0, 0.5), ("200ms", 1, 0.2, 1.5), ("graceful", 1, 2.6, 4)],
)
def test_shutdown_kinds(playground, shutdown, asked, least, most):
    """A worker that does not stop is killed: at once, after its own time, or after what its deadlines allow."""

    async def main():
        async with playground() as play:
            await install(play, "a", shutdown=shutdown)
            play.obedient = False
            before = asyncio.get_running_loop().time()
            answer = await play.client.post("/v1/components/acme/a/0/stop")
            took = asyncio.get_running_loop().time() - before
            assert ["stopped", "killed"] == [answer.json()["state"], answer.json()["outcome"]]
            assert asked == len(play.asked(bus.Stop))
            assert least <= took <= most
            assert 1 == len(play.asked(sup.KillWorker))
            if shutdown == "200ms":
                assert [200] == [frame.timeout_ms for frame in play.asked(bus.Stop)]

    asyncio.run(main())


def test_health_threshold(playground):
    """Only threshold answers "unhealthy" in a row end a worker; another answer between starts the row anew."""

    async def main():
        async with playground() as play:
            await install(play, "a", threshold=3, health="100ms")
            (route,) = play.routes.values()
            assert (100, 5_000) == (route.health_interval_ms, route.health_timeout_ms)
            (number,) = play.workers
            for answer in ("unhealthy", "unhealthy", "degraded", "unhealthy", "unhealthy"):
                play.event("health", number, answer)
            status = await play.state_of("acme/a/0")
            async with asyncio.timeout(5):
                while (status := await play.state_of("acme/a/0"))["health"] != "unhealthy":
                    await asyncio.sleep(0.005)
            assert ["running", False] == [status["state"], status["ready"]]
            assert [] == play.asked(sup.KillWorker)
            play.event("health", number, "unhealthy")
            await play.until(lambda: len(play.order) == 2)
            status = await play.until_state("running", "acme/a/0")
            assert ["killed", "it called itself unhealthy 3 times in a row", 1] == [
                status[key] for key in ("outcome", "detail", "restarts")
            ]

    asyncio.run(main())


@pytest.mark.parametrize("where", ["ended", "started", "launch"])
def test_a_bug_of_ours_orphans_nobody(playground, monkeypatch, where):
    """An error inside supervision is recorded, and the component it was about is supervised on."""

    async def main():
        async with playground(declared()) as play:
            await install(play, "a", "b", "c")
            bugs = 2

            def broken(*args, **more):
                nonlocal bugs
                if bugs:
                    bugs -= 1
                    raise RuntimeError("a bug")
                return good(*args, **more)

            if where == "launch":
                from supervisor.control.runner import Runner as owner
            else:
                owner = Tree
            good = getattr(owner, where)
            monkeypatch.setattr(owner, where, broken)
            play.end_of("b", "trap")
            if where != "started":
                await play.until(lambda: play.events("supervision.fault"))
                assert "a bug" in str(play.events("supervision.fault")[0].detail)
            await play.until(lambda: {"a/0", "b/0", "c/0"} == set(living(play)))
            await all_running(play, "a", "b", "c")
            play.end_of("a", "trap")
            await all_running(play, "a", "b", "c")

    asyncio.run(main())


def test_a_bug_in_an_event_keeps_no_other_away(playground, monkeypatch):
    """An error over one event of supervisor or router is recorded; the next event is heard."""

    async def main():
        async with playground() as play:
            await install(play, "a")
            from supervisor.control.lifecycle import Lifecycle

            good = Lifecycle._router_event
            calls = []

            def broken(self, event):
                calls.append(event)
                if len(calls) == 1:
                    raise RuntimeError("a bug")
                good(self, event)

            monkeypatch.setattr(Lifecycle, "_router_event", broken)
            (number,) = play.workers
            play.event("health", number, "degraded")
            await play.until(lambda: play.events("supervision.fault"))
            play.event("health", number, "degraded")
            async with asyncio.timeout(5):
                while (await play.state_of("acme/a/0"))["health"] != "degraded":
                    await asyncio.sleep(0.005)

    asyncio.run(main())


def test_a_storm_is_damped(playground):
    """Many components that crash at once are restarted at once, the first time, so many at a time; crashing on, each
    waits, and all are given up in time."""

    async def main():
        async with playground() as play:
            names = [f"n{index}" for index in range(MAX_STARTS + 4)]
            await install(play, *names, max_restarts=2)
            for round_ in range(1, 4):
                play.withheld = []
                play.end_all("trap", "storm")
                if round_ < 3:
                    await play.until(lambda: len(play.withheld) == MAX_STARTS)
                    await asyncio.sleep(0.05)
                    assert MAX_STARTS == len(play.withheld)
                    play.go_on()
                    await play.until(lambda round_=round_: len(play.order) == len(names) * (round_ + 1), 30)
                    await all_running(play, *names)
            for name in names:
                await play.until_state("quarantined", f"acme/{name}/0")
            assert [] == play.withheld
            assert 3 * len(names) == len(play.order)

    asyncio.run(main())


def test_control_comes_back_to_its_tree(playground):
    """A new control takes over a group that lives without starting anything; of a group that lost a child meanwhile it
    restarts what the strategy names; what rested stays at rest."""

    async def main():
        async with playground(declared()) as play:
            await install(play, "a", "b", "c")
            await install(play, "done", restart="transient")
            await install(play, "once", restart="temporary")
            play.end_of("done", "exited")
            play.end_of("once", "trap")
            await play.until_state("stopped", "acme/done/0")
            await play.until_state("stopped", "acme/once/0")
            before = living(play)
            await play.stop_control()
            await play.start_control()
            await all_running(play, "a", "b", "c")
            assert before == living(play)
            assert 5 == len(play.order)
            await play.stop_control()
            del play.workers[before["b/0"]]  # died, and nobody was told
            await play.start_control()
            await play.until(lambda: len(play.order) == 8)
            await all_running(play, "a", "b", "c")
            assert ["c", "a"] == stops(play)
            assert ["a", "b", "c"] == [component.name for component in play.order[5:]]
            assert "stopped" == (await play.state_of("acme/done/0"))["state"]
            assert "stopped" == (await play.state_of("acme/once/0"))["state"]
            await play.stop_control()
            play.workers.clear()
            await play.start_control()  # as after down and up
            await all_running(play, "a", "b", "c", "done", "once")

    asyncio.run(main())


def test_host_faults_do_not_count_in_groups(playground):
    """Ends that a router's restart caused leave room in a supervisor's window, and lift the quarantine they brought."""

    async def main():
        async with playground(declared(more="max-restarts = 1")) as play:
            await install(play, "a", "b", "c")
            for round_ in range(2):
                play.end_all("killed", "the router ended")
                starts = 3 * (round_ + 2)
                await play.until(lambda starts=starts: len(play.order) == starts)
                await all_running(play, "a", "b", "c")
                routes = len(play.asked(bus.Route))
                play.tell(sup.ProcessRestarted("router"))
                await play.until(lambda routes=routes: len(play.asked(bus.Route)) >= routes + 3)
            play.end_of("a", "trap")
            await play.until(lambda: len(play.order) == 12)
            await all_running(play, "a", "b", "c")
            play.end_of("a", "killed", "the bridge ended")
            await play.until_state("quarantined", "acme/b/0")
            await play.until_state("quarantined", "acme/a/0")
            play.tell(sup.ProcessRestarted("bridge"))
            await all_running(play, "a", "b", "c")

    asyncio.run(main())


def test_a_new_process_while_components_go(playground):
    """An uninstall while a new bridge is told its policies keeps no other's policy from it, and leaves no quarantine
    that the old bridge brought."""

    async def main():
        async with playground() as play:
            await install(play, *"abcd", max_restarts=0)
            play.end_of("b", "killed", "the bridge ended")
            await play.until_state("quarantined", "acme/b/0")
            before, answer, held = len(play.asked(sup.SetPolicy)), play._answer, []
            play._answer = lambda frame, fds: (
                held.append(frame) if isinstance(frame, sup.SetPolicy) else answer(frame, fds)
            )
            play.tell(sup.ProcessRestarted("bridge"))
            await play.until(lambda: held)
            assert 200 == (await play.client.delete("/v1/components/acme/d/0")).status_code
            play._answer = answer
            for frame in held:
                play.tell(sup.Done(frame.n))
            await all_running(play, "a", "b", "c")
            told = {frame.component.name for frame in play.asked(sup.SetPolicy)[before:]}
            assert {"a", "b", "c"} == told

    asyncio.run(main())


def test_one_failure_keeps_nothing_from_the_others(playground, monkeypatch):
    """An error of our own while a new router is told of one component keeps the others from it not."""

    async def main():
        async with playground() as play:
            await install(play, *"abc")
            before, route = len(play.asked(bus.Route)), Instance.route

            def failing(instance):
                if instance.component.name == "a":
                    raise RuntimeError("of ours")
                return route(instance)

            monkeypatch.setattr(Instance, "route", failing)
            play.tell(sup.ProcessRestarted("router"))
            await play.until(lambda: len(play.asked(bus.Route)) >= before + 2)
            await play.until(lambda: play.events("supervision.fault"))
            assert ["b", "c"] == [frame.component.name for frame in play.asked(bus.Route)[before:]]

    asyncio.run(main())


def test_routes_do_not_wait_for_a_group_that_is_given_up(playground):
    """A new router hears of everybody at once, though a group is still being stopped for good."""

    async def main():
        async with playground(declared(more="max-restarts = 0")) as play:
            await install(play, "a", "b", "c")
            await install(play, "other", shutdown="5s")
            play.obedient = False  # the siblings take their time to shut down
            play.end_of("a", "trap")
            await play.until_state("stopping", "acme/c/0")
            before = len(play.asked(bus.Route))
            play.tell(sup.ProcessRestarted("router"))
            await play.until(lambda: len(play.asked(bus.Route)) >= before + 4)
            assert "stopping" == (await play.state_of("acme/c/0"))["state"]
            play.obedient = True
            play.end_all("exited")

    asyncio.run(main())


@pytest.mark.parametrize(("restart", "outcome"), [("temporary", "killed"), ("transient", "exited")])
def test_who_is_done_takes_no_mail(playground, restart, outcome):
    """The router forgets who has ended for good, also under a control that comes back and a router that is new; a start
    routes it again."""

    async def main():
        async with playground() as play:
            await install(play, "a", restart=restart)
            await install(play, "b")
            play.end_of("a", outcome)
            await play.until_state("stopped", "acme/a/0")
            await play.until(lambda: list(play.routes) == [ComponentId("acme", "b")])
            assert "has ended and is not started again" == play.asked(bus.Unroute)[-1].why
            routes = len(play.asked(bus.Route))
            play.tell(sup.ProcessRestarted("router"))
            await play.until(lambda: len(play.asked(bus.Route)) > routes)
            await play.stop_control()
            play.control_restarts = 1
            await play.start_control()
            await play.until_state("running", "acme/b/0")
            assert {"b"} == {frame.component.name for frame in play.asked(bus.Route)[routes:]}
            await play.client.post("/v1/components/acme/a/0/start")
            await play.until_state("running", "acme/a/0")
            assert ComponentId("acme", "a") in play.routes

    asyncio.run(main())


def test_quarantine_keeps_the_mailbox(playground):
    """The router is told that a quarantined component rests, and is not told to forget it; a new router is told both; a
    release routes it again. Its cause names the outcome. What an operator stops is forgotten, as stopped."""

    async def main():
        async with playground() as play:
            await install(play, "a", max_restarts=0)
            play.end_of("a", "killed", "SIGKILL")
            assert "killed: SIGKILL" == (await play.until_state("quarantined", "acme/a/0"))["quarantine"]
            await play.until(lambda: play.asked(bus.Rest))
            assert [bus.Rest(ComponentId("acme", "a"), "is quarantined")] == play.asked(bus.Rest)
            assert [] == play.asked(bus.Unroute)
            await play.stop_control()
            play.control_restarts = 1
            await play.start_control()
            await play.until(lambda: 2 == len(play.asked(bus.Rest)))
            play.tell(sup.ProcessRestarted("router"))
            await play.until(lambda: 3 == len(play.asked(bus.Rest)))
            told = [type(frame) for frame in play.log if isinstance(frame, bus.Route | bus.Rest)]
            assert [bus.Route, bus.Rest] * 3 == told
            await play.client.post("/v1/components/acme/a/0/release")
            await play.until_state("running", "acme/a/0")
            assert 4 == len(play.asked(bus.Route))
            await play.client.post("/v1/components/acme/a/0/stop")
            assert ["was stopped"] == [frame.why for frame in play.asked(bus.Unroute)]

    asyncio.run(main())


def test_operators_between(playground):
    """What an operator stopped is not started with its siblings; what he starts meanwhile is."""

    async def main():
        async with playground(declared()) as play:
            await install(play, "a", "b", "c")
            await play.client.post("/v1/components/acme/c/0/stop")
            play.end_of("a", "trap")
            await play.until(lambda: len(play.order) == 5)
            await all_running(play, "a", "b")
            assert "stopped" == (await play.state_of("acme/c/0"))["state"]
            assert {"a/0", "b/0"} == set(living(play))
            await play.client.post("/v1/components/acme/c/0/start")
            play.end_of("b", "trap")
            await play.until(lambda: len(play.order) == 9)
            await all_running(play, "a", "b", "c")
            assert ComponentId("acme", "c") == play.order[-1]

    asyncio.run(main())
