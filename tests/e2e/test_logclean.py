"""The example, as an operator runs it: the logs are cleaned, the thief gets nothing, nobody else notices."""

from __future__ import annotations

import json
import re

import pytest
from live_host import EXAMPLES, Host, wait_until

pytestmark = pytest.mark.block8_bridge

_SECRETS = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b|2001:db8|[\w.]+@[\w.]+\.(com|org|net)|Bearer [\w-]{8}")


@pytest.fixture(scope="module")
def logclean(shared: Host) -> Host:
    """The three components installed on the shared host."""
    out = shared.out / "cleaned"
    out.mkdir()
    shared.install(shared.package(EXAMPLES / "redactor"), "--bind", f"/out={out}")
    shared.install(shared.package(EXAMPLES / "reader"), "--bind", f"/logs={EXAMPLES / 'logs'}")
    shared.install(shared.package(EXAMPLES / "thief"), "--bind", f"/logs={EXAMPLES / 'logs'}")
    return shared


def test_the_logs_are_cleaned(logclean: Host) -> None:
    """Every line arrives, and no address, e-mail, token or query string is left in it."""
    logclean.ask("acme/reader", "clean")
    wait_until("the job's end", lambda: json.loads(logclean.ask("acme/reader", "status"))["state"] == "done")
    sources = sorted((EXAMPLES / "logs").glob("*.log"))
    lines = 0
    for source in sources:
        before = source.read_text()
        after = (logclean.out / "cleaned" / source.name).read_text()
        assert _SECRETS.search(before), "positive control: there is something to remove"
        assert _SECRETS.search(after) is None
        assert len(before.splitlines()) == len(after.splitlines())
        lines += len(before.splitlines())
    report = json.loads(logclean.ask("acme/redactor", "report"))
    assert (len(sources), lines) == (report["files"], report["lines"])


@pytest.mark.parametrize(
    ("attempt", "event", "object_"),
    [
        ("shadow", "fs.read", "/etc/shadow"),
        ("dotdot", "fs.read", "/logs/../../etc/passwd"),
        ("symlink", "fs.read", "/logs/passwd-link"),
        ("write", "fs.write", "/logs/owned"),
        ("reach", "messaging.send", "acme/redactor/0"),
    ],
)
def test_each_attempt_is_denied_and_recorded(logclean: Host, attempt: str, event: str, object_: str) -> None:
    """An attempt the host decides on is answered with a denial, and the record stands before the answer."""
    answer = json.loads(logclean.ask("acme/thief", f"steal {attempt}"))
    assert "denied" == answer["result"]
    denials = [(r["event"], r["object"]) for r in logclean.audit("acme/thief/0") if r["decision"] == "denied"]
    assert (event, object_) in denials


def test_memory_ends_at_the_cap(logclean: Host) -> None:
    """4 GiB are asked for, the manifest's 16 MiB are given, and nothing ends."""
    before = logclean.component("acme/thief/0")["pid"]
    answer = json.loads(logclean.ask("acme/thief", "steal memory"))
    assert f"grew to {16 << 20} of {4 << 30} bytes" == answer["detail"]
    assert before == logclean.component("acme/thief/0")["pid"]


def test_spinning_ends_the_thief_alone(logclean: Host) -> None:
    """An endless loop ends by fuel; the thief gets a new process, the others keep theirs."""
    names = ("acme/reader/0", "acme/redactor/0")
    before = {name: logclean.component(name)["pid"] for name in names}
    old = logclean.component("acme/thief/0")["pid"]
    error = logclean.fail("acme/thief", "steal spin", seconds=20)
    assert "E_TARGET_ENDED" == error.code
    wait_until(
        "the thief's new worker",
        lambda: (c := logclean.component("acme/thief/0"))["state"] == "running" and c["pid"] != old,
    )
    # Fuel bounds it; on a machine so busy that a second of wall clock comes first, the deadline does.
    ended = logclean.component("acme/thief/0")["outcome"]
    assert ended in ("fuel", "deadline")
    assert before == {name: logclean.component(name)["pid"] for name in names}
    assert any(r["event"] == "worker.ended" and r["result"] == ended for r in logclean.audit("acme/thief/0"))


def test_the_audit_log_is_whole(logclean: Host) -> None:
    """The chain verifies with the log's own public key; a changed line is found."""
    logclean.cli("audit", "verify")
    directory = logclean.root / "lib" / "audit"
    copy = logclean.out / "audit-copy"
    copy.mkdir()
    for file in directory.iterdir():
        if file.name.startswith("audit"):
            (copy / file.name).write_bytes(file.read_bytes())
    log = copy / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"decision":"info"', b'"decision":"allowed"', 1))
    done = logclean.cli("audit", "verify", "--dir", str(copy), check=False)
    assert 0 != done.returncode
