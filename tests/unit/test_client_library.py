"""`airssys.client` against a real router: both flavours, every failure, reconnection; its frames beside the host's."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, cast

import msgspec
import pytest
import zmq
import zmq.asyncio
from airssys.client import (
    AsyncClient,
    Client,
    Closed,
    ConnectionLost,
    Denied,
    GuestError,
    Invalid,
    NotAllowed,
    NotConnected,
    QueueFull,
    RequestTimeout,
    TargetEnded,
    TargetNotFound,
    TooLarge,
    errors,
    frames,
    places,
    topics,
)
from hypothesis import given
from hypothesis import strategies as st

from bridge.capabilities import topic_covers
from sandbox.types import Limits
from sandbox.wire import client_frames, router_frames
from sandbox.wire.router_frames import FAILURES, PRIORITIES, Mailing, MessagingRule, Options
from supervisor.router import clients
from tests.unit.router_host import FakeWorker
from tests.unit.test_router_clients import Clients

pytestmark = pytest.mark.block10_sdk


@pytest.fixture
def net() -> Iterator[Clients]:
    with Clients() as clients:
        clients.settings()
        yield clients


@pytest.fixture
def client(net: Clients) -> Iterator[Client]:
    with Client(net.host.clients_path) as client:
        yield client


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name (a socket's path has 107 bytes)."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Echo:
    """A component that answers: `x` with x, `!x` with the error x, "die" with its death, "" with nothing."""

    def __init__(self, net: Clients, name: str = "acme/echo") -> None:
        self.net = net
        self.worker: FakeWorker = net.host.start(name, message_size=1 << 20)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        self.seen: list[tuple[bytes, str | None, int]] = []

    def serve(self) -> None:
        while True:
            frame, payload = self.worker.message()
            self.seen.append((payload, frame.content_type, frame.priority))
            if payload == b"stop":
                self.worker.reply(frame)
                return
            if payload[:1] == b"!":
                self.worker.reply(frame, error=payload[1:].decode())
            else:
                self.worker.reply(frame, payload or None)


@pytest.fixture
def echo(net: Clients, client: Client) -> Iterator[Echo]:
    echo = Echo(net)
    yield echo
    client.request("acme/echo", b"stop")
    echo.thread.join()


# -- the frames -------------------------------------------------------------------------------------------------


def _shape(kind: type) -> list[tuple[str, object]]:
    return [(field.name, field.default) for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize(
    "name", [name for name, kind in inspect.getmembers(client_frames, inspect.isclass) if name.startswith("Client")]
)
def test_frames_are_the_hosts(name: str) -> None:
    """Each frame has the host's name, fields and defaults, and decodes as the host's."""
    ours, theirs = getattr(frames, name), getattr(client_frames, name)
    assert [n for n, _ in _shape(theirs)] == [n for n, _ in _shape(ours)]
    assert [repr(d) for _, d in _shape(theirs)] == [repr(d) for _, d in _shape(ours)]
    assert theirs.__struct_config__.tag == ours.__struct_config__.tag


def test_words_are_the_hosts() -> None:
    """One exception for each of the host's reasons, the same priorities and options, the same language of topics."""
    assert set(FAILURES) == set(errors.REASONS)
    assert PRIORITIES == frames.PRIORITIES
    assert [n for n, _ in _shape(Options)] == [n for n, _ in _shape(frames.Options)]
    assert msgspec.msgpack.encode(Options()) == msgspec.msgpack.encode(frames.Options())
    for pattern in ("a", "a.b", "a.*", "*.b", "a.>", ">", "*", "a.*.c", "a.b.>"):
        for topic in ("a", "a.b", "a.c", "b", "a.b.c", "b.b", "a.b.c.d"):
            assert topic_covers(pattern, topic) == topics.covers(pattern, topic), (pattern, topic)


