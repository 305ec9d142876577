"""`docs/reference/fixtures.md`, made from the plugin and the classes themselves."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import airssys.pytest_plugin as plugin
from airssys.docstrings import signature, text
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
        yield text(definition._get_wrapped_function())


def _classes() -> Iterator[str]:
    yield "## airssys.testing\n"
    yield "`MEMORY`, `CODE` and `OWN` are places: linear memory, the machine code, machine code of one's own.\n"
    yield f"### cannot_show{signature(cannot_show)}\n"
    yield text(cannot_show)
    for kind in CLASSES:
        yield f"### {kind.__name__}\n"
        if kind is not Place:
            yield f"`{kind.__name__}{'(...)' if kind is Result else signature(kind)}`\n"
        yield text(kind)
        for name, member in vars(kind).items():
            if name.startswith("_") or name == "wire":
                continue
            if isinstance(member, property):
                yield f"**`{kind.__name__}.{name}`**\n"
                yield text(member)
            elif isinstance(member, FunctionType):
                yield f"**`{kind.__name__}.{name}{signature(member)}`**\n"
                yield text(member)
