"""Stored values on a real host: they survive every death, are apart per instance, bounded, and recorded."""

from __future__ import annotations

import os
import signal

import probes
import pytest
from live_host import Host, wait_until

pytestmark = pytest.mark.block6_storage

KEY = "k"
LONGEST = "k" * 256


@pytest.fixture(scope="module")
def store(shared: Host) -> Host:
    """Probes with full rights (two instances of one), with reading alone, with writing alone, and with none."""
    probes.add(shared, "full")
    probes.install(shared, shared.out / "full", instance="two")
    for name, access in (("reader", '["read"]'), ("writer", '["write"]')):
        probes.add(shared, name, {"storage": f'[{{ namespace = "self", access = {access} }}]'})
    package = probes.pack(shared, "none", {"filesystem": "[]", **probes.OFTEN, "storage": "[]"}, folder="no-rights")
    # `storage` is also a limit; the capability is the second of that name.
    assert "running" == probes.install(shared, package)["state"]
    return shared
