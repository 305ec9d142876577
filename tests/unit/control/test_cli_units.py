"""The command line by itself: escaping, exit codes, help, the reference pages, and how fast help is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import unicodedata
from pathlib import Path

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.app import COMMANDS, root, run
from supervisor.cli.client import Client
from supervisor.cli.errors import InterruptedAskError, UnreachableError
from supervisor.cli.escape import clean
from supervisor.cli.exit_codes import EXIT_CODES, MEANINGS, exit_code
from supervisor.cli.host import status_
from supervisor.cli.reference import markdown
from supervisor.control.bodies import ComponentStatus

pytestmark = pytest.mark.block11_cli

ROOT = Path(__file__).parents[3]


@given(st.text())
def test_nothing_harmful_passes(text):
    """What is shown holds no control, format, surrogate or separator character; harmless text stays as it is."""
    shown = clean(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    if not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]:
        assert text == shown


def test_known_escapes():
    """A terminal's escape, a right-to-left override and a line feed are told apart from text."""
    assert "a\\x1b[2J\\u202eb\\nc\\x9b" == clean("a\x1b[2J\u202eb\nc\x9b")
    assert "a\nb" == clean("a\nb", lines=True)


def test_every_command_has_help_and_an_example(capfd):
    """Each command, subcommands included, explains itself with an example and exits 0 for --help."""

    def walk(command, path):
        assert 0 == run([*path, "--help"])
        assert "airssys" in capfd.readouterr().out
        assert f"airssys {' '.join(path)}" in (command.help or "").partition("Example:")[2], path
        for name, sub in getattr(command, "commands", {}).items():
            walk(sub, [*path, name])

    context = click.Context(root)
    for name in COMMANDS:
        walk(root.get_command(context, name), [name])
    assert 0 == run(["--help"])
    shown = capfd.readouterr().out
    assert [] == [name for name in COMMANDS if name not in shown]


def test_usage_errors(capfd):
    """A wrong command line is exit code 2 and suggests what may have been meant."""
    assert 2 == run(["instal"])
    assert "install" in capfd.readouterr().err
    assert 2 == run(["install"])
    assert 2 == run(["status", "--output", "xml"])


def test_usage_errors_as_json(capfd):
    """Where errors are to be JSON, one in the command line is, too, wherever the option stands."""
    for line in (
        ["--output", "json", "instal"],
        ["install", "--output=json"],
        ["info", "--nonsense", "--output", "json"],
    ):
        assert 2 == run(line)
        told = json.loads(capfd.readouterr().err)["error"]
        assert "E_USAGE" == told["code"]
        assert told["message"]
        assert told["hint"].endswith("--help")


def test_unreachable(tmp_path, capfd, monkeypatch):
    """No host is exit code 4 with the way to start one; a broken configuration is 3."""
    monkeypatch.setenv("AIRSSYS_ROOT", str(tmp_path))
    assert 4 == run(["status"])
    assert "airssys up --detach" in capfd.readouterr().err
    assert 4 == run(["--host", str(tmp_path / "none"), "list"])
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[host]\nnonsense = 1\n")
    assert 3 == run(["--config", str(wrong), "status"])
    assert "wrong.toml:2" in capfd.readouterr().err


@pytest.fixture
def socket_path():
    """A short one (a socket's path has 107 bytes)."""
    with tempfile.TemporaryDirectory() as name:
        yield f"{name}/s"


def test_control_ends_before_it_answers(socket_path):
    """An answer that never comes is told apart from a host that is not there: what was asked may have been done."""
    ended = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen()

        def serve():
            for _ in range(3):
                taken, _address = listener.accept()
                with taken:
                    ended.append(taken.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(socket_path) as client:
            with pytest.raises(InterruptedAskError, match="nobody knows"):
                client.post("/v1/messages")
            with pytest.raises(InterruptedAskError) as caught:
                client.get("/v1/status")
        thread.join()
    assert ("E_UNAVAILABLE", False) == (caught.value.code, "nobody knows" in str(caught.value))
    assert [b"", b"POST", b"GET "] == [each[:4] for each in ended]
    with pytest.raises(UnreachableError):
        Client(socket_path)


class _Options:
    """What a command prints."""

    json = False

    def __init__(self, status):
        self.status, self.said = status, []

    @contextlib.contextmanager
    def client(self):
        yield self

    def get(self, path):
        assert "/v1/status" == path
        return self.status

    def say(self, text):
        self.said.append(text)

    def table(self, columns, rows):
        assert {len(columns)} >= {len(row) for row in rows}


def _component(name, **values):
    body = {field.encode_name: None for field in msgspec.structs.fields(ComponentStatus)}
    texts = {"state": "running", "health": "healthy", "outcome": "", "detail": "", "quarantine": "", "lost-wall": ""}
    return {**body, **texts, "id": name, "restarts": 0, "ready": True, "breaker": "", **values}


def test_status_shows_an_open_breaker():
    """A circuit breaker that is not closed has a line of its own in the text."""
    host = {"state": "running", "uptime": 1.0, "version": "1", "profile": "full", "spawn": "fork", "pool": 0}
    states = {"me/a/0": "open", "me/b/0": "half-open", "me/c/0": "closed", "me/d/0": ""}
    options = _Options(
        {
            "host": {**host, "processes": [], "walls-lost": {}, "limits-held-by": {}},
            "components": [_component(name, breaker=state) for name, state in states.items()],
            "supervisors": [{"name": "root", "children": list(states)}],
        }
    )
    status_.callback.__wrapped__(options)
    assert ["circuit breaker open: me/a/0", "circuit breaker half-open: me/b/0"] == options.said[-2:]
    assert 2 == sum("breaker" in line for line in options.said)


def test_exit_codes_are_documented():
    """Every exit code used has a meaning, and every code in the table is an error code."""
    assert set(EXIT_CODES.values()) <= set(MEANINGS)
    assert [] == [code for code in EXIT_CODES if not re.fullmatch(r"E_[A-Z_]+", code)]
    assert 1 == exit_code("E_SOMETHING_ELSE")


def test_reference_is_in_step():
    """docs/reference/cli.md is what the commands say."""
    assert markdown() == (ROOT / "docs/reference/cli.md").read_text(), "run scripts/make-reference cli"


def _codes() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for folder in ("sandbox", "bridge", "supervisor"):
        for path in (ROOT / folder).rglob("*.py"):
            for code in re.findall(r"[\"'](E_[A-Z][A-Z_]*[A-Z])[\"']", path.read_text()):
                found.setdefault(code, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_error_code_is_documented():
    """docs/reference/errors.md explains every code in the source, once, and no other."""
    rows = re.findall(r"^\| `(E_[A-Z_]+)` \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    assert sorted(set(rows)) == sorted(rows)
    codes = _codes()
    assert {} == {code: sorted(where) for code, where in codes.items() if code not in rows}
    assert [] == [code for code in rows if code not in codes]


def test_help_is_fast():
    """`airssys --help` loads click and no command: it takes less than 150 ms of CPU (the best of five)."""

    def best(*arguments):
        times = []
        for _ in range(5):
            before = os.times()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
            after = os.times()
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        return min(times)

    assert best("-m", "supervisor.cli", "--help") - best("-c", "pass") < 0.15
    code = "import sys; from supervisor.cli.app import run; run(['--help']); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert not re.search(r"'(httpx|rich|wasmtime|aiohttp|msgspec\.json|zmq|supervisor\.cli\.host)'", loaded)
