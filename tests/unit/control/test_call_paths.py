"""Fast or general: what the operator's configuration says reaches the compiler and the worker, and info follows it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sandbox.wire import supervisor_frames as sup
from sandbox.wire.compile_result import Crossing
from supervisor.config import Override

pytestmark = pytest.mark.block7_lifecycle
NAME = "acme/echo/0"
FAST = Crossing("fast", ["handle-message"], {"airssys:core/storage@1.0.0": ["get"]})
GENERAL = Crossing(reason="the operator chose it")


async def crossing(play: Any) -> dict[str, Any]:
    info = (await play.client.get(f"/v1/components/{NAME}")).json()
    return dict(info["crossing"])


async def again(play: Any, **config: Any) -> None:
    """Another control, with its configuration changed."""
    await play.stop_control()
    play.config = msgspec.structs.replace(play.config, **config)
    await play.start_control()
    await play.until_state("running")


def shown(told: Crossing) -> dict[str, Any]:
    return msgspec.to_builtins(told)


def test_info_follows_the_configuration_at_the_next_start(playground: Any) -> None:
    """A change of the path compiles anew, once for each path, and holds from the component's next start on: until then,
    info shows how the running worker does it, also to a control that was started since."""

    async def main() -> None:
        async with playground() as play:
            play.crossing = lambda path: FAST if path == "fast" else GENERAL
            await play.stop_control()
            play.config = msgspec.structs.replace(play.config, path="general")
            await play.start_control()
            play.trust()
            assert 200 == (await play.install(play.package())).status_code
            await again(play, path="fast")
            assert shown(GENERAL) == await crossing(play)
            assert 200 == (await play.client.post(f"/v1/components/{NAME}/restart")).status_code
            assert shown(FAST) == await crossing(play)
            await again(play, overrides=(Override("acme/*", path="general"),))
            assert shown(FAST) == await crossing(play)
            await play.client.post(f"/v1/components/{NAME}/restart")
            assert shown(GENERAL) == await crossing(play)
            await again(play, overrides=(Override("acme/other", path="general"),))
            await play.client.post(f"/v1/components/{NAME}/restart")
            assert shown(FAST) == await crossing(play)
            assert ["general", "fast"] == [frame.path for frame in play.asked(sup.Compile)]
            expected: list[list[str]] = [[], ["handle-message"], [], ["handle-message"]]
            assert expected == [frame.fast for frame in play.asked(sup.StartWorker)]

    asyncio.run(main())


def test_what_the_compiler_invents_goes_nowhere(playground: Any) -> None:
    """The compiler has read a stranger's bytes: names it makes up are not handed to the supervisor."""

    async def main() -> None:
        async with playground() as play:
            play.crossing = lambda path: Crossing("fast", ["handle-message", "shutdown", "x" * 1000] * 100)
            play.trust()
            assert 200 == (await play.install(play.package())).status_code
            assert [["handle-message"]] == [frame.fast for frame in play.asked(sup.StartWorker)]

    asyncio.run(main())


def test_installed_without_start(playground: Any) -> None:
    """Info knows from the installation on."""

    async def main() -> None:
        async with playground() as play:
            play.crossing = lambda path: FAST
            play.trust()
            assert 200 == (await play.install(play.package(), start=False)).status_code
            assert shown(FAST) == await crossing(play)

    asyncio.run(main())
