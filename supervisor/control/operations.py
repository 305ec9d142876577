"""What is being done in the tree beyond one component: operations, each a task that stops or starts several.

Every component that an operation is about is claimed by it, and only what is still claimed is touched when its turn
comes. So a later decision needs to end no earlier operation: it claims what it is about, and the earlier one goes on
with the rest. No two wait for each other, because all go through the tree in its one order.

An error in our own code ends no operation: it is told, and the operation begins again after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

FAULT_FIRST, FAULT_MOST = 0.05, 30.0
"""Seconds before something that failed by an error of ours is done again: the first time, the longest."""
Work = Callable[[], Coroutine[None, None, None]]


def fault_delay(faults: int) -> float:
    """Seconds to wait after the `faults`th error in a row."""
    delay: float = min(FAULT_FIRST * 2.0 ** min(faults - 1, 20), FAULT_MOST)
    return delay


class Operations:
    """The operations of one tree.

    Args:
        spawn: makes a task.
        on_fault: told of an error of ours, with the name of the supervisor or component that the operation is at.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        on_fault: Callable[[str, Exception], None],
    ) -> None:
        self._spawn, self._on_fault = spawn, on_fault
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, at: str, work: Work) -> asyncio.Task[None]:
        """Do `work`, and again when it fails by an error of ours."""
        task = self._spawn(self._carry_out(at, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _carry_out(self, at: str, work: Work) -> None:
        faults = 0
        while True:
            try:
                return await work()
            except Exception as error:
                faults += 1
                self._on_fault(at, error)
            await asyncio.sleep(fault_delay(faults))

    async def cancel_all(self) -> None:
        """End every operation where it stands."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
