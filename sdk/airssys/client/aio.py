"""The asyncio client: one connection to a host's clients' socket, kept up as long as the client is open.

    connecting -> ClientWelcome -> messages and events -> the router ended -> connecting -> ...

A ZeroMQ DEALER, used for one connection only: when it breaks, whoever waits for an answer hears `ConnectionLost` at
once (nobody can say whether the message was delivered, so nothing is sent twice), a new socket is made, and
subscriptions are renewed there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from airssys.client import places, topics
from airssys.client.control import Control
from airssys.client.errors import Closed, ConnectionLost, Failed, Invalid, NotAllowed, NotConnected, TooLarge, failure
from airssys.client.frames import (
    MAX_ID,
    MAX_TIMEOUT_MS,
    MAX_TOPIC,
    PRIORITIES,
    ClientAnswer,
    ClientCancel,
    ClientEvent,
    ClientLost,
    ClientPublish,
    ClientRequest,
    ClientSend,
    ClientSubscribe,
    ClientUnsubscribe,
    ClientWelcome,
    FromClient,
    Options,
    ToClient,
)
from airssys.client.messages import UNSET, Event, Reply, milliseconds, outgoing, text

DEFAULT_TIMEOUT = 5.0
"""Seconds a request waits for its reply unless told otherwise."""
CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a host unless told otherwise."""
MAX_EVENTS = 10_000
"""Events that wait for one subscription's reader; beyond it the oldest are dropped and counted."""
GRACE = 5.0
"""Seconds beyond its timeout after which a request is given up: the router keeps the deadline, and answers."""
_RETRY_FIRST, _RETRY_MOST = 0.02, 1.0
_HWM = 4_096
_MAX_FRAME = 64 << 20
_GONE = {int(zmq.EVENT_DISCONNECTED), int(zmq.EVENT_CLOSED), int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)}
_BROKEN = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_NOT_ALLOWED, _CROWDED = 400, 300

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)
_Answered = tuple[ClientAnswer, bytes]


