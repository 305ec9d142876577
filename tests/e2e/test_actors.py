"""airssys:messaging on a real host, with real guests, on both paths across the wasm boundary.

acme/callback (examples/actors) does in C what test/actor-python and test/actor-qjs do in their languages; each test
asks one of them to do something, and looks at what came of it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import probes
import pytest
from live_host import CHECKOUT, GUESTS, Host, temporary_host, wait_until

pytestmark = pytest.mark.block5_messaging

ACTORS, RING, CHAT = (CHECKOUT / "examples" / name for name in ("actors", "ring/node", "chat/member"))
CONFIGURATION = """
[workers]
override = [{ component = "acme/callback/general", path = "general" }, { component = "acme/chat/g", path = "general" }]

[[group]]
component = "acme/echo"
routing = "sticky"

[[target]]
component = "acme/fragile"
retry = { attempts = 2, backoff = ["10ms", "20ms"] }
breaker = { failures = 2, open-for = "30s", successes = 1 }
"""
PATHS = ("fast", "general")


@pytest.fixture(scope="module")
def net(able: None, key: Path) -> Iterator[Host]:
    """A host with acme/callback on either path and acme/echo, acme/counter beside it."""
    with temporary_host(key, CONFIGURATION) as host:
        host.up()
        host.trust("acme/*", "test/*")
        callback = host.package(ACTORS / "callback")
        for path in PATHS:
            probes.install(host, callback, instance=path)
        anybody = host.package(ACTORS / "echo", edit=lambda text: text.replace('"acme/*"', '"*"'))
        probes.install(host, anybody)
        anybody = host.package(ACTORS / "counter", edit=lambda text: text.replace('"acme/*"', '"*"'))
        probes.install(host, anybody)
        yield host


def renamed(name: str) -> Callable[[str], str]:
    """The manifest under another name."""
    return lambda text: text.replace('name = "acme/callback"', f'name = "{name}"')


def installed(host: Host, name: str, edit: Callable[[str], str] | None = None) -> str:
    """acme/callback once more, under another name and perhaps with another manifest."""
    change = renamed(name)
    package = host.package(
        ACTORS / "callback", name=name.replace("/", "-"), edit=lambda text: (edit or str)(change(text))
    )
    probes.install(host, package)
    return f"{name}/0"


def last_of(host: Host, name: str, starts: str) -> str:
    """What came of the last request, once it begins so."""
    return str(wait_until(f"a callback of {name}", lambda: (t := host.ask(name, "last")).startswith(starts) and t))


def forget_last(host: Host, name: str) -> None:
    host.ask(name, f"ask acme/echo/0 forgotten-{name}")
    last_of(host, name, f"reply forgotten-{name}")


@pytest.fixture(params=PATHS)
def me(net: Host, request: pytest.FixtureRequest) -> str:
    """acme/callback on one of the paths, which has asked nothing yet that is of interest."""
    name = f"acme/callback/{request.param}"
    forget_last(net, name)
    return name


# -- requests and their outcomes -----------------------------------------------------------------------------------


def test_both_paths_are_what_they_say(net: Host) -> None:
    """The one is fast in all it can be, the other in nothing: what the tests below hold is held of both."""
    fast, general = (json.loads(net.cli("info", f"acme/callback/{p}", "--output", "json").stdout) for p in PATHS)
    assert ["handle-message", "handle-callback", "handle-topic"] == fast["crossing"]["exports"]
    assert "request" in fast["crossing"]["imports"]["airssys:messaging/messaging@0.1.0"]
    assert [] == general["crossing"]["exports"]


def test_a_reply_and_an_error(net: Host, me: str) -> None:
    """The answer of another component; and when its handler refuses, `guest-error` with what it said."""
    assert 32 == len(net.ask(me, "ask acme/echo/0 hello there"))
    assert "reply hello there" == last_of(net, me, "reply hello")
    net.ask(me, "ask acme/counter/0 nonsense")
    assert "expected: add, or again" in last_of(net, me, "failed guest-error")


def test_what_is_refused_at_once(net: Host, me: str) -> None:
    """Each refusal is its own word: nobody there, no right."""
    assert "failed: target-not-found" == net.ask(me, "ask acme/nobody/0 x")
    assert "failed: target-not-found" == net.ask(me, "ask acme/nobody/* x")
    assert "failed: denied" == net.ask(me, "ask other/nobody/0 x")
    denied = [r for r in net.audit(me) if r["event"] == "messaging.request" and r["decision"] == "denied"]
    assert "other/nobody/0" == denied[-1]["object"]


def test_a_reply_that_comes_later(net: Host, me: str) -> None:
    """The one who deferred answers in a later call; until then the requester has nothing."""
    other = "acme/callback/general" if me.endswith("fast") else "acme/callback/fast"
    net.ask(me, f"ask {other} later")
    assert "reply forgotten" in net.ask(me, "last")
    assert "ok" == net.ask(other, "give the answer at last")
    assert "reply the answer at last" == last_of(net, me, "reply the answer")
    assert "nobody waits" in net.fail(other, "give again").message


def test_timeout_and_late_reply(net: Host, me: str) -> None:
    """Nobody answers in the two seconds the guest waits: `timeout`; what is given then is `invalid`."""
    other = "acme/callback/general" if me.endswith("fast") else "acme/callback/fast"
    net.ask(me, f"ask {other} later")
    assert last_of(net, me, "failed timeout")
    assert "failed: invalid" == net.ask(other, "give too late")


def test_the_end_of_the_target(net: Host, me: str) -> None:
    """A worker that is killed with a reply still to give: `target-ended`."""
    victim = f"acme/victim-{me.rsplit('/', 1)[1]}"
    installed(net, victim)
    net.ask(me, f"ask {victim}/0 later")
    os.kill(net.component(f"{victim}/0")["pid"], signal.SIGKILL)
    assert last_of(net, me, "failed target-ended")


def test_queue_full_and_expired_mail(net: Host, me: str) -> None:
    """While a component is busy, a mailbox of one message takes one; the next is `queue-full`, and the one that waits
    is `expired` when its time is over."""
    name = f"acme/tiny-{me.rsplit('/', 1)[1]}"
    probes.install(net, net.package(GUESTS / "probe", name=name.replace("/", "-"), edit=tiny(name)))
    asked = [net.ask(me, f"ask {name}/0 sleep 1500")]
    wait_until("it is in hand", lambda: net.component(f"{name}/0")["delivered"] == 1)
    asked += [net.ask(me, f"ask {name}/0 echo x") for _ in range(2)]
    assert [32, 32] == [len(answer) for answer in asked[:2]]
    assert "failed: queue-full" == asked[2]
    assert last_of(net, me, "failed expired")


def tiny(name: str) -> Callable[[str], str]:
    """The probe's manifest with a mailbox of one message, which may wait for 300 ms."""

    def edit(text: str) -> str:
        head = text.partition("[capabilities]")[0].replace('name = "test/probe"', f'name = "{name}"')
        head = head.replace("mailbox = 50", "mailbox = 1")
        messaging = '[capabilities]\nmessaging = [{ from = "acme/*" }, { from = "host/client/*" }]\n'
        return head + '\n[messaging]\nttl = "300ms"\n\n' + messaging

    return edit


