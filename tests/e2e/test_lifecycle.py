"""A component's life on a real host: consent, releases, starting and stopping, misbehaving, giving up, refusal."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import probes
import pytest
from live_host import CHECKOUT, Host, wait_until

from supervisor.cli.errors import RefusedError

pytestmark = pytest.mark.block7_lifecycle
actors = pytest.mark.block3_actors

NO_FILES = {"filesystem": "[]"}


def _keygen(path: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "supervisor.cli", "keygen", "--out", str(path)],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    return path


def _post(host: Host, name: str, what: str, **query: bool) -> dict[str, Any]:
    with host.api() as client:
        return dict(client.post(f"/v1/components/{name}/{what}", timeout=60.0, **query))


def _uninstall(host: Host, name: str, *, purge: bool = True) -> None:
    with host.api() as client:
        client.delete(f"/v1/components/{name}", purge=purge)


def _info(host: Host, name: str) -> dict[str, Any]:
    with host.api() as client:
        return dict(client.get(f"/v1/components/{name}"))


def _installed(host: Host) -> list[str]:
    return [component["id"] for component in host.status()["components"]]


def _refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(RefusedError) as caught:
        act()
    return caught.value.code


def _state(host: Host, name: str, state: str, seconds: float = 20.0) -> dict[str, Any]:
    return dict(
        wait_until(f"{name} {state}", lambda: (c := host.component(name))["state"] == state and c, seconds=seconds)
    )


def _health(host: Host, name: str, health: str) -> None:
    wait_until(f"{name} {health}", lambda: host.component(name)["health"] == health)


def _new_worker(host: Host, name: str, old: int) -> dict[str, Any]:
    def fresh() -> dict[str, Any] | None:
        component = host.component(name)
        return component if component["state"] == "running" and component["pid"] not in (old, None) else None

    return dict(wait_until(f"a new worker of {name}", fresh))


# -- installing -----------------------------------------------------------------------------------------------


def test_consent_of_a_reviewed_publisher(shared: Host) -> None:
    """What a publisher of level review signed is installed with the operator's word only, and that word is kept."""
    key = _keygen(shared.out / "review.key")
    shared.cli("trust", "add", "reviewed", "--key", f"{key}.pub", "--scope", "rev/*")
    package = probes.pack(shared, "review", {**NO_FILES, "name": '"rev/thing"'}, key=key)
    plan = probes.upload(shared, package)
    assert ("review", True) == (plan["level"], plan["consent-needed"])
    assert "E_CONSENT" == _refusal(lambda: probes.install(shared, package, consent=False))
    done = shared.cli("install", str(package), check=False)
    assert 6 == done.returncode
    assert b"--yes" in done.stderr
    assert "rev/thing/0" not in _installed(shared)
    denied = [r for r in shared.audit() if r["decision"] == "denied" and r["result"] == "E_CONSENT"]
    assert denied, "a refusal is recorded"
    shared.install(package)
    assert "running" == shared.component("rev/thing/0")["state"]
    assert _info(shared, "rev/thing/0")["consent-by"]


def test_no_consent_for_a_trusted_publisher(shared: Host) -> None:
    """Positive control: a trusted publisher's package needs none; one that asks for more later does."""
    package = probes.pack(shared, "trusted", NO_FILES)
    assert "running" == probes.install(shared, package, consent=False)["state"]
    assert "running" == probes.install(shared, package, consent=False)["state"]
    wider = {
        **NO_FILES,
        "release": "2",
        "version": '"1.1.0"',
        "messaging": '[{ target = "*", access = ["send"] }, { from = "host/client/*" }]',
    }
    update = probes.pack(shared, "trusted", wider, folder="trusted-wider")
    assert ["messages to *: send"] == probes.upload(shared, update)["widened"]
    assert "E_CONSENT" == _refusal(lambda: probes.install(shared, update, consent=False))
    assert 1 == shared.component("test/trusted/0")["release"]
    assert "running" == probes.install(shared, update, consent=True)["state"]
    assert 2 == shared.component("test/trusted/0")["release"]
    narrower = {**wider, "release": "3", "messaging": '[{ from = "host/client/*" }]'}
    update = probes.pack(shared, "trusted", narrower, folder="trusted-narrower")
    assert "running" == probes.install(shared, update, consent=False)["state"]


