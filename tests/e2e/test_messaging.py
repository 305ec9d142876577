"""Messages between components and from outside, on a real host: both sides' rights, bounds, answers and failures."""

from __future__ import annotations

import json
import os
import signal

import probes
import pytest
from live_host import Host, wait_until

from supervisor.cli.errors import RefusedError
from supervisor.control.peer import user_name

pytestmark = pytest.mark.block5_messaging

ERROR_TYPE = "application/vnd.airssys.error+json"
ALL = '{ target = "test/*", access = ["send", "request", "broadcast"] }'
OUTSIDE = '{ from = "host/client/*" }'
NOWHERE = "test/nobody"

COMPONENTS = {
    "alpha": {},
    "beta": {},
    "deaf": {"messaging": f"[{ALL}, {OUTSIDE}]"},  # nobody but people may send to it
    "mute": {"messaging": f'[{{ from = "test/*" }}, {OUTSIDE}]'},  # may send to nobody
    "narrow": {  # one right to one target each
        "messaging": '[{ target = "test/beta/0", access = ["send"] }, { target = "test/deaf", access = ["request"] }, '
        f'{{ from = "test/alpha/0" }}, {OUTSIDE}]'
    },
    "shut": {"messaging": f'[{ALL}, {{ from = "test/*" }}]'},  # takes nothing from outside
    "small": {"mailbox": "3", "message-size": '"4KiB"'},
}


@pytest.fixture(scope="module")
def net(shared: Host) -> Host:
    """Probes with different rights, and a second instance of alpha."""
    for name, values in COMPONENTS.items():
        probes.add(shared, name, values)
    probes.install(shared, shared.out / "alpha", instance="two")
    return shared


def _me() -> str:
    """How components see who runs these tests."""
    return f"host/client/{user_name(os.geteuid())}"


def _callbacks(host: Host, name: str) -> int:
    return int(host.ask(name, "callbacks"))


def _last(host: Host, name: str, before: int) -> tuple[str, str, str]:
    """The next callback after `before`: correlation id, content type, payload."""
    wait_until(f"a callback to {name}", lambda: _callbacks(host, name) > before)
    correlation, kind, payload = host.ask(name, "last").split("|", 2)
    return correlation, kind, payload


def _put(host: Host, name: str, text: str) -> None:
    """A message from outside that nobody waits for."""
    with host.api() as client:
        client.message(name, "send", text.encode(), 1000, "text/plain")


def _busy(host: Host, name: str, milliseconds: int) -> None:
    """Keep a component busy; returns when the message is in hand."""
    _put(host, name, f"sleep {milliseconds}")
    wait_until(f"{name} to take it", lambda: host.component(f"{name}/0")["mailbox"] == 0)


def _ended(host: Host, name: str, old: int) -> None:
    wait_until(f"the end of {name}", lambda: host.component(name)["pid"] != old)


def _whole(host: Host, name: str, old: int) -> None:
    def fresh() -> bool:
        component = host.component(name)
        return component["state"] == "running" and component["pid"] not in (old, None)

    wait_until(f"a new worker of {name}", fresh)


# -- between components ---------------------------------------------------------------------------------------


def test_send(net: Host) -> None:
    """A sent message is handled by its target, which the router's counters tell; nothing comes back."""
    before, callbacks = net.component("test/beta/0")["delivered"], _callbacks(net, "test/alpha")
    assert "ok" == net.ask("test/alpha", "send test/beta set sent from-alpha")
    wait_until("the effect", lambda: net.ask("test/beta", "get sent") == "from-alpha")
    assert before < net.component("test/beta/0")["delivered"]
    assert callbacks == _callbacks(net, "test/alpha")
    net.ask("test/beta", "del sent")


def test_request_and_callback(net: Host) -> None:
    """A request returns an id of 32 hexadecimal digits; the answer comes with it, without a content type."""
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "forward test/beta echo hello there")
    assert 32 == len(correlation) and set(correlation) <= set("0123456789abcdef")
    assert (correlation, "-", "hello there") == _last(net, "test/alpha", before)


def test_request_without_a_value(net: Host) -> None:
    """A handler that replies none gives an empty answer, not a failure."""
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "forward test/beta none")
    assert (correlation, "-", "") == _last(net, "test/alpha", before)