def test_bounds_are_the_hosts() -> None:
    """What the library refuses to send is what the host would end the connection for."""
    assert (
        client_frames.MAX_ID,
        router_frames.MAX_TOPIC,
        router_frames.MAX_KEY,
        router_frames.MAX_CONTENT_TYPE,
        client_frames.MAX_TIMEOUT_MS,
        router_frames.MAX_TTL_MS,
    ) == (
        frames.MAX_ID,
        frames.MAX_TOPIC,
        frames.MAX_KEY,
        frames.MAX_CONTENT_TYPE,
        frames.MAX_TIMEOUT_MS,
        frames.MAX_TTL_MS,
    )


ANYTHING = st.one_of(
    st.none(),
    st.text(st.characters(), max_size=4),
    st.sampled_from(["a" * 128, "a" * 129, "a" * 194, "a" * 195, "é" * 256, "é" * 257, "\ud800", b"x", 7]),
)
SECONDS = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-2, 1 << 70),
    st.sampled_from([1e-9, 86_400.0, 86_400.001, 2_592_000.0, 2_592_001, True, "5"]),
)


class _Sent(Exception):
    """A frame was about to go out."""


class _Said(AsyncClient):
    """Says which frame it would send."""

    async def _asking(self, frame: Callable[[int], frames.FromClient], payload: bytes, timeout: float) -> NoReturn:
        raise _Sent(msgspec.msgpack.encode(frame(1)))


@given(st.sampled_from(["send", "request", "publish", "subscribe"]), ANYTHING, ANYTHING, ANYTHING, SECONDS, SECONDS)
def test_no_frame_that_the_host_refuses(
    call: str, name: Any, key: Any, content_type: Any, ttl: Any, timeout: Any
) -> None:
    """Whatever the arguments are, they raise Invalid, or make a frame that the host decodes."""
    client = _Said("/nonexistent/c", api="/nonexistent/a")
    options = {"content_type": content_type, "ttl": ttl}
    coroutine = {
        "send": lambda: client.send(name, b"", key=key, timeout=timeout, **options),
        "request": lambda: client.request(name, b"", key=key, timeout=timeout, **options),
        "publish": lambda: client.publish(name, b"", **options),
        "subscribe": lambda: client.subscribe(name),
    }[call]()
    with pytest.raises((Invalid, _Sent)) as caught:
        coroutine.send(None)
    if isinstance(caught.value, _Sent):
        frame = msgspec.msgpack.decode(caught.value.args[0], type=client_frames.FromClient)
        if isinstance(frame, client_frames.ClientSend):
            assert abs(frame.wait_ms - timeout * 1000) <= 1


def test_places() -> None:
    """AIRSSYS_ROOT alone counts where it is set; else one's own host comes before the machine's."""
    assert ["/x/run"] == places.run_directories({"AIRSSYS_ROOT": "/x", "XDG_RUNTIME_DIR": "/r"})
    assert ["/r/airssys", "/h/.local/state/airssys/run", "/run/airssys"] == places.run_directories(
        {"XDG_RUNTIME_DIR": "/r", "HOME": "/h"}
    )
    assert ["/s/airssys/run", "/run/airssys"] == places.run_directories({"XDG_STATE_HOME": "/s", "HOME": "/h"})


# -- messages ---------------------------------------------------------------------------------------------------


def test_request(client: Client, echo: Echo) -> None:
    """A reply has the handler's bytes, and numbers for a trace; none and no bytes are told apart."""
    reply = client.request("acme/echo", b"hello", timeout=20)
    assert (b"hello", "hello", True) == (reply.payload, reply.text, reply.some)
    assert reply.message > 0
    assert 32 == len(reply.correlation)
    assert not client.request("acme/echo").some
    assert "host/client/ann" == client.name


def test_values(client: Client, echo: Echo) -> None:
    """Values go out in the form asked for, under its content type, and come back through the reply's accessors."""
    value = {"a": [1, "zwei", None], "b": 2.5}
    assert value == client.request("acme/echo", json=value).json()
    assert value == client.request("acme/echo", msgpack=value).msgpack()
    assert [1, 2] == client.request("acme/echo", json=[1, 2]).json(list[int])
    assert "x" == client.request("acme/echo", "x", content_type="text/plain", priority="critical").text
    assert [
        ("application/json", 1),
        ("application/vnd.msgpack", 1),
        ("application/json", 1),
        ("text/plain", 3),
    ] == [(kind, priority) for _, kind, priority in echo.seen]
    with pytest.raises(Invalid):
        client.request("acme/echo", b"x", json=1)
    with pytest.raises(Invalid):
        client.request("acme/echo", priority="urgent")


