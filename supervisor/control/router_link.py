"""Control's end of the router's bus: routes, stops, and messages from outside.

A ZeroMQ DEALER on the router's private endpoint (`sandbox.wire.router_frames`). ZeroMQ reconnects by itself; when
the supervisor says the router was replaced, the socket is made anew, so that nothing meant for the old router
reaches the new one, and the caller sends its routes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec
import zmq
import zmq.asyncio

from sandbox.types import ComponentId
from sandbox.wire.router_frames import (
    AskTrace,
    Dead,
    DeadLetters,
    Event,
    FromRouter,
    Options,
    Query,
    Rest,
    Route,
    RouteState,
    Settings,
    State,
    Stop,
    Submit,
    Submitted,
    SubmitTopic,
    ToRouter,
    Trace,
    Unroute,
)
from supervisor.control.errors import UnavailableError

MAX_MESSAGE = 9 << 20
"""Largest ZeroMQ frame taken from the router, bytes."""
_decoder: msgspec.msgpack.Decoder[FromRouter] = msgspec.msgpack.Decoder(FromRouter)
_encode = msgspec.msgpack.Encoder().encode
ANSWER_SECONDS = 5.0
"""How long the router may take for an answer that waits for nobody else."""
_Asking = Submit | SubmitTopic | Dead | AskTrace | Query
_Answer = Submitted | State | DeadLetters | Trace
_A = TypeVar("_A", Submitted, State, DeadLetters, Trace)


def _seen(sent: asyncio.Future[Any]) -> None:
    if not sent.cancelled():
        sent.exception()


class RouterLink:
    """Requests to the router and its events.

    Args:
        bus_path: the Unix socket of the bus.
        on_event: called in the loop with each `Event`, in order.
        settings: what each router is told before anything else.
    """

    def __init__(self, bus_path: str, on_event: Callable[[Event], None], settings: Settings) -> None:
        self._path = bus_path
        self._settings = settings
        self._on_event = on_event
        self._context = zmq.asyncio.Context()
        self._number = 0
        self._asked: dict[int, asyncio.Future[tuple[_Answer, bytes]]] = {}
        self._socket = self._connect()
        self._reader = asyncio.create_task(self._read(self._socket), name="router-link")
        self.counters: dict[str, int] = {}
        """What the router has counted, as of the last `query`."""
        self.malformed = 0
        """Frames from the router that did not parse."""

    def _connect(self) -> zmq.asyncio.Socket:
        sock = self._context.socket(zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.SNDHWM, 10_000)
        sock.setsockopt(zmq.RCVHWM, 10_000)
        sock.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        sock.setsockopt(zmq.RECONNECT_IVL, 20)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        sock.connect(f"ipc://{self._path}")
        # The first message of a new socket: it waits in its queue, before every route.
        sock.send_multipart([_encode(self._settings), b""], zmq.NOBLOCK)
        return sock

    async def close(self) -> None:
        """Close the socket; what waits fails with `E_UNAVAILABLE`."""
        await self._drop()
        self._context.term()

    async def reconnect(self) -> None:
        """Start over with a new router: what was asked of the old one fails."""
        await self._drop()
        self._socket = self._connect()
        self._reader = asyncio.create_task(self._read(self._socket), name="router-link")

    async def _drop(self) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        self._socket.close(0)
        gone = UnavailableError("the router was replaced", hint="try again")
        for future in self._asked.values():
            if not future.done():
                future.set_exception(gone)
        self._asked.clear()

    # -- what control asks ------------------------------------------------------------------------------------

    async def route(self, route: Route) -> None:
        """Tell of a component; idempotent."""
        await self._send(route)

    async def unroute(self, component: ComponentId, why: str = "was removed") -> None:
        """The component is gone; `why` is told to whoever waits for it."""
        await self._send(Unroute(component, why))

    def retire(self, component: ComponentId, why: str, *, keep: bool = False) -> None:
        """The component is not going to run: as `unroute`, but at once; with `keep` its mailbox stays.

        What a router does not take here is of no use to the next, which knows only what it is told.
        """
        frame = Rest(component, why) if keep else Unroute(component, why)
        with contextlib.suppress(zmq.ZMQError):
            sent = asyncio.ensure_future(self._socket.send_multipart([_encode(frame), b""], zmq.NOBLOCK))
            sent.add_done_callback(_seen)

    async def stop(self, component: ComponentId, *, drain: bool, timeout_ms: int = 0) -> None:
        """Have the component's worker shut down after the message in hand; `timeout_ms` is for the shutdown alone."""
        await self._send(Stop(component, drain, timeout_ms))

    async def query(self, timeout: float = 5.0) -> list[RouteState]:
        """The state of every route. Raises UnavailableError after `timeout` seconds."""
        state, _ = await self._ask(Query(self._next()), timeout, State)
        self.counters = state.counters
        return state.routes

    async def submit(
        self,
        user: str,
        target: ComponentId,
        payload: bytes,
        *,
        request: bool,
        timeout_ms: int,
        options: Options,
    ) -> tuple[Submitted, bytes]:
        """Send one message from outside and wait for what becomes of it.

        The router keeps the deadline; control only guards against a router that says nothing.
        Raises UnavailableError.
        """
        frame = Submit(self._next(), user, target, request, timeout_ms, options)
        return await self._ask(frame, timeout_ms / 1000 + 5, Submitted, payload)

    async def publish(self, user: str, topic: str, payload: bytes, options: Options) -> Submitted:
        """Publish from outside. Raises UnavailableError."""
        return (await self._ask(SubmitTopic(self._next(), user, topic, options), ANSWER_SECONDS, Submitted, payload))[0]

    async def dead(
        self,
        action: Literal["list", "show", "replay", "purge"],
        *,
        letter: int = 0,
        component: str = "*",
        most: int = 0,
    ) -> tuple[DeadLetters, bytes]:
        """Ask for, or change, dead letters (`router_frames.Dead`); of "show", the payload too.

        Raises UnavailableError.
        """
        return await self._ask(Dead(self._next(), action, letter, component, most), ANSWER_SECONDS, DeadLetters)

    async def trace(self, message: str) -> Trace:
        """The way of one message. Raises UnavailableError."""
        return (await self._ask(AskTrace(self._next(), message), ANSWER_SECONDS, Trace))[0]

    async def _ask(self, frame: _Asking, timeout: float, kind: type[_A], payload: bytes = b"") -> tuple[_A, bytes]:
        """Send what is answered, and wait for that. Raises UnavailableError after `timeout` seconds."""
        future: asyncio.Future[tuple[_Answer, bytes]] = asyncio.get_running_loop().create_future()
        self._asked[frame.id] = future
        try:
            await self._send(frame, payload)
            answer, body = await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise UnavailableError("the router does not answer", hint="try again") from None
        finally:
            self._asked.pop(frame.id, None)
        if not isinstance(answer, kind):
            raise UnavailableError("the router answered something else than was asked", hint="see the host's log")
        return answer, body

    # -- transport --------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _send(self, frame: ToRouter, payload: bytes = b"") -> None:
        try:
            await self._socket.send_multipart([_encode(frame), payload], zmq.NOBLOCK)
        except zmq.Again:
            raise UnavailableError("the router takes no more messages", hint="try again") from None
        except zmq.ZMQError as error:
            raise UnavailableError(f"the router's bus is closed: {error}") from error

    async def _read(self, sock: zmq.asyncio.Socket) -> None:
        while True:
            parts = await sock.recv_multipart()
            try:
                if len(parts) != 2:
                    raise ValueError("not two frames")
                frame = _decoder.decode(parts[0])
            except (msgspec.MsgspecError, ValueError):
                self.malformed += 1
                continue
            if isinstance(frame, Event):
                self._on_event(frame)
                continue
            future = self._asked.get(frame.id)
            if future is not None and not future.done():
                future.set_result((frame, parts[1]))
