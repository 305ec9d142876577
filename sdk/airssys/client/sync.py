"""The blocking client: the asyncio one, run in a thread of its own, so that any thread may use it at any time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, TypeVar

from airssys.client.aio import CONNECT_TIMEOUT, DEFAULT_TIMEOUT, MAX_EVENTS, AsyncClient
from airssys.client.aio import Subscription as AsyncSubscription
from airssys.client.errors import Closed
from airssys.client.messages import UNSET, Event, Reply

T = TypeVar("T")


class Subscription:
    """Publications under topics that a pattern covers: an iterator that waits, made by `Client.subscribe`.

    Leave it by `close`, or as a context manager. Iteration ends when it or the client is closed, and raises when the
    subscription could not be renewed after the router was replaced.
    """

    def __init__(self, client: Client, inner: AsyncSubscription) -> None:
        self._client, self._inner = client, inner

    @property
    def pattern(self) -> str:
        """What it was made with."""
        return self._inner.pattern

    @property
    def lost(self) -> int:
        """Events it missed so far, at most: on the host or here, because nobody read them fast enough."""
        return self._inner.lost

    def get(self, timeout: float | None = None) -> Event:
        """The next event.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: there was none in time.
            Closed: the subscription, or the client, was closed.
        """
        try:
            return self._client._run(asyncio.wait_for(self._inner.__anext__(), timeout))
        except StopAsyncIteration:
            raise Closed("the subscription was closed") from None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            return self.get()
        except Closed:
            raise StopIteration from None

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(Closed):
            self._client._run(self._inner.close())

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client:
    """A program that talks to components of the host on this machine; for any number of threads of one process.

        with Client() as client:
            print(client.request("acme/echo", b"hello").text)

    It connects when it is first used, and again whenever the router was replaced. One that was used
    belongs to the process it was used in: after `os.fork` it raises `Closed` in the child, which makes its own.

    Args:
        path: the clients' socket; None to look for it (`airssys.client.places`).
        api: the control API's socket, for `status` and `info`; None to look for it.
        connect_timeout: seconds to wait for a connection before `NotConnected`.
    """

    def __init__(
        self, path: str | None = None, *, api: str | None = None, connect_timeout: float = CONNECT_TIMEOUT
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = 0
        self._closed = False
        self._inner = AsyncClient(path, api=api, connect_timeout=connect_timeout)
        self.control = self._inner.control

    @property
    def path(self) -> str:
        """The clients' socket."""
        return self._inner.path

    @property
    def name(self) -> str:
        """Who this program is to components, `host/client/<user>`; "" while it is not connected."""
        return self._inner.name

    def __enter__(self) -> Client:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connect, or wait until that has happened. Raises NotAllowed, NotConnected, Closed."""
        self._run(self._inner.connect())

    def send(
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
        """Put a message into a component's mailbox; its id. Arguments and errors as in `AsyncClient.send`."""
        return self._run(
            self._inner.send(
                target,
                payload,
                json=json,
                cbor=cbor,
                msgpack=msgpack,
                content_type=content_type,
                priority=priority,
                ttl=ttl,
                key=key,
                timeout=timeout,
            )
        )

    def request(
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
        """Send a message and wait for the handler's answer. Arguments and errors as in `AsyncClient.request`."""
        return self._run(
            self._inner.request(
                target,
                payload,
                timeout=timeout,
                json=json,
                cbor=cbor,
                msgpack=msgpack,
                content_type=content_type,
                priority=priority,
                ttl=ttl,
                key=key,
            )
        )

    def publish(
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
        """Publish under a topic; how many subscribers take it. Arguments and errors as in `AsyncClient.publish`."""
        return self._run(
            self._inner.publish(
                topic,
                payload,
                json=json,
                cbor=cbor,
                msgpack=msgpack,
                content_type=content_type,
                priority=priority,
                ttl=ttl,
            )
        )

    def subscribe(self, pattern: str, *, most: int = MAX_EVENTS) -> Subscription:
        """Have what is published under topics that the pattern covers. As `AsyncClient.subscribe`."""
        return Subscription(self, self._run(self._inner.subscribe(pattern, most=most)))

    def status(self) -> dict[str, Any]:
        """Host and components, as `airssys status --output json`. Raises Refused, NotConnected."""
        return self.control.status()

    def info(self, component: str) -> dict[str, Any]:
        """All about one component, as `airssys info --output json`. Raises Invalid, Refused, NotConnected."""
        return self.control.info(component)

    def close(self) -> None:
        """Hang up; whoever waits in another thread hears `Closed`. Nothing in a forked child, whose it is not."""
        if self._is_a_copy():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread, loop = self._thread, self._loop
        if thread is not None and loop is not None:
            asyncio.run_coroutine_threadsafe(self._inner.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    # -- the thread ---------------------------------------------------------------------------------------------

    def _is_a_copy(self) -> bool:
        # Before the lock: the thread that held it is not here, and the loop's descriptors are the parent's.
        return self._process not in (0, os.getpid())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._is_a_copy():
            work.close()
            raise Closed("this client is another process's: make one after os.fork, not before")
        with self._lock:
            if self._closed:
                work.close()
                raise Closed("the client was closed")
            if self._loop is None:
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._loop,), name="airssys-client", daemon=True
                )
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Closed("the client was closed") from None
        except BaseException:
            future.cancel()  # a KeyboardInterrupt here withdraws the request
            raise

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