def test_invalid_arguments_stay_here(net: Clients, client: Client) -> None:
    """What the host would not decode is raised before it is sent, and other requests on the connection go on."""
    worker = net.host.start("acme/a")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.request, "acme/a", "x", timeout=20)
        frame, payload = worker.message()
        for hopeless in (
            lambda: client.publish("x" * 300),
            lambda: client.subscribe("x" * 300),
            lambda: client.subscribe("x", most=0),
            lambda: client.send("x" * 300),
            lambda: client.request("acme/a", key="k" * 300),
            lambda: client.request("acme/a", content_type="x" * 200),
            lambda: client.request("acme/a", timeout=1e12),
            lambda: client.request("acme/a", timeout=0),
            lambda: client.send("acme/a", timeout=-1),
            lambda: client.send("acme/a", ttl=float("nan")),
            lambda: client.send("acme/a", "\ud800"),
            lambda: client.send("acme/a", cast("bytes", 7)),
        ):
            with pytest.raises(Invalid):
                hopeless()
        worker.reply(frame, payload)
        assert "x" == waiting.result().text


def test_a_timeout_bounds_the_wait_for_room(net: Clients, client: Client) -> None:
    """A mailbox that lets its senders wait lets this one wait as long as it said; its message is not delivered then."""
    net.host.route("acme/full", limits=Limits(mailbox=1), mailing=Mailing(overflow="block"))
    client.send("acme/full", "1")
    with pytest.raises(QueueFull):
        client.send("acme/full", "2", timeout=0.05)
    with ThreadPoolExecutor() as pool:
        patient = pool.submit(client.send, "acme/full", "3", timeout=20)
        worker = net.host.start("acme/full", route=False)
        frame, payload = worker.message()
        worker.reply(frame)
        assert patient.result() > 0
        frame, after = worker.message()
        assert [b"1", b"3"] == [payload, after]


def test_send(client: Client, echo: Echo) -> None:
    """A message that nobody waits for has an id, too."""
    assert client.send("acme/echo", b"x") > 0


