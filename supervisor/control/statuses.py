"""Error codes to HTTP statuses: one table, so that a code means the same at every endpoint."""

from __future__ import annotations

STATUS: dict[str, int] = {
    "E_AUTHENTICATION": 401,
    "E_AUTHORIZATION": 403,
    "E_CONSENT": 403,
    "E_DENIED": 403,
    "E_FORBIDDEN_PATH": 403,
    "E_LIMIT": 403,
    "E_NOT_FOUND": 404,
    "E_TARGET_NOT_FOUND": 404,
    "E_CONFLICT": 409,
    "E_TOO_LARGE": 413,
    "E_VALIDATION": 400,
    "E_BINDING": 400,
    "E_KEY": 400,
    "E_TRUST": 400,
    "E_COMPILE_BUSY": 429,
    "E_QUEUE_FULL": 429,
    "E_EXPIRED": 504,
    "E_CIRCUIT_OPEN": 503,
    "E_INTERNAL": 500,
    "E_STATE": 500,
    "E_AUDIT": 503,
    "E_UNAVAILABLE": 503,
    "E_TIMEOUT": 504,
    "E_EXHAUSTED": 503,
    "E_NO_SPACE": 507,
    "E_GUEST_ERROR": 502,
    "E_TARGET_ENDED": 502,
}
"""What is not here is a refusal of what the caller sent: 422."""


def http_status(code: str) -> int:
    """The status an error's answer has."""
    return STATUS.get(code, 422)
