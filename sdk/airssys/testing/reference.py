"""`docs/reference/fixtures.md`, made from the plugin and the classes themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import airssys.pytest_plugin as plugin
from airssys.testing import (
    Host,
    HostError,
    HostileWorker,
    Pending,
    Program,
    Publisher,
    Result,
    Worker,
    cannot_show,
)
from airssys.testing.program import Place

_INTRODUCTION = """\
# Fixtures for attack suites

Generated from the code by `scripts/make-reference fixtures`; change the code, not this page. How they are used:
[the guide](../guide/attack-suites.md). What they talk to: [the protocol](selftest-serve.md).
"""
CLASSES = (Program, Place, Result, HostileWorker, Pending, Worker, Host, Publisher, HostError)


def markdown() -> str:
    """The whole page."""
    lines = [_INTRODUCTION, *_options(), "", *_mark(), *_fixtures(), *_classes()]
    return "\n".join(lines).rstrip() + "\n"


class _Options:
    """Takes what the plugin gives to pytest."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, Any]]] = []

    def getgroup(self, *_: str) -> _Options:
        return self

    def addoption(self, name: str, **more: Any) -> None:
        self.given.append((name, more))


def _options() -> Iterator[str]:
    options = _Options()
    plugin.pytest_addoption(options)  # type: ignore[arg-type]
    yield "## Options\n"
    yield "| Option of pytest | |"
    yield "|---|---|"
    for name, more in options.given:
        value = more.get("metavar") or " or ".join(more.get("choices", ()))
        yield f"| `{name}{' ' + value if value else ''}` | {more['help']} |"


def _mark() -> Iterator[str]:
    yield "## Mark\n"
    yield "`@pytest.mark.airssys_needs(*names)`"
    yield ": skips the test, by name and reason, unless root (`root`) or these walls of `airssys doctor` are here.\n"


def fixtures() -> dict[str, Any]:
    """Name to definition."""
    kind = type(plugin.airssys_host)
    return {name: value for name, value in vars(plugin).items() if isinstance(value, kind)}


def _fixtures() -> Iterator[str]:
    yield "## Fixtures\n"
    for name, definition in fixtures().items():
        scope = definition._fixture_function_marker.scope
        yield f"### {name}\n"
        yield f"Scope: {scope}.\n"
        yield _text(definition._get_wrapped_function())


def _classes() -> Iterator[str]:
    yield "## airssys.testing\n"
    yield "`MEMORY`, `CODE` and `OWN` are places: linear memory, the machine code, machine code of one's own.\n"
    yield f"### cannot_show{_signature(cannot_show)}\n"
    yield _text(cannot_show)
    for kind in CLASSES:
        yield f"### {kind.__name__}\n"
        if kind is not Place:
            yield f"`{kind.__name__}{_signature(kind)}`\n"
        yield _text(kind)
        for name, member in vars(kind).items():
            if name.startswith("_") or name == "wire":
                continue
            if isinstance(member, property):
                yield f"**`{kind.__name__}.{name}`**\n"
                yield _text(member)
            elif isinstance(member, FunctionType):
                yield f"**`{kind.__name__}.{name}{_signature(member)}`**\n"
                yield _text(member)


class _Plain(str):
    """An annotation that is shown as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(what: Any) -> str:
    if what is Result:
        return "(...)"  # nobody makes one
    found = inspect.signature(what)
    parameters = [
        value.replace(annotation=_Plain(value.annotation)) for name, value in found.parameters.items() if name != "self"
    ]
    answer = inspect.Signature.empty if found.return_annotation == "None" else _Plain(found.return_annotation)
    if inspect.isclass(what):
        answer = inspect.Signature.empty
    text = str(found.replace(parameters=parameters, return_annotation=answer))
    return re.sub(r"<(factory|function \w+ at 0x[0-9a-f]+)>", "...", text)


_SECTIONS = ("Args", "Attributes", "Raises", "Returns")


def _text(what: Any) -> str:
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