def test_failures_have_types(net: Clients, client: Client, echo: Echo) -> None:
    """Each reason is an exception of its own, with the host's text."""
    with pytest.raises(GuestError, match="on purpose"):
        client.request("acme/echo", b"!on purpose")
    with pytest.raises(TargetNotFound, match="acme/nobody"):
        client.request("acme/nobody")
    with pytest.raises(Invalid):
        client.send("nonsense")
    with pytest.raises(TooLarge):
        client.request("acme/echo", bytes((1 << 20) + 1))
    with pytest.raises(TooLarge):
        client.request("acme/echo", bytes((8 << 20) + 1))
    net.host.route("acme/slow", limits=Limits(mailbox=1))
    with pytest.raises(RequestTimeout) as caught:
        client.request("acme/slow", timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    client.send("acme/slow")
    with pytest.raises(QueueFull):
        client.send("acme/slow")


def test_denials(net: Clients, client: Client) -> None:
    """What the host's configuration does not allow raises."""
    net.settings([MessagingRule(target="acme/echo", access=["send"])])
    answers = threading.Thread(target=lambda: [net.host.auditor.record() for _ in range(3)])
    answers.start()
    with pytest.raises(Denied):
        client.request("acme/echo")
    with pytest.raises(Denied):
        client.publish("a")
    with pytest.raises(Denied):
        client.subscribe("a.>")
    answers.join()


def test_a_worker_that_dies(net: Clients, client: Client) -> None:
    """A request whose component ends raises."""
    worker = net.host.start("acme/a")

    def die() -> None:
        worker.message()
        net.host.died(worker, "trap", "on purpose")

    dying = threading.Thread(target=die)
    dying.start()
    with pytest.raises(TargetEnded, match="on purpose"):
        client.request("acme/a", timeout=20)
    dying.join()


def test_topics(net: Clients, client: Client) -> None:
    """An iterator of events; each subscription gets what its pattern covers, and only while it is open."""
    with client.subscribe("orders.>") as all_, client.subscribe("orders.eu") as eu, client.subscribe("orders.eu"):
        assert 1 == client.publish("orders.eu", json={"n": 1}, priority="high")
        assert 1 == client.publish("orders.us.new", "two")
        event = next(iter(eu))
        assert ("orders.eu", {"n": 1}, "host/client/ann", "application/json", "high", 0) == (
            event.topic,
            event.json(),
            event.sender,
            event.content_type,
            event.priority,
            event.lost,
        )
        assert ["orders.eu", "orders.us.new"] == [next(all_).topic, next(all_).topic]
        with pytest.raises(TimeoutError):
            eu.get(timeout=0.01)
    assert 0 == client.publish("orders.eu")
    assert [] == list(all_)


def test_a_slow_reader_is_told_what_it_missed(client: Client) -> None:
    """Beyond `most` the oldest go, and the next event says how many."""
    with client.subscribe("a", most=3) as events:
        for n in range(10):
            client.publish("a", str(n))
        first = events.get(20)
        while first.text != "7" and events.lost < 7:
            first = events.get(20)
        assert 7 == events.lost
        assert "9" == [events.get(20) for _ in range(2)][-1].text


# -- asyncio ----------------------------------------------------------------------------------------------------


def test_asyncio(net: Clients) -> None:
    """The same with asyncio: many requests at once, an asynchronous iterator, cancellation that reaches the router."""
    worker = net.host.start("acme/a")

    async def work() -> None:
        async with AsyncClient(net.host.clients_path) as client:
            async with await client.subscribe("a.*") as events:
                assert 1 == await client.publish("a.b", "x")
                async for event in events:
                    assert "x" == event.text
                    break
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(client.request("acme/a", str(n))) for n in range(20)]

                async def answer() -> None:
                    for _ in range(20):
                        frame, payload = await asyncio.to_thread(worker.message)
                        worker.reply(frame, payload * 2)

                group.create_task(answer())
            assert [f"{n}{n}" for n in range(20)] == [task.result().text for task in asked]
            hopeless = asyncio.create_task(client.request("acme/a", b"hold"))
            frame, _ = await asyncio.to_thread(worker.message)
            hopeless.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hopeless
            await asyncio.to_thread(net.counted, "cancelled-by-clients", 1)
            worker.reply(frame, b"late")
            pending = asyncio.create_task(client.request("acme/a"))
            await asyncio.to_thread(worker.message)
        with pytest.raises(Closed):
            await pending
        with pytest.raises(Closed):
            await client.request("acme/a")

    asyncio.run(work())


def test_threads_share_a_client(net: Clients, client: Client, echo: Echo) -> None:
    """Any thread may use it at any time, each gets its own answers."""
    got: list[list[str]] = []

    def ask(name: str) -> None:
        got.append([client.request("acme/echo", f"{name}{n}").text for n in range(20)])

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([f"{name}{n}" for n in range(20)] for name in "abcd") == sorted(got)


# -- without a host, and with another one -------------------------------------------------------------------------


def test_no_host() -> None:
    """Nobody there is said within the time given."""
    with pytest.raises(NotConnected, match="no host answers"):
        Client("/nonexistent/router.sock", connect_timeout=0.1).__enter__()
    client = Client("/nonexistent/router.sock", connect_timeout=0.1, api="/nonexistent/api.sock")
    with pytest.raises(NotConnected):
        client.request("acme/a")
    with pytest.raises(NotConnected):
        client.status()
    client.close()
    client.close()
    with pytest.raises(Closed):
        client.request("acme/a")


