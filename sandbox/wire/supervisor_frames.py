"""The vocabulary of the supervisor's socketpairs: small typed packets, descriptors beside them.

Each packet is one MessagePack structure of at most `MAX` bytes, tagged by its class; the descriptors that
belong to it travel in the same packet (SCM_RIGHTS, unix(7)). The supervisor parses nothing else.
"""

from __future__ import annotations

import array
import socket
from typing import Annotated, Literal

import msgspec

from sandbox.errors import ProtocolViolation
from sandbox.types import CallPath, ComponentId, FastExport, Limits

MAX = 64 * 1024
"""Largest packet, bytes."""
MAX_FDS = 64
"""Most descriptors in one packet."""
MAX_LIVING = 200
"""Most workers in one `Living`."""
MAX_MEASURED = 64
"""Most workers in one `Measured`."""
MAX_TEXT = 2000
"""Characters of a text that the supervisor passes on; a frame always has room for it."""


_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=24 * 3600)]
_Clone = Annotated[int, msgspec.Meta(ge=-4095, le=(1 << 31) - 1)]
"""A pid, or -errno."""


class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    pass


# -- control to supervisor; `n` numbers the request, its answer carries the same ---------------------------------


class StartWorker(_Frame, frozen=True):
    """Start a caged worker; descriptor: the .cwasm in a sealed memfd. Answered by `Started` or `Failed`."""

    n: _Number
    component: ComponentId
    incarnation: _Number
    limits: Limits
    fast: list[FastExport] = []  # the functions that are called through the component's adapter


class KillWorker(_Frame, frozen=True):
    """SIGKILL the worker of this incarnation; its end is told by `WorkerEnded`. Answered by `Done`."""

    n: _Number
    incarnation: _Number
    outcome: Literal["killed", "deadline"]


class Compile(_Frame, frozen=True):
    """Compile in a cage; descriptors: the .wasm in a sealed memfd, an empty memfd for the result.

    Answered by `Done` when the compiler exited well, else by `Failed`.
    """

    n: _Number
    memory: _Bytes  # of address space
    seconds: _Seconds  # CPU time, and a little more of wall clock
    path: CallPath = "general"


class MountSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One bound directory."""

    guest: str
    host: str
    writable: bool


class SetPolicy(_Frame, frozen=True):
    """Give the bridge a component's policy (opaque to the supervisor) and its bound directories as mounts.

    Answered by `Done` (whose `text` names a lost wall, such as "o-path" for a grant that is no mount) or `Failed`.
    """

    n: int
    component: ComponentId
    policy: bytes
    mounts: list[MountSpec]


class DropPolicy(_Frame, frozen=True):
    """Forget a component's policy: the bridge closes its mounts and handles. `purge` drops its storage too."""

    n: int
    component: ComponentId
    purge: bool = False


class Snapshot(_Frame, frozen=True):
    """What lives; answered by `Living`, workers after this incarnation."""

    n: _Number
    after: int = -1


class Measure(_Frame, frozen=True):
    """What confines each process; answered by `Measured`."""

    n: int


class StopHost(_Frame, frozen=True):
    """The operator's `down`: the supervisor tells control `Drain`, then ends everything in order."""

    n: int


class Drained(_Frame, frozen=True):
    """Control has stopped every component after `Drain`."""


# -- supervisor to control ------------------------------------------------------------------------------------


class Done(_Frame, frozen=True):
    """The request was carried out."""

    n: int
    text: str = ""


class Failed(_Frame, frozen=True):
    """The request failed: stable code, sentence, and for workers and compilers the outcome."""

    n: int
    code: str
    message: str
    outcome: str = ""


class Started(_Frame, frozen=True):
    """The worker is sealed, was checked from outside, and is attached to router and bridge."""

    n: int
    incarnation: int
    pid: int
    uid: int
    micros: int  # request to READY, microseconds


class WorkerEnded(_Frame, frozen=True):
    """A worker is dead and reaped."""

    component: ComponentId
    incarnation: int
    outcome: str
    detail: str = ""


