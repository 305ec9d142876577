"""The clients' socket of a real router: an ordinary pyzmq DEALER, rights, bounds, and what hostile programs try."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

import msgspec
import pytest
import zmq

from sandbox.types import Limits
from sandbox.wire import client_frames as cf
from sandbox.wire import zmtp
from sandbox.wire.router_frames import ClientRights, MessagingRule, Options, Publication, Settings, Subscribe
from supervisor.config_messaging import EVERYTHING
from supervisor.router import clients as clients_module
from supervisor.router.client_asks import MAX_ASKS
from supervisor.router.clients import MAX_CONNECTIONS
from supervisor.router.connections import DENIAL_BURST, MAX_EVENTS, MAX_PAYLOAD, MAX_SUBSCRIPTIONS
from supervisor.router.handshake import GREETING
from tests.unit.router_host import SECONDS, TALK, Host, encode

pytestmark = pytest.mark.block5_messaging

T = TypeVar("T")
_to_client = msgspec.msgpack.Decoder(cf.ToClient)
ALL = list(EVERYTHING)
OUTSIDE = [MessagingRule(source="host/*"), MessagingRule(topic=">", access=["publish", "subscribe"])]


class Dealer:
    """A client as pyzmq makes it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], path: str) -> None:
        self.sock = context.socket(zmq.DEALER)
        self.sock.linger = 0
        self.sock.sndhwm = self.sock.rcvhwm = 0
        self.sock.reconnect_ivl = -1
        self.sock.rcvtimeo = self.sock.sndtimeo = int(SECONDS * 1000)
        self.sock.connect(f"ipc://{path}")
        self.ask = 0

    def welcome(self) -> cf.ClientWelcome:
        return self.take(cf.ClientWelcome)[0]

    def send(self, frame: msgspec.Struct, payload: bytes = b"") -> None:
        self.sock.send_multipart([encode(frame), payload])

    def take(self, kind: type[T]) -> tuple[T, bytes]:
        head, payload = self.sock.recv_multipart()
        frame = _to_client.decode(head)
        assert isinstance(frame, kind), frame
        return frame, payload

    def number(self) -> int:
        self.ask += 1
        return self.ask

    def answer(self) -> tuple[cf.ClientAnswer, bytes]:
        return self.take(cf.ClientAnswer)

    def request(self, target: str, payload: bytes = b"", *, timeout_ms: int = 20_000, **options: object) -> int:
        self.send(cf.ClientRequest(self.number(), target, timeout_ms, Options(**options)), payload)  # type: ignore[arg-type]
        return self.ask

    def say(self, target: str, payload: bytes = b"") -> int:
        self.send(cf.ClientSend(self.number(), target), payload)
        return self.ask

    def subscribe(self, pattern: str) -> cf.ClientAnswer:
        self.send(cf.ClientSubscribe(self.number(), pattern))
        return self.answer()[0]

    def nothing(self, milliseconds: int = 100) -> bool:
        return not self.sock.poll(milliseconds)

    def close(self) -> None:
        self.sock.close(0)


