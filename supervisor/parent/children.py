"""The host's own processes as the supervisor keeps them: start, channel, death, start again.

A child is a pid with a pidfd, a SEQPACKET channel that never blocks the supervisor, and a restart counter. Restart is
at once; a child that dies again and again within seconds is started with growing delays. Only while the host is still
starting does that end the host, with a clear message: it has never served, and whoever started it is waiting.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from sandbox.wire.supervisor_frames import close_all, send_frame
from supervisor.parent.errors import SpawnFailed
from supervisor.parent.spawn import pidfd_of

log = logging.getLogger("airssys.supervisor")

MAX_DEATHS = 5
DEATH_WINDOW = 10.0
"""More than MAX_DEATHS deaths within this many seconds end a host that is starting."""
FREE_DEATHS = 3
"""Deaths within the window that are followed by a start at once."""
MAX_DELAY = 5.0
"""Longest wait before another start, seconds."""
HANG_UP_SECONDS = 0.2
"""How long a child may outlive its channel."""
MAX_QUEUE = 10_000
"""Frames waiting for a child that does not read; more, and it is killed."""


@dataclass
class Child:
    """One kind of host process and its present incarnation.

    Attributes:
        start: spawns it with the given channel end; returns its pid.
    """

    name: str
    uid: int
    start: Callable[[socket.socket], int]
    pid: int = 0
    pidfd: int = -1
    sock: socket.socket | None = None
    ready: bool = False
    restarts: int = -1
    queue: deque[tuple[msgspec.Struct, list[int]]] = field(default_factory=deque)
    _deaths: deque[float] = field(default_factory=deque)

    def launch(self) -> None:
        """Start a new incarnation.

        Raises:
            SpawnFailed: see `spawn.spawn`.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = self.start(theirs)
            self.pidfd = pidfd_of(self.pid)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self.sock = ours
        self.ready = False
        self.restarts += 1

    def send(self, frame: msgspec.Struct, fds: list[int] | tuple[int, ...] = ()) -> None:
        """Send without ever waiting: what the child does not take now is queued (descriptors duplicated).

        A child that cannot be told is killed: the next incarnation is told everything.
        """
        if self.sock is None:
            return  # dead: the new incarnation is told everything again
        if not self.queue:
            try:
                send_frame(self.sock, frame, fds)
                return
            except BlockingIOError:
                pass
            except OSError:
                return  # hung up: its death is on its way through the pidfd
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))
        except OSError as error:
            log.error("%s cannot be told what waits for it: %s", self.name, error)
            close_all(copies)
            self.kill()
            return
        self.queue.append((frame, copies))
        if len(self.queue) > MAX_QUEUE:
            self.kill()

    def flush(self) -> None:
        """Send what was queued, as far as the child takes it."""
        while self.queue and self.sock is not None:
            frame, fds = self.queue[0]
            try:
                send_frame(self.sock, frame, fds)
            except BlockingIOError:
                return
            except OSError:
                self._drop_queue()
                return
            self.queue.popleft()
            close_all(fds)

    def _drop_queue(self) -> None:
        for _, fds in self.queue:
            close_all(fds)
        self.queue.clear()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the present incarnation."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return  # already dead

    def hung_up(self) -> None:
        """The channel is closed from the other side: make sure that death follows, leaving it its own exit status."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        if not select.select([self.pidfd], [], [], HANG_UP_SECONDS)[0]:
            self.kill()

    def reap(self) -> str:
        """Wait for the dead incarnation, close its descriptors; how it died in words."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self.close()
        self._deaths.append(time.monotonic())
        while self._deaths and self._deaths[0] < time.monotonic() - DEATH_WINDOW:
            self._deaths.popleft()
        if result is None:
            return "gone"
        return f"exit status {result.si_status}" if result.si_code == os.CLD_EXITED else f"signal {result.si_status}"

    def close(self) -> None:
        """Close the channel and pidfd (a child that sees its channel hang up ends)."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.ready = False
        self._drop_queue()

    def delay(self) -> float:
        """Seconds to wait before the next start."""
        excess = len(self._deaths) - FREE_DEATHS
        return 0.0 if excess <= 0 else min(0.1 * 2.0**excess, MAX_DELAY)

    def check_storm(self) -> None:
        """Raise SpawnFailed when it died too often lately."""
        if len(self._deaths) > MAX_DEATHS:
            raise SpawnFailed(
                f"{self.name} died {len(self._deaths)} times within {DEATH_WINDOW:.0f} seconds",
                subject=self.name,
                hint="see the host's log",
            )
