"""What can keep the self-test itself from running; a wall that fell is a result, not an error."""

from __future__ import annotations

from sandbox.errors import AirssysError


class SelftestError(AirssysError):
    """The self-test cannot run here, or its own machinery failed."""

    code = "E_SELFTEST"