def test_unknown_publisher(shared: Host) -> None:
    """Nothing is installed that no known key signed, or whose key may not sign this name."""
    stranger = _keygen(shared.out / "stranger.key")
    package = probes.pack(shared, "stranger", NO_FILES, key=stranger)
    before = _installed(shared)
    done = shared.cli("install", str(package), "--yes", check=False)
    assert 9 == done.returncode
    scope = probes.pack(shared, "elsewhere", {**NO_FILES, "name": '"elsewhere/thing"'})
    assert "E_SCOPE" == _refusal(lambda: probes.upload(shared, scope))
    (package / "component.dsse.json").unlink()
    assert "E_NO_ENVELOPE" == _refusal(lambda: probes.upload(shared, package))
    assert before == _installed(shared)


def test_reinstall_and_rollback(shared: Host) -> None:
    """The same release again changes nothing but the process; a lower one is refused, after uninstalling too."""
    packages = {
        number: probes.pack(shared, "rolling", {**NO_FILES, "release": f"{number}"}, folder=f"rolling-{number}")
        for number in (6, 7, 8)
    }
    probes.install(shared, packages[7])
    shared.ask("test/rolling", "set kept 1")
    first = shared.component("test/rolling/0")
    status = probes.install(shared, packages[7])
    assert ("running", 7, first["digest"]) == (status["state"], status["release"], status["digest"])
    assert first["pid"] != status["pid"]
    assert "1" == shared.ask("test/rolling", "get kept")
    assert "E_ROLLBACK" == _refusal(lambda: probes.install(shared, packages[6]))
    assert 9 == shared.cli("install", str(packages[6]), "--yes", check=False).returncode
    assert 7 == shared.component("test/rolling/0")["release"]
    _uninstall(shared, "test/rolling/0")
    assert "E_ROLLBACK" == _refusal(lambda: probes.install(shared, packages[6]))
    assert "test/rolling/0" not in _installed(shared)
    assert "running" == probes.install(shared, packages[8])["state"]
    assert "E_ROLLBACK" == _refusal(lambda: probes.install(shared, packages[7]))


def test_instances(shared: Host) -> None:
    """Instances of one package come and go one by one; the files stay until the last is gone."""
    package = probes.pack(shared, "many", NO_FILES)
    for instance in ("0", "one", "two-2"):
        assert f"test/many/{instance}" == probes.install(shared, package, instance=instance)["id"]
    workers = [shared.component(f"test/many/{instance}") for instance in ("0", "one", "two-2")]
    assert 3 == len({worker["pid"] for worker in workers})
    if os.geteuid() == 0:
        assert 3 == len({worker["uid"] for worker in workers})
    stored = shared.root / "lib" / "control" / "packages" / _info(shared, "test/many/0")["package"]
    for instance in ("one", "0"):
        _uninstall(shared, f"test/many/{instance}")
        assert "two" == shared.ask("test/many/two-2", "echo two")
        assert stored.is_dir()
    _uninstall(shared, "test/many/two-2")
    assert not stored.exists()
    for instance in ("", "a/b", "..", "-x", "x" * 65):
        assert "E_VALIDATION" == _refusal(functools.partial(probes.install, shared, package, instance=instance))


def test_bindings(shared: Host) -> None:
    """Every guest directory is bound to a real, permitted directory, or nothing is installed."""
    package = probes.pack(shared, "bound")
    place = shared.out / "bound-data"
    place.mkdir()
    (place / "file").write_text("")
    cases: list[tuple[str, dict[str, Path]]] = [
        ("E_BINDING", {"/data": place}),
        ("E_BINDING", {"/data": place, "/ro": place, "/more": place}),
        ("E_BINDING", {"/data": place, "/ro": place / "file"}),
        ("E_FORBIDDEN_PATH", {"/data": place, "/ro": shared.root / "lib"}),
        *(("E_FORBIDDEN_PATH", {"/data": place, "/ro": Path(path)}) for path in ("/", "/etc", "/proc", "/dev")),
    ]
    for code, binds in cases:
        assert code == _refusal(functools.partial(probes.install, shared, package, binds)), binds
    assert "test/bound/0" not in _installed(shared)
    assert "running" == probes.install(shared, package, {"/data": place, "/ro": place})["state"]


