"""The client of control's API: httpx over the host's Unix socket, API errors as the command line's errors."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import httpx

from sandbox.errors import AirssysError
from supervisor.cli.errors import InterruptedAskError, RefusedError, UnreachableError

DEFAULT_TIMEOUT = 30.0
"""Seconds an ordinary answer may take."""


class Exchange(NamedTuple):
    """The answer to a message: the reply's bytes, its ids for a trace, and whether the handler gave a value at all."""

    payload: bytes
    message: int
    correlation: str
    some: bool


class Client:
    """One connection to a host. A context manager.

    Args:
        path: the API's Unix socket.

    Raises:
        UnreachableError: nobody listens there, or this user may not connect.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._knock()
        # There is no TLS on this socket. An empty context spares the machine's certificates, whose loading takes longer
        # than most requests, and believes nobody.
        transport = httpx.HTTPTransport(uds=path, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._http = httpx.Client(transport=transport, base_url="http://airssys", timeout=DEFAULT_TIMEOUT)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | bool) -> Any:
        """GET, the answer's JSON. Raises UnreachableError, RefusedError."""
        return self._ask("GET", path, params=_query(query)).json()

    def post(self, path: str, body: Any = None, *, timeout: float = DEFAULT_TIMEOUT, **query: str | int | bool) -> Any:
        """POST JSON, the answer's JSON. Raises UnreachableError, RefusedError."""
        return self._ask("POST", path, params=_query(query), json=body, timeout=timeout).json()

    def delete(self, path: str, **query: str | int | bool) -> Any:
        """DELETE, the answer's JSON. Raises UnreachableError, RefusedError."""
        return self._ask("DELETE", path, params=_query(query), timeout=120.0).json()

    def upload(self, parts: dict[str, bytes]) -> Any:
        """Upload a package; its plan. A first compilation may take minutes. Raises UnreachableError, RefusedError."""
        files = {name: (name, data, "application/octet-stream") for name, data in parts.items()}
        return self._ask("POST", "/v1/packages", files=files, timeout=300.0).json()

    def message(
        self, target: str, kind: str, payload: bytes, timeout_ms: int, content_type: str, **more: str | int
    ) -> bytes:
        """As `exchange`; the reply's bytes."""
        return self.exchange(target, kind, payload, timeout_ms, content_type, **more).payload

    def exchange(
        self, target: str, kind: str, payload: bytes, timeout_ms: int, content_type: str, **more: str | int
    ) -> Exchange:
        """Send a message or make a request; `more` is priority, ttl (milliseconds) and key.

        Raises UnreachableError, RefusedError.
        """
        answer = self._ask(
            "POST",
            "/v1/messages",
            params=_query({"target": target, "kind": kind, "timeout": timeout_ms, **more}),
            content=payload,
            headers={"Content-Type": content_type},
            timeout=timeout_ms / 1000 + 10,
        )
        headers = answer.headers
        return Exchange(
            answer.content,
            int(headers.get("Airssys-Message", "0")),
            headers.get("Airssys-Correlation", ""),
            headers.get("Airssys-Value", "") != "none",
        )

    def publish(self, topic: str, payload: bytes, content_type: str, **more: str | int) -> Any:
        """Publish; the answer's JSON. Raises UnreachableError, RefusedError."""
        return self._ask(
            "POST",
            "/v1/publications",
            params=_query({"topic": topic, **more}),
            content=payload,
            headers={"Content-Type": content_type},
        ).json()

    @contextmanager
    def lines(self, path: str, **query: str | int | bool) -> Iterator[Iterator[str]]:
        """GET JSON lines as they come; with `follow` for ever. Raises UnreachableError, RefusedError."""
        try:
            with self._http.stream("GET", path, params=_query(query), timeout=httpx.Timeout(30.0, read=None)) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise _refused(answer)
                yield answer.iter_lines()
        except httpx.TransportError as error:
            raise self._broken(error, "GET") from error

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **more)
        except httpx.TimeoutException as error:
            raise UnreachableError(
                "the host does not answer in time", subject=self.path, hint="see airssys status and the host's log"
            ) from error
        except httpx.TransportError as error:
            raise self._broken(error, method) from error
        if answer.status_code >= 400:
            raise _refused(answer)
        return answer

    def _knock(self) -> None:
        # A connection of our own first: httpx would tell neither why there is none nor close what it opened.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(self.path)
            except PermissionError as error:
                raise UnreachableError(
                    "this user may not open the host's socket",
                    subject=self.path,
                    hint="ask as the host's owner or root",
                ) from error
            except OSError as error:
                raise self._unreachable(error) from error

    def _broken(self, error: httpx.TransportError, method: str) -> AirssysError:
        """Why there is no answer: nobody was there, or whoever was asked ended before it answered."""
        if isinstance(error, httpx.ConnectError):
            return self._unreachable(error)
        what = "control ended before it had answered"
        if method != "GET":
            what += "; nobody knows whether it did what was asked"
        return InterruptedAskError(what, subject=self.path, hint="see airssys status before you try again")

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"no host answers: {error}", subject=self.path, hint="start one with: airssys up --detach"
        )


def _query(query: Mapping[str, str | int | bool]) -> dict[str, str]:
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else str(value) for name, value in query.items()
    }


def _refused(answer: httpx.Response) -> RefusedError:
    try:
        error = answer.json()["error"]
        return RefusedError(
            str(error["message"]), code=str(error["code"]), subject=str(error["subject"]), hint=str(error["hint"])
        )
    except (ValueError, KeyError, TypeError):
        return RefusedError(f"the host answered with status {answer.status_code}", code="E_INTERNAL")
