"""Control's channels: full queues, hang-ups, wrong frames, and answers nobody waits for."""

from __future__ import annotations

import asyncio
import os
import socket

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox.types import ComponentId, Limits
from sandbox.wire import audit_frames, packet
from sandbox.wire import supervisor_frames as sup
from supervisor.control.audit_link import AuditLink
from supervisor.control.errors import SupervisorError, UnavailableError
from supervisor.control.supervisor_link import SupervisorLink

pytestmark = pytest.mark.block7_lifecycle

ECHO = ComponentId("acme", "echo")


class Peer:
    """The supervisor's end, and what the link reported."""

    def __init__(self):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(5)
        self.events, self.audits, self.gone = [], [], []
        self.link = SupervisorLink(theirs, self.events.append, self.audits.append, self.gone.append)

    async def receive(self):
        body, fds = await asyncio.to_thread(sup.recv_packet, self.sock)
        return msgspec.msgpack.decode(body, type=sup.FromControl), fds

    def close(self):
        self.link.close()
        self.sock.close()
        for audit in self.audits:
            audit.close()


def test_requests_and_answers():
    """Answers find their request in any order; Failed becomes an error with its code and outcome."""

    async def main():
        peer = Peer()
        first = asyncio.create_task(peer.link.snapshot())
        second = asyncio.create_task(peer.link.kill_worker(3, "killed"))
        one, _ = await peer.receive()
        two, _ = await peer.receive()
        sup.send_frame(peer.sock, sup.Failed(two.n, "E_X", "no", "killed"))
        sup.send_frame(peer.sock, sup.Living(one.n, [], [], {}, False))
        with pytest.raises(SupervisorError, match="no") as caught:
            await second
        assert ("E_X", "killed") == (caught.value.code, caught.value.outcome)
        assert (await first).walls == {}
        peer.close()

    asyncio.run(main())


def test_a_full_queue_keeps_order_and_descriptors():
    """Requests beyond the socket's buffer wait, keep their order and carry their descriptors, closed since or not."""

    async def main():
        peer = Peer()
        count = 700
        tasks = []
        for number in range(count):
            fd = os.memfd_create("x")
            os.write(fd, b"%d" % number)
            tasks.append(asyncio.create_task(peer.link.start_worker(ECHO, number, Limits(), fd)))
            await asyncio.sleep(0)
            os.close(fd)
        for number in range(count):
            frame, (fd,) = await peer.receive()
            assert (number, b"%d" % number) == (frame.incarnation, os.pread(fd, 10, 0))
            os.close(fd)
            sup.send_frame(peer.sock, sup.Started(frame.n, number, 1, 1, 1))
            await asyncio.sleep(0)
        assert list(range(count)) == [started.incarnation for started in await asyncio.gather(*tasks)]
        peer.close()

    asyncio.run(main())


def test_hang_up_fails_what_waits():
    """The supervisor's hang-up is told once and fails every request, also those made afterwards."""

    async def main():
        peer = Peer()
        waiting = asyncio.create_task(peer.link.snapshot())
        await peer.receive()
        peer.sock.close()
        with pytest.raises(UnavailableError):
            await waiting
        with pytest.raises(UnavailableError):
            await peer.link.snapshot()
        assert 1 == len(peer.gone)
        peer.close()

    asyncio.run(main())


def test_answers_nobody_asked_for():
    """A foreign Done is ignored; a foreign Started is told, so that its worker can be ended."""

    async def main():
        peer = Peer()
        sup.send_frame(peer.sock, sup.Done(5))
        sup.send_frame(peer.sock, sup.Started(5, 9, 1, 1, 1))
        sup.send_frame(peer.sock, sup.WorkerEnded(ECHO, 9, "trap"))
        while len(peer.events) < 2:
            await asyncio.sleep(0.001)
        assert [9, 9] == [event.incarnation for event in peer.events]
        assert [] == peer.gone
        peer.close()

    asyncio.run(main())


@settings(max_examples=50, deadline=None)
@given(body=st.binary(min_size=1, max_size=100))
@example(body=b"\x99\xa1\xb6")  # a text that is no UTF-8
def test_malformed_frames_end_the_link(body):
    """Whatever is no frame ends the link and nothing else; descriptors beside it are not kept."""

    async def main():
        peer = Peer()
        reader, writer = os.pipe()
        sock = peer.sock
        socket.send_fds(sock, [body], [writer])
        os.close(writer)
        async with asyncio.timeout(10):
            while not peer.gone and not peer.events:
                await asyncio.sleep(0)
        assert b"" == os.read(reader, 1), "our copy of the descriptor is closed"
        os.close(reader)
        peer.close()

    asyncio.run(main())


def test_audit_records_survive_an_auditor():
    """What was not acknowledged is sent again to the next auditor, under its number and once."""

    async def main():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = AuditLink(theirs)
        tasks = [asyncio.create_task(link.record("e", "info", object="x" * 5000)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assembler = packet.Assembler()
        kind, body = packet.recv_message(ours, assembler)
        first = msgspec.msgpack.decode(body, type=audit_frames.Record)
        assert (audit_frames.RECORD, 1, 1024) == (kind, first.n, len(first.object))
        packet.send_message(ours, audit_frames.RECORDED, msgspec.msgpack.encode(audit_frames.Recorded(1, 10)))
        assert 10 == await tasks[0]
        ours.close()
        await asyncio.sleep(0.01)
        assert not link.connected
        late = asyncio.create_task(link.record("late", "info"))
        await asyncio.sleep(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.replace(theirs)
        numbers = []
        for _ in range(3):
            _, body = packet.recv_message(ours, assembler)
            record = msgspec.msgpack.decode(body, type=audit_frames.Record)
            numbers.append(record.n)
            answer = audit_frames.Recorded(record.n, record.n)
            packet.send_message(ours, audit_frames.RECORDED, msgspec.msgpack.encode(answer))
        assert [2, 3, 4] == numbers
        assert [2, 3, 4] == await asyncio.gather(*tasks[1:], late)
        link.close()
        ours.close()

    asyncio.run(main())


def test_a_broken_auditor_is_dropped():
    """Rubbish from the auditor's end closes the channel; records wait for the next one."""

    async def main():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = AuditLink(theirs)
        waiting = asyncio.create_task(link.record("e", "info"))
        await asyncio.sleep(0)
        ours.send(b"rubbish")
        while link.connected:
            await asyncio.sleep(0.001)
        assert not waiting.done()
        link.close()
        with pytest.raises(UnavailableError):
            await waiting
        ours.close()

    asyncio.run(main())
