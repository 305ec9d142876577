"""Put what every worker runs side by side in memory, before the fork.

CPython writes into what it runs: a call counts a reference to the function's code, a lookup of a name one to the name.
After a fork each page written to becomes a private copy, whatever else lies on it; and what a worker runs lies spread
over the pages of all that was ever imported. Copies of the code objects in use, made one after the other into a heap
without holes, lie together; names that are looked up once in the zygote are in the interpreter's cache of lookups, and
the worker's lookups write nothing.

Nothing else changes: a copy does what its original does. CPython alone works this way; elsewhere this saves nothing.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable, Iterator

from sandbox.kernel import heap

_OURS = "sandbox."
_originals: set[types.CodeType] = set()
"""Kept: where they were freed, a worker's own objects would be spread over their places."""


def code_in_use(run: Callable[[], None]) -> set[types.CodeType]:
    """The code objects of every Python function that `run` calls."""
    used: set[types.CodeType] = set()

    def note(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call":
            used.add(frame.f_code)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return used


def together(used: set[types.CodeType]) -> int:
    """Give every function that runs one of these a fresh copy of it; how many copies were made."""
    heap.fill_holes()
    _originals.update(used)
    copies: dict[types.CodeType, types.CodeType] = {}
    for candidate in gc.get_objects():
        if isinstance(candidate, types.FunctionType) and candidate.__code__ in used:
            code = candidate.__code__
            if code not in copies:
                copies[code] = code.replace(co_consts=(*code.co_consts,))
            candidate.__code__ = copies[code]
    return len(copies)


def look_up_names() -> None:
    """Look up, on a module, each name that code of ours mentions: what the cage's steps will look up is among them."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_OURS) and module is not None:
            for function in _functions(module):
                for word in _names(function.__code__):
                    getattr(module, word, None)


def _functions(module: types.ModuleType) -> Iterator[types.FunctionType]:
    for value in vars(module).values():
        if isinstance(value, types.FunctionType):
            yield value
        elif isinstance(value, type) and value.__module__ == module.__name__:
            yield from (method for method in vars(value).values() if isinstance(method, types.FunctionType))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