def test_circuit_breaker(net: Host, me: str) -> None:
    """After two failed requests in a row the third is refused at once; the guest has one answer to each."""
    if not any(c["id"] == "acme/fragile/0" for c in net.status()["components"]):
        installed(net, "acme/fragile")
        for _ in range(2):
            net.ask(me, "ask acme/fragile/0 nonsense")
            assert last_of(net, me, "failed guest-error")
            forget_last(net, me)
    assert "failed: circuit-open" == net.ask(me, "ask acme/fragile/0 nonsense")


# -- topics ----------------------------------------------------------------------------------------------------------


def test_topics(net: Host, me: str) -> None:
    """By the manifest and at run time; the publisher hears how many there are, and gets its own."""
    other = "acme/callback/general" if me.endswith("fast") else "acme/callback/fast"
    assert int(net.ask(me, "say news.listed to all")) >= 2
    for each in (me, other):
        wait_until("it is heard", lambda each=each: net.ask(each, "heard") == "news.listed callback to all")
    mine = f"news.{me.rsplit('/', 1)[1]}"
    assert "0" == net.ask(other, f"say {mine}.deep nobody")
    assert "ok" == net.ask(me, f"follow {mine}.>")
    assert "1" == net.ask(other, f"say {mine}.deep.down somebody")
    wait_until("it is heard", lambda: net.ask(me, "heard") == f"{mine}.deep.down callback somebody")
    assert "failed: denied" == net.ask(me, "follow other.>")
    assert "failed: denied" == net.ask(me, "say other.x y")
    assert "failed: invalid" == net.ask(me, "say news..x y")
    assert "failed: invalid" == net.ask(me, "follow news.>.x")


