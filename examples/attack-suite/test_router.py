"""A compromised worker against the router: forged frames, broken streams, messages to strangers."""

from __future__ import annotations

import pytest
from airssys.testing import Program


def test_a_message_to_a_stranger(hostile_worker):
    """The manifest names no target: the router refuses to send, and records it."""
    worker = hostile_worker()
    result = worker.frames(4, worker.router("Send", b"hello", ask=1, target="acme/other/0"), answers=1)
    assert b"denied" in result.assert_answered().frames[0]
    assert result.denied() == ["messaging.send"]


def test_a_message_to_a_friend(hostile_worker):
    """The control: what the manifest names is sent, by the same frame."""
    manifest = {"messaging": '[{ from = "host/client/*" }, { target = "selftest/*", access = ["send"] }]'}
    other = hostile_worker(manifest={"messaging": '[{ from = "host/client/*" }, { from = "selftest/*" }]'})
    worker = hostile_worker(manifest=manifest)
    result = worker.frames(4, worker.router("Send", b"hello", ask=1, target=other.id), answers=1)
    assert b"denied" not in result.assert_answered().frames[0]
    assert result.denied() == []


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("Deliver", {"id": 1, "sender": "host/client/root", "seconds": 0, "nanoseconds": 0}),
        ("Shutdown", {}),
        ("Ack", {"ask": 1, "case": 0}),
        ("Ready", {"metadata": None, "health": "healthy"}),
        ("Reply", {"id": 99, "some": True}),
        ("HealthReply", {"id": 99, "health": "healthy"}),
    ],
)
def test_a_frame_that_is_not_its_to_send(hostile_worker, name, fields):
    """The router's own frames, a reply to nothing, a second Ready: the worker ends."""
    worker = hostile_worker()
    result = worker.frames(4, worker.router(name, b"forged", **fields), answers=1)
    assert "protocol.violation" in result.assert_stopped_by("policy").denied()


@pytest.mark.parametrize(
    "stream", [b"\xff" * 40, b"\x03" + b"\x7f" * 8, b"\x01\x03abc\x00\x00", b"\x04\x05\x04PING"], ids=lambda b: b.hex()
)
def test_a_broken_stream(hostile_worker, stream):
    """Reserved flags, a frame of exabytes, no MessagePack, a command out of place: the worker ends."""
    worker = hostile_worker()
    assert "protocol.violation" in worker.frames(4, stream, answers=1).assert_stopped_by("policy").denied()


def test_half_a_message_holds_up_nobody(hostile_worker):
    """A worker that stops in the middle of a frame is stuck alone: its neighbour is served."""
    first, second = hostile_worker(), hostile_worker()
    half = Program()
    half.syscall("sendto", 4, half.data(b"\x02" + bytes(7)), 8, 0, 0, 0)
    half.syscall("recvfrom", 4, half.room(16), 16, 0, 0, 0)
    stuck = first.start_program(half, seconds=1.0)
    harmless = Program()
    harmless.step("thread")
    for _ in range(5):
        second.run(harmless).assert_answered()
    assert not stuck.result().answered
