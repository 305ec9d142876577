"""Control's end of the router's bus: routes, stops, health checks, and messages from outside.

A ZeroMQ DEALER on the router's private endpoint (`sandbox.wire.router_frames`). ZeroMQ reconnects by itself; when
the supervisor says the router was replaced, the socket is made anew, so that nothing meant for the old router
reaches the new one, and the caller sends its routes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import zmq
import zmq.asyncio

from sandbox.types import ComponentId
from sandbox.wire.router_frames import (
    CheckHealth,
    Event,
    FromRouter,
    Options,
    Query,
    Route,
    RouteState,
    Settings,
    State,
    Stop,
    Submit,
    Submitted,
    ToRouter,
    Unroute,
)
from supervisor.control.errors import UnavailableError

MAX_MESSAGE = 9 << 20
"""Largest ZeroMQ frame taken from the router, bytes."""
_decoder: msgspec.msgpack.Decoder[FromRouter] = msgspec.msgpack.Decoder(FromRouter)
_encode = msgspec.msgpack.Encoder().encode


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
        self._submits: dict[int, asyncio.Future[tuple[Submitted, bytes]]] = {}
        self._queries: dict[int, asyncio.Future[list[RouteState]]] = {}
        self._socket = self._connect()
        self._reader = asyncio.create_task(self._read(self._socket), name="router-link")
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
        for submit in self._submits.values():
            if not submit.done():
                submit.set_exception(gone)
        for query in self._queries.values():
            if not query.done():
                query.set_exception(gone)
        self._submits.clear()
        self._queries.clear()

    # -- what control asks ------------------------------------------------------------------------------------

    async def route(self, route: Route) -> None:
        """Tell of a component; idempotent."""
        await self._send(route)

    async def unroute(self, component: ComponentId) -> None:
        """The component is gone."""
        await self._send(Unroute(component))

    async def stop(self, component: ComponentId, *, drain: bool, timeout_ms: int = 0) -> None:
        """Have the component's worker shut down after the message in hand; `timeout_ms` is for the shutdown alone."""
        await self._send(Stop(component, drain, timeout_ms))

    async def check_health(self, component: ComponentId, timeout_ms: int) -> None:
        """Ask for the component's health; an `Event` of kind "health" tells, or its end after `timeout_ms`."""
        await self._send(CheckHealth(component, timeout_ms))

    async def query(self, timeout: float = 5.0) -> list[RouteState]:
        """The state of every route. Raises UnavailableError after `timeout` seconds."""
        n = self._next()
        future: asyncio.Future[list[RouteState]] = asyncio.get_running_loop().create_future()
        self._queries[n] = future
        try:
            await self._send(Query(n))
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise UnavailableError("the router does not answer", hint="try again") from None
        finally:
            self._queries.pop(n, None)

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
        n = self._next()
        future: asyncio.Future[tuple[Submitted, bytes]] = asyncio.get_running_loop().create_future()
        self._submits[n] = future
        try:
            await self._send(Submit(n, user, target, request, timeout_ms, options=options), payload)
            return await asyncio.wait_for(future, timeout_ms / 1000 + 5)
        except TimeoutError:
            raise UnavailableError("the router does not answer", hint="try again") from None
        finally:
            self._submits.pop(n, None)

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
            elif isinstance(frame, Submitted):
                submit = self._submits.get(frame.id)
                if submit is not None and not submit.done():
                    submit.set_result((frame, parts[1]))
            elif isinstance(frame, State):
                query = self._queries.get(frame.id)
                if query is not None and not query.done():
                    query.set_result(frame.routes)