def test_uninstall_keeps_or_purges(shared: Host) -> None:
    """What a component stored is there when it is installed again, unless it was purged."""
    package = probes.pack(shared, "leaving", NO_FILES)
    for purge, expected in ((False, "value"), (True, "-")):
        probes.install(shared, package)
        shared.ask("test/leaving", "set kept value")
        arguments = ["--purge"] if purge else []
        shared.cli("uninstall", "test/leaving", *arguments)
        assert "test/leaving/0" not in _installed(shared)
        assert "E_TARGET_NOT_FOUND" == shared.fail("test/leaving", "echo x").code
        probes.install(shared, package)
        assert expected == shared.ask("test/leaving", "get kept")
        _uninstall(shared, "test/leaving/0")
    purged = [r for r in shared.audit("test/leaving/0") if r["event"] == "storage.purge"]
    assert 3 == len(purged)


# -- starting and stopping ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(shared: Host) -> Host:
    """A host with test/plain, which is never made to misbehave."""
    probes.add(shared, "plain")
    return shared


def test_start_stop_restart(plain: Host) -> None:
    """Stop ends the process and the route and stays; start and restart give a new process; each is idempotent."""
    old = plain.component("test/plain/0")["pid"]
    plain.cli("stop", "test/plain")
    stopped = plain.component("test/plain/0")
    assert ("stopped", None, "exited") == (stopped["state"], stopped["pid"], stopped["outcome"])
    assert not os.path.exists(f"/proc/{old}")
    assert "E_NOT_RUNNING" == plain.fail("test/plain", "echo x").code
    plain.cli("stop", "test/plain/0")
    plain.cli("start", "test/plain")
    first = plain.component("test/plain/0")
    assert ("running", 0) == (first["state"], first["restarts"])
    assert "1" == plain.ask("test/plain", "get shutdown-ran")
    plain.cli("start", "test/plain")
    assert first["pid"] == plain.component("test/plain/0")["pid"]
    plain.cli("restart", "test/plain")
    second = plain.component("test/plain/0")
    assert first["pid"] != second["pid"]
    assert 0 == second["restarts"], "an operator's restart is not the tree's"
    for what in ("start", "stop", "restart"):
        assert 0 != plain.cli(what, "test/nobody", check=False).returncode
        events = [r["event"] for r in plain.audit("test/plain/0")]
        assert f"component.{what}" in events


def test_stop_and_drain(plain: Host) -> None:
    """With --drain what waits is handled first; without, the mailbox is gone with the route."""
    _post(plain, "test/plain/0", "start")
    with plain.api() as client:
        for number in range(3):
            client.message("test/plain", "send", b"sleep 50", 1000, "text/plain")
            client.message("test/plain", "send", f"set drained{number} 1".encode(), 1000, "text/plain")
    assert "stopped" == _post(plain, "test/plain/0", "stop", drain=True)["state"]
    _post(plain, "test/plain/0", "start")
    assert "drained0\ndrained1\ndrained2" == plain.ask("test/plain", "keys drained")
    with plain.api() as client:
        client.message("test/plain", "send", b"sleep 300", 1000, "text/plain")
        client.message("test/plain", "send", b"set dropped 1", 1000, "text/plain")
    assert "stopped" == _post(plain, "test/plain/0", "stop")["state"]
    _post(plain, "test/plain/0", "start")
    assert "-" == plain.ask("test/plain", "get dropped")


def test_no_start(shared: Host) -> None:
    """Installed with --no-start a component waits for its start."""
    package = probes.pack(shared, "waiting", NO_FILES)
    shared.cli("install", str(package), "--yes", "--no-start")
    waiting = shared.component("test/waiting/0")
    assert ("stopped", None) == (waiting["state"], waiting["pid"])
    shared.cli("start", "test/waiting")
    assert "here" == shared.ask("test/waiting", "echo here")


