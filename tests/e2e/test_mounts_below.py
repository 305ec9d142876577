"""A mount that the operator has below a bound directory is out of reach: not entered, not moved, not detached."""

from __future__ import annotations

import os

import private_mounts
import pytest
from live_host import GUESTS, Host

from sandbox.kernel import libc

pytestmark = pytest.mark.block8_bridge


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting for the test needs root")
def test_a_mount_below_a_grant(fresh: Host) -> None:
    """Deleting, renaming, replacing, listing or writing at its mount point is denied, and the mount stays."""
    with private_mounts.namespace():
        data = fresh.out / "data"
        point = data / "mp"
        point.mkdir(parents=True)
        (data / "plain").mkdir()
        (data / "other").mkdir()
        libc.mount("none", str(point), "tmpfs", 0, "size=64k")
        (point / "precious").write_text("mine")
        fresh.up()
        fresh.trust("test/*")
        fresh.install(fresh.package(GUESTS / "probe"), "--bind", f"/data={data}", "--bind", f"/ro={data}")
        for command in (
            "delete /data/mp",
            "rename /data/mp /data/moved",
            "rename /data/other /data/mp",
            "list /data/mp",
            "read /data/mp/precious",
            "write /data/mp/x y",
            "mkdir /data/mp/x",
        ):
            assert "error denied" in fresh.ask("test/probe", command), command
        assert os.path.ismount(point)
        assert ["precious"] == os.listdir(point)
        assert "ok" == fresh.ask("test/probe", "delete /data/plain"), "positive control"
        fresh.down()
        libc.umount2(str(point), 0)
        assert [] == os.listdir(point), "nothing was written under it"
