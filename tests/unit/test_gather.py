"""Code put together before the fork: the copies do what the originals did, and lie side by side."""

from __future__ import annotations

import gc
import traceback
import types
from typing import Any

import pytest
from forked import returns

from sandbox.warm_up import gather

pytestmark = pytest.mark.block1_runtime


def _double(number: int, *, plus: int = 1) -> int:
    add = [plus]

    def inner() -> int:
        return number * 2 + add[0]

    return inner()


def test_what_runs_is_found() -> None:
    """Every Python function that is called, inner ones too, and no other."""
    used = {code.co_name for code in gather.code_in_use(lambda: print(end=str(_double(1))[:0]))}
    assert {"_double", "inner"} <= used
    assert "test_what_runs_is_found" not in used


def test_copies_do_the_same() -> None:
    """The functions go on under fresh code with the same results, errors and names; originals are kept alive."""

    def child() -> list[Any]:
        gc.unfreeze()  # what another test froze is not among the collector's objects
        before = _double.__code__
        used = gather.code_in_use(lambda: _double(3))
        count = gather.together(used)
        after = _double.__code__
        raised = ""
        try:
            _double(None)  # type: ignore[arg-type]
        except TypeError as error:
            frames = [entry.name for entry in traceback.extract_tb(error.__traceback__)]
            raised = ",".join(frames[1:])
        return [
            count >= 1,
            before is not after,
            before == after,
            _double(3, plus=4),
            raised,
            before in gather._originals,
        ]

    assert [True, True, True, 10, "_double,inner", True] == returns(child)


def test_names_of_ours_are_looked_up() -> None:
    """Looking names up changes no module."""

    def child() -> bool:
        import sandbox.cage

        names = set(vars(sandbox.cage))
        gather.look_up_names()
        return names == set(vars(sandbox.cage))

    assert returns(child)


def test_functions_share_their_copy() -> None:
    """Two functions of one code object still share one afterwards."""

    def child() -> bool:
        gc.unfreeze()
        twins = [types.FunctionType(_double.__code__, globals()) for _ in range(2)]
        gather.together({_double.__code__})
        gc.collect()
        return twins[0].__code__ is twins[1].__code__ is _double.__code__

    assert returns(child)
