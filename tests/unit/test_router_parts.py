"""The router's data structures, each against a simple model: mailbox, correlations, timers."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from functools import partial
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from sandbox.types import ComponentId
from supervisor.router.correlation import Correlations
from supervisor.router.mailbox import OVERHEAD, Account, Mailbox, Message
from supervisor.router.ports import Port, listening
from supervisor.router.timers import Timers

pytestmark = pytest.mark.block5_messaging

ME = ComponentId("acme", "a", "0")


def message(number: int, size: int = 0, *, callback: bool = False, incarnation: int = 0) -> Message:
    return Message(number, callback, ME, 0, 0, bytes(size), incarnation=incarnation)


@given(
    st.lists(st.tuples(st.sampled_from(["put", "callback", "take", "remove", "back", "drop"]), st.integers(0, 30))),
    st.integers(0, 8),
)
def test_mailbox_against_a_deque(steps: list[tuple[str, int]], capacity: int) -> None:
    """Order, bound and the account are those of a plain queue, whatever is done in whatever order."""
    account = Account()
    box = Mailbox(account, capacity, 16 << 20, 1000)
    model: deque[Message] = deque()
    taken: list[Message] = []
    for number, (step, value) in enumerate(steps):
        new = message(number, value, callback=step == "callback", incarnation=value % 2)
        match step:
            case "put":
                fits = sum(not m.callback for m in model) < capacity
                assert fits == box.put(new)
                if fits:
                    model.append(new)
            case "callback":
                assert box.put_callback(new)
                model.append(new)
            case "take":
                expected = model.popleft() if model else None
                assert expected is box.take()
                if expected is not None:
                    taken.append(expected)
            case "back" if taken:
                box.put_back(taken[-1])
                model.appendleft(taken.pop())
            case "remove":
                expected = next((m for m in model if m.id == value), None)
                assert expected is box.remove(value)
                if expected is not None:
                    model.remove(expected)
            case "drop":
                gone = [m for m in model if m.callback and m.incarnation == value % 2]
                assert len(gone) == box.drop_callbacks(value % 2)
                model = deque(m for m in model if m not in gone)
        assert (len(model), sum(m.callback for m in model)) == (len(box), box.callbacks)
        assert sum(len(m.payload) + OVERHEAD for m in model) == account.used
    assert list(model) == box.drain()
    assert (0, 0, 0) == (len(box), box.callbacks, account.used)


def test_mailbox_is_bounded_by_bytes() -> None:
    """Few large messages fill it as many small ones do; taking one makes room."""
    box = Mailbox(Account(), 1000, 16 << 20, 1 << 20)
    size = (1 << 20) - OVERHEAD
    accepted = sum(box.put(message(n, size)) for n in range(100))
    assert accepted == 16
    box.take()
    assert box.put(message(100, size))
    assert not box.put(message(101, size))


def test_one_message_always_fits_a_mailbox() -> None:
    """A component whose messages are larger than its mailbox still gets them, one at a time."""
    box = Mailbox(Account(), 1000, 1 << 10, 8 << 20)
    assert [True, False] == [box.put(message(n, 8 << 20)) for n in range(2)]
    box.take()
    assert box.put(message(2, 8 << 20))


def test_all_mailboxes_together_are_bounded() -> None:
    """One component cannot take what all share, beyond the total; small callbacks still pass."""
    account = Account(limit=11_000)
    boxes = [Mailbox(account, 1000, 16 << 20, 10_000) for _ in range(3)]
    assert boxes[0].put(message(1, 9_000))
    assert not boxes[1].put(message(2, 9_000))
    assert not boxes[1].put_callback(message(3, 9_000, callback=True))
    assert boxes[1].put_callback(message(4, 100, callback=True))
    boxes[0].drain()
    assert boxes[2].put(message(5, 9_000))


def test_callbacks_do_not_take_the_messages_place() -> None:
    """A mailbox full of callbacks takes its messages, and the other way round."""
    box = Mailbox(Account(), 2, 16 << 20, 1000)
    for number in range(5):
        assert box.put_callback(message(number, callback=True))
    assert [True, True, False] == [box.put(message(number)) for number in range(5, 8)]
    assert box.put_callback(message(9, callback=True))


def test_correlations_close_once() -> None:
    """An id is 128 bits, found only by its maker, and closed by the first who answers."""
    open_requests = Correlations()
    mine = open_requests.open(ME, incarnation=1)
    theirs = open_requests.open(ME, incarnation=2)
    outside = open_requests.open(ME, outside=lambda _result: None)
    assert 32 == len(mine.correlation)
    assert 3 == len({mine.correlation, theirs.correlation, outside.correlation})
    assert (1, 1, 0, 1) == (
        open_requests.count(1),
        open_requests.count(2),
        open_requests.count(3),
        open_requests.submits,
    )
    assert mine is open_requests.find(1, mine.correlation)
    assert None is open_requests.find(2, mine.correlation)
    assert [True, False] == [open_requests.close(mine), open_requests.close(mine)]
    assert [] == open_requests.of(1)
    assert [True, True] == [open_requests.close(theirs), open_requests.close(outside)]
    assert (0, 0) == (len(open_requests), open_requests.submits)


@given(st.lists(st.tuples(st.integers(-20, 20), st.booleans()), max_size=300))
def test_timers_fire_what_is_due(timers: list[tuple[int, bool]]) -> None:
    """Of many timers those fire that are due and not cancelled, in order of time, and the count is right."""
    heap = Timers()
    now = time.monotonic()
    fired: list[int] = []
    handles = [heap.schedule(now + when * 100, partial(fired.append, when)) for when, _ in timers]
    for handle, (_, cancelled) in zip(handles, timers, strict=True):
        if cancelled:
            heap.cancel(handle)
            heap.cancel(handle)
    live = [when for when, cancelled in timers if not cancelled]
    assert len(live) == len(heap)
    heap.run()
    assert sorted(when for when in live if when <= 0) == fired
    later = [when for when in live if when > 0]
    assert len(later) == len(heap)
    wait = heap.wait()
    if later:
        assert wait is not None
        assert 0 < wait <= min(later) * 100
    else:
        assert None is wait


def test_timer_scheduled_by_a_timer_waits() -> None:
    """A timer that schedules itself for the past does not keep the loop from its sockets."""
    heap = Timers()
    calls: list[int] = []

    def again() -> None:
        calls.append(1)
        heap.schedule(0.0, again)

    heap.schedule(0.0, again)
    heap.run()
    assert 1 == len(calls)
    assert 0 == heap.wait()


def test_cancelled_timers_do_not_pile_up() -> None:
    """A request answered in time leaves nothing behind for long."""
    heap = Timers()
    for _ in range(10_000):
        heap.cancel(heap.schedule(time.monotonic() + 1000, lambda: None))
    assert 0 == len(heap)
    assert len(heap._heap) < 200


@pytest.mark.parametrize("ours", [True, False])
def test_the_bus_takes_one_uid(tmp_path: Path, ours: bool) -> None:
    """Whoever has another uid than control's is hung up on before it has said anything; control is greeted."""
    path = str(tmp_path / "bus")
    with zmq.Context() as context:
        bus = Port(context, listening(path), path, os.geteuid() if ours else os.geteuid() + 1)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(20)
                sock.connect(path)
                assert (b"\xff" if ours else b"") == sock.recv(1)
        finally:
            bus.close()
