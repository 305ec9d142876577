"""Which worker a component gets: a blank that waits, one cloned now, or the clone of a zygote of its own.

A blank is a worker that has been cloned and caged and has no component yet (`sandbox.cage`). The pool keeps some ready
and makes new ones when nothing is being started, so that a start does not wait for the making of the next blank.

With `spawn = "exec"` a component gets the clone of a zygote that is started for it, executed anew, and ended after
this one clone: its address-space layout is shared with no sibling. It costs the interpreter's start.
"""

from __future__ import annotations

import logging
import selectors
import time
from dataclasses import dataclass, field

from supervisor.parent.children import Child
from supervisor.parent.errors import FAILURES
from supervisor.parent.inspect import Namespaces, filters_of
from supervisor.parent.services import Services
from supervisor.parent.workers import Worker, Workers

log = logging.getLogger("airssys.supervisor")
PRIVATE = "private zygote"
"""Name of a zygote that is started for one worker."""
QUIET_SECONDS = 0.02
"""How long nothing must have been started before another blank is made."""
FIRST_DELAY = 1.0
MAX_DELAY = 60.0
"""Seconds before another blank is tried after one failed; doubled each time."""


@dataclass
class Pool:
    """Workers to be had.

    Attributes:
        wanted: blanks kept ready.
        selector: the loop's; a private zygote is registered with ("child" | "private-dead", it).
        zygote: the host's own.
    """

    wanted: int
    selector: selectors.BaseSelector
    workers: Workers
    services: Services
    zygote: Child
    _foreign: Namespaces = field(default_factory=dict)
    _inherited: int = 0
    _private: dict[int, Worker] = field(default_factory=dict)
    """Workers of private zygotes that are not cloned yet, by the number in the zygote's name."""
    _not_before: float = 0.0
    _delay: float = FIRST_DELAY

    def zygote_up(self) -> None:
        """The host's zygote is ready. Raises OSError when it is gone again."""
        self._foreign, self._inherited = self.workers.foreign(self.zygote.pid), filters_of(self.zygote.pid)
        self._not_before = time.monotonic() + QUIET_SECONDS

    def take(self, spawn: str) -> Worker:
        """A worker to be claimed at once.

        Raises:
            SpawnFailed, OSError: there is none to be had.
        """
        self._not_before = max(self._not_before, time.monotonic() + QUIET_SECONDS)
        if spawn == "exec":
            return self._executed()
        for worker in self.workers.blanks():
            if worker.zygote is self.zygote:
                return worker
        return self._cloned()

    def _cloned(self) -> Worker:
        worker = self.workers.make(self.zygote)
        worker.foreign, worker.inherited = self._foreign, self._inherited
        self.workers.ask(worker)
        return worker

    # -- blanks -------------------------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """When the next blank is to be made; None while none is missing."""
        if not self.zygote.ready or sum(1 for w in self.workers.blanks() if w.zygote is self.zygote) >= self.wanted:
            return None
        return self._not_before

    def refill(self, now: float) -> None:
        """Make one blank, if one is due and nothing is being started."""
        due = self.due()
        if due is None or now < due:
            return
        if any(worker.stage in ("cloning", "sealing") for worker in self.workers.by_number.values()):
            self._not_before = now + QUIET_SECONDS
            return
        try:
            self._cloned()
        except FAILURES as error:
            log.error("no blank could be made: %s", error)
            self.failed()
            return
        self._not_before = now + QUIET_SECONDS

    def failed(self) -> None:
        """A blank came to nothing: wait before the next."""
        self._not_before = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, MAX_DELAY)

    def succeeded(self) -> None:
        """A worker became live: whatever was wrong is over."""
        self._delay = FIRST_DELAY

    # -- private zygotes ----------------------------------------------------------------------------------------------

    def _executed(self) -> Worker:
        zygote = Child(PRIVATE, self.zygote.uid, self.services.private_zygote)
        worker = self.workers.make(zygote)
        try:
            zygote.launch()
        except FAILURES:
            self.workers.forget(worker)
            self.workers.cgroups.remove(worker.group)
            raise
        self._private[zygote.pid] = worker
        assert zygote.sock is not None
        self.selector.register(zygote.pidfd, selectors.EVENT_READ, ("private-dead", zygote))
        self.selector.register(zygote.sock, selectors.EVENT_READ, ("child", zygote))
        return worker

    def private_up(self, zygote: Child) -> None:
        """A private zygote is ready: have its worker cloned. Raises OSError when it is gone again."""
        worker = self._private[zygote.pid]
        if worker.verdict is not None or worker.stage != "cloning":
            self.dismiss(zygote)  # given up meanwhile
            return
        worker.foreign, worker.inherited = self.workers.foreign(zygote.pid), filters_of(zygote.pid)
        self.workers.ask(worker)

    def dismiss(self, zygote: Child) -> None:
        """Its one clone is made, or not needed any more; the host's own zygote stays."""
        if zygote is not self.zygote and zygote.sock is not None:
            self.selector.unregister(zygote.sock)
            zygote.sock.close()
            zygote.sock = None
            zygote.kill()

    def private_ended(self, zygote: Child) -> None:
        """A private zygote is dead: reap it."""
        self.selector.unregister(zygote.pidfd)
        if zygote.sock is not None:
            self.selector.unregister(zygote.sock)
        self._private.pop(zygote.pid, None)
        zygote.reap()

    def close(self) -> None:
        """End every private zygote (the host stops)."""
        for key in list(self.selector.get_map().values()):
            if key.data[0] == "private-dead":
                key.data[1].kill()
                self.private_ended(key.data[1])