def test_request_that_the_guest_refuses(net: Host) -> None:
    """A handler's error comes as guest-error with its text; the target lives on."""
    before, worker = _callbacks(net, "test/alpha"), net.component("test/beta/0")["pid"]
    correlation = net.ask("test/alpha", "forward test/beta fail on purpose")
    found, kind, payload = _last(net, "test/alpha", before)
    assert (correlation, ERROR_TYPE) == (found, kind)
    error = json.loads(payload)
    assert "guest-error" == error["error"]
    assert "on purpose" in error["message"]
    assert worker == net.component("test/beta/0")["pid"]


def test_timeout(net: Host) -> None:
    """No answer in time comes as a callback `timeout`, exactly once: the late reply is dropped."""
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "request test/beta 50 sleep 600")
    found, kind, payload = _last(net, "test/alpha", before)
    assert (correlation, ERROR_TYPE, "timeout") == (found, kind, json.loads(payload)["error"])
    assert "done" == net.ask("test/beta", "echo done")  # behind the slow one
    assert before + 1 == _callbacks(net, "test/alpha")


def test_cancel(net: Host) -> None:
    """No callback comes for a cancelled request; cancelling again, or what was never asked, is refused by name."""
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "request test/beta 5000 sleep 300")
    assert "ok" == net.ask("test/alpha", f"cancel {correlation}")
    assert f"error correlation-timeout: {correlation}" == net.ask("test/alpha", f"cancel {correlation}")
    assert "error correlation-timeout: " + "0" * 32 == net.ask("test/alpha", "cancel " + "0" * 32)
    assert "done" == net.ask("test/beta", "echo done")  # behind the slow one
    assert before == _callbacks(net, "test/alpha")
    again = net.ask("test/alpha", "forward test/beta echo control")
    assert (again, "-", "control") == _last(net, "test/alpha", before)


def test_cancel_by_another(net: Host) -> None:
    """Nobody else's request can be cancelled, even with its id."""
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "request test/beta 5000 sleep 300")
    assert net.ask("test/deaf", f"cancel {correlation}").startswith("error correlation-timeout")
    assert (correlation, "-", "ok") == _last(net, "test/alpha", before)


def test_broadcast(net: Host) -> None:
    """Each target gets it once; the first failure in the order of the list is told, the others get it all the same."""
    counts = {name: int(net.ask(name, "count")) for name in ("test/beta", "test/mute")}
    assert "ok" == net.ask("test/alpha", "broadcast test/beta,test/mute,test/beta echo all")
    for name, count in counts.items():
        assert count + 2 == int(net.ask(name, "count")), name
    text = f"broadcast test/deaf,{NOWHERE},test/beta,test/mute set all yes"
    assert "error delivery-failed: denied" == net.ask("test/alpha", text)
    assert f"error target-not-found: {NOWHERE}/0" == net.ask("test/alpha", f"broadcast {NOWHERE},test/beta echo 1")
    for name in counts:
        assert "yes" == net.ask(name, "get all"), name
        net.ask(name, "del all")


@pytest.mark.parametrize("command", ["trap", "spin"])
def test_target_ended(net: Host, command: str) -> None:
    """The request in hand when its target ends comes back as target-ended with the cause; it is not repeated."""
    before, old = _callbacks(net, "test/alpha"), net.component("test/beta/0")["pid"]
    correlation = net.ask("test/alpha", f"forward test/beta {command}")
    found, kind, payload = _last(net, "test/alpha", before)
    assert (correlation, ERROR_TYPE) == (found, kind)
    error = json.loads(payload)
    assert "target-ended" == error["error"]
    assert {"trap": "trap", "spin": "fuel"}[command] in error["message"]
    _whole(net, "test/beta/0", old)
    assert "alive" == net.ask("test/beta", "echo alive")


def test_callback_traps(net: Host) -> None:
    """A trap in handle-callback ends that worker alone, and the next one works."""
    old, other = net.component("test/alpha/two")["pid"], net.component("test/beta/0")["pid"]
    net.ask("test/alpha/two", "set on-callback trap")
    net.ask("test/alpha/two", "forward test/beta echo x")
    _whole(net, "test/alpha/two", old)
    assert "trap" == net.component("test/alpha/two")["outcome"]
    net.ask("test/alpha/two", "del on-callback")
    before = _callbacks(net, "test/alpha/two")
    net.ask("test/alpha/two", "forward test/beta echo again")
    assert "again" == _last(net, "test/alpha/two", before)[2]
    assert other == net.component("test/beta/0")["pid"]


