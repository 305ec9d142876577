"""Names of the operating system's users as components and configuration spell them."""

from __future__ import annotations

import pwd
import re

_PLAIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
MAX_UID = (1 << 32) - 2
"""Largest user id (the one above it means "none", chown(2))."""


def user_name(uid: int) -> str:
    """A user's name, or `uid-<number>` where it has none that a component id could carry."""
    try:
        name = pwd.getpwuid(uid).pw_name.lower()
    except KeyError:
        return f"uid-{uid}"
    return name if _PLAIN.match(name) and len(name) <= 32 else f"uid-{uid}"