def test_subscriptions_outlive_the_worker(net: Host, me: str) -> None:
    """A worker that is killed leaves what it subscribed to; its successor hears of it."""
    topic = f"news.again-{me.rsplit('/', 1)[1]}"
    assert "ok" == net.ask(me, f"follow {topic}")
    kill(net, me)
    assert "1" == net.ask(me, f"say {topic} still here")
    wait_until("it is heard", lambda: net.ask(me, "heard") == f"{topic} callback still here")


def kill(host: Host, name: str) -> None:
    """Kill the worker; returns when there is another."""
    old = host.component(name)["pid"]
    os.kill(old, signal.SIGKILL)
    wait_until(f"a new worker of {name}", lambda: host.component(name)["pid"] not in (old, None))
    wait_until(f"{name} to be running", lambda: host.component(name)["state"] == "running")


# -- timers ----------------------------------------------------------------------------------------------------------


def test_timers_outlive_the_worker(net: Host, me: str) -> None:
    """A message to itself comes, also to the worker that came after the one that set it."""
    assert "ok" == net.ask(me, "remind 20 soon")
    wait_until("it comes", lambda: net.ask(me, "reminded") == "soon")
    assert "ok" == net.ask(me, "remind 700 later on")
    kill(net, me)
    assert "" == net.ask(me, "reminded")
    wait_until("it comes", lambda: net.ask(me, "reminded") == "later on")


# -- counting, groups ------------------------------------------------------------------------------------------------


def test_counter_at_least_once(net: Host) -> None:
    """The count outlives the worker; nobody's message is lost or counted for two."""
    before = int(net.ask("acme/counter/0", "add"))
    kill(net, "acme/counter/0")
    assert before + 1 == int(net.ask("acme/counter/0", "add"))
    assert "0" == net.ask("acme/counter/0", "again")


def test_a_group(net: Host, me: str) -> None:
    """`acme/echo/*` is one of its replicas."""
    if not any(c["id"] == "acme/echo/two" for c in net.status()["components"]):
        probes.install(net, net.out / "echo", instance="two")
    net.ask(me, "ask acme/echo/* to one of you")
    assert "reply to one of you" == last_of(net, me, "reply to one")


def test_a_group_routes_past_who_is_not_ready(net: Host) -> None:
    """A replica that calls itself unhealthy gets nothing until it is well again; its sibling answers for both."""
    package = probes.pack(net, "pair", {"filesystem": "[]", "health-interval": '"100ms"\nhealth-threshold = 100'})
    for instance in ("a", "b"):
        probes.install(net, package, instance=instance)

    def who() -> set[str]:
        return {net.ask("test/pair/*", "self") for _ in range(6)}

    assert {"test/pair/a", "test/pair/b"} == who()
    net.ask("test/pair/a", "set on-health unhealthy")
    wait_until("it is told", lambda: net.component("test/pair/a")["health"] == "unhealthy")
    assert {"test/pair/b"} == who()
    net.ask("test/pair/a", "del on-health")
    wait_until("it is told", lambda: net.component("test/pair/a")["health"] == "healthy")
    assert {"test/pair/a", "test/pair/b"} == who()


# -- the other examples ----------------------------------------------------------------------------------------------


