"""What an operator tells a component: environment variables and arguments, small and plain.

A component gets them in `initialize` and through WASI. They are settings, not secrets: they stand in the registry and
in `airssys info`, and the component's own text can print them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from supervisor.control.errors import ValidationError

MAX_VARIABLES = 64
MAX_ARGS = 64
MAX_BYTES = 16 * 1024
"""Bytes of UTF-8 of all names and values, and of all arguments likewise."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z")


def check(env: dict[str, str], args: list[str]) -> None:
    """Whether they can be given to a component.

    Raises:
        ValidationError: too many, too long, a name that is none, a character no program expects there.
    """
    if len(env) > MAX_VARIABLES:
        raise ValidationError(f"more than {MAX_VARIABLES} environment variables", subject=str(len(env)))
    if len(args) > MAX_ARGS:
        raise ValidationError(f"more than {MAX_ARGS} arguments", subject=str(len(args)))
    for name in env:
        if not _NAME.match(name):
            raise ValidationError(
                "not the name of an environment variable",
                subject=name[:200],
                hint="a letter or underscore, then letters, digits, dots and dashes; at most 128",
            )
    _check_texts("environment", [text for pair in env.items() for text in pair])
    _check_texts("arguments", args)


def _check_texts(what: str, texts: Iterable[str]) -> None:
    size = 0
    for text in texts:
        if "\0" in text:
            raise ValidationError(f"a NUL in the {what}", subject=text.replace("\0", "\\0")[:200])
        size += len(text.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        raise ValidationError(f"the {what} takes more than {MAX_BYTES} bytes", subject=str(size))