def test_forms(plain: Host) -> None:
    """`list`, `info` and `status` tell the same, for people and as JSON."""
    _post(plain, "test/plain/0", "start")
    component = plain.component("test/plain/0")
    listed = json.loads(plain.cli("list", "--output", "json").stdout)["components"]
    assert component["pid"] == next(c for c in listed if c["id"] == "test/plain/0")["pid"]
    text = plain.cli("list").stdout.decode()
    line = next(line for line in text.splitlines() if line.startswith("test/plain/0 "))
    assert ["test/plain/0", "1.0.0", "1", "running", component["digest"][:16]] == line.split()
    info = json.loads(plain.cli("info", "test/plain", "--output", "json").stdout)
    assert ("tester", "test/plain", {}) == (
        info["publisher"],
        info["manifest"]["component"]["name"],
        info["bindings"],
    )
    assert component["pid"] == info["status"]["pid"]
    text = plain.cli("info", "test/plain").stdout.decode()
    for part in ("test/plain/0: running, health healthy", "publisher tester", "may: storage self: read, write (low)"):
        assert part in text
    status = json.loads(plain.cli("status", "--output", "json").stdout)
    assert {"id", "state", "pid", "restarts", "outcome"} <= set(status["components"][0])
    assert {"supervisor", "control", "router", "bridge", "auditor", "zygote"} == {
        process["name"] for process in status["host"]["processes"]
    }
    text = plain.cli("status").stdout.decode()
    line = next(line for line in text.splitlines() if line.startswith("test/plain/0 "))
    assert ["test/plain/0", "running", "healthy", "yes", str(component["pid"])] == line.split()[:5]
    assert 0 != plain.cli("info", "test/nobody", check=False).returncode


def test_the_host_comes_back(host: Host) -> None:
    """What ran runs after the host's end and start, what was stopped stays stopped."""
    host.trust("test/*")
    for name in ("one", "two"):
        probes.add(host, name)
    _post(host, "test/two/0", "stop")
    host.down()
    host.up()
    _state(host, "test/one/0", "running")
    assert "stopped" == host.component("test/two/0")["state"]


# -- initialize, health, shutdown -----------------------------------------------------------------------------


@actors
@pytest.mark.parametrize(
    ("how", "outcome", "why"), [("fail", "exited", "asked to"), ("trap", "trap", ""), ("spin", "fuel", "")]
)
def test_bad_initialize(shared: Host, how: str, outcome: str, why: str) -> None:
    """Who cannot initialize is tried again, given up with its cause, and never sees a message."""
    name = f"init-{how}"
    values = {"max-restarts": "1", "backoff": '["10ms", "10ms"]', **NO_FILES}
    probes.install(shared, probes.pack(shared, name, values))
    shared.ask(f"test/{name}", f"set on-initialize {how}")
    _post(shared, f"test/{name}/0", "restart")
    given_up = _state(shared, f"test/{name}/0", "quarantined")
    assert (outcome, None, 1) == (given_up["outcome"], given_up["pid"], given_up["restarts"])
    assert why in given_up["detail"]
    assert "E_NOT_RUNNING" == shared.fail(f"test/{name}", "set seen 1").code
    _uninstall(shared, f"test/{name}/0")
    assert "running" == probes.install(shared, shared.out / name)["state"]
    assert "-" == shared.ask(f"test/{name}", "get seen")


@actors
def test_slow_initialize(shared: Host) -> None:
    """Starting may take longer than a message."""
    probes.add(shared, "slow-init", {"deadline": '"300ms"'})
    shared.ask("test/slow-init", "set on-initialize nap")
    began = time.monotonic()
    assert "running" == _post(shared, "test/slow-init/0", "restart")["state"]
    assert 0.7 <= time.monotonic() - began
    assert "on" == shared.ask("test/slow-init", "echo on")


