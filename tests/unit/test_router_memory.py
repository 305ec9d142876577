"""The router as a process of its own: what a hostile worker can make it hold, beside what libzmq's ROUTER would."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
import zmtp_peer
from live_host import CHECKOUT, wait_until

from sandbox.types import ComponentId
from sandbox.wire import supervisor_frames, zmtp
from sandbox.wire.client_frames import ClientUnsubscribe
from sandbox.wire.router_frames import ClientRights, Settings
from sandbox.wire.supervisor_frames import AttachRouter, EndWorker, Up
from supervisor.router.clients import IN_BYTES, MAX_CONNECTIONS
from supervisor.router.connections import MAX_PAYLOAD
from supervisor.router.ports import listening

pytestmark = pytest.mark.block5_messaging

FLOOD = (b"\x03" + (100_000).to_bytes(8, "big") + bytes(100_000)) * 10
"""Ten frames of a message that never ends, 1 MB."""
MEGABYTES = 64
_PLACE_AND_RUN = """
import fcntl, os, runpy, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1:4]]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
del sys.argv[1:4]
runpy.run_module("supervisor.router", run_name="__main__", alter_sys=True)
"""
_LIBZMQ = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.setsockopt(zmq.MAXMSGSIZE, 9 << 20)
router.setsockopt(zmq.RCVHWM, 4)
router.bind("ipc://" + sys.argv[1])
print("ready", flush=True)
router.recv()
"""
_from_child = msgspec.msgpack.Decoder(supervisor_frames.FromChild)


def resident(pid: int) -> int:
    """Memory of a process, KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def cpu(pid: int) -> int:
    """Processor time of a process, clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class RouterProcess:
    """`python -m supervisor.router` as the supervisor starts it, and the supervisor's end."""

    def __init__(self, directory: Path) -> None:
        self.sup, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sup.settimeout(20)
        path = self.bus_path = str(directory / "bus")
        self.clients_path = str(directory / "clients")
        bus, clients = listening(path), listening(self.clients_path)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _PLACE_AND_RUN,
                *map(str, (far.fileno(), bus, clients)),
                path,
                str(os.geteuid()),
                "",
            ],
            pass_fds=(far.fileno(), bus, clients),
            cwd=CHECKOUT,
        )
        far.close()
        os.close(bus)
        os.close(clients)
        self.ends: list[socket.socket] = []
        assert Up() == self.says()

    def says(self) -> supervisor_frames.FromChild:
        """Its next word."""
        frame: supervisor_frames.FromChild = _from_child.decode(supervisor_frames.recv_packet(self.sup)[0])
        return frame

    def worker(self, incarnation: int) -> socket.socket:
        """A worker's end, attached."""
        near, far = zmtp.pair()
        supervisor_frames.send_frame(
            self.sup, AttachRouter(ComponentId("acme", "a"), incarnation, os.getpid()), (far.fileno(),)
        )
        far.close()
        near.settimeout(1)
        self.ends.append(near)
        return near

    def close(self) -> None:
        """Hang up; it ends by itself."""
        for end in self.ends:
            end.close()
        self.sup.close()
        assert 0 == self.process.wait(20)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[RouterProcess]:
    router = RouterProcess(tmp_path)
    yield router
    router.close()


def flood(sock: socket.socket) -> int:
    """Send a message that never ends, until nobody takes it any more; bytes sent."""
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        for _ in range(MEGABYTES):
            sock.sendall(FLOOD)
            sent += len(FLOOD)
    return sent


def test_a_message_that_never_ends(router: RouterProcess) -> None:
    """It is refused at its second frame: the culprit is named, and the router has not grown."""
    before = resident(router.process.pid)
    worker = router.worker(7)
    assert flood(worker) < 2 * len(FLOOD)
    end = router.says()
    assert isinstance(end, EndWorker)
    assert (7, "policy") == (end.incarnation, end.outcome)
    assert "two frames" in end.detail
    assert resident(router.process.pid) - before < 4096


def test_clients_cannot_make_it_grow(router: RouterProcess) -> None:
    """As many connections as a user may have, each with a message that never ends or is never sent, or a flood that
    nobody may send: the router holds a bounded share, and still serves the next one."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    bus = context.socket(zmq.DEALER)
    bus.linger = 0
    bus.connect(f"ipc://{router.bus_path}")
    me = ClientRights(os.geteuid(), "me", [], 1_000_000)
    bus.send_multipart([msgspec.msgpack.encode(Settings(clients=[me])), b""])
    before = resident(router.process.pid)
    announced = b"\x01\x01h\x02" + MAX_PAYLOAD.to_bytes(8, "big")
    for number in range(MAX_CONNECTIONS - 1):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        router.ends.append(sock)
        sock.settimeout(20)
        sock.connect(router.clients_path)
        zmtp_peer.dealer(sock, b"")
        sock.settimeout(0.05)
        match number % 3:
            case 0:
                flood(sock)
            case 1:
                sock.sendall(announced)
            case _:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    sock.sendall(announced + bytes(MAX_PAYLOAD - 1))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(router.clients_path)
        dealer = zmtp.Dealer(sock)
        zmtp_peer.dealer(sock, b"")
        sock.settimeout(20)
        assert b"ClientWelcome" in dealer.recv()[0]
        dealer.send([msgspec.msgpack.encode(ClientUnsubscribe(1, "a")), b""])
        assert b"ClientAnswer" in dealer.recv()[0]
    assert resident(router.process.pid) - before < (IN_BYTES >> 10) + 4096
    bus.close()
    context.term()


def test_libzmq_holds_it_all() -> None:
    """Positive control: libzmq's ROUTER takes and keeps the same flood, whatever its high-water mark."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/r"
        with subprocess.Popen([sys.executable, "-c", _LIBZMQ, path], stdout=subprocess.PIPE) as peer:
            try:
                assert peer.stdout is not None
                assert peer.stdout.readline()
                before = resident(peer.pid)
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.settimeout(20)
                    sock.connect(path)
                    zmtp_peer.dealer(sock, b"w")
                    assert MEGABYTES * len(FLOOD) == flood(sock)
                    wait_until("libzmq to grow", lambda: resident(peer.pid) - before > MEGABYTES * 900)
            finally:
                peer.kill()


def test_announced_lengths_cost_nothing(router: RouterProcess) -> None:
    """Many workers that announce large messages and stop cost what they have sent."""
    before = resident(router.process.pid)
    for number in range(100):
        router.worker(number).sendall(b"\x01\x01h\x02" + (1 << 20).to_bytes(8, "big"))
    router.worker(1000).sendall(b"\xff")
    end = router.says()
    assert isinstance(end, EndWorker)
    assert 1000 == end.incarnation
    assert resident(router.process.pid) - before < 4096


def test_idle_workers_cost_little(router: RouterProcess) -> None:
    """A thousand attached workers: at most 8 KiB each, and no processor time while nobody says anything."""
    before = resident(router.process.pid)
    for number in range(1000):
        router.worker(number)
    router.worker(2000).sendall(b"\xff")
    end = router.says()
    assert isinstance(end, EndWorker)
    assert 2000 == end.incarnation
    assert (resident(router.process.pid) - before) / 1000 < 8
    used = cpu(router.process.pid)
    with pytest.raises(TimeoutError):
        router.sup.settimeout(0.5)
        router.says()
    assert cpu(router.process.pid) - used <= 1
