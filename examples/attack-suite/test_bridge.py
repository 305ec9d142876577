"""A compromised worker against the bridge: forged, malformed, out of order."""

from __future__ import annotations

import pytest

ATTACKS = {
    "a packet too short": lambda good: [good[:3]],
    "kind 0": lambda good: [b"\0\0" + good[2:]],
    "an operation there is not": lambda good: [b"\x99\0" + good[2:]],
    "the supervisor's own word": lambda good: [b"\x01\x70" + good[2:]],
    "the second chunk first": lambda good: [good[:2] + b"\1\0" + good[4:]],
    "a length that is a lie": lambda good: [good[:4] + b"\xff\xff\xff\x7f" + good[8:]],
    "no MessagePack": lambda good: [good[:8] + b"\xc1" * (len(good) - 8)],
    "an answer": lambda good: [good[:1] + b"\x80" + good[2:]],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_violation_ends_the_worker(hostile_worker, name):
    """The bridge names the violation and the worker ends. The same request, well formed, is answered."""
    worker = hostile_worker()
    (good,) = worker.bridge("storage-get", "key")
    result = worker.frames(3, good, answers=1).assert_answered()
    assert worker.bridge_answer(result.frames[0])[1] == [0, None]
    result = worker.frames(3, *ATTACKS[name](good), answers=2).assert_stopped_by("policy")
    assert "protocol.violation" in result.denied()


def test_wrong_arguments(hostile_worker):
    """Arguments of another type or number are a violation, not a surprise."""
    worker = hostile_worker()
    for arguments in ((), (1,), ("a", "b"), (None,), (["a"],)):
        result = worker.frames(3, *worker.bridge("storage-get", *arguments), answers=1)
        result.assert_stopped_by("policy")


def test_the_bridge_serves_others_meanwhile(hostile_worker, airssys_host):
    """While one worker violates, its neighbour is served, and the bridge is the same process."""
    bridge = airssys_host.processes()["bridge"]
    first, second = hostile_worker(), hostile_worker()
    (good,) = first.bridge("storage-get", "key")
    for _ in range(5):
        first.frames(3, good[:3], answers=1).assert_stopped_by("policy")
        second.frames(3, good, answers=1).assert_answered()
    assert airssys_host.processes()["bridge"] == bridge