def _in_a_fork(work: Callable[[], bool]) -> bool:
    """What this gives in a forked child."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child(net: Clients, client: Client, echo: Echo) -> None:
    """A client that was used belongs to its process: in the child it raises at once, a new or unused one works."""
    unused = Client(net.host.clients_path)

    def work() -> bool:
        with pytest.raises(Closed):
            client.request("acme/echo", "x")
        client.close()
        with Client(net.host.clients_path) as own:
            return "x" == own.request("acme/echo", "x").text and "y" == unused.request("acme/echo", "y").text

    assert _in_a_fork(work)
    assert ["x", "y"] == [client.request("acme/echo", "x").text, unused.request("acme/echo", "y").text]
    unused.close()


def test_info_of_what_is_no_component(client: Client) -> None:
    """A name that is no component id is said to be none, and nobody is asked."""
    for name in ("x", "supervisor", "a/b/c/d", "a//0", ""):
        with pytest.raises(Invalid, match="not a component id"):
            client.info(name)


def test_a_user_who_is_not_let_in() -> None:
    """It is told apart from a host that is not there."""
    with Clients() as net:
        net.settings(uid=os.geteuid() + 1)
        with pytest.raises(NotAllowed), Client(net.host.clients_path):
            pytest.fail("it was let in")
        net.host.auditor.record()


def test_a_refusal_is_raised_anew() -> None:
    """Each call raises an exception of its own: what the one kept of its callers is not in the next."""
    with Clients() as net:
        net.settings(uid=os.geteuid() + 1)
        client = Client(net.host.clients_path)
        lengths = []
        for _ in range(3):
            with pytest.raises(NotAllowed) as caught:
                client.request("acme/a")
            lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        client.close()
        assert 1 == len(set(lengths))
        net.host.auditor.record()


def test_a_socket_that_cannot_be_made(net: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor for a connection is a connection that failed: the next one is tried, and the reason is told."""
    there = threading.Event()
    made = zmq.Socket.get_monitor_socket

    def monitor(self: Any, *args: Any, **more: Any) -> Any:
        if there.is_set():
            return made(self, *args, **more)
        raise zmq.ZMQError(errno.EMFILE)

    monkeypatch.setattr(zmq.asyncio.Socket, "get_monitor_socket", monitor)
    client = Client(net.host.clients_path, connect_timeout=0.2)
    with pytest.raises(NotConnected, match="Too many open files"):
        client.connect()
    there.set()
    client._inner.connect_timeout = 20
    client.connect()
    client.close()


def test_too_many_connections(net: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is there and has no room for another connection is told apart from none."""
    monkeypatch.setattr(clients, "MAX_CONNECTIONS", 1)
    with (
        Client(net.host.clients_path) as first,
        pytest.raises(NotConnected, match="too many connections"),
        Client(net.host.clients_path, connect_timeout=0.3),
    ):
        pytest.fail("it was let in")
    with pytest.raises(Closed):
        first.connect()
    with Client(net.host.clients_path, connect_timeout=20):
        pass


def test_a_router_that_is_replaced(place: Path) -> None:
    """Whoever waits hears so at once; the next call finds the new router, and subscriptions are there again."""
    path = str(place / "c")
    first = Clients(path)
    first.settings()
    first.host.start("acme/a")
    with Client(path, connect_timeout=20) as client, client.subscribe("a.>") as events:
        waiting: list[BaseException] = []

        def wait() -> None:
            try:
                client.request("acme/a", timeout=60)
            except ConnectionLost as error:
                waiting.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        first.host.until(lambda state: state.routes[0].busy)
        first.__exit__(None, None, None)
        thread.join(20)
        assert 1 == len(waiting)
        os.unlink(path)
        with Clients(path) as second:
            second.settings()
            with Client(path, connect_timeout=20) as other:
                while not other.publish("a.b", "again"):
                    pass
            assert "again" == events.get(20).text
            with pytest.raises(TargetNotFound):
                client.request("acme/a")


def test_a_subscription_that_is_not_renewed(place: Path) -> None:
    """Iteration raises why the new router does not want it."""
    path = str(place / "c")
    first = Clients(path)
    first.settings()
    with Client(path, connect_timeout=20) as client, client.subscribe("a.>") as events:
        first.__exit__(None, None, None)
        os.unlink(path)
        with Clients(path) as second:
            second.settings([MessagingRule(topic="b", access=["subscribe"])])
            assert "messaging.subscribe" == second.host.auditor.record().event
            with pytest.raises(Denied):
                events.get(20)
