"""The arithmetic of supervision."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.control.tree import JITTER, Intensity, RestartPolicy, wants_restart

pytestmark = pytest.mark.block3_actors


def delays(policy, ends, uptime=0.0):
    intensity = Intensity(policy, random.Random(1))
    return [intensity.after_end(now, uptime) for now in ends]


def test_first_at_once_then_doubling():
    """The first restart waits for nothing; the next waits double up to the longest."""
    policy = RestartPolicy(max_restarts=8, window=1000, backoff_first=1, backoff_most=8)
    found = delays(policy, range(6))
    for expected, delay in zip([0, 1, 2, 4, 8, 8], found, strict=True):
        assert expected * (1 - JITTER) <= delay <= expected * (1 + JITTER)
    assert 5 == len(set(found[1:])), "jitter tells equal waits apart"


def test_more_than_max_in_the_window():
    """max-restarts are allowed in the window, one more is not; what is older than the window does not count."""
    policy = RestartPolicy(max_restarts=2, window=10)
    assert [False, False, True] == [delay is None for delay in delays(policy, [0, 1, 2])]
    assert [False, False, False] == [delay is None for delay in delays(policy, [0, 1, 10.5])]
    assert [None] == delays(RestartPolicy(max_restarts=0), [0])


def test_backoff_resets_only_after_stable_uptime():
    """An end after more than the window's uptime restarts at once; after less it waits."""
    policy = RestartPolicy(max_restarts=100, window=10, backoff_first=1)
    intensity = Intensity(policy, random.Random(1))
    assert 0 == intensity.after_end(0, 0)
    assert intensity.after_end(5, 4) > 0
    assert intensity.after_end(15, 10) > 0
    assert 0 == intensity.after_end(40, 11)


def test_forgiven_ends_do_not_count():
    """Ends since a point in time can be taken back, older ones stay."""
    policy = RestartPolicy(max_restarts=2, window=100)
    intensity = Intensity(policy, random.Random(1))
    intensity.after_end(0, 0)
    intensity.after_end(50, 0)
    intensity.forgive(49)
    assert intensity.after_end(51, 0) is not None
    assert intensity.after_end(52, 0) is None
    intensity.reset()
    assert 0 == intensity.after_end(53, 0)


@pytest.mark.parametrize(
    ("restart", "outcome", "expected"),
    [
        ("permanent", "exited", True),
        ("permanent", "trap", True),
        ("transient", "exited", False),
        ("transient", "killed", True),
        ("temporary", "trap", False),
    ],
)
def test_wants_restart(restart, outcome, expected):
    """Erlang's three words."""
    assert expected == wants_restart(RestartPolicy(restart=restart), outcome)


@given(st.lists(st.floats(0, 100), max_size=60), st.integers(0, 10), st.floats(0.001, 50))
def test_never_more_than_max_in_any_window(gaps, most, window):
    """Whatever the times of the ends, no window holds more restarts than allowed, and no delay is out of bounds."""
    policy = RestartPolicy(max_restarts=most, window=window, backoff_first=0.1, backoff_most=30)
    intensity = Intensity(policy, random.Random(1))
    now, granted = 0.0, []
    for gap in gaps:
        now += gap
        delay = intensity.after_end(now, gap)
        if delay is None:
            break
        assert 0 <= delay <= 30 * (1 + JITTER)
        granted.append(now)
        assert most >= len([at for at in granted if now - at <= window])
