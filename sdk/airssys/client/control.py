"""The two questions about a host that a program asks most, over the control API (HTTP on a Unix socket).

For whoever may use the API: root, the host's owner and its admins. Everything else it offers is in its reference.
"""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from typing import Any

from airssys.client.errors import Invalid, NotConnected, Refused

TIMEOUT = 30.0
"""Seconds an answer may take."""
_MAX_ANSWER = 64 << 20


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("airssys", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Control:
    """The control API of one host.

    Args:
        path: its Unix socket, `api.sock` in the host's run-time directory.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def status(self) -> dict[str, Any]:
        """Host and components: `GET /v1/status`. Raises Refused, NotConnected."""
        return self._get("/v1/status")

    def info(self, component: str) -> dict[str, Any]:
        """All about one component: `GET /v1/components/...`. Raises Invalid, Refused, NotConnected."""
        if not all(component.split("/")) or component.count("/") not in (1, 2):
            raise Invalid(f"not a component id: {component[:200]!r}; as in acme/echo or acme/echo/0")
        name = component if component.count("/") == 2 else f"{component}/0"
        return self._get("/v1/components/" + urllib.parse.quote(name))

    def _get(self, path: str) -> dict[str, Any]:
        connection = _Connection(self.path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise NotConnected(f"no host answers at {self.path}: {error}") from error
        finally:
            connection.close()
        try:
            value = json.loads(body)
            if answer.status >= 400:
                told = value["error"]
                raise Refused(told["code"], told["message"], told["subject"], told["hint"])
        except (ValueError, KeyError, TypeError) as error:
            raise NotConnected(f"what answers at {self.path} is no host: status {answer.status}") from error
        assert isinstance(value, dict)
        return value
