"""Docstrings and signatures as Markdown, for reference pages."""

from __future__ import annotations

import inspect
import re
from typing import Any


class _Plain(str):
    """An annotation that is shown as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(what: Any) -> str:
    """How something is called, annotations as they are written."""
    found = inspect.signature(what)
    parameters = [
        value.replace(annotation=_Plain(value.annotation)) for name, value in found.parameters.items() if name != "self"
    ]
    answer = inspect.Signature.empty if found.return_annotation == "None" else _Plain(found.return_annotation)
    if inspect.isclass(what):
        answer = inspect.Signature.empty
    shown = str(found.replace(parameters=parameters, return_annotation=answer))
    return re.sub(r"<(factory|function \w+ at 0x[0-9a-f]+)>", "...", shown)


_SECTIONS = ("Args", "Attributes", "Raises", "Returns")


def text(what: Any) -> str:
    """A docstring; its sections as lists."""
    lines = []
    inside = False
    for line in (inspect.getdoc(what) or "").split("\n"):
        if line.rstrip(":") in _SECTIONS and line.endswith(":"):
            lines += [line, ""]
            inside = True
        elif inside and re.match(r" {4}\S", line):
            lines.append(f"- {_named(line.strip())}")
        elif inside and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines) + "\n"


def _named(line: str) -> str:
    name, found, rest = line.partition(": ")
    return f"`{name}`: {rest}" if found and re.fullmatch(r"\w+", name) else line