class LivingWorker(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One live worker."""

    component: ComponentId
    incarnation: int
    pid: int
    uid: int


class HostProcess(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One process of the host."""

    name: str
    pid: int
    uid: int
    restarts: int
    ready: bool


class Living(_Frame, frozen=True):
    """Answer to `Snapshot`. `walls` maps a wall's name to "on" or to what is lost.

    `controllers` maps what control groups bound (memory, pids, cpu) to the backend that does ("v1", "v2").
    At most `MAX_LIVING` workers by rising incarnation, so that the packet has room; `more` when there are others.
    """

    n: int
    workers: list[LivingWorker]
    processes: list[HostProcess]
    walls: dict[str, str]
    stopping: bool
    more: bool = False
    controllers: dict[str, str] = {}


class Confinement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What confines one process, as the supervisor reads it in /proc/PID (proc(5)).

    `groups` counts supplementary groups; `capabilities` and `bounding` are bit masks of the effective and the bounding
    set; `namespaces` names the kinds it does not share with the supervisor, None where they could not be seen; `root`
    is "empty", "own mounts" or "the machine's"; `limits` are hard resource limits by their name in /proc/PID/limits,
    -1 for none. `calls` counts the calls its policy lets through, and `landlock` is what it put up before it said it
    was ready: neither can be read from outside.
    """

    name: str
    pid: int
    uid: int
    gid: int
    groups: int
    capabilities: int
    bounding: int
    no_new_privileges: bool
    filters: int
    threads: int
    namespaces: list[str] | None
    root: str
    limits: dict[str, int]
    calls: int
    landlock: str


class Measured(_Frame, frozen=True):
    """Answer to `Measure`: the host's own processes, then workers, at most `MAX_MEASURED` of those."""

    n: int
    processes: list[Confinement]
    more: bool = False


class ProcessRestarted(_Frame, frozen=True):
    """router or bridge was replaced: every worker of the old one is being ended; send routes and policies again."""

    name: str


class Drain(_Frame, frozen=True):
    """Stop every component in reverse order of start, then answer `Drained`. `seconds` is all the time there is."""

    seconds: int


# -- supervisor to bridge, router, auditor ----------------------------------------------------------------------


class AttachBridge(_Frame, frozen=True):
    """A checked worker's channel (descriptor) belongs to this component from now on."""

    component: ComponentId
    incarnation: int


class BridgePolicy(_Frame, frozen=True):
    """A component's policy; descriptors: one directory per guest path, in the same order."""

    component: ComponentId
    policy: bytes
    guests: list[str]


class BridgeDrop(_Frame, frozen=True):
    """Forget the policy; `purge` drops the component's stored values."""

    component: ComponentId
    purge: bool


class AttachRouter(_Frame, frozen=True):
    """Descriptor: the router's end of a checked worker's stream (`zmtp.pair`), this component's from now on.

    `pid` is the process whose CPU clock is the worker's.
    """

    component: ComponentId
    incarnation: int
    pid: int


class Detach(_Frame, frozen=True):
    """The worker is dead: forget its channel and fail its message in hand."""

    incarnation: int
    outcome: str
    detail: str = ""


class AuditChannel(_Frame, frozen=True):
    """Descriptor: this process's channel to the (new) auditor."""


class Producer(_Frame, frozen=True):
    """To the auditor: descriptor of a channel on which `name` will record."""

    name: str


ToControl = Done | Failed | Started | WorkerEnded | Living | Measured | ProcessRestarted | Drain | AuditChannel
ToBridge = AttachBridge | BridgePolicy | BridgeDrop | Detach | AuditChannel
ToRouterProcess = AttachRouter | Detach | AuditChannel
ToAuditor = Producer

# -- bridge, router, auditor to supervisor ------------------------------------------------------------------------


class Up(_Frame, frozen=True):
    """The process is sealed and serves."""


class EndWorker(_Frame, frozen=True):
    """Kill this worker: it broke the protocol (`policy`) or its deadline passed (`deadline`)."""

    incarnation: int
    outcome: str
    detail: str


class AuditorState(_Frame, frozen=True):
    """The auditor can (`ok`) or cannot write; `text` says why."""

    ok: bool
    text: str = ""


FromChild = Up | EndWorker | AuditorState
FromControl = Up | StartWorker | KillWorker | Compile | SetPolicy | DropPolicy | Snapshot | Measure | StopHost | Drained

# -- supervisor to zygote and back --------------------------------------------------------------------------------


class Fork(_Frame, frozen=True):
    """Fork one worker under this uid (inside the zygote's namespace); descriptors: its fd 3 and fd 4."""

    n: int
    uid: int


class Forked(_Frame, frozen=True):
    """The worker's pid in the supervisor's pid namespace, or -errno."""

    n: int
    pid: _Clone


class WorkerSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a worker must know before the seal; comes over its fd 3 with the .cwasm memfd."""

    component: ComponentId
    limits: Limits
    cwasm_size: int
    fast: list[FastExport] = []


to_spec = msgspec.msgpack.Decoder(WorkerSpec)


# -- transport ------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()


def send_frame(sock: socket.socket, frame: msgspec.Struct, fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send one packet with its descriptors.

    Raises:
        ProtocolViolation: the frame is longer than `MAX`.
        OSError: the peer is gone, or (non-blocking) its queue is full.
    """
    body = _encoder.encode(frame)
    if len(body) > MAX:
        raise ProtocolViolation("frame too long for the supervisor's channel", subject=f"{len(body)} bytes")
    if fds:
        sock.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))], socket.MSG_NOSIGNAL)
    else:
        sock.send(body, socket.MSG_NOSIGNAL)


class DescriptorsLost(ProtocolViolation):
    """A packet came without its descriptors: this process may not open more. `body` is the packet.

    Whoever cannot do without them treats it as any other packet that cannot be understood.
    """

    code = "E_EXHAUSTED"

    def __init__(self, body: bytes) -> None:
        super().__init__("descriptors were lost: this process has as many as it may", hint="raise LimitNOFILE")
        self.body = body


def recv_packet(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one packet and its descriptors (close-on-exec).

    Raises:
        EOFError: the peer hung up.
        ProtocolViolation: truncated packet or descriptors (those received are closed).
        DescriptorsLost: this process had no room for the descriptors; the peer did nothing wrong.
    """
    body, ancillary, flags, _ = sock.recvmsg(MAX, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        # The kernel cuts off descriptors also where the receiver may open no more (unix(7)); a peer that sends too many
        # fills all the room there was.
        if not flags & socket.MSG_TRUNC and len(fds) < MAX_FDS:
            raise DescriptorsLost(body)
        raise ProtocolViolation("truncated packet")
    if not body:
        close_all(fds)
        raise EOFError("peer hung up")
    return body, list(fds)


def close_all(fds: list[int] | array.array[int]) -> None:
    """Close descriptors that nobody took."""
    import os

    for fd in fds:
        os.close(fd)
