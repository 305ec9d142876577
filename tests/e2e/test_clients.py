"""Programs outside and a real host: `airssys.client`, other users, a replaced router, and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import forked
import msgspec
import probes
import psutil
import pytest
from aiohttp import ClientSession, web
from airssys import codecs
from airssys.client import (
    Client,
    ConnectionLost,
    Expired,
    Failed,
    GuestError,
    NotAllowed,
    NotConnected,
    Refused,
    TargetNotFound,
)
from live_host import CHECKOUT, Host, wait_until

from sandbox.wire import zmtp
from supervisor.router.handshake import GREETING
from supervisor.users import user_name

pytestmark = pytest.mark.block10_sdk

OTHER = forked.ORDINARY + 1
"""A user who has a `[[client]]`."""
CONFIGURATION = f"""
[messaging]
record = ["test/recorded"]
[[client]]
user = {OTHER}
messaging = [
    {{ target = "test/alpha", access = ["request"] }},
    {{ topic = "news.*", access = ["subscribe"] }},
]
[[group]]
component = "test/many"
routing = "sticky"
"""


@pytest.fixture(scope="module")
def net(able: None, key: Any) -> Iterator[Host]:
    """A host with some components, and a client besides its owner."""
    from live_host import temporary_host

    with temporary_host(key, CONFIGURATION) as host:
        host.up()
        host.trust("test/*")
        probes.add(host, "alpha")
        probes.add(host, "recorded")
        probes.add(host, "many")
        probes.install(host, host.out / "many", instance="1")
        yield host


def socket_of(host: Host) -> str:
    return str(host.root / "run" / "clients" / "router.sock")


@pytest.fixture
def client(net: Host) -> Iterator[Client]:
    with Client(socket_of(net), api=str(net.root / "run" / "api.sock")) as client:
        yield client


def resident(pid: int) -> int:
    """Resident memory of a process, KiB."""
    return int(psutil.Process(pid).memory_info().rss) >> 10


def as_user(uid: int, action: Callable[[], Any]) -> Any:
    """What `action` returns when this user does it, in a child of its own."""

    def work() -> Any:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return action()

    return forked.returns(work)


def ends_with(action: Callable[[], Any]) -> str:
    """The name of the library's exception; "" when there is none."""
    try:
        action()
    except (Failed, NotConnected, ConnectionLost) as error:
        return type(error).__name__
    return ""


# -- the host's owner -------------------------------------------------------------------------------------------


def test_a_program_talks_to_components(net: Host, client: Client) -> None:
    """Requests, failures and the control API, as the host's owner, who may do everything."""
    assert f"host/client/{user_name(os.geteuid())}" == client.name
    assert "hello" == client.request("test/alpha", b"echo hello").text
    with pytest.raises(GuestError, match="on purpose"):
        client.request("test/alpha", b"fail on purpose")
    with pytest.raises(TargetNotFound):
        client.request("test/nobody", b"echo x")
    assert "test/alpha/0" in {component["id"] for component in client.status()["components"]}
    assert "test/alpha/0" == client.info("test/alpha")["status"]["id"]
    with pytest.raises(Refused, match="no such component"):
        client.info("test/nobody")