def test_reply_too_large(net: Host) -> None:
    """A reply larger than the requester takes comes as too-large; one that fits is delivered."""
    before = _callbacks(net, "test/small")
    net.ask("test/small", "forward test/beta big 4000")
    assert "x" * 4000 == _last(net, "test/small", before)[2]
    net.ask("test/small", "forward test/beta big 4097")
    found = _last(net, "test/small", before + 1)
    assert (ERROR_TYPE, "too-large") == (found[1], json.loads(found[2])["error"])


def test_message_too_large_for_its_target(net: Host) -> None:
    """What the sender may send but the target may not take is refused at once; one byte less is delivered."""
    text = "echo " + "x" * (4096 - 5)
    before = _callbacks(net, "test/alpha")
    net.ask("test/alpha", f"forward test/small {text}")
    assert "x" * (4096 - 5) == _last(net, "test/alpha", before)[2]
    assert "error invalid-message: " in net.ask("test/alpha", f"forward test/small {text}x")
    assert "error invalid-message: " in net.ask("test/alpha", f"send test/small {text}x")


# -- rights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["send {} echo x", "request {} 1000 echo x", "broadcast {} echo x"])
@pytest.mark.parametrize(
    ("sender", "target"),
    [
        ("test/alpha", "test/deaf"),  # may send, but it does not accept
        ("test/mute", "test/beta"),  # may not send, though it would accept
        ("test/mute", NOWHERE),  # may not send: whether it exists is not told
        ("test/beta", "test/narrow"),  # accepts alpha only
        ("test/alpha/two", "test/narrow"),  # accepts instance 0 only
        ("test/alpha", "other/thing"),
        ("test/alpha", "host/client/root"),
    ],
)
def test_denied(net: Host, sender: str, target: str, how: str) -> None:
    """Without the right on either side the answer is `denied`, the same for what exists and what does not; recorded."""
    name = sender if sender.count("/") == 2 else f"{sender}/0"
    full = target if target.count("/") == 2 else f"{target}/0"
    before = net.component(name)["denied"]
    assert "error delivery-failed: denied" == net.ask(sender, how.format(target))
    assert before + 1 == net.component(name)["denied"]
    event = f"messaging.{how.split(' ', maxsplit=1)[0]}"
    found = [r for r in net.audit(name) if r["event"] == event and r["object"] == full]
    assert found and {"denied"} == {record["decision"] for record in found}


@pytest.mark.parametrize(
    ("sender", "command", "answer"),
    [
        ("test/alpha", "send test/narrow echo x", "ok"),  # what beta and alpha/two may not
        ("test/deaf", "send test/beta echo x", "ok"),  # what mute may not
        ("test/narrow", "send test/beta echo x", "ok"),
        ("test/narrow", "request test/beta 1000 echo x", "error delivery-failed: denied"),  # "send" alone
        ("test/narrow", "broadcast test/beta echo x", "error delivery-failed: denied"),
        ("test/narrow", "send test/beta/1 echo x", "error delivery-failed: denied"),  # another instance
        ("test/alpha", f"send {NOWHERE} echo x", f"error target-not-found: {NOWHERE}/0"),  # it had the right to know
        ("test/alpha", "send test/alpha/nine echo x", "error target-not-found: test/alpha/nine"),
    ],
)
def test_rights(net: Host, sender: str, command: str, answer: str) -> None:
    """Positive controls of the denials, and that each right is its own: action, target, instance."""
    assert answer == net.ask(sender, command)


def test_allowed_is_not_denied(net: Host) -> None:
    """Allowed messages are counted, not called denied."""
    before = net.component("test/deaf/0")["denied"]
    assert "ok" == net.ask("test/deaf", "send test/beta echo x")
    assert before == net.component("test/deaf/0")["denied"]


def test_list_components(net: Host) -> None:
    """A component sees those it may talk to in some way and that take it, and no other."""
    everybody = ["alpha/0", "alpha/two", "beta/0", "mute/0", "shut/0", "small/0"]
    assert [f"test/{name}" for name in everybody] == net.ask("test/deaf", "components").splitlines()
    expected = sorted(f"test/{name}" for name in [*everybody, "narrow/0"])
    assert expected == net.ask("test/alpha", "components").splitlines()
    assert "" == net.ask("test/mute", "components")
    assert ["test/beta/0"] == net.ask("test/narrow", "components").splitlines()


