"""What is being done in the tree beyond one component: at most one operation at each node.

An operation at a supervisor stops or starts several of the components below it. A new one ends what is being done at
the same place or below it, because it is about all of that, and leaves alone what is being done above or elsewhere.
An error in our own code ends no operation: it is told, and the operation begins again after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from supervisor.control.supervision import Tree

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
        tree: whose nodes they are about.
        spawn: makes a task.
        on_fault: told of an error of ours, with the node's name.
    """

    def __init__(
        self,
        tree: Tree,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        on_fault: Callable[[str, Exception], None],
    ) -> None:
        self._tree, self._spawn, self._on_fault = tree, spawn, on_fault
        self._running: dict[str, asyncio.Task[None]] = {}

    def at(self, node: str) -> bool:
        """Whether one is under way at this very node."""
        return node in self._running

    def begin(self, node: str, work: Work) -> asyncio.Task[None]:
        """Do `work` for a supervisor or component; what is under way there and below is ended first."""
        inside = self._tree.below(node) if self._tree.has(node) else {node}
        superseded = [self._running.pop(name) for name in list(self._running) if name in inside]
        task = self._running[node] = self._spawn(self._carry_out(node, superseded, work))
        return task

    async def _carry_out(self, node: str, superseded: list[asyncio.Task[None]], work: Work) -> None:
        faults = 0
        try:
            await end(superseded)
            while True:
                try:
                    await work()
                    return
                except Exception as error:
                    faults += 1
                    self._on_fault(node, error)
                await asyncio.sleep(fault_delay(faults))
        finally:
            if self._running.get(node) is asyncio.current_task():
                del self._running[node]

    async def cancel_all(self) -> None:
        """End every operation where it stands."""
        tasks, self._running = list(self._running.values()), {}
        await end(tasks)


async def end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are over."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
