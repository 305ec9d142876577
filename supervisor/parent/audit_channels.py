"""Channels to the auditor: one per producer, made anew whenever the auditor or the producer is."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field

from bridge.audit.client import AuditClient
from sandbox.wire import supervisor_frames as frames
from supervisor.parent.children import Child


@dataclass
class AuditChannels:
    """The supervisor's own client and the channels it makes for others.

    Attributes:
        boot: distinguishes this run of the host in producers' names.
    """

    boot: str
    client: AuditClient = field(default_factory=AuditClient)

    def _producer(self, auditor: Child, name: str, restarts: int) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # One name per process, so that what it sends again to the next auditor is known by its numbers.
        auditor.send(frames.Producer(f"{name}#{self.boot}.{restarts}"), [theirs.fileno()])
        theirs.close()
        return ours

    def connect(self, auditor: Child) -> None:
        """Give the supervisor's own client a channel to a (new) auditor."""
        self.client.replace(self._producer(auditor, "supervisor", 0))

    def give(self, auditor: Child, producer: Child) -> None:
        """Give a process a channel to the (new) auditor."""
        channel = self._producer(auditor, producer.name, max(producer.restarts, 0))
        producer.send(frames.AuditChannel(), [channel.fileno()])
        channel.close()

    def say_goodbye(self, seconds: float) -> None:
        """Record the host's end, waiting at most `seconds` for it and what is before it to be written."""
        told: list[int] = []
        self.client.record("host.stopped", "", "info", self.boot, on_recorded=told.append)
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.client.fileno(), select.POLLIN)
        while not told and time.monotonic() < end:
            self.client.flush()
            if poll.poll(50) and not self.client.on_readable():
                break
