"""The command line against a real control: every command, its text, its JSON, its exit code."""

from __future__ import annotations

import asyncio
import json

import pytest

from sandbox.wire import router_frames
from sandbox.wire.supervisor_frames import Failed
from supervisor.cli.app import run
from supervisor.packages import keys

pytestmark = pytest.mark.block11_cli


@pytest.fixture
def cli(capfdbinary):
    """Runs one command line beside the loop: exit code, standard output, standard error."""

    async def call(play, *arguments):
        code = await asyncio.to_thread(run, ["--host", play.api_path, *arguments])
        out, err = capfdbinary.readouterr()
        return code, out.decode("utf-8", "surrogateescape"), err.decode()

    return call


def test_the_main_job(playground, cli, tmp_path):
    """keygen, sign, trust, install, request, status, stop, start, restart, uninstall: the whole life by commands."""

    async def main():
        async with playground() as play:
            directory = play.package()
            key = str(play.root / "acme.key.pub")
            code, out, err = await cli(play, "trust", "add", "acme", "--key", key, "--scope", "acme/*")
            assert (0, "") == (code, err)
            assert "acme may publish acme/*" in out
            code, out, err = await cli(play, "install", str(directory), "--yes")
            assert (0, "") == (code, err), err
            assert "acme/echo/0 installed, running" in out
            code, out, err = await cli(play, "request", "acme/echo", "--data", "hi\x1b[31m")
            assert (0, "hi\x1b[31m", "") == (code, out, err)
            code, out, _ = await cli(play, "status", "--output", "json")
            status = json.loads(out)
            assert 0 == code
            assert ["acme/echo/0", "running", 0, ""] == [
                status["components"][0][key] for key in ("id", "state", "restarts", "outcome")
            ]
            assert status["components"][0]["memory"] > 0
            for command, state in (("stop", "stopped"), ("start", "running"), ("restart", "running")):
                code, out, err = await cli(play, command, "acme/echo", "--output", "json")
                assert (0, state) == (code, json.loads(out)["state"]), err
            for command in (
                ["list"],
                ["info", "acme/echo"],
                ["status"],
                ["trust", "list"],
                ["inspect", str(directory)],
            ):
                code, out, err = await cli(play, *command)
                assert (0, "") == (code, err)
                assert "acme" in out, command
                code, out, err = await cli(play, *command, "--output", "json")
                assert 0 == code
                json.loads(out)
            code, out, err = await cli(play, "uninstall", "acme/echo", "--purge")
            assert (0, "acme/echo/0 uninstalled\n") == (code, out)
            assert (await cli(play, "list"))[1] == "no components\n"

    asyncio.run(main())


def test_errors_have_exit_codes(playground, cli, tmp_path):
    """Each kind of failure has its exit code, and says code and hint."""

    async def main():
        async with playground() as play:
            directory = str(play.package())
            code, _, err = await cli(play, "install", directory, "--yes")
            assert 9 == code
            assert "E_UNTRUSTED" in err
            assert "hint: " in err
            play.trust(level="review")
            code, _, err = await cli(play, "install", directory, "--output", "json")
            assert 6 == code
            assert "E_CONSENT" == json.loads(err)["error"]["code"]
            assert 7 == (await cli(play, "start", "nonsense"))[0]
            assert 1 == (await cli(play, "start", "acme/none"))[0]
            assert 2 == (await cli(play, "nonsense"))[0]
            assert 2 == (await cli(play, "request", "acme/echo", "--data", "a", "--json", "1"))[0]
            assert 7 == (await cli(play, "request", "acme/echo", "--timeout", "5"))[0]
            assert 7 == (await cli(play, "install", directory, "--bind", "logs=/srv"))[0]
            play.compile_error = ("E_COMPILE", "unknown import \x1b]0;x", "acme")
            other = str(play.package(release=2, extra=b"\0\1\0"))
            code, _, err = await cli(play, "install", other, "--yes")
            assert 8 == code
            assert "\\x1b]0;x" in err
            play.compile_error = None
            play.start_error = Failed(0, "E_SETUP", "no uid left", "setup-error")
            code, _, err = await cli(play, "install", directory, "--yes")
            assert 1 == code
            assert "no uid left" in err
            play.start_error = None
            await cli(play, "stop", "acme/echo")
            code, out, err = await cli(play, "request", "acme/echo")
            assert (1, "") == (code, out)
            assert "E_NOT_RUNNING" in err
            await cli(play, "start", "acme/echo")
            play.reply = lambda submit, payload: (router_frames.Submitted(submit.id, "timeout"), b"")
            code, out, err = await cli(play, "request", "acme/echo")
            assert (1, "") == (code, out)
            assert "E_TIMEOUT" in err
            await play.stop_control()
            code, _, err = await cli(play, "status")
            assert 4 == code
            assert "airssys up --detach" in err
            await play.start_control()
            await play.until(lambda: play.asked(router_frames.Query))

    asyncio.run(main())