class Raw:
    """A connection that says what it likes."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(path)

    def open(self) -> zmtp.Dealer:
        zmtp.greet(self.sock)
        zmtp.expect_greeting(self.sock)
        self.sock.sendall(zmtp.encode_ready(b"DEALER"))
        zmtp.expect_ready(self.sock, b"ROUTER")
        dealer = zmtp.Dealer(self.sock)
        assert isinstance(_to_client.decode(dealer.recv()[0]), cf.ClientWelcome)
        return dealer

    def ended(self) -> bytes:
        """What the router still said before it hung up."""
        said = b""
        try:
            while data := self.sock.recv(65536):
                said += data
        except ConnectionError:
            pass
        return said

    def close(self) -> None:
        self.sock.close()


class Clients:
    """A router, its host, and programs outside."""

    def __init__(self, path: str = "") -> None:
        self.host = Host(path)
        self.open: list[Dealer | Raw] = []

    def settings(self, rules: list[MessagingRule] | None = None, *, uid: int | None = None, rate: int = 10_000) -> None:
        rights = ClientRights(os.geteuid() if uid is None else uid, "ann", ALL if rules is None else rules, rate)
        self.host.control.send(Settings(clients=[rights]))
        self.host.settle()

    def dealer(self) -> Dealer:
        dealer = Dealer(self.host.context, self.host.clients_path)
        self.open.append(dealer)
        return dealer

    def client(self) -> Dealer:
        dealer = self.dealer()
        dealer.welcome()
        return dealer

    def raw(self) -> Raw:
        raw = Raw(self.host.clients_path)
        self.open.append(raw)
        return raw

    def counter(self, name: str) -> int:
        return self.host.control.state().counters.get(name, 0)

    def counted(self, name: str, number: int) -> None:
        self.host.until(lambda state: state.counters.get(name, 0) >= number)

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.open:
            each.close()
        self.host.__exit__(kind, error, trace)


@pytest.fixture
def bare() -> Iterator[Clients]:
    """A router that has not been told yet who may connect."""
    with Clients() as clients:
        yield clients


@pytest.fixture
def net(bare: Clients) -> Clients:
    bare.settings()
    return bare


# -- an ordinary client ---------------------------------------------------------------------------------------


def test_a_dealer_requests_and_sends(net: Clients) -> None:
    """pyzmq's own DEALER gets a welcome, its requests are answered, its messages arrive under the user's name."""
    worker = net.host.start("acme/a")
    client = net.dealer()
    welcome = client.welcome()
    assert ("host/client/ann", MAX_ASKS, MAX_SUBSCRIPTIONS, MAX_PAYLOAD) == (
        welcome.client,
        welcome.requests,
        welcome.subscriptions,
        welcome.message_size,
    )
    ask = client.request("acme/a", b"ping", priority=3, content_type="text/plain")
    frame, payload = worker.message()
    assert ("host/client/ann", b"ping", 3, "text/plain") == (
        str(frame.sender),
        payload,
        frame.priority,
        frame.content_type,
    )
    worker.reply(frame, b"pong")
    answer, payload = client.answer()
    assert (ask, "", True, frame.id, frame.correlation, b"pong") == (
        answer.ask,
        answer.error,
        answer.some,
        answer.message,
        answer.correlation,
        payload,
    )
    ask = client.say("acme/a/0", b"hello")
    answer, _ = client.answer()
    frame, payload = worker.message()
    assert (ask, "", frame.id, b"hello") == (answer.ask, answer.error, answer.message, payload)


def test_large_payloads(net: Clients) -> None:
    """Eight MiB go in and come back; one byte more ends the connection."""
    worker = net.host.start("acme/a", message_size=MAX_PAYLOAD)
    client = net.client()
    client.request("acme/a", bytes(MAX_PAYLOAD))
    frame, payload = worker.message()
    assert MAX_PAYLOAD == len(payload)
    worker.reply(frame, payload)
    assert MAX_PAYLOAD == len(client.answer()[1])
    client.request("acme/a", bytes(MAX_PAYLOAD + 1))
    assert "protocol.violation" == net.host.auditor.record().event


def test_a_group(net: Clients) -> None:
    """`acme/a/*` is one of the instances, in turn."""
    workers = [net.host.start(f"acme/a/{n}") for n in range(2)]
    client = net.client()
    for worker in workers:
        client.request("acme/a/*")
        worker.reply(worker.message()[0], worker.component.instance.encode())
        assert worker.component.instance.encode() == client.answer()[1]


@pytest.mark.parametrize(
    ("target", "error"), [("acme/b", "target-not-found"), ("acme", "invalid"), ("a/b/c/d", "invalid"), ("", "invalid")]
)
def test_targets_that_are_none(net: Clients, target: str, error: str) -> None:
    """Who is not there, and what is no name, is told apart."""
    client = net.client()
    ask = client.request(target)
    answer, _ = client.answer()
    assert (ask, error) == (answer.ask, answer.error)


def test_timeout_and_cancel(net: Clients) -> None:
    """A request ends by its timeout, once; a cancelled one is not answered at all, and neither is delivered."""
    net.host.route("acme/a")
    client = net.client()
    client.request("acme/a", timeout_ms=30)
    assert "timeout" == client.answer()[0].error
    ask = client.request("acme/a")
    client.send(cf.ClientCancel(ask))
    client.send(cf.ClientCancel(ask))
    client.send(cf.ClientCancel(999))
    net.counted("cancelled-by-clients", 1)
    client.request("acme/b")
    assert "target-not-found" == client.answer()[0].error
    assert 0 == net.host.control.state().routes[0].depth


def test_topics(net: Clients) -> None:
    """Publications go both ways between clients and components; a component that is not let in is not heard."""
    worker = net.host.start("acme/a", [*TALK, *OUTSIDE])
    assert 0 == worker_subscribes(net, worker)
    net.settings([*ALL, MessagingRule(source="host/*")])
    client, other = net.client(), net.client()
    assert "" == client.subscribe("orders.>").error
    assert "" == client.subscribe("orders.>").error
    other.send(cf.ClientPublish(other.number(), "orders.eu", Options(content_type="text/plain", priority=2)), b"one")
    answer, _ = other.answer()
    assert ("", 2) == (answer.error, answer.number)
    event, payload = client.take(cf.ClientEvent)
    assert ("orders.eu", "host/client/ann", "text/plain", 2, b"one") == (
        event.topic,
        event.sender,
        event.content_type,
        event.priority,
        payload,
    )
    assert abs(time.time() - event.seconds) < 60
    frame, payload = worker.take(Publication)
    assert ("orders.eu", b"one") == (frame.topic, payload)
    client.send(cf.ClientUnsubscribe(client.number(), "orders.>"))
    assert "" == client.answer()[0].error
    client.send(cf.ClientUnsubscribe(client.number(), "orders.>"))
    assert "invalid" == client.answer()[0].error
    other.send(cf.ClientPublish(other.number(), "orders.eu"), b"two")
    assert 1 == other.answer()[0].number
    assert client.nothing()


def worker_subscribes(net: Clients, worker: object) -> int:
    """A component that subscribes while it works on a message."""
    net.host.control.submit("acme/a")
    frame, _ = worker.message()  # type: ignore[attr-defined]
    ack = worker.ask(Subscribe(1, "orders.*"))  # type: ignore[attr-defined]
    worker.reply(frame)  # type: ignore[attr-defined]
    return int(ack.case)


# -- rights ---------------------------------------------------------------------------------------------------


def test_nobody_comes_in_before_the_settings(bare: Clients) -> None:
    """A connection waits until control has said who may connect."""
    client = bare.dealer()
    assert client.nothing()
    bare.settings()
    client.welcome()


def test_a_user_without_rights_is_told_and_recorded(bare: Clients) -> None:
    """He hears that he is refused, in ZeroMQ's own words, and nothing else; not each attempt is recorded."""
    bare.settings(uid=os.geteuid() + 1)
    assert GREETING + zmtp.encode_command(b"ERROR", b"\x03400") == bare.raw().ended()
    record = bare.host.auditor.record()
    assert ("client.refused", "denied", f"uid {os.geteuid()}") == (record.event, record.decision, record.object)
    for _ in range(20):
        bare.raw().ended()
    bare.counted("clients-refused", 21)
    bare.settings()
    bare.client()  # and now he may