def test_metadata_of_others(net: Host) -> None:
    """About those it may talk to, and itself, a component learns name, version, health; about others nothing."""
    assert "test/beta/0 test/beta 1.0.0 healthy" == net.ask("test/alpha", "meta test/beta")
    assert "test/mute/0 test/mute 1.0.0 healthy" == net.ask("test/mute", "meta test/mute")
    hidden = {net.ask("test/mute", f"meta {name}") for name in ("test/beta", NOWHERE, "other/thing")}
    assert {"error invalid-state: denied"} == hidden
    assert "error invalid-state: not found" == net.ask("test/alpha", f"meta {NOWHERE}")
    assert "error invalid-state: denied" == net.ask("test/alpha", "meta test/deaf")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "test/",
        "/beta",
        "test/beta/",
        "Test/beta",
        "test/be ta",
        "test/../beta",
        "test/*",
        "*",
        "test/" + "x" * 500,
    ],
)
def test_malformed_targets(net: Host, target: str) -> None:
    """Names that mean nothing are refused like any other and end nobody."""
    worker = net.component("test/alpha/0")["pid"]
    answer = net.ask("test/alpha", f"send {target.replace(' ', chr(9))} echo x")
    if target == "test/beta/":
        assert "ok" == answer  # the guest itself reads an empty instance as 0
    else:
        assert answer.startswith(("error delivery-failed", "error target-not-found", "error invalid-message")), answer
    assert worker == net.component("test/alpha/0")["pid"]


# -- identity -------------------------------------------------------------------------------------------------


def test_sender(net: Host) -> None:
    """The sender is set by the host: the full id of the sending instance, of the answering one, or the user outside."""
    for sender, expected in (("test/alpha", "test/alpha/0"), ("test/alpha/two", "test/alpha/two")):
        before = _callbacks(net, sender)
        net.ask(sender, "forward test/beta sender")
        assert expected == _last(net, sender, before)[2]
    assert _me() == net.ask("test/beta", "sender")


def test_self(net: Host) -> None:
    """Each instance knows its own id."""
    assert "test/alpha/0" == net.ask("test/alpha", "self")
    assert "test/alpha/two" == net.ask("test/alpha/two", "self")


def test_instances_are_apart(net: Host) -> None:
    """Instances of one package have a process, memory and storage each."""
    assert net.component("test/alpha/0")["pid"] != net.component("test/alpha/two")["pid"]
    net.ask("test/alpha/two", "set mine 1")
    assert "-" == net.ask("test/alpha", "get mine")
    assert "1" == net.ask("test/alpha/two", "get mine")


def test_correlation_of_a_message(net: Host) -> None:
    """Who handles a request sees the id the requester got; a message that was only sent has none."""
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "forward test/beta corr")
    assert (correlation, "-", correlation) == _last(net, "test/alpha", before)
    assert 32 == len(net.ask("test/beta", "corr"))


# -- from outside ---------------------------------------------------------------------------------------------


def test_content_type(net: Host) -> None:
    """What somebody outside says the payload is reaches the guest; bytes are just bytes; between components none."""
    with net.api() as client:
        for given, seen in (("application/json", "application/json"), ("application/octet-stream", "-")):
            assert seen.encode() == client.message("test/beta", "request", b"ctype", 5000, given)
    before = _callbacks(net, "test/alpha")
    net.ask("test/alpha", "forward test/beta ctype")
    assert "-" == _last(net, "test/alpha", before)[2]


def test_outside_denied(net: Host) -> None:
    """A component that takes nothing from outside refuses a person, on the record; components reach it."""
    error = net.fail("test/shut", "echo x")
    assert "E_AUTHORIZATION" == error.code
    record = [r for r in net.audit() if r["object"] == "test/shut/0" and r["decision"] == "denied"][-1]
    assert ("messaging.request", _me()) == (record["event"], record["component"])
    before = _callbacks(net, "test/alpha")
    net.ask("test/alpha", "forward test/shut echo inside")
    assert "inside" == _last(net, "test/alpha", before)[2]


def test_outside_unknown(net: Host) -> None:
    """A person asking for what is not there is told so."""
    assert "E_TARGET_NOT_FOUND" == net.fail(NOWHERE, "echo x").code
    assert "E_TARGET_NOT_FOUND" == net.fail("test/alpha/nine", "echo x").code
    assert "E_VALIDATION" == net.fail("test/../alpha", "echo x").code


def test_outside_timeout(net: Host) -> None:
    """A person's request that is not answered in time fails as E_TIMEOUT, and the component goes on."""
    worker = net.component("test/beta/0")["pid"]
    assert "E_TIMEOUT" == net.fail("test/beta", "sleep 400", seconds=0.1).code
    assert "on" == net.ask("test/beta", "echo on")
    assert worker == net.component("test/beta/0")["pid"]


