"""`docs/reference/api.md`, made from the endpoints' table and the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from supervisor.control.endpoints import ENDPOINTS, Endpoint
from supervisor.control.openapi import document
from supervisor.control.statuses import STATUS

_INTRODUCTION = """\
# The host's API

Generated from the endpoints by `scripts/make-reference api`; change the code, not this page.

HTTP and JSON on a Unix socket, `api.sock` in the host's run-time directory (see [config.md](config.md)). The socket can
be opened by everybody; the kernel says who is calling (SO_PEERCRED), and whoever is neither root, nor the user who
started the host, nor one of `host.admins` is refused and recorded. The command line is a client of this API.

    curl --unix-socket /run/airssys/api.sock http://airssys/v1/status

The same as an OpenAPI 3.1 document: `GET /v1/openapi.json`. Names in JSON are in kebab-case, as in the tables below.
Unknown fields, unknown query parameters and a parameter given twice are errors.

An answer that is no success is `{"error": {"code", "message", "subject", "hint"}}`; the codes are in
[errors.md](errors.md). A change of components, packages or trust is answered after its record is in the audit log;
messages that are allowed are counted and not recorded.
"""

_MEDIA = {
    "application/octet-stream": "bytes",
    "application/x-ndjson": "JSON lines",
    "multipart/form-data": "a form with the parts `wasm`, `envelope` and `manifest`; the last two may be missing",
}


def markdown() -> str:
    """The whole page."""
    schemas = document()["components"]["schemas"]
    return "\n".join([_INTRODUCTION, *_statuses(), *_endpoints(schemas), *_structures(schemas)]).rstrip() + "\n"


def _statuses() -> Iterator[str]:
    yield "## Statuses\n"
    yield "| Status | Codes |"
    yield "|---|---|"
    for status in sorted(set(STATUS.values())):
        yield f"| {status} | {', '.join(f'`{code}`' for code in sorted(STATUS) if STATUS[code] == status)} |"
    yield "| 422 | every other: a refusal of what the caller sent |\n"


def _endpoints(schemas: dict[str, Any]) -> Iterator[str]:
    operations = document()["paths"]
    yield "## Endpoints\n"
    for endpoint in ENDPOINTS:
        yield f"### {endpoint.method} {endpoint.path}\n"
        yield operations[endpoint.path][endpoint.method.lower()]["summary"] + "\n"
        yield from _query(endpoint, schemas)
        if endpoint.body is not None:
            yield f"Body: {_shown(endpoint.body)}.\n"
        yield f"Answer: {_shown(endpoint.answer)}.\n"


def _query(endpoint: Endpoint, schemas: dict[str, Any]) -> Iterator[str]:
    if msgspec.structs.fields(endpoint.query):
        schema = schemas[endpoint.query.__name__]
        yield "Query: " + schema["description"] + "\n"
        yield from _fields(schema)


def _shown(kind: type[msgspec.Struct] | str) -> str:
    return _MEDIA[kind] if isinstance(kind, str) else _link(kind.__name__)


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _structures(schemas: dict[str, Any]) -> Iterator[str]:
    queries = {endpoint.query.__name__ for endpoint in ENDPOINTS}
    yield "## Structures\n"
    for name in sorted(set(schemas) - queries):
        yield f"### {name}\n"
        yield schemas[name]["description"] + "\n"
        yield from _fields(schemas[name])


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", [])
    yield "| Field | Type | Default |"
    yield "|---|---|---|"
    for name, field in schema["properties"].items():
        default = "" if name in required else f"`{json.dumps(field.get('default'))}`"
        yield f"| `{name}` | {_type(field)} | {default} |"
    yield ""


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return _link(field["$ref"].rsplit("/", 1)[1])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    match field.get("type"):
        case "array":
            return f"array of {_type(field['items'])}"
        case "object":
            return f"object of {_type(field['additionalProperties'])}"
        case None:
            return "any JSON"
        case other:
            return str(other)