def test_pyzmq_tells_of_a_refusal(bare: Clients) -> None:
    """An ordinary DEALER's monitor has the event for it."""
    bare.settings(uid=os.geteuid() + 1)
    sock = bare.host.context.socket(zmq.DEALER)
    sock.linger, sock.reconnect_ivl = 0, -1
    monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    sock.connect(f"ipc://{bare.host.clients_path}")
    assert monitor.poll(int(SECONDS * 1000))
    event, value = monitor.recv_multipart()[0][:2], 400
    assert (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400) == (int.from_bytes(event, "little"), value)
    sock.disable_monitor()
    sock.close()
    monitor.close()
    bare.host.auditor.record()


@pytest.mark.parametrize(
    ("rules", "ask", "event", "target"),
    [
        ([MessagingRule(target="acme/b", access=["send"])], "send", "messaging.send", "acme/a/0"),
        ([MessagingRule(target="acme/a", access=["send"])], "request", "messaging.request", "acme/a/0"),
        ([MessagingRule(target="acme/a/0", access=["request"])], "group", "messaging.request", "acme/a/*"),
        ([MessagingRule(topic="a.*", access=["subscribe"])], "publish", "messaging.publish", "a.b"),
        ([MessagingRule(topic="a.*", access=["publish"])], "subscribe", "messaging.subscribe", "a.>"),
    ],
)
def test_rights_are_checked_and_denials_recorded(
    net: Clients, rules: list[MessagingRule], ask: str, event: str, target: str
) -> None:
    """Without a rule that covers it nothing goes through; the answer comes after the record."""
    net.settings(rules)
    worker = net.host.start("acme/a")
    client = net.client()
    frames: dict[str, msgspec.Struct] = {
        "send": cf.ClientSend(1, "acme/a"),
        "request": cf.ClientRequest(1, "acme/a", 1000),
        "group": cf.ClientRequest(1, "acme/a/*", 1000),
        "publish": cf.ClientPublish(1, "a.b"),
        "subscribe": cf.ClientSubscribe(1, "a.>"),
    }
    client.send(frames[ask])
    record = net.host.auditor.next()
    assert (event, "host/client/ann", "denied", target) == (
        record.event,
        record.component,
        record.decision,
        record.object,
    )
    assert {"why": "sender"} == record.detail
    assert client.nothing()
    net.host.auditor.written(record)
    assert "denied" == client.answer()[0].error
    net.settings()  # the positive control: with the right it works
    client.send(frames[ask])
    if ask in ("request", "group"):
        worker.reply(worker.message()[0])
    assert "" == client.answer()[0].error