def ring(host: Host, size: int, laps: int) -> None:
    """Send the token round; every member has handed it on once for each lap, and it ends where it began."""
    package = host.package(RING, name=f"ring-{size}")
    for number in range(size):
        probes.install(host, package, instance=str(number))
    assert "on its way" == host.ask("acme/ring/0", f"go {size} {laps}")
    wait_until("the token", lambda: json.loads(host.ask("acme/ring/0", "report"))["back"] == 1, seconds=120)
    for number in range(size):
        assert laps == json.loads(host.ask(f"acme/ring/{number}", "report"))["passed"]


def test_a_ring(net: Host) -> None:
    """A ring of five passes a token on for ten laps."""
    ring(net, 5, 10)


@pytest.mark.long
def test_a_ring_of_a_hundred(host: Host) -> None:
    """A hundred actors, each a caged process, pass a token on for ten laps."""
    host.trust("acme/*")
    ring(host, 100, 10)


def test_a_chat(net: Host) -> None:
    """Rooms are topics: who is in a room hears what is said there, who left does not, and everybody hears the lobby."""
    package = net.package(CHAT)
    members = [f"acme/chat/{name}" for name in ("ann", "bob", "g")]
    for member in members:
        probes.install(net, package, instance=member.rsplit("/", 1)[1])
    ann, bob, gil = members
    assert "3" == net.ask(ann, "say lobby hello everybody")
    for member in (ann, gil):
        assert "ok" == net.ask(member, "join garden")
    assert "2" == net.ask(gil, "say garden psst")
    read = functools.partial(wait_until, "what was said")
    assert "lobby ann: hello everybody\n" == read(lambda: net.ask(bob, "read"))
    text = ""

    def all_of_it() -> bool:
        nonlocal text
        text += net.ask(ann, "read")
        return text.count("\n") == 2

    wait_until("what was said", all_of_it)
    assert "lobby ann: hello everybody\ngarden g: psst\n" == text
    assert "ok" == net.ask(ann, "leave garden")
    assert "1" == net.ask(gil, "say garden gone?")
    assert "" == net.ask(ann, "read")
    assert "denied" in net.fail(bob, "join a.b").message


# -- other languages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["actor-python", "actor-qjs"])
def test_other_languages(net: Host, name: str) -> None:
    """Python and JavaScript do the same: ask, defer, publish, follow, remind, and hear why a request failed."""
    spec = importlib.util.spec_from_file_location("guests_heavy", GUESTS / "heavy.py")
    assert spec is not None
    assert spec.loader is not None
    heavy = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = heavy
    spec.loader.exec_module(heavy)
    try:
        component = heavy.built(name)
    except heavy.ToolchainMissing as missing:
        pytest.skip(f"{name} is not built and cannot be: {missing}")
    source = net.out / f"{name}-source"
    source.mkdir()
    shutil.copy(component, source / "component.wasm")
    shutil.copy(GUESTS / name / "component.toml", source)
    probes.install(net, net.package(source, name=name))
    me = f"test/{name}/0"
    assert "failed: target-not-found" == net.ask(me, "ask test/nobody/0 x")
    assert "ok" == net.ask(me, f"follow news.{name}")
    assert "1" == net.ask(me, f"say news.{name} to myself")
    wait_until("it is heard", lambda: net.ask(me, "heard") == f"news.{name} {name} to myself")
    assert "failed: denied" == net.ask(me, "say other.x y")
    assert "ok" == net.ask(me, "remind 10 soon")
    wait_until("it comes", lambda: net.ask(me, "reminded") == "soon")
    assert "failed: invalid" == net.ask(me, "follow news.>.x")
    with ThreadPoolExecutor() as pool:
        before = net.component(me)["delivered"]
        waiting = pool.submit(net.ask, me, "later")
        wait_until("it is deferred", lambda: net.component(me)["delivered"] > before)
        assert "ok" == net.ask(me, "give it now")
        assert "it now" == waiting.result()
    for asked, starts in (("echo/0 hello", "reply hello"), ("counter/0 nonsense", "failed guest-error")):
        assert 32 == len(net.ask(me, f"ask acme/{asked}"))
        assert last_of(net, me, starts)
