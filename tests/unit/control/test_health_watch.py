"""What a row of health answers means."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.control.health import Watch
from supervisor.control.tree import JITTER, RestartPolicy

pytestmark = pytest.mark.block3_actors


@given(st.lists(st.sampled_from(["healthy", "degraded", "unhealthy", "unknown"]), max_size=30), st.integers(1, 5))
def test_liveness_is_lost_by_a_row(answers, threshold):
    """It is lost at an answer exactly when that and the threshold - 1 before it say unhealthy."""
    watch = Watch(RestartPolicy(health_threshold=threshold))
    for at, answer in enumerate(answers, 1):
        row = answers[max(0, at - threshold) : at]
        assert (row == ["unhealthy"] * threshold) == watch.heard(answer)


def test_checks_are_spread_once():
    """The first check comes up to a fifth early, so that those started together are asked apart; then the interval."""
    watches = [Watch(RestartPolicy(health_interval=10), random.Random(seed)) for seed in range(50)]
    first = [watch.wait() for watch in watches]
    assert all(10 * (1 - JITTER) <= wait <= 10 for wait in first)
    assert len(set(first)) == 50
    assert [10.0] * 50 == [watch.wait() for watch in watches]


def test_timeout_in_milliseconds():
    """The router gets whole milliseconds, never 0, which would mean the deadline."""
    assert 250 == Watch(RestartPolicy(health_timeout=0.25)).timeout_ms
    assert 1 == Watch(RestartPolicy(health_timeout=0.0001)).timeout_ms