@actors
@pytest.mark.parametrize(
    ("how", "outcomes"),
    [("fail", {"exited"}), ("trap", {"trap"}), ("spin", {"fuel"}), ("sleep", {"exited", "killed", "deadline"})],
)
def test_bad_shutdown(shared: Host, how: str, outcomes: set[str]) -> None:
    """However shutdown goes wrong, the component is stopped in time, its end is told, and it can be started again."""
    name = f"shutdown-{how}"
    probes.add(shared, name, {"deadline": '"1s"'})
    shared.ask(f"test/{name}", f"set on-shutdown {how}")
    began = time.monotonic()
    stopped = _post(shared, f"test/{name}/0", "stop")
    assert 5 > time.monotonic() - began
    assert ("stopped", None) == (stopped["state"], stopped["pid"])
    assert stopped["outcome"] in outcomes
    assert "running" == _post(shared, f"test/{name}/0", "start")["state"]
    assert "1" == shared.ask(f"test/{name}", "get shutdown-ran")
    shared.ask(f"test/{name}", "del on-shutdown")
    assert "exited" == _post(shared, f"test/{name}/0", "stop")["outcome"]


@actors
def test_degraded(shared: Host) -> None:
    """A component that calls itself degraded is shown as such and left alone; healthy again, it is shown so."""
    probes.add(shared, "degraded", {"health-interval": '"100ms"'})
    worker = shared.component("test/degraded/0")["pid"]
    for health in ("degraded", "unknown", "healthy"):
        shared.ask("test/degraded", f"set on-health {health}")
        _health(shared, "test/degraded/0", health)
    component = shared.component("test/degraded/0")
    assert (worker, "running", 0) == (component["pid"], component["state"], component["restarts"])


@actors
def test_unhealthy(shared: Host) -> None:
    """A component that calls itself unhealthy is ended with that reason and started anew."""
    probes.add(shared, "unhealthy", {"health-interval": '"200ms"', "max-restarts": "1000"})
    old = shared.component("test/unhealthy/0")["pid"]
    shared.ask("test/unhealthy", "set on-health unhealthy")
    wait_until("its end", lambda: shared.component("test/unhealthy/0")["restarts"] > 0)
    ended = shared.component("test/unhealthy/0")
    assert ("killed", "it called itself unhealthy 3 times in a row") == (ended["outcome"], ended["detail"])
    shared.ask("test/unhealthy", "del on-health")
    wait_until(
        "health",
        lambda: (c := shared.component("test/unhealthy/0"))["health"] == "healthy" and c["pid"] not in (old, None),
    )
    assert "component.unhealthy" in [r["event"] for r in shared.audit("test/unhealthy/0")]


@actors
@pytest.mark.parametrize("how", ["trap", "spin"])
def test_bad_health(shared: Host, how: str) -> None:
    """A health check that traps or loops ends that worker like any message."""
    probes.add(shared, f"health-{how}", {"health-interval": '"200ms"'})
    shared.ask(f"test/health-{how}", f"set on-health {how}")
    expected = {"trap": "trap", "spin": "fuel"}[how]
    wait_until("its end", lambda: shared.component(f"test/health-{how}/0")["outcome"] == expected)
    _uninstall(shared, f"test/health-{how}/0")


# -- the tree -------------------------------------------------------------------------------------------------


@actors
def test_crash_loop(shared: Host) -> None:
    """Ended more often than its intensity allows it is given up with the cause: it takes no mail, and keeps what
    waits for a new start."""
    probes.add(shared, "friend")
    values = {"max-restarts": "2", "window": '"60s"', "backoff": '["50ms", "100ms"]', **NO_FILES}
    probes.install(shared, probes.pack(shared, "loop", values))
    for number in range(1, 3):
        old = shared.component("test/loop/0")["pid"]
        shared.fail("test/loop", "trap")
        assert number == _new_worker(shared, "test/loop/0", old)["restarts"]
    for message in ("sleep 1000", "trap", "set waited 1"):
        assert "ok" == shared.ask("test/friend", f"send test/loop {message}")
    given_up = _state(shared, "test/loop/0", "quarantined")
    assert ("trap", None, 2) == (given_up["outcome"], given_up["pid"], given_up["restarts"])
    wait_until("its own words", lambda: "unreachable" in shared.component("test/loop/0")["detail"])
    assert "component.quarantined" in [r["event"] for r in shared.audit("test/loop/0")]
    assert ["trap"] * 3 == [end["outcome"] for end in _info(shared, "test/loop/0")["ends"]]
    assert "E_NOT_RUNNING" == shared.fail("test/loop", "echo x").code
    assert "error target-not-found: test/loop/0" == shared.ask("test/friend", "send test/loop set waited 2")
    done = shared.cli("start", "test/loop")
    assert b"running" in done.stdout
    assert "1" == shared.ask("test/loop", "get waited")
    old = shared.component("test/loop/0")["pid"]
    shared.fail("test/loop", "trap")  # the operator's start began a new count
    _new_worker(shared, "test/loop/0", old)