def test_the_target_must_accept(net: Clients) -> None:
    """The other side is asked, too."""
    net.host.start("acme/a", TALK)  # lets in components alone
    client = net.client()
    client.request("acme/a")
    record = net.host.auditor.record()
    assert ("messaging.request", {"why": "target"}) == (record.event, record.detail)
    assert "denied" == client.answer()[0].error


def test_subscribers_choose_whom_they_hear(net: Clients) -> None:
    """With `from` lines a client hears those alone."""
    net.settings([*ALL, MessagingRule(source="acme/*")])
    client = net.client()
    client.subscribe("a")
    client.send(cf.ClientPublish(client.number(), "a"))
    assert 0 == client.answer()[0].number
    net.settings([*ALL, MessagingRule(source="host/*")])
    client.send(cf.ClientPublish(client.number(), "a"))
    client.take(cf.ClientEvent)
    assert 1 == client.answer()[0].number


def test_rights_that_are_taken_away(net: Clients) -> None:
    """Who may not connect any more is cut off; so is who subscribed to what he may not hear any more."""
    first, second = net.raw(), net.raw()
    dealer = first.open()
    second.open()
    dealer.send([encode(cf.ClientSubscribe(1, "a.b")), b""])
    dealer.recv()
    net.settings([MessagingRule(topic="a.c", access=["subscribe"])])
    first.ended()
    net.settings(uid=os.geteuid() + 1)
    second.ended()


def test_allowed_ones_are_recorded_where_that_is_wanted(net: Clients) -> None:
    """With `record` each allowed message is in the log before it is confirmed."""
    rights = ClientRights(os.geteuid(), "ann", ALL)
    net.host.control.send(Settings(clients=[rights], record=["acme/a"]))
    net.host.route("acme/a")
    client = net.client()
    client.say("acme/a")
    record = net.host.auditor.next()
    assert ("messaging.send", "host/client/ann", "allowed", "acme/a/0") == (
        record.event,
        record.component,
        record.decision,
        record.object,
    )
    assert client.nothing()
    net.host.auditor.written(record)
    assert "" == client.answer()[0].error


# -- bounds ---------------------------------------------------------------------------------------------------


def test_a_client_that_dies_takes_its_requests_along(net: Clients) -> None:
    """Nobody waits for them any more: what was not delivered is not, and what is answered is late."""
    worker = net.host.start("acme/a")
    client = net.client()
    client.request("acme/a", b"in hand")
    frame, _ = worker.message()
    client.request("acme/a", b"waiting")
    net.host.until(lambda state: state.routes[0].depth == 1)
    client.close()
    net.counted("abandoned-requests", 2)
    assert 0 == net.host.control.state().routes[0].depth
    worker.reply(frame, b"late")
    net.counted("late-replies", 1)


