"""How each of the host's own processes is started: module, descriptors, identity.

The table the architecture page shows: zygote, auditor, bridge and compiler are caged, router and control are plain;
each gets exactly the descriptors named here, from 3 upwards, the supervisor's channel first.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

import msgspec

from sandbox import walls
from sandbox.types import CallPath
from supervisor.config import HostConfig
from supervisor.parent import confinement
from supervisor.parent.identities import Identities
from supervisor.parent.layout import Layout
from supervisor.parent.spawn import Kind, spawn


@dataclass(frozen=True)
class Services:
    """Starts processes; holds nothing but what is needed to start them again."""

    config: HostConfig
    layout: Layout
    identities: Identities
    lost: frozenset[str] = frozenset()
    """Walls the host runs without."""
    seen: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """By module: the last process's pid and namespaces, which nobody can read any more once it is what it will be."""

    @property
    def _privileged(self) -> bool:
        return self.identities.base is not None

    @property
    def _lost(self) -> str:
        return walls.spell(self.lost)

    def _spawn(self, module: str, arguments: list[str], fds: list[int], kind: Kind) -> int:

        def look(pid: int) -> None:
            self.seen[module] = (pid, confinement.namespaces(pid))

        return spawn(module, arguments, fds, kind, self.layout.log_fd, self._privileged, look=look)

    def seen_of(self, pid: int) -> dict[str, str] | None:
        """The namespaces a process was in when it was started, of the last of its kind."""
        return next((names for known, names in self.seen.values() if known == pid), None)

    def zygote(self, channel: socket.socket) -> int:
        """The zygote: its own user namespace maps the supervisor to 0 and the workers' uids to 1 and up."""
        return self._zygote(channel)

    def private_zygote(self, channel: socket.socket) -> int:
        """A zygote for one worker."""
        return self._zygote(channel, "private")

    def _zygote(self, channel: socket.socket, *more: str) -> int:
        kind = Kind(self.identities.supervisor, True, extra=self.identities.worker_range)
        return self._spawn("sandbox.zygote", [self.config.profile, self._lost, *more], [channel.fileno()], kind)

    def auditor(self, channel: socket.socket) -> int:
        """The auditor: channel, log directory."""
        arguments = [self.config.audit_sync, str(self.config.audit_rotate_size), self._lost]
        fds = [channel.fileno(), self.layout.audit_fd]
        return self._spawn("bridge.audit", arguments, fds, Kind(self.identities.auditor, True))

    def bridge(self, channel: socket.socket) -> int:
        """The bridge: channel, storage directory."""
        fds = [channel.fileno(), self.layout.storage_fd]
        return self._spawn(
            "bridge", [str(self.config.storage_map_size), self._lost], fds, Kind(self.identities.bridge, True)
        )

    def router(self, channel: socket.socket) -> int:
        """The router: channel, and the listening sockets of the bus and of clients."""
        fds = [channel.fileno(), self.layout.bus.fileno(), self.layout.clients.fileno()]
        arguments = [self.layout.bus_path, str(self.identities.control), self._lost]
        return self._spawn("supervisor.router", arguments, fds, Kind(self.identities.router, False))

    def control(self, channel: socket.socket) -> int:
        """Control: channel, the API's listening socket, its configuration."""
        layout = self.layout
        blob = os.memfd_create("config", os.MFD_CLOEXEC)
        try:
            os.write(blob, msgspec.msgpack.encode(self.config))
            kind = Kind(self.identities.control, False, reads=(layout.run,), writes=(layout.control_dir,))
            return self._spawn(
                "supervisor.control",
                [layout.bus_path, layout.control_dir, str(self.identities.own), self._lost],
                [channel.fileno(), layout.api.fileno(), blob],
                kind,
            )
        finally:
            os.close(blob)

    def compiler(
        self, number: int, fds: list[int], memory: int, seconds: int, path: CallPath, groups: list[int]
    ) -> int:
        """A compiler for one component: its bytes, a place for the result, a channel; its control groups."""
        kind = Kind(self.identities.compiler(number), True, own_pids=True)
        arguments = [str(memory), str(seconds), self.config.profile, self._lost, path]
        return spawn("sandbox.compiler", arguments, fds, kind, self.layout.log_fd, self._privileged, groups)
