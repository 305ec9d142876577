"""The tree: starts, restarts, backoff, quarantine, health, stops, and control's own return."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.wire import router_frames, supervisor_frames

pytestmark = pytest.mark.block7_lifecycle


def test_install_starts_and_is_recorded(playground):
    """A trusted package is compiled, started with the compiled bytes, becomes ready, and every step is recorded."""

    async def main():
        async with playground() as play:
            play.trust()
            answer = await play.install(play.package())
            assert 200 == answer.status_code, answer.text
            assert "running" == answer.json()["state"]
            assert b"native \0asm\x0d\0\1\0" == play.cwasm
            for event in ("package.plan", "package.install", "worker.start"):
                assert 1 == len(play.events(event)), event
            assert 1 == play.compiles

    asyncio.run(main())