def test_send_logs_audit(playground, cli):
    """send puts a message, logs and audit show lines escaped as text and unchanged as JSON."""

    async def main():
        async with playground() as play:
            play.lines["logs"] = ['{"component":"acme/echo/0","level":"info","message":"a\\u001b[2Jb","time":"t"}']
            code, out, _ = await cli(play, "logs", "acme/echo")
            assert (0, "t acme/echo/0 info: a\\x1b[2Jb\n") == (code, out)
            assert play.lines["logs"][0] + "\n" == (await cli(play, "logs", "--output", "json"))[1]
            play.lines["audit"] = ['{"seq":1,"event":"fs.read","decision":"denied","component":"a/b/0"}']
            code, out, _ = await cli(play, "audit", "tail", "--denied", "--component", "a/b")
            assert 0 == code
            assert "denied fs.read a/b/0" in out
            code, out, _ = await cli(play, "send", "acme/echo", "--json", '{"a": 1}')
            assert (0, "sent 8 bytes to acme/echo/0\n") == (code, out)
            submit = play.asked(router_frames.Submit)[-1]
            assert [False, "application/json"] == [submit.request, submit.options.content_type]

    asyncio.run(main())


def test_trust_changes(playground, cli):
    """rotate, revoke and remove change the store and stop what they concern."""

    async def main():
        async with playground() as play:
            play.trust()
            await cli(play, "install", str(play.package()), "--yes")
            new = keys.generate(str(play.root / "new.key"))
            code, out, err = await cli(play, "trust", "rotate", "acme", "--new", str(play.root / "new.key.pub"))
            assert (0, "") == (code, err)
            assert "stopped acme/echo/0" in out
            assert "failed" == (await play.state_of())["state"]
            code, _, err = await cli(play, "start", "acme/echo")
            assert 1 == code
            assert "E_UNTRUSTED" in err
            assert 0 == (await cli(play, "trust", "revoke", "--key", new.keyid, "--reason", "lost"))[0]
            assert new.keyid in (await cli(play, "trust", "list"))[1]
            assert 0 == (await cli(play, "trust", "remove", "acme"))[0]
            assert 9 == (await cli(play, "trust", "remove", "acme"))[0]
            assert 2 == (await cli(play, "trust", "revoke"))[0]

    asyncio.run(main())


def test_offline_commands(tmp_path, capfd, playground):
    """keygen, sign, verify and inspect need no host; a changed byte is exit code 9."""
    directory = tmp_path / "p"
    directory.mkdir()
    (directory / "component.wasm").write_bytes(b"\0asm\x0d\0\1\0")
    (directory / "component.toml").write_text(
        '[component]\nname = "acme/x"\nversion = "1.0.0"\nrelease = 1\nworld = "airssys:core/runtime-host@1.0.0"\n'
    )
    key = str(tmp_path / "k")
    assert 0 == run(["keygen", "--out", key])
    assert 9 == run(["keygen", "--out", key])
    assert 0 == run(["inspect", str(directory)])
    assert 0 == run(["sign", str(directory), "--key", key])
    assert 0 == run(["verify", str(directory), "--key", key + ".pub"])
    capfd.readouterr()
    assert 0 == run(["--output", "json", "inspect", str(directory)])
    assert json.loads(capfd.readouterr().out)["signed"]
    (directory / "component.wasm").write_bytes(b"\0asm\x0d\0\1\0\0\1\0")
    assert 9 == run(["verify", str(directory), "--key", key + ".pub"])