@actors
def test_backoff(shared: Host) -> None:
    """The first restart is at once, the next waits as the manifest says; an operator's start does not."""
    values = {"max-restarts": "5", "window": '"60s"', "backoff": '["60s", "60s"]', **NO_FILES}
    probes.install(shared, probes.pack(shared, "backoff", values))
    old = shared.component("test/backoff/0")["pid"]
    os.kill(old, signal.SIGKILL)
    old = _new_worker(shared, "test/backoff/0", old)["pid"]
    os.kill(old, signal.SIGKILL)
    waiting = _state(shared, "test/backoff/0", "backoff")
    assert ("killed", None) == (waiting["outcome"], waiting["pid"])
    assert 40 < waiting["next-start"] <= 72
    assert "running" == _post(shared, "test/backoff/0", "start")["state"]
    assert "on" == shared.ask("test/backoff", "echo on")
    old = shared.component("test/backoff/0")["pid"]
    os.kill(old, signal.SIGKILL)
    old = _new_worker(shared, "test/backoff/0", old)["pid"]
    os.kill(old, signal.SIGKILL)
    _state(shared, "test/backoff/0", "backoff")
    assert "stopped" == _post(shared, "test/backoff/0", "stop")["state"]


@actors
@pytest.mark.parametrize(
    ("restart", "how", "again"),
    [
        ("permanent", "kill", True),
        ("permanent", "trap", True),
        ("transient", "kill", True),
        ("transient", "trap", True),
        ("temporary", "kill", False),
        ("temporary", "trap", False),
    ],
)
def test_restart_kinds(shared: Host, restart: str, how: str, again: bool) -> None:
    """permanent and transient come back from an abnormal end, temporary does not; an operator starts it again."""
    name = f"kind-{restart}-{how}"
    probes.add(shared, name, {"restart": f'"{restart}"'})
    old = shared.component(f"test/{name}/0")["pid"]
    if how == "kill":
        os.kill(old, signal.SIGKILL)
    else:
        shared.fail(f"test/{name}", "trap")
    if again:
        assert 1 == _new_worker(shared, f"test/{name}/0", old)["restarts"]
        return
    ended = _state(shared, f"test/{name}/0", "stopped")
    assert ("killed" if how == "kill" else "trap", 0, None) == (ended["outcome"], ended["restarts"], ended["pid"])
    assert "running" == _post(shared, f"test/{name}/0", "start")["state"]


@actors
@pytest.mark.parametrize(("restart", "state"), [("permanent", "quarantined"), ("transient", "stopped")])
def test_restart_after_a_normal_end(shared: Host, restart: str, state: str) -> None:
    """A worker that says it cannot initialize and exits has ended normally: transient is not started again."""
    name = f"normal-{restart}"
    values = {"restart": f'"{restart}"', "max-restarts": "1", "backoff": '["10ms", "10ms"]', **NO_FILES}
    probes.install(shared, probes.pack(shared, name, values))
    shared.ask(f"test/{name}", "set on-initialize fail")
    _post(shared, f"test/{name}/0", "restart")
    ended = _state(shared, f"test/{name}/0", state)
    assert ("exited", 1 if restart == "permanent" else 0) == (ended["outcome"], ended["restarts"])
    _uninstall(shared, f"test/{name}/0")


# -- what is not believed any more ----------------------------------------------------------------------------