def test_what_was_sent_before_the_end_is_taken(net: Clients) -> None:
    """A program that sends and ends at once has sent."""
    net.host.route("acme/a")
    raw = net.raw()
    dealer = raw.open()
    for ask in range(1, 51):
        dealer.send([encode(cf.ClientSend(ask, "acme/a")), b""])
    raw.close()
    net.host.until(lambda state: state.routes[0].depth == 50)


def test_connections_of_a_user_are_bounded(net: Clients) -> None:
    """One more than the bound is told so; when one goes there is room again."""
    raws = [net.raw() for _ in range(MAX_CONNECTIONS)]
    for raw in raws:
        raw.open()
    assert b"300" in net.raw().ended()
    raws[0].close()
    net.host.until(lambda state: True)
    end = time.monotonic() + SECONDS
    while True:
        raw = net.raw()
        try:
            raw.open()
            break
        except Exception:
            assert time.monotonic() < end


def test_open_asks_are_bounded(net: Clients) -> None:
    """One request more than the bound is refused, and the others wait on."""
    net.host.route("acme/a", limits=Limits(mailbox=MAX_ASKS + 10))
    client = net.client()
    for _ in range(MAX_ASKS):
        client.request("acme/a")
    ask = client.request("acme/a")
    answer, _ = client.answer()
    assert (ask, "queue-full") == (answer.ask, answer.error)
    assert client.nothing(20)


def test_subscriptions_of_a_connection_are_bounded(net: Clients) -> None:
    """One pattern more than the bound is refused."""
    client = net.client()
    for n in range(MAX_SUBSCRIPTIONS):
        assert "" == client.subscribe(f"a.b{n}").error
    assert "queue-full" == client.subscribe("a.more").error
    assert "" == client.subscribe("a.b0").error


def test_a_flood_is_held_to_its_rate(net: Clients) -> None:
    """Beyond the rate messages are refused, and the connection is read more slowly; another user's is not."""
    net.settings(rate=20)
    net.host.route("acme/a")
    client = net.client()
    for _ in range(60):
        client.say("acme/a")
    errors = [client.answer()[0].error for _ in range(60)]
    assert "rate-limited" in errors
    assert 20 <= errors.count("") <= 50
    assert errors.count("") == net.host.control.state().routes[0].depth


def test_denials_do_not_fill_the_audit_log(net: Clients) -> None:
    """Who is denied again and again is read slowly; who is not, is not."""
    net.settings([MessagingRule(target="acme/b", access=["send"])])
    hostile, good = net.client(), net.client()
    for _ in range(1000):
        hostile.say("acme/a")
    for _ in range(DENIAL_BURST):
        assert "messaging.send" == net.host.auditor.record().event
    net.host.auditor.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        for _ in range(20):
            net.host.auditor.record()
    net.host.auditor.sock.settimeout(SECONDS)
    good.say("acme/b")
    assert "target-not-found" == good.answer()[0].error


def test_a_slow_subscriber_is_told_what_it_missed(net: Clients) -> None:
    """Events that it does not read are shed, oldest first; the number it is told and those it gets come to all."""
    slow = net.raw()
    dealer = slow.open()
    dealer.send([encode(cf.ClientSubscribe(1, "a")), b""])
    dealer.recv()
    publisher = net.client()
    total = 3 * MAX_EVENTS
    for n in range(total):
        publisher.send(cf.ClientPublish(publisher.number(), "a"), n.to_bytes(2048, "big"))
    for _ in range(total):
        assert 1 == publisher.answer()[0].number
    got, lost, last = 0, 0, -1
    while got + lost < total:
        head, payload = dealer.recv()
        frame = _to_client.decode(head)
        if isinstance(frame, cf.ClientLost):
            lost += frame.count
            continue
        number = int.from_bytes(payload, "big")
        assert number > last
        got, last = got + 1, number
    assert (total, total - 1) == (got + lost, last)
    assert lost > 0
    assert got >= MAX_EVENTS


