"""Stored values on a real host: they survive every death, are apart per instance, bounded, and recorded."""

from __future__ import annotations

import json
import os
import signal

import probes
import pytest
from live_host import Host, wait_until

pytestmark = pytest.mark.block6_storage


@pytest.fixture(scope="module")
def store(shared: Host) -> Host:
    """Probes with full rights (two instances of one), with reading alone, with writing alone, and with none."""
    probes.add(shared, "full")
    probes.install(shared, shared.out / "full", instance="two")
    probes.add(shared, "other")
    for name, access in (("reader", '["read"]'), ("writer", '["write"]')):
        probes.add(shared, name, {"storage": f'[{{ namespace = "self", access = {access} }}]'})
    probes.add(shared, "none", {"storage": "[]"})
    return shared


def _clear(host: Host, name: str) -> None:
    for key in host.ask(name, "keys").splitlines():
        host.ask(name, f"del {key}")


def _new_worker(host: Host, name: str, old: int) -> None:
    wait_until("a new worker", lambda: host.component(name)["pid"] not in (old, None))


def test_operations(store: Host) -> None:
    """Set makes and replaces, get and exists tell, delete removes; what is not there is said to be not there."""
    _clear(store, "test/full")
    assert ("-", "false") == (store.ask("test/full", "get k"), store.ask("test/full", "has k"))
    assert "ok" == store.ask("test/full", "set k one")
    assert ("one", "true") == (store.ask("test/full", "get k"), store.ask("test/full", "has k"))
    assert "ok" == store.ask("test/full", "set k two words")
    assert "two words" == store.ask("test/full", "get k")
    assert "ok" == store.ask("test/full", "set empty ")
    assert ("", "true") == (store.ask("test/full", "get empty"), store.ask("test/full", "has empty"))
    assert "ok" == store.ask("test/full", "del k")
    assert "error not-found: no such key" == store.ask("test/full", "del k")
    assert "-" == store.ask("test/full", "get k")


def test_bytes_are_bytes(store: Host) -> None:
    """A value may hold anything."""
    value = bytes(range(256))
    with store.api() as client:
        client.message("test/full", "request", b"set raw " + value, 5000, "application/octet-stream")
        assert value == client.message("test/full", "request", b"get raw", 5000, "application/octet-stream")


def test_keys(store: Host) -> None:
    """Keys are listed sorted by their bytes; a prefix narrows them down, and is no pattern."""
    _clear(store, "test/other")
    names = ["b", "a/2", "a/1", "Z", "ä", "a", "日本", "a*", "%"]
    for name in names:
        assert "ok" == store.ask("test/other", f"set {name} 1")
    assert sorted(names, key=str.encode) == store.ask("test/other", "keys").splitlines()
    assert ["a/1", "a/2"] == store.ask("test/other", "keys a/").splitlines()
    assert ["a*"] == store.ask("test/other", "keys a*").splitlines()
    assert [] == store.ask("test/other", "keys c").splitlines()
    assert ["日本"] == store.ask("test/other", "keys 日").splitlines()


def test_usage(store: Host) -> None:
    """Used bytes are those of keys and values together, exactly, through replacing and deleting."""
    _clear(store, "test/full")
    used = {"usage": store.ask("test/full", "usage")}
    for command in ("set key 12345", "set k x", "set key 1", "del k", "del key"):
        store.ask("test/full", command)
        used[command] = store.ask("test/full", "usage")
    expected = {
        "usage": "0 65536 0",
        "set key 12345": "8 65536 1",
        "set k x": "10 65536 2",
        "set key 1": "6 65536 2",
        "del k": "4 65536 1",
        "del key": "0 65536 0",
    }
    assert expected == used


@pytest.mark.parametrize("name", ["", "a\x01b", "a\tb", "a\nb", "\x7f", "a\x00", "a\u0085", "k" * 257, "ä" * 129])
def test_invalid_keys(store: Host, name: str) -> None:
    """Empty, too long, or with control characters: told so by every function, and nothing is stored."""
    before = store.ask("test/full", "usage")
    for command in (f"set {name} x", f"get {name} ", f"del {name} ", f"has {name} "):
        assert store.ask("test/full", command).startswith("error invalid-key: "), command
    assert before == store.ask("test/full", "usage")


@pytest.mark.parametrize("name", ["k" * 256, "ä" * 128, "../../etc", "a/b", "';drop", "test/other/0"])
def test_valid_keys(store: Host, name: str) -> None:
    """Positive control: up to 256 bytes, and no character but a control character means anything."""
    assert "ok" == store.ask("test/full", f"set {name} x")
    assert "x" == store.ask("test/full", f"get {name}")
    assert "ok" == store.ask("test/full", f"del {name}")


