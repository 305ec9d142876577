"""What a row of health answers means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.control.health import Watch
from supervisor.control.tree import RestartPolicy

pytestmark = pytest.mark.block3_actors


@given(st.lists(st.sampled_from(["healthy", "degraded", "unhealthy", "unknown"]), max_size=30), st.integers(1, 5))
def test_liveness_is_lost_by_a_row(answers, threshold):
    """It is lost at an answer exactly when that and the threshold - 1 before it say unhealthy."""
    watch = Watch(RestartPolicy(health_threshold=threshold))
    for at, answer in enumerate(answers, 1):
        row = answers[max(0, at - threshold) : at]
        assert (row == ["unhealthy"] * threshold) == watch.heard(answer)
