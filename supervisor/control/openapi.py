"""The OpenAPI 3.1 document of the API, made from the endpoints' table and the bodies' structures."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from supervisor.control.bodies import ErrorAnswer
from supervisor.control.endpoints import ENDPOINTS, Endpoint

_REF = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The whole document as JSON values."""
    kinds = [
        kind
        for endpoint in ENDPOINTS
        for kind in (endpoint.query, endpoint.body, endpoint.answer)
        if isinstance(kind, type)
    ]
    schemas, components = msgspec.json.schema_components([*kinds, ErrorAnswer], ref_template=_REF)
    by_kind = dict(zip([*kinds, ErrorAnswer], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "airssys control",
            "version": "1",
            "description": "The API of one host, on a Unix socket. Callers are known by their uid (SO_PEERCRED).",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(endpoint: Endpoint, schemas: dict[Any, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", endpoint.path)
    ]
    for field in msgspec.structs.fields(endpoint.query):
        parameters.append(
            {
                "name": field.encode_name,
                "in": "query",
                "required": field.required,
                "schema": msgspec.json.schema(field.type),
            }
        )
    operation: dict[str, Any] = {
        "operationId": endpoint.handler.__name__,
        "summary": (inspect.getdoc(endpoint.handler) or "").split("\n", maxsplit=1)[0],
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": _content(endpoint.answer, schemas)},
            "default": {"description": "Refused or failed.", "content": _content(ErrorAnswer, schemas)},
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.body, schemas)}
    return operation


def _content(kind: type[msgspec.Struct] | str, schemas: dict[Any, Any]) -> dict[str, Any]:
    if not isinstance(kind, str):
        return {"application/json": {"schema": schemas[kind]}}
    if kind == "multipart/form-data":
        parts = {name: {"type": "string", "format": "binary"} for name in ("wasm", "envelope", "manifest")}
        return {kind: {"schema": {"type": "object", "properties": parts, "required": ["wasm"]}}}
    return {kind: {"schema": {"type": "string", "format": "binary"}}}
