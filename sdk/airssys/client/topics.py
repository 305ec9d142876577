"""Which topics a pattern covers: parts between dots, `*` for one part, `>` at the end for one or more."""

from __future__ import annotations


def covers(pattern: str, topic: str) -> bool:
    """Whether a topic pattern covers a topic."""
    wanted, given = pattern.split("."), topic.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or part not in ("*", given[index]):
            return False
    return len(wanted) == len(given)
