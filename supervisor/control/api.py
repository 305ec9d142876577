"""The API: HTTP and JSON on a Unix socket, each caller known by what the kernel says of it.

Every endpoint stands in `endpoints.ENDPOINTS`. Whoever may not use this host is refused and recorded; every error is
answered as `{"error": {"code", "message", "subject", "hint"}}`; nothing a caller sends ends control.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from sandbox.errors import AirssysError
from supervisor.control import openapi
from supervisor.control.bodies import ErrorAnswer, ErrorBody
from supervisor.control.context import Control
from supervisor.control.endpoints import ENDPOINTS, Endpoint
from supervisor.control.errors import AuditError, AuthorizationError, NoSpaceError
from supervisor.control.handlers_host import render
from supervisor.control.parsing import read_query
from supervisor.control.peer import Peer, peer_of
from supervisor.control.statuses import http_status

_log = logging.getLogger("airssys.control")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The HTTP server.

    Args:
        control: what the handlers work on.
        admins: uids that may use this host beside root and the host's own user.
    """

    def __init__(self, control: Control, admins: tuple[int, ...]) -> None:
        self._control = control
        self._allowed = frozenset({0, os.geteuid(), *admins})
        self.app = web.Application(middlewares=[self._answer_errors], client_max_size=1 << 20)
        for endpoint in ENDPOINTS:
            self.app.router.add_route(endpoint.method, endpoint.path, self._handler(endpoint))
        document = msgspec.json.encode(openapi.document())

        async def describe(_request: web.Request) -> web.Response:
            return web.Response(body=document, content_type="application/json")

        self.app.router.add_get("/v1/openapi.json", describe)
        self._runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening Unix socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    def _handler(self, endpoint: Endpoint) -> _Next:
        async def handle(request: web.Request) -> web.StreamResponse:
            read_query(request, endpoint.query)
            answer = await endpoint.handler(self._control, request, request[PEER])
            return render(answer) if isinstance(answer, msgspec.Struct) else answer

        return handle

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: _Next) -> web.StreamResponse:
        try:
            request[PEER] = await self._authorize(request)
            return await handler(request)
        except AirssysError as error:
            return await self._refuse(request, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            code = {404: "E_NOT_FOUND", 405: "E_VALIDATION", 413: "E_TOO_LARGE"}.get(error.status, "E_VALIDATION")
            return _error(code, f"{error.reason}: {request.method} {request.path[:200]}", status=error.status)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except OSError as error:
            if error.errno not in _FULL:
                return _failed(request, error)
            _log.error("%s %s: %s", request.method, request.path, error)
            full = NoSpaceError("the host's disk is full: nothing was changed", hint="make room on it, then try again")
            return await self._refuse(request, full)
        except Exception as error:
            return _failed(request, error)

    async def _refuse(self, request: web.Request, error: AirssysError) -> web.Response:
        if request.method != "GET" and PEER in request:
            try:
                await self._record_refusal(request, error)
            except AuditError as unrecorded:
                error = unrecorded  # the more important of the two; what was refused is refused all the same
        return _error(error.code, error.message, error.subject, error.hint)

    async def _authorize(self, request: web.Request) -> Peer:
        peer = peer_of(request)
        if peer.uid not in self._allowed:
            await self._control.audit.record_soon(
                "api.denied",
                "denied",
                object=_what(request),
                result="E_AUTHORIZATION",
                detail={"uid": peer.uid, "pid": peer.pid},
            )
            raise AuthorizationError(
                "this user may not operate this host",
                subject=peer.name,
                hint="an administrator can add the uid to admins in the host's configuration",
            )
        return peer

    async def _record_refusal(self, request: web.Request, error: AirssysError) -> None:
        if request.path in ("/v1/messages", "/v1/publications"):
            return  # the router records what it denies; the rest is no decision about rights
        peer: Peer = request[PEER]
        if isinstance(error, AuditError):
            # It could not be recorded that it was asked; that it was refused follows when it can.
            self._control.audit.note("api.refused", "denied", object=_what(request), result=error.code)
            return
        await self._control.audit.record_soon(
            "api.refused",
            "denied",
            object=_what(request),
            result=error.code,
            detail={"user": peer.name, "uid": peer.uid, "message": error.message, "subject": error.subject},
        )


PEER: web.RequestKey[Peer] = web.RequestKey("peer", Peer)


def _what(request: web.Request) -> str:
    return f"{request.method} {request.path}"


def _failed(request: web.Request, error: Exception) -> web.Response:
    _log.error("an endpoint failed: %s %s", request.method, request.path, exc_info=error)
    return _error("E_INTERNAL", f"control failed: {type(error).__name__}", hint="see the host's log")


def _error(code: str, message: str, subject: str = "", hint: str = "", *, status: int | None = None) -> web.Response:
    answer = ErrorAnswer(ErrorBody(code, message, subject, hint))
    return render(answer, http_status(code) if status is None else status)