def test_revoked(shared: Host) -> None:
    """Revoking a key stops what it signed at once, and neither start nor install works any more."""
    key = _keygen(shared.out / "gone.key")
    shared.cli("trust", "add", "gone", "--key", f"{key}.pub", "--scope", "gone/*", "--level", "trusted")
    package = probes.pack(shared, "gone", {**NO_FILES, "name": '"gone/thing"'}, key=key)
    probes.install(shared, package)
    probes.add(shared, "staying")
    other = shared.component("test/staying/0")["pid"]
    assert "here" == shared.ask("gone/thing", "echo here")
    done = shared.cli("trust", "revoke", "--key", f"{key}.pub", "--reason", "stolen", "--output", "json")
    assert ["gone/thing/0"] == json.loads(done.stdout)["stopped"]
    stopped = shared.component("gone/thing/0")
    assert ("failed", None) == (stopped["state"], stopped["pid"])
    done = shared.cli("start", "gone/thing", check=False)
    assert 0 != done.returncode
    assert b"revoked" in done.stderr
    assert ("failed", None) == (shared.component("gone/thing/0")["state"], shared.component("gone/thing/0")["pid"])
    refused = [r["result"] for r in shared.audit("gone/thing/0") if r["event"] == "worker.refused"]
    assert ["E_REVOKED"] * 2 == refused
    assert "E_REVOKED" == _refusal(lambda: probes.install(shared, package))
    assert 9 == shared.cli("install", str(package), "--yes", check=False).returncode
    assert other == shared.component("test/staying/0")["pid"]


def _flip(path: Path, offset: int) -> None:
    """Change one byte, as the file's owner could."""
    owner = path.stat()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    assert (owner.st_uid, owner.st_mode, owner.st_size) == (
        path.stat().st_uid,
        path.stat().st_mode,
        path.stat().st_size,
    )


@pytest.mark.parametrize("name", ["component.wasm", "component.dsse.json", "component.toml"])
def test_tampered_package(shared: Host, name: str) -> None:
    """A changed byte in a stored package is seen at the next start, which is refused; the right bytes start again."""
    component = f"tampered-{name.split('.')[1]}"
    probes.add(shared, component)
    _post(shared, f"test/{component}/0", "stop")
    stored = shared.root / "lib" / "control" / "packages" / _info(shared, f"test/{component}/0")["package"] / name
    offset = stored.stat().st_size // 2
    _flip(stored, offset)
    started = _post(shared, f"test/{component}/0", "start")
    assert ("failed", None, "setup-error") == (started["state"], started["pid"], started["outcome"])
    assert [r for r in shared.audit(f"test/{component}/0") if r["event"] == "worker.refused"]
    _flip(stored, offset)
    assert "running" == _post(shared, f"test/{component}/0", "start")["state"]


@pytest.mark.parametrize("where", ["head", "middle", "end"])
def test_tampered_cache(shared: Host, where: str) -> None:
    """A changed byte in a compiled component is never loaded: it is put aside, recorded, and compiled anew."""
    component = f"cached-{where}"
    probes.add(shared, component)
    _post(shared, f"test/{component}/0", "stop")
    cache = shared.root / "lib" / "control" / "cache"
    digest = shared.component(f"test/{component}/0")["digest"]
    (entry,) = cache.glob(f"{digest}-*.cwasm")
    good = entry.read_bytes()
    aside = set(cache.glob("*.refused"))
    before = len([r for r in shared.audit() if r["event"] == "cache.refused"])
    _flip(entry, {"head": 20, "middle": len(good) // 2, "end": len(good) - 1}[where])
    bad = entry.read_bytes()
    assert "running" == _post(shared, f"test/{component}/0", "start")["state"]
    assert "on" == shared.ask(f"test/{component}", "echo on")
    (found,) = set(cache.glob("*.refused")) - aside
    assert bad == found.read_bytes()
    assert bad != entry.read_bytes()
    refused = [r for r in shared.audit() if r["event"] == "cache.refused"]
    assert (before + 1, "E_CACHE_MAC") == (len(refused), refused[-1]["result"])