def test_command_line(net: Host) -> None:
    """`request` prints the reply's bytes and nothing else; `send` returns at once; exit codes tell the failures."""
    assert b"\0\xffx" == net.cli("request", "test/beta", "-", data=b"echo \0\xffx").stdout
    assert b"text" == net.cli("request", "test/beta", "--data", "echo text").stdout
    net.cli("send", "test/beta", "--data", "set by-cli 1")
    assert "1" == net.ask("test/beta", "get by-cli")
    assert 6 == net.cli("request", "test/shut", "--data", "echo x", check=False).returncode
    refused = net.cli("request", "test/beta", "--data", "fail because", check=False)
    assert (1, b"") == (refused.returncode, refused.stdout)
    assert b"because" in refused.stderr
    assert 2 == net.cli("request", check=False).returncode


# -- the mailbox ----------------------------------------------------------------------------------------------


def test_queue_full(net: Host) -> None:
    """A full mailbox refuses components and people by name, keeps what it has, and takes more when there is room."""
    _busy(net, "test/small", 1500)
    for number in range(3):
        assert "ok" == net.ask("test/alpha", f"send test/small set n{number} 1")
    assert "error queue-full" == net.ask("test/alpha", "send test/small set n3 1")
    assert "error queue-full" == net.ask("test/alpha", "request test/small 1000 echo x")
    assert "error queue-full" == net.ask("test/alpha", "broadcast test/small set n3 1")
    with pytest.raises(RefusedError) as refused:
        _put(net, "test/small", "set n3 1")
    assert "E_QUEUE_FULL" == refused.value.code
    assert 3 == net.component("test/small/0")["mailbox"]
    wait_until("room", lambda: net.component("test/small/0")["mailbox"] == 0)
    assert ["n0", "n1", "n2"] == net.ask("test/small", "keys n").splitlines()
    assert "ok" == net.ask("test/alpha", "send test/small del n0")


def test_mailbox_survives_a_busy_worker_killed(net: Host) -> None:
    """What waits goes to the next worker, in order; the message in hand fails and is not repeated."""
    old = net.component("test/mute/0")["pid"]
    before, other = _callbacks(net, "test/alpha"), _callbacks(net, "test/alpha/two")
    correlation = net.ask("test/alpha/two", "request test/mute 5000 sleep 2500")
    for number in range(5):
        assert "ok" == net.ask("test/alpha", f"send test/mute set order {number}")
    waiting = net.ask("test/alpha", "request test/mute 5000 get order")
    os.kill(old, signal.SIGKILL)
    found = _last(net, "test/alpha/two", other)
    assert (correlation, "target-ended") == (found[0], json.loads(found[2])["error"])
    _whole(net, "test/mute/0", old)
    assert (waiting, "-", "4") == _last(net, "test/alpha", before)
    assert 7 == int(net.ask("test/mute", "count"))  # five sets, the get, this one: the sleep never came again


def test_mailbox_survives_the_time_without_a_worker(net: Host) -> None:
    """Messages sent while there is no worker at all wait for the next one."""
    probes.add(net, "slow", {"backoff": '["1s", "1s"]'})
    old = -1
    for _ in range(2):  # the first restart is at once, the second waits
        _whole(net, "test/slow/0", old)
        old = net.component("test/slow/0")["pid"]
        os.kill(old, signal.SIGKILL)
        _ended(net, "test/slow/0", old)
    assert "backoff" == net.component("test/slow/0")["state"]
    assert "ok" == net.ask("test/alpha", "send test/slow set while dead")
    before = _callbacks(net, "test/alpha")
    correlation = net.ask("test/alpha", "forward test/slow get while")
    assert 2 == net.component("test/slow/0")["mailbox"]
    assert (correlation, "-", "dead") == _last(net, "test/alpha", before)


def test_callbacks_of_a_dead_requester(net: Host) -> None:
    """An answer to what a dead worker asked is not given to the next one."""
    old = net.component("test/deaf/0")["pid"]
    net.ask("test/deaf", "request test/beta 5000 sleep 800")
    os.kill(old, signal.SIGKILL)
    _whole(net, "test/deaf/0", old)
    assert "done" == net.ask("test/beta", "echo done")  # behind the slow one: it was answered
    assert 0 == _callbacks(net, "test/deaf")