def test_namespaces_are_apart(store: Host) -> None:
    """Neither another component nor another instance of the same one sees, counts or removes what one stored."""
    for name in ("test/full", "test/full/two", "test/other"):
        _clear(store, name)
    store.ask("test/full", "set shared-name mine")
    store.ask("test/full/two", "set shared-name yours")
    for name in ("test/other", "test/full/two"):
        assert "mine" != store.ask(name, "get shared-name")
    assert ("", "0 65536 0") == (store.ask("test/other", "keys"), store.ask("test/other", "usage"))
    assert store.ask("test/other", "del shared-name").startswith("error not-found")
    assert "ok" == store.ask("test/full/two", "del shared-name")
    assert "mine" == store.ask("test/full", "get shared-name")


def test_rights(store: Host) -> None:
    """Reading and writing are rights of their own; without them nothing is done, and the attempt is on the record."""
    reads, writes = ("get k", "has k", "keys"), ("set k x", "del k")
    for name, commands in (("reader", writes), ("writer", reads), ("none", (*reads, *writes, "usage"))):
        for command in commands:
            assert store.ask(f"test/{name}", command).startswith("error io-error: denied: no capability"), command
        denied = [r["event"] for r in store.audit(f"test/{name}/0") if r["decision"] == "denied"]
        assert len(commands) <= len(denied)
    assert ["-", "false", ""] == [store.ask("test/reader", command) for command in reads]
    assert ["ok", "ok"] == [store.ask("test/writer", command) for command in writes]
    for name in ("reader", "writer"):
        assert "0 65536 0" == store.ask(f"test/{name}", "usage")


def test_value_size(store: Host) -> None:
    """A value is at most `message-size`: one that the message could bring in and the quota would hold is stored."""
    probes.add(store, "tiny", {"message-size": '"4KiB"'})
    assert "ok" == store.ask("test/tiny", "set k " + "x" * (4096 - 6))
    assert "x" * (4096 - 6) == store.ask("test/tiny", "get k")


def test_recorded(store: Host) -> None:
    """Each operation is in the log's file when its answer comes, with its key and never with its value."""
    for command, event in (("set k secret-value", "set"), ("get k", "get"), ("has k", "exists"), ("del k", "delete")):
        store.ask("test/other", command)
        last = (store.root / "lib" / "audit" / "audit.jsonl").read_text().splitlines()[-1]
        line = json.loads(last)
        assert (f"storage.{event}", "test/other/0", "k", "ok") == (
            line["event"],
            line["component"],
            line["object"],
            line["result"],
        )
        assert "secret-value" not in last


def test_survives_the_worker(store: Host) -> None:
    """A value is there after its component's worker was restarted, killed, and trapped."""
    _clear(store, "test/full")
    assert "ok" == store.ask("test/full", "set kept value")
    for how in ("restart", "kill", "trap"):
        old = store.component("test/full/0")["pid"]
        if how == "restart":
            with store.api() as client:
                client.post("/v1/components/test/full/0/restart")
        elif how == "kill":
            os.kill(old, signal.SIGKILL)
        else:
            store.fail("test/full", "trap")
        _new_worker(store, "test/full/0", old)
        assert "value" == store.ask("test/full", "get kept"), how
    store.ask("test/full", "del shutdown-ran")
    assert "9 65536 1" == store.ask("test/full", "usage")


@pytest.mark.parametrize("what", ["bridge", "supervisor", "host"])
def test_survives_the_host(host: Host, what: str) -> None:
    """A value is there after kill -9 of the bridge, kill -9 of the supervisor, and an orderly end of the host."""
    host.trust("test/*")
    probes.add(host, "full")
    assert "ok" == host.ask("test/full", "set kept value")
    pids = host.processes()
    if what == "host":
        host.down()
    else:
        os.kill(pids[what], signal.SIGKILL)
    if what == "bridge":
        wait_until("a new bridge", lambda: host.processes()["bridge"] != pids["bridge"])
    else:
        wait_until("the end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()))
        host.up()

    def whole() -> bool:
        processes = host.status()["host"]["processes"]
        return host.component("test/full/0")["state"] == "running" and all(process["ready"] for process in processes)

    wait_until("the component", whole)
    assert "value" == host.ask("test/full", "get kept")
    assert "ok" == host.ask("test/full", "set after value")
    assert {"kept", "after"} <= set(host.ask("test/full", "keys").splitlines())
    host.cli("audit", "verify")
