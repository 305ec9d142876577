"""The first command of the README, as a new operator runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_host import CHECKOUT

pytestmark = pytest.mark.block11_cli


def _run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Its temporary root must be reachable for the host's own uids, which pytest's directories are not.
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts" / "quickstart.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "TMPDIR": "/tmp"},
        cwd=tmp_path,
    )


def test_quickstart(able: None, tmp_path: Path) -> None:
    """It cleans the logs, shows what each attempt met with the audit lines, and leaves nothing running."""
    out = tmp_path / "cleaned"
    out.mkdir()
    done = _run(tmp_path, "--out", str(out))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert {"access.log", "app.log", "mail.log"} == {path.name for path in out.iterdir()}
    for words in (
        "no capability covers this path with read",
        "symbolic link",
        "delivery-failed: denied",
        "of 4294967296 bytes",
        "E_TARGET_ENDED",
        "denied fs.read acme/thief/0 /etc/shadow",
        "denied messaging.send acme/thief/0 acme/redactor/0",
        "bound /logs to",
        "processes left running: none",
    ):
        assert words in done.stdout
    assert 2 == done.stdout.count("never noticed")


def test_own_logs(able: None, tmp_path: Path) -> None:
    """--logs takes another directory."""
    logs, out = tmp_path / "logs", tmp_path / "out"
    logs.mkdir()
    out.mkdir()
    (logs / "mine.log").write_text('192.0.2.7 - - "GET /?token=abc HTTP/1.1" 200\n')
    done = _run(tmp_path, "--logs", str(logs), "--out", str(out))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert '[ip] - - "GET /?[query] HTTP/1.1" 200\n' == (out / "mine.log").read_text()


def test_no_such_directory(tmp_path: Path) -> None:
    """A wrong --logs is a usage error, before anything starts."""
    done = _run(tmp_path, "--logs", str(tmp_path / "nowhere"))
    assert 2 == done.returncode
    assert "not a directory" in done.stderr