class Subscription:
    """Publications under topics that a pattern covers: an asynchronous iterator, made by `AsyncClient.subscribe`.

    Leave it by `close`, or as a context manager. Iteration ends when it or the client is closed, and raises when the
    subscription could not be renewed after the router was replaced.
    """

    def __init__(self, client: AsyncClient, pattern: str, most: int) -> None:
        self.pattern = pattern
        self.lost = 0
        """Events it missed so far, at most: on the host or here, because nobody read them fast enough."""
        self._client = client
        self._most = most
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._missed = 0
        self._end: Exception | None = None
        self._closed = False

    def _put(self, event: Event) -> None:
        if len(self._events) >= self._most:
            self._events.popleft()
            self._miss(1)
        self._events.append(event)
        self._news.set()

    def _miss(self, count: int) -> None:
        self.lost += count
        self._missed += count

    def _stop(self, why: Exception | None) -> None:
        self._closed, self._end = True, why
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                if self._end is not None:
                    raise self._end
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        event = self._events.popleft()
        missed, self._missed = self._missed, 0
        return msgspec.structs.replace(event, lost=missed) if missed else event

    async def close(self) -> None:
        """End it; what came already can still be read."""
        if not self._closed:
            self._stop(None)
            await self._client._unsubscribe(self)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncClient:
    """A program that talks to components of the host on this machine.

        async with AsyncClient() as client:
            reply = await client.request("acme/echo", b"hello")
            print(reply.text)

    It connects when it is first used, and again whenever the router was replaced. For one event loop and one process.

    Args:
        path: the clients' socket; None to look for it (`airssys.client.places`).
        api: the control API's socket, for `status` and `info`; None to look for it.
        connect_timeout: seconds to wait for a connection before `NotConnected`.
    """

    def __init__(
        self, path: str | None = None, *, api: str | None = None, connect_timeout: float = CONNECT_TIMEOUT
    ) -> None:
        self.path = path or places.find(places.CLIENTS)
        self.control = Control(api or places.find(places.API))
        self.connect_timeout = connect_timeout
        self._task: asyncio.Task[None] | None = None
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._welcome: ClientWelcome | None = None
        self._change = asyncio.Event()
        self._refusal = ""
        self._trouble = ""
        self._closed = False
        self._ask = 0
        self._open: dict[int, asyncio.Future[_Answered]] = {}
        self._subscriptions: list[Subscription] = []
        self._renewals: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- messages -----------------------------------------------------------------------------------------------

    async def send(
        self,
        target: str,
        payload: bytes | str | None = None,
        *,
        json: Any = UNSET,
        cbor: Any = UNSET,
        msgpack: Any = UNSET,
        content_type: str | None = None,
        priority: str = "normal",
        ttl: float | None = None,
        key: str = "",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> int:
        """Put a message into a component's mailbox; its id, for a trace.

        Args:
            target: `acme/echo`, `acme/echo/0`, or `acme/echo/*` for one instance of all.
            payload: bytes, or text sent as UTF-8; or one of `json`, `cbor`, `msgpack`: a value to be sent in that form.
            content_type: what the component is told of the payload; the form's own where a value is given.
            priority: low, normal, high or critical.
            ttl: seconds after which it is not delivered any more; None for as long as the component allows.
            key: messages of one key go to one instance, where the host routes so.
            timeout: seconds to wait for room in a mailbox that lets its senders wait; at most a day. What found no
                room by then is not delivered.

        Raises:
            QueueFull: no room, or not in time.
            Invalid: an argument that the host would not take; nothing was sent.
            Failed: another of its kinds, for each reason.
            NotConnected, ConnectionLost, Closed: see there.
            CodecError: the form cannot hold the value.
        """
        data, options = outgoing(payload, json, cbor, msgpack, content_type, priority, ttl, key)
        wait = milliseconds("a timeout", timeout, MAX_TIMEOUT_MS)
        text("a target", target, MAX_ID)
        answer, _ = await self._asking(lambda ask: ClientSend(ask, target, options, wait), data, timeout)
        return answer.message

    async def request(
        self,
        target: str,
        payload: bytes | str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        json: Any = UNSET,
        cbor: Any = UNSET,
        msgpack: Any = UNSET,
        content_type: str | None = None,
        priority: str = "normal",
        ttl: float | None = None,
        key: str = "",
    ) -> Reply:
        """Send a message and wait for the handler's answer. A call that is cancelled withdraws the request.

        Args:
            timeout: seconds to wait for the reply; at most a day.
            target, payload, json, cbor, msgpack, content_type, priority, ttl, key: as in `send`.

        Raises:
            RequestTimeout: no reply in time.
            Invalid: an argument that the host would not take; nothing was sent.
            Failed: another of its kinds, for each reason.
            NotConnected, ConnectionLost, Closed: see there.
            CodecError: the form cannot hold the value.
        """
        data, options = outgoing(payload, json, cbor, msgpack, content_type, priority, ttl, key)
        wait = milliseconds("a timeout", timeout, MAX_TIMEOUT_MS)
        text("a target", target, MAX_ID)

        def frame(ask: int) -> FromClient:
            return ClientRequest(ask, target, wait, options)

        answer, reply = await self._asking(frame, data, timeout)
        return Reply(reply, answer.some, answer.message, answer.correlation)

    async def publish(
        self,
        topic: str,
        payload: bytes | str | None = None,
        *,
        json: Any = UNSET,
        cbor: Any = UNSET,
        msgpack: Any = UNSET,
        content_type: str | None = None,
        priority: str = "normal",
        ttl: float | None = None,
    ) -> int:
        """Publish under a topic; how many subscribers take it. Arguments and errors as in `send`."""
        data, options = outgoing(payload, json, cbor, msgpack, content_type, priority, ttl, "")
        text("a topic", topic, MAX_TOPIC)
        answer, _ = await self._asking(lambda ask: ClientPublish(ask, topic, options), data, DEFAULT_TIMEOUT)
        return answer.number

    async def subscribe(self, pattern: str, *, most: int = MAX_EVENTS) -> Subscription:
        """Have what is published under topics that the pattern covers (`orders.new`, `orders.*`, `orders.>`).

        Args:
            pattern: which topics.
            most: events that may wait to be read; beyond it the oldest are dropped and counted.

        Raises:
            Denied: this user may not subscribe to all that the pattern covers.
            Invalid: no pattern.
            Failed: another of its kinds.
            NotConnected, ConnectionLost, Closed: see there.
        """
        text("a pattern", pattern, MAX_TOPIC)
        if most < 1:
            raise Invalid("a subscription holds one event at least")
        subscription = Subscription(self, pattern, most)
        # Before it is asked for: an event may come with the answer.
        self._subscriptions.append(subscription)
        try:
            # Also where there is one already: that one may be refused yet.
            await self._asking(lambda ask: ClientSubscribe(ask, pattern), b"", DEFAULT_TIMEOUT)
        except BaseException:
            self._subscriptions.remove(subscription)
            raise
        return subscription

    async def _unsubscribe(self, subscription: Subscription) -> None:
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        pattern = subscription.pattern
        if self._welcome is None or any(each.pattern == pattern for each in self._subscriptions):
            return
        with contextlib.suppress(Failed, NotConnected, ConnectionLost, Closed):  # then it is gone already
            await self._asking(lambda ask: ClientUnsubscribe(ask, pattern), b"", DEFAULT_TIMEOUT)

    # -- the control API ------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Host and components, as `airssys status --output json`. Raises Refused, NotConnected."""
        return await asyncio.to_thread(self.control.status)

    async def info(self, component: str) -> dict[str, Any]:
        """All about one component, as `airssys info --output json`. Raises Invalid, Refused, NotConnected."""
        return await asyncio.to_thread(self.control.info, component)

    # -- connection -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Who this program is to components, `host/client/<user>`; "" while it is not connected."""
        return "" if self._welcome is None else self._welcome.client

    async def connect(self) -> None:
        """Connect, or wait until that has happened.

        Raises:
            NotAllowed: the host does not let this user in.
            NotConnected: nobody answered within `connect_timeout`.
            Closed: the client was closed.
        """
        await self._connected(self.connect_timeout)

    async def _connected(self, timeout: float) -> ClientWelcome:
        if self._closed:
            raise Closed("the client was closed")
        if self._task is None or self._task.done():
            self._refusal = ""
            self._task = asyncio.create_task(self._keep_up(), name="airssys-client")
        end = asyncio.get_running_loop().time() + timeout
        while self._welcome is None:
            if self._closed:
                raise Closed("the client was closed")
            if self._refusal:
                raise NotAllowed(self._refusal)
            self._change.clear()
            try:
                await asyncio.wait_for(self._change.wait(), max(0.0, end - asyncio.get_running_loop().time()))
            except TimeoutError:
                raise NotConnected(self._trouble or f"no host answers at {self.path}") from None
        return self._welcome

    async def close(self) -> None:
        """Hang up; whoever waits hears `Closed`, iterations over subscriptions end."""
        if self._closed:
            return
        self._closed = True
        self._change.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._fail_all(Closed("the client was closed"))
        for subscription in self._subscriptions:
            subscription._stop(None)
        self._subscriptions.clear()
        if self._context is not None:
            self._context.destroy(0)

    async def _keep_up(self) -> None:
        delay = _RETRY_FIRST
        while True:
            try:
                if await self._one_connection():
                    delay = _RETRY_FIRST
            except zmq.ZMQError as error:
                # No descriptor left, perhaps: there may be one later.
                self._trouble = f"no connection to {self.path}: {error}"
            finally:
                was, self._welcome = self._welcome, None
                if was is not None and not self._closed:
                    self._fail_all(ConnectionLost("the router ended; nobody knows whether the message was delivered"))
                for task in list(self._renewals):
                    task.cancel()
                if self._socket is not None:
                    self._socket.close(0)
                    self._socket = None
            await asyncio.sleep(delay)
            delay = min(2 * delay, _RETRY_MOST)

    async def _one_connection(self) -> bool:
        """Serve one connection to its end; whether it was ever open."""
        if self._context is None:
            self._context = zmq.asyncio.Context()
        sock = self._socket = self._context.socket(zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, _HWM)
        sock.setsockopt(zmq.RCVHWM, _HWM)
        sock.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME)
        # Not by libzmq: what waits in its queue for the old router must not reach the new one.
        sock.setsockopt(zmq.RECONNECT_IVL, -1)
        monitor = sock.get_monitor_socket()
        ended = asyncio.create_task(self._watch(monitor))
        sock.connect(f"ipc://{self.path}")
        reading = asyncio.create_task(self._read(sock))
        try:
            await asyncio.wait((ended, reading), return_when=asyncio.FIRST_COMPLETED)
            # What the router said before it ended still counts.
            while int(sock.getsockopt(zmq.EVENTS)) & zmq.POLLIN and not reading.done():
                await asyncio.sleep(0)
        finally:
            for task in (ended, reading):
                task.cancel()
            await asyncio.gather(ended, reading, return_exceptions=True)
            sock.disable_monitor()
            monitor.close(0)
        return self._welcome is not None

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        """Return when the connection has ended."""
        while True:
            event = parse_monitor_message(await monitor.recv_multipart())
            number = int(event["event"])
            if number == _REFUSED and event["value"] == _NOT_ALLOWED:
                self._refusal = f"the host at {self.path} does not let this user in"
                self._change.set()
                return
            if number in _GONE or number in (_REFUSED, _BROKEN):
                crowded = number == _REFUSED and event["value"] == _CROWDED
                self._trouble = f"the host at {self.path} has too many connections" if crowded else ""
                return

    async def _read(self, sock: zmq.asyncio.Socket) -> None:
        while True:
            parts = await sock.recv_multipart()
            try:
                frame = _decoder.decode(parts[0])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return  # a host of another version: nothing it says can be relied on
            self._take(frame, parts[1] if len(parts) > 1 else b"")

    def _take(self, frame: ToClient, payload: bytes) -> None:
        match frame:
            case ClientAnswer():
                future = self._open.pop(frame.ask, None)
                if future is not None and not future.done():
                    future.set_result((frame, payload))
            case ClientEvent():
                self._event(frame, payload)
            case ClientLost():
                for subscription in self._subscriptions:
                    subscription._miss(frame.count)
            case ClientWelcome():
                self._refusal = self._trouble = ""
                self._welcome = frame
                self._change.set()
                if self._subscriptions:
                    task = asyncio.create_task(self._renew())
                    self._renewals.add(task)
                    task.add_done_callback(self._renewals.discard)

    def _event(self, frame: ClientEvent, payload: bytes) -> None:
        event = Event(
            payload,
            frame.topic,
            frame.sender,
            frame.message,
            frame.seconds + frame.nanoseconds / 1e9,
            frame.content_type,
            PRIORITIES[frame.priority],
        )
        for subscription in self._subscriptions:
            if topics.covers(subscription.pattern, frame.topic):
                subscription._put(event)

    async def _renew(self) -> None:
        """Subscribe again on a new connection; a subscription that the host does not want any more ends."""
        for pattern in dict.fromkeys(each.pattern for each in self._subscriptions):

            def frame(ask: int, pattern: str = pattern) -> FromClient:
                return ClientSubscribe(ask, pattern)

            try:
                await self._asking(frame, b"", DEFAULT_TIMEOUT)
            except Failed as error:
                for subscription in [each for each in self._subscriptions if each.pattern == pattern]:
                    self._subscriptions.remove(subscription)
                    subscription._stop(error)
            except (ConnectionLost, NotConnected, Closed):
                return  # the next connection begins with this again

    def _fail_all(self, why: Exception) -> None:
        open_, self._open = self._open, {}
        for future in open_.values():
            if not future.done():
                future.set_exception(why)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def _asking(self, frame: Callable[[int], FromClient], payload: bytes, timeout: float) -> _Answered:
        """Ask and wait for the answer. Raises Failed, NotConnected, ConnectionLost, Closed."""
        welcome = self._welcome or await self._connected(max(self.connect_timeout, 0.0))
        if len(payload) > welcome.message_size:
            raise TooLarge(f"{len(payload)} bytes; the host takes {welcome.message_size}")
        sock = self._socket
        assert sock is not None
        self._ask += 1
        ask = self._ask
        future: asyncio.Future[_Answered] = asyncio.get_running_loop().create_future()
        self._open[ask] = future
        try:
            async with asyncio.timeout(timeout + GRACE):
                await _sent(sock.send_multipart([_encode(frame(ask)), payload]))
                answer, reply = await future
        except TimeoutError:
            self._withdraw(sock, ask)
            raise failure("timeout", "the host does not answer") from None
        except asyncio.CancelledError:
            self._withdraw(sock, ask)
            raise
        finally:
            self._open.pop(ask, None)
            if future.done() and not future.cancelled():
                future.exception()  # whoever cancelled does not want to know
        if answer.error:
            raise failure(answer.error, answer.text, message=answer.message, correlation=answer.correlation)
        return answer, reply

    def _withdraw(self, sock: zmq.asyncio.Socket, ask: int) -> None:
        if self._open.pop(ask, None) is not None and sock is self._socket and not sock.closed:
            with contextlib.suppress(zmq.ZMQError):  # it cannot be told: then the router's own deadline ends it
                sock.send_multipart([_encode(ClientCancel(ask)), b""], zmq.NOBLOCK)


async def _sent(sending: Awaitable[Any]) -> None:
    try:
        await sending
    except zmq.ZMQError as error:
        raise ConnectionLost(f"the connection broke: {error}") from error


__all__ = ["AsyncClient", "Options", "Subscription"]
