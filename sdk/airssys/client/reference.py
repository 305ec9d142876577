"""`docs/reference/client.md`, made from the classes of `airssys.client` and the functions of `airssys.codecs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType

from airssys import client, codecs
from airssys.client import errors
from airssys.docstrings import signature, text

_INTRODUCTION = """\
# The client library

Generated from the code by `scripts/make-reference client`; change the code, not this page. How it is used, and what
stands in the host's configuration: [the guide](../guide/clients.md).
"""
CLASSES = (
    client.Client,
    client.Subscription,
    client.AsyncClient,
    client.AsyncSubscription,
    client.Reply,
    client.Event,
)
CODECS = (codecs.encode, codecs.decode, codecs.split, codecs.dump, codecs.load)


def markdown() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_classes(), *_exceptions(), *_codecs()]).rstrip() + "\n"


def _classes() -> Iterator[str]:
    yield "## airssys.client\n"
    for kind in CLASSES:
        name = "AsyncSubscription" if kind is client.AsyncSubscription else kind.__name__
        yield f"### {name}\n"
        if kind in (client.Client, client.AsyncClient):
            yield f"`{name}{signature(kind)}`\n"
        yield text(kind)
        members: dict[str, object] = {}
        for base in reversed(kind.__mro__[:-1]):
            if base.__module__.startswith("airssys."):
                members |= {key: value for key, value in vars(base).items() if not key.startswith("_")}
        for key, member in members.items():
            if isinstance(member, property):
                yield f"**`{name}.{key}`**\n"
                yield text(member)
            elif isinstance(member, FunctionType):
                word = "await " if inspect.iscoroutinefunction(member) else ""
                yield f"**`{word}{name}.{key}{signature(member)}`**\n"
                yield text(member)


def _exceptions() -> Iterator[str]:
    yield "## Exceptions\n"
    yield "| | Is a | Reason | |"
    yield "|---|---|---|---|"
    for kind in (
        errors.ClientError,
        errors.NotConnected,
        errors.NotAllowed,
        errors.ConnectionLost,
        errors.Closed,
        errors.Refused,
        errors.Failed,
        *errors.REASONS.values(),
        codecs.CodecError,
    ):
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        reason = getattr(kind, "reason", "")
        yield f"| `{kind.__name__}` | {bases} | {f'`{reason}`' if reason else ''} | {inspect.getdoc(kind)} |"
    yield ""


def _codecs() -> Iterator[str]:
    yield "## airssys.codecs\n"
    yield text(codecs)
    for function in CODECS:
        yield f"**`codecs.{function.__name__}{signature(function)}`**\n"
        yield text(function)