def test_it_finds_the_socket(net: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AIRSSYS_ROOT nothing else needs to be said."""
    monkeypatch.setenv("AIRSSYS_ROOT", str(net.root))
    with Client() as client:
        assert "x" == client.request("test/alpha", b"echo x").text


def test_a_group(net: Host, client: Client) -> None:
    """One key goes to one instance; the other takes over when it is stopped."""
    told = {client.request("test/many/*", b"echo x", key="customer-1").text for _ in range(5)}
    assert {"x"} == told
    busy = {name: net.component(f"test/many/{name}")["delivered"] for name in ("0", "1")}
    assert 5 in busy.values()
    first = next(name for name, count in busy.items() if count)
    net.cli("stop", f"test/many/{first}")
    assert "y" == client.request("test/many/*", b"echo y", key="customer-1").text
    net.cli("start", f"test/many/{first}")


def test_what_is_recorded(net: Host, client: Client) -> None:
    """Allowed messages to a component under `record` are in the audit log, one by one; others are not."""
    client.request("test/recorded", b"echo x")
    client.request("test/alpha", b"echo x")
    found = wait_until(
        "the record",
        lambda: [r for r in net.audit() if r["event"] == "messaging.request" and r["decision"] == "allowed"],
    )
    assert {"test/recorded/0"} == {record["object"] for record in found}


def test_priorities_and_time_to_live(net: Host, client: Client) -> None:
    """What is said of a message beside its payload arrives: its priority shows in its trace; too old, it raises."""
    reply = client.request("test/alpha", b"echo x", priority="high")
    steps = json.loads(net.cli("trace", str(reply.message), "--output", "json").stdout)["steps"]
    assert ("sent", "high") == (steps[0]["what"], steps[0]["text"])
    client.send("test/alpha", b"sleep 2500")
    with pytest.raises(Expired):
        client.request("test/alpha", b"echo old", ttl=0.02)
    assert "x" == client.request("test/alpha", b"echo x", timeout=20).text


def test_topics(net: Host, client: Client) -> None:
    """The command line publishes, a program subscribes."""
    with client.subscribe("news.>") as news:
        done = net.cli("publish", "news.eu", "--json", '{"n": 1}', "--output", "json")
        assert {"topic": "news.eu", "subscribers": 1} == json.loads(done.stdout)
        event = news.get(20)
        assert ("news.eu", {"n": 1}, "application/json") == (event.topic, event.json(), event.content_type)


def test_a_router_that_is_replaced(fresh: Host) -> None:
    """Who waits hears so at once and not a timeout; afterwards everything works again, subscriptions included."""
    fresh.up()
    fresh.trust("test/*")
    probes.add(fresh, "alpha")
    with Client(socket_of(fresh), connect_timeout=20) as client, client.subscribe("news.*") as news:
        failures: list[str] = []

        def wait() -> None:
            failures.append(ends_with(lambda: client.request("test/alpha", b"sleep 5000", timeout=60)))

        thread = threading.Thread(target=wait)
        thread.start()
        wait_until("it to be in hand", lambda: fresh.component("test/alpha/0")["delivered"] == 1)
        before = time.monotonic()
        os.kill(fresh.processes()["router"], signal.SIGKILL)
        thread.join(20)
        assert ["ConnectionLost"] == failures
        assert time.monotonic() - before < 4

        def answered() -> bool:
            return ends_with(lambda: client.request("test/alpha", b"echo again")) == ""

        wait_until("the component to be back", answered)
        wait_until("the subscription to be back", lambda: client.publish("news.eu", "x"))
        assert "x" == news.get(20).text


def test_the_guides_web_application(net: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in the clients' guide does what it says: asks, publishes, streams; failures have statuses."""
    monkeypatch.setenv("AIRSSYS_ROOT", str(net.root))
    guide = (CHECKOUT / "docs/guide/clients.md").read_text()
    found = re.search(r"```python\n(.*?)```", guide, re.DOTALL)
    assert found is not None
    program: dict[str, Any] = {"__name__": "guide"}
    exec(compile(found[1], "docs/guide/clients.md", "exec"), program)

    async def visit() -> None:
        runner = web.AppRunner(program["application"](), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(url) as browser:
            async with browser.post("/ask/test/alpha", data=b"echo hello") as answer:
                assert (200, b"hello") == (answer.status, await answer.read())
                assert int(answer.headers["X-Message"]) > 0
            for path, body, status, error in (
                ("/ask/test/nobody", b"x", 404, "target-not-found"),
                ("/ask/test/alpha", b"fail x", 422, "guest-error"),
                ("/ask/test/alpha", b"sleep 3000", 504, "timeout"),
            ):
                async with browser.post(path, data=body) as answer:
                    assert (status, error) == (answer.status, (await answer.json())["error"])
            async with browser.get("/live") as live:
                async with browser.post("/orders/eu", json={"n": 7}) as answer:
                    assert {"subscribers": 1} == await answer.json()
                line = await asyncio.wait_for(live.content.readline(), 20)
                assert {"topic": "orders.eu", "order": {"n": 7}, "lost": 0} == json.loads(line.removeprefix(b"data: "))
        await runner.cleanup()

    asyncio.run(visit())


# -- other users ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="taking on other users' ids needs root")
def test_another_user_may_do_what_is_written(net: Host) -> None:
    """A configured user is known by the kernel's word, and held to his rules; denials are in the audit log."""

    def visit() -> list[str]:
        with Client(socket_of(net)) as client:
            with client.subscribe("news.eu"):
                return [
                    client.name,
                    client.request("test/alpha", b"echo hello").text,
                    ends_with(lambda: client.send("test/alpha", b"x")),
                    ends_with(lambda: client.request("test/recorded", b"x")),
                    ends_with(lambda: client.publish("news.eu", b"x")),
                    ends_with(lambda: client.subscribe("news.>")),
                ]

    name = f"host/client/uid-{OTHER}"
    assert [name, "hello", *["Denied"] * 4] == as_user(OTHER, visit)
    denied = [(r["event"], r["object"]) for r in net.audit(name) if r["decision"] == "denied"]
    assert [
        ("messaging.send", "test/alpha/0"),
        ("messaging.request", "test/recorded/0"),
        ("messaging.publish", "news.eu"),
        ("messaging.subscribe", "news.>"),
    ] == denied


@pytest.mark.skipif(os.geteuid() != 0, reason="taking on other users' ids needs root")
def test_a_user_who_is_not_written_down(net: Host) -> None:
    """He hears that he is not let in, and it is recorded; he reaches nothing else in the run-time directory either."""
    run = net.root / "run"

    def visit() -> list[str]:
        try:
            Client(socket_of(net)).__enter__()
        except NotAllowed:
            said = "NotAllowed"
        reached = [
            name
            for name, action in (
                ("list", lambda: os.listdir(run / "clients")),
                ("write", lambda: os.mkdir(run / "clients" / "mine")),
                ("unlink", lambda: os.unlink(run / "clients" / "router.sock")),
                ("bus", lambda: os.stat(run / "bus" / "router.sock")),
                ("log", lambda: os.open(run / "host.log", os.O_RDONLY)),
            )
            if not forked.refused(action)
        ]
        return [said, *reached]

    assert ["NotAllowed"] == as_user(OTHER + 1, visit)
    records = [r for r in net.audit() if r["event"] == "client.refused"]
    assert [f"uid {OTHER + 1}"] == [record["object"] for record in records]


@pytest.mark.skipif(os.geteuid() != 0, reason="taking on other users' ids needs root")
def test_without_clients_the_socket_is_closed(fresh: Host) -> None:
    """Where no other user is configured the directory lets nobody through."""
    fresh.up()
    assert 0o700 == (fresh.root / "run" / "clients").stat().st_mode & 0o777
    assert "NotConnected" == as_user(OTHER, lambda: ends_with(Client(socket_of(fresh), connect_timeout=0.5).__enter__))
    with Client(socket_of(fresh)) as client:  # the positive control
        assert client.name


def test_a_hostile_program_hurts_nobody(net: Host, client: Client) -> None:
    """While it floods, stalls in the middle of messages and talks nonsense, others are served by the same router, which
    grows by that user's share at most."""
    router = net.processes()["router"]
    before = resident(router)
    stop, attacks = threading.Event(), 0

    def attack() -> None:
        nonlocal attacks
        hello = GREETING + zmtp.encode_ready(b"DEALER")
        stalled = hello + b"\x01\x01h\x02" + (8 << 20).to_bytes(8, "big") + bytes(1 << 20)
        publish = zmtp.encode_message([msgspec.msgpack.encode(["ClientPublish", 1, "news.x", [1, 0, "", None]]), b""])
        held: list[socket.socket] = []
        while not stop.is_set():
            for data in (stalled, hello + publish * 30, hello + b"\x03" + b"\xff" * 8, b"nonsense", GREETING[:20]):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                held.append(sock)
                sock.settimeout(0.01)
                with contextlib.suppress(OSError):
                    sock.connect(socket_of(net))
                    sock.sendall(data)
                attacks += 1
            while len(held) > 40:
                held.pop(0).close()
        for sock in held:
            sock.close()

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        for number in range(300):
            assert str(number) == client.request("test/alpha", f"echo {number}", timeout=5).text
    finally:
        stop.set()
        thread.join()
    assert attacks > 20
    assert router == net.processes()["router"]
    assert resident(router) - before < 96 << 10
    assert any(record["event"] == "protocol.violation" for record in net.audit())


# -- the command line -------------------------------------------------------------------------------------------


def test_codecs_on_the_command_line(net: Host) -> None:
    """A value goes out in the form asked for, prefix in front; the reply is bytes, or JSON where that is asked for."""
    value = {"n": [1, "zwei"]}
    for codec in ("json", "msgpack", "cbor"):
        if codec == "cbor":
            pytest.importorskip("cbor2", reason="CBOR needs the package cbor2 (airssys-wasm[client])")
        data = codecs.encode(codec, value)  # type: ignore[arg-type]
        echoed = net.cli("request", "test/alpha", "-", data=b"echo " + data)
        assert data == echoed.stdout
        shown = net.cli("request", "test/alpha", "-", "--pretty", data=b"echo " + data)
        assert value == json.loads(shown.stdout)
        told = json.loads(net.cli("request", "test/alpha", "-", "--output", "json", data=b"echo " + data).stdout)
        assert (codec, value) == (told["codec"], told["value"])
    sent = net.cli("send", "test/alpha", "--json", '{"a": 1}', "--codec", "msgpack", "--output", "json")
    assert len(codecs.encode("msgpack", {"a": 1})) == json.loads(sent.stdout)["sent"]


def test_trace(net: Host) -> None:
    """A message can be followed by the number that --verbose tells, and by its correlation id."""
    done = net.cli("--verbose", "request", "test/alpha", "--data", "echo x", "--priority", "high")
    found = re.fullmatch(rb"message (\d+), correlation ([0-9a-f]{32})\n", done.stderr)
    assert found is not None, done.stderr
    shown = net.cli("trace", found[1].decode()).stdout.decode()
    steps = [line.split()[3] for line in shown.splitlines()[2:]]
    assert ["sent", "queued", "delivered", "replied"] == steps
    told = json.loads(net.cli("trace", found[2].decode(), "--output", "json").stdout)
    assert int(found[1]) == told["message"]
    times = [step["at"] for step in told["steps"]]
    assert sorted(times) == times
    assert 1 == net.cli("trace", "987654321", check=False).returncode


def test_dead_letters(net: Host, client: Client) -> None:
    """What expired is listed, shown, sent again and forgotten."""

    def expire(text: str) -> None:
        """A message that waits behind a long one, and not long enough."""
        client.send("test/many", "sleep 300")
        client.send("test/many", text, ttl=0.01)

    expire("set late yes")

    def letters() -> list[dict[str, Any]]:
        listed = net.cli("deadletters", "list", "--component", "test/many", "--output", "json")
        return list(json.loads(listed.stdout)["letters"])

    letter = wait_until("the dead letter", letters)[0]
    assert ("expired", "test/many/0") == (letter["reason"], letter["target"])
    assert b"expired" in net.cli("deadletters", "list").stdout
    shown = net.cli("deadletters", "show", str(letter["id"])).stdout.decode()
    assert "set late yes" in shown
    net.cli("deadletters", "replay", str(letter["id"]))
    assert [] == letters()
    wait_until("its effect", lambda: net.ask("test/many", "get late") == "yes")
    assert 1 == net.cli("deadletters", "replay", str(letter["id"]), check=False).returncode
    expire("x")
    wait_until("another", letters)
    assert b"purged 1" in net.cli("deadletters", "purge", "--component", "test/many").stdout
    assert [] == letters()
    events = [r["event"] for r in net.audit() if r["event"].startswith("deadletters.")]
    assert ["deadletters.replay", "deadletters.replay", "deadletters.purge"] == events


def test_what_the_command_line_refuses(net: Host) -> None:
    """Nonsense is told apart from failures."""
    for code, arguments in (
        (2, ("deadletters", "replay")),
        (2, ("deadletters", "purge", "1", "--component", "*")),
        (2, ("request", "test/alpha", "--codec", "xml")),
        (7, ("request", "test/alpha", "--data", "no json", "--codec", "cbor")),
        (7, ("request", "test", "--data", "x")),
        (7, ("publish", "no topic!")),
        (7, ("trace", "../x")),
        (7, ("request", "test/alpha", "--ttl", "soon")),
        (1, ("request", "test/gone/*", "--data", "x")),
    ):
        assert code == net.cli(*arguments, check=False).returncode, arguments