def test_one_that_does_not_read_its_answers_is_cut_off(net: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that nobody reads are bounded by the user's share; then the connection ends."""
    monkeypatch.setattr(clients_module, "OUT_BYTES", 4 << 20)
    with Clients() as small:
        small.settings()
        worker = small.host.start("acme/a")
        raw = small.raw()
        dealer = raw.open()
        for ask in range(1, 13):
            dealer.send([encode(cf.ClientRequest(ask, "acme/a", 20_000)), b""])
        for _ in range(5):
            worker.reply(worker.message()[0], bytes(1 << 20))
        assert "does not read its connection" == small.host.auditor.record().object


# -- hostile programs -------------------------------------------------------------------------------------------

HELLO = GREETING + zmtp.encode_ready(b"DEALER")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" + bytes(8) + b"\x7e",
        b"\xff" + bytes(8) + b"\x7f\x02\x00NULL" + bytes(60),
        GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
        GREETING + b"\x00\x05hello",
        GREETING + b"\x06\xff\xff\xff\xff\xff\xff\xff\xff",
        GREETING + zmtp.encode_ready(b"REQ"),
        GREETING + zmtp.encode_command(b"HELLO"),
        HELLO + b"\x00\x01x",
        HELLO + b"\x09\x01x",
        HELLO + b"\x04\x06\x05HELLO",
        HELLO + b"\x01\x01\xc1\x00\x00",
        HELLO + b"\x03" + (1 << 40).to_bytes(8, "big"),
        HELLO + b"\x01\x01\x90\x02" + (1 << 62).to_bytes(8, "big"),
        HELLO + zmtp.encode_message([b"\x90", b"", b""]),
        HELLO + zmtp.encode_message([encode(cf.ClientSend(0, "acme/a")), b""]),
        HELLO + zmtp.encode_message([encode(cf.ClientSend(1, "a" * 500)), b""]),
        HELLO + zmtp.encode_message([encode(cf.ClientRequest(1, "acme/a", 0)), b""]),
        HELLO + zmtp.encode_message([encode(cf.ClientSubscribe(1, "a")), b"payload"]),
        HELLO + zmtp.encode_message([encode(cf.ClientAnswer(1)), b""]),
    ],
)
def test_what_is_no_client_is_cut_off(net: Clients, data: bytes) -> None:
    """Half greetings, other protocols, impossible lengths and frames of the wrong kind end that connection alone."""
    good = net.client()
    raw = net.raw()
    raw.sock.sendall(data)
    raw.ended()
    assert "protocol.violation" == net.host.auditor.record().event
    good.request("acme/b")
    assert "target-not-found" == good.answer()[0].error


def test_a_number_in_use_ends_the_connection(net: Clients) -> None:
    """Two open requests under one number could not be told apart."""
    net.host.route("acme/a")
    raw = net.raw()
    dealer = raw.open()
    for _ in range(2):
        dealer.send([encode(cf.ClientRequest(7, "acme/a", 1000)), b""])
    raw.ended()
    assert "in use" in net.host.auditor.record().object


def test_handshakes_have_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing, or half of it, is hung up on."""
    monkeypatch.setattr(clients_module, "HANDSHAKE_SECONDS", 0.2)
    with Clients() as net:
        net.settings()
        silent, half = net.raw(), net.raw()
        half.sock.sendall(GREETING[:30])
        assert (GREETING, GREETING) == (silent.ended(), half.ended())


def test_half_messages_hold_nothing(net: Clients) -> None:
    """Connections that announce large messages and send none of them reserve a bounded share, and hurt nobody."""
    net.host.start("acme/a", message_size=MAX_PAYLOAD)
    halves = [net.raw() for _ in range(20)]
    for raw in halves:
        raw.open()
        raw.sock.sendall(
            zmtp.encode_frame(zmtp.MORE, encode(cf.ClientSend(1, "acme/a"))) + b"\x02" + MAX_PAYLOAD.to_bytes(8, "big")
        )
    client = net.client()
    client.request("acme/b", b"small")
    assert "target-not-found" == client.answer()[0].error


def test_violations_are_recorded_a_few_times(net: Clients) -> None:
    """A program that breaks the protocol again and again does not fill the audit log."""
    for _ in range(20):
        raw = net.raw()
        raw.sock.sendall(b"nonsense")
        raw.ended()
    net.counted("client-violations", 20)
    records = [net.host.auditor.record() for _ in range(5)]
    assert {"protocol.violation"} == {record.event for record in records}
    net.host.auditor.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        net.host.auditor.next()
    net.host.auditor.sock.settimeout(SECONDS)
