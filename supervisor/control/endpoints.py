"""Every endpoint of the API in one table: the router and the OpenAPI document are both made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiohttp import web

from supervisor.control import (
    bodies,
    handlers_components,
    handlers_host,
    handlers_messages,
    handlers_packages,
    handlers_supervisors,
)
from supervisor.control.context import Control
from supervisor.control.peer import Peer

Handler = Callable[[Control, web.Request, Peer], Awaitable["web.StreamResponse | msgspec.Struct"]]


class Endpoint(NamedTuple):
    """One method on one path. `body` is a structure, or a media type; `answer` likewise."""

    method: str
    path: str
    handler: Handler
    query: type[msgspec.Struct]
    body: type[msgspec.Struct] | str | None
    answer: type[msgspec.Struct] | str


_ID = "/v1/components/{namespace}/{name}/{instance}"
_NDJSON, _BYTES, _FORM = "application/x-ndjson", "application/octet-stream", "multipart/form-data"
_C, _H, _M = handlers_components, handlers_host, handlers_messages
_P, _S = handlers_packages, handlers_supervisors
_DEAD = "/v1/deadletters"

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/v1/status", _H.status, bodies.NoQuery, None, bodies.StatusAnswer),
    Endpoint("GET", "/v1/doctor", _H.doctor, bodies.NoQuery, None, bodies.DoctorAnswer),
    Endpoint("POST", "/v1/host/down", _H.down, bodies.NoQuery, None, bodies.Accepted),
    Endpoint("GET", "/v1/logs", _H.logs, bodies.LinesQuery, None, _NDJSON),
    Endpoint("GET", "/v1/audit", _H.audit, bodies.LinesQuery, None, _NDJSON),
    Endpoint("GET", "/v1/components", _C.components, bodies.ComponentQuery, None, bodies.ComponentsAnswer),
    Endpoint("GET", _ID, _C.info, bodies.NoQuery, None, bodies.ComponentInfo),
    Endpoint("DELETE", _ID, _C.remove, bodies.RemoveQuery, None, bodies.Accepted),
    Endpoint("POST", _ID + "/start", _C.start, bodies.NoQuery, None, bodies.ComponentStatus),
    Endpoint("POST", _ID + "/stop", _C.stop, bodies.StopQuery, None, bodies.ComponentStatus),
    Endpoint("POST", _ID + "/restart", _C.restart, bodies.NoQuery, None, bodies.ComponentStatus),
    Endpoint("POST", _ID + "/release", _C.release, bodies.NoQuery, None, bodies.ComponentStatus),
    Endpoint("POST", "/v1/supervisors/{supervisor}/release", _S.release, bodies.NoQuery, None, bodies.SupervisorStatus),
    Endpoint("POST", "/v1/messages", _M.message, bodies.MessageQuery, _BYTES, _BYTES),
    Endpoint("POST", "/v1/publications", _M.publish, bodies.PublishQuery, _BYTES, bodies.PublishAnswer),
    Endpoint("GET", _DEAD, _M.deadletters, bodies.DeadLettersQuery, None, bodies.DeadLettersAnswer),
    Endpoint("GET", _DEAD + "/{letter}", _M.deadletter, bodies.NoQuery, None, bodies.DeadLetterAnswer),
    Endpoint(
        "POST",
        _DEAD + "/replay",
        _M.deadletters_replay,
        bodies.NoQuery,
        bodies.DeadLettersRequest,
        bodies.DeadLettersChanged,
    ),
    Endpoint(
        "POST",
        _DEAD + "/purge",
        _M.deadletters_purge,
        bodies.NoQuery,
        bodies.DeadLettersRequest,
        bodies.DeadLettersChanged,
    ),
    Endpoint("GET", "/v1/trace/{message}", _M.trace, bodies.NoQuery, None, bodies.TraceAnswer),
    Endpoint("POST", "/v1/packages", _P.upload, bodies.NoQuery, _FORM, bodies.PlanAnswer),
    Endpoint("POST", "/v1/install", _P.install, bodies.NoQuery, bodies.InstallRequest, bodies.ComponentStatus),
    Endpoint("GET", "/v1/trust", _P.trust, bodies.NoQuery, None, bodies.TrustAnswer),
    Endpoint("POST", "/v1/trust", _P.trust_add, bodies.NoQuery, bodies.TrustRequest, bodies.TrustChanged),
    Endpoint("POST", "/v1/trust/rotate", _P.trust_rotate, bodies.NoQuery, bodies.RotateRequest, bodies.TrustChanged),
    Endpoint("POST", "/v1/trust/revoke", _P.trust_revoke, bodies.NoQuery, bodies.RevokeRequest, bodies.TrustChanged),
    Endpoint("DELETE", "/v1/trust/{publisher}", _P.trust_remove, bodies.NoQuery, None, bodies.TrustChanged),
)
