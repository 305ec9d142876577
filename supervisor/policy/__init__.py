"""Policy as data: host paths that are never bound into a component, and the question asked of the list.

Control asks before it accepts a binding, the supervisor before it makes the mount. The answer is lexical, by
component: the path must be resolved (`os.path.realpath`) by whoever asks, and opened without following links after.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence

import msgspec

from supervisor.packages.errors import ConfigError
from supervisor.packages.toml_source import TomlSource, string

_FILE = os.path.join(os.path.dirname(__file__), "forbidden-paths.toml")


class ForbiddenPath(msgspec.Struct, frozen=True):
    """One line of the policy."""

    path: str
    reason: str


def forbidden(path: str, extra: Iterable[str] = ()) -> str | None:
    """Why a resolved host path may never be bound; None where it may.

    Args:
        path: absolute and resolved.
        extra: further paths to forbid: the host's own directories and the operator's `forbidden`.
    """
    parts = _parts(path)
    if parts is None:
        return f"{path} is not an absolute, resolved path"
    more = [ForbiddenPath(other, "this host's configuration forbids it or the host itself uses it") for other in extra]
    for line in (*forbidden_paths(), *more):
        covered = _parts(line.path) or ()
        if _matches(covered, parts[: len(covered)]):
            where = f" lies in {line.path}" if len(parts) > len(covered) else ""
            return f"{path}{where}: {line.reason}"
        if _matches(covered[: len(parts)], parts):
            return f"{path} contains {line.path}: {line.reason}"
    return None


def refuse_binding(path: str, roots: Sequence[str], extra: Iterable[str] = ()) -> str | None:
    """Why a resolved host path may not be bound on this host; None where it may.

    Args:
        path: absolute and resolved.
        roots: `host.bind-roots`: bound directories lie in one of these.
        extra: as in `forbidden`.
    """
    reason = forbidden(path, extra)
    if reason is not None:
        return reason
    parts = _parts(path) or ()
    for root in roots:
        root_parts = _parts(root)
        if root_parts is not None and parts[: len(root_parts)] == root_parts:
            return None
    return f"{path} lies in none of bind-roots ({', '.join(roots) or 'which is empty'})"


@functools.cache
def forbidden_paths() -> tuple[ForbiddenPath, ...]:
    """The policy's lines.

    Raises:
        ConfigError: the installed policy file is damaged.
    """
    with open(_FILE, "rb") as file:
        source = TomlSource(file.read(), file=_FILE, error=ConfigError)
    lines = []
    for table in source.root.tables("forbidden", most=1000):
        line = ForbiddenPath(
            path=table.take("path", string),
            reason=table.take("reason", string),
        )
        if _parts(line.path) is None:
            raise table.refuse("path", "not an absolute, normal path")
        lines.append(line)
    source.root.done()
    return tuple(lines)


def _parts(path: str) -> tuple[str, ...] | None:
    """The components of an absolute path in its one spelling; None for any other text."""
    if path == "/":
        return ()
    parts = tuple(path.split("/")[1:])
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        return None
    return parts


def _matches(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return len(pattern) == len(parts) and all(known in ("*", part) for known, part in zip(pattern, parts, strict=True))
