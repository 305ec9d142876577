"""Every rule of a worker's two filters is needed: without it a real worker's life ends by SIGSYS.

One zygote clones a worker for each rule, whose filter lacks that rule, and each leads the same life: it loads a
component, initialises it, answers, asks the bridge, reads random bytes and clocks, grows its memory, and traps. Rules
that are kept for other machines (`kept_for` in the policy) must be marked as such: their worker lives to its end here.
That they are worth keeping is shown by making the call, as those other machines' libraries would.
"""

from __future__ import annotations

import ctypes
import os
import platform
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import odd_zygote
import pytest
import wasmtime.component as wasmtime_component
from forked import SIGSYS, ends, raw, returns
from small_host import Host

from sandbox.engine import make_engine
from sandbox.kernel import libc, probe, process, seccomp
from sandbox.patch.patcher import patch
from sandbox.policy.rules import Rule, rules
from sandbox.types import EXIT_CODES, ComponentId, Limits, Outcome
from sandbox.wire import bridge_ops, packet
from sandbox.wire import router_frames as frames
from sandbox.wire.zmtp import Dealer

pytestmark = pytest.mark.block4_security
GUESTS = Path(__file__).resolve().parents[1] / "guests"
SECONDS = 60.0
"""Longest wait for a worker's next word; reached only when the test fails."""
LIVES = {
    "probe": ["echo hello", "list /data", "grow 6000000", "get key", "echo " + 300_000 * "x", "trap"],
    "wasi-libc": ["echo hello", "print a line", "random 64", "clock", "time", "abort"],
}
"""Guests and their messages in order; the last one is a trap."""
FILES = [[f"name-of-a-file-{number}", 0, number] for number in range(10_000)]
"""A directory, large enough for the interpreter to need more memory than it started with, and to give some back."""
_to_router = msgspec.msgpack.Decoder(frames.FromWorker)


class Life(NamedTuple):
    """What became of one worker: the filter and the rule it lacked, its wait status, what it told."""

    policy: str
    call: str
    why: str
    guest: str
    status: int
    told: list[str]

    def whole(self) -> bool:
        """Whether it led its life to the end, which is a trap."""
        words = [word for word in self.told if not word.endswith("bytes")]
        wanted = ["sealed", "Ready", *["Reply"] * (len(LIVES[self.guest]) - 1), "Ended trap"]
        return words == wanted and EXIT_CODES.get(os.waitstatus_to_exitcode(self.status)) is Outcome.TRAP


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    """Skip by name what this machine cannot do."""
    for wall in probe.probe():
        if wall.state == "missing":
            pytest.skip(f"this machine lacks a wall, {wall.name}: {wall.detail}")


def live(guest: str, bridge: socket.socket, router: socket.socket) -> list[str]:
    """Be bridge and router for one worker, until it hangs up: what came of each frame."""
    dealer, assembler = Dealer(router), packet.Assembler()
    sender = ComponentId("test", "other")
    to_send: list[tuple[Any, bytes]] = [(frames.Initialize([], Limits()), b"")]
    to_send += [(frames.Deliver(n, sender, 0, 0), text.encode()) for n, text in enumerate(LIVES[guest])]
    told: list[str] = []
    channels = [bridge, router]
    send = True
    while True:
        try:
            if send and to_send:
                frame, payload = to_send.pop(0)
                dealer.send([msgspec.msgpack.encode(frame), payload])
            ready, _, _ = select.select(channels, [], [], SECONDS)
            assert ready, told
            send = bridge not in ready
            if not send:
                asked = bridge.recv(packet.PACKET)
                if not asked:
                    channels.remove(bridge)  # its last words may still wait in the other channel
                elif (message := assembler.feed(asked)) is not None:
                    value = {bridge_ops.Op.FS_LIST: FILES, bridge_ops.Op.STORAGE_GET: b"value"}.get(message[0])
                    packet.send_message(bridge, message[0] | bridge_ops.ANSWER, msgspec.msgpack.encode((0, value)))
                continue
            head, *rest = dealer.recv()
        except (OSError, EOFError):
            return told
        said = _to_router.decode(head)
        more = getattr(said, "error", "") or getattr(said, "outcome", "")
        told.append(f"{type(said).__name__} {more}".strip())
        if isinstance(said, frames.Reply):
            told.append(f"{len(rest[0])} bytes")


@pytest.fixture(scope="module")
def lives() -> list[list[Life]]:
    """For each variant of the filters, the life of a worker with each guest."""
    engine = make_engine()
    codes = {}
    for guest in LIVES:
        patched = patch((GUESTS / guest / "component.wasm").read_bytes())
        codes[guest] = bytes(wasmtime_component.Component(engine, patched.wasm).serialize()), patched.exports

    def child() -> Any:
        host = Host("each rule in turn")
        found = []
        for policy, rule in odd_zygote.variants():
            of_this = []
            for guest, (code, fast) in codes.items():
                pid, _, report = host.worker(code, fast=fast)
                told = []
                if report is not None and report[0] == bridge_ops.SEALED:
                    told = ["sealed", *live(guest, host.kept[0], host.kept[1])]
                elif report is not None:
                    told = [report[1].decode()]
                for sock in host.kept:
                    sock.close()
                _, status = os.waitpid(pid, 0)
                of_this.append((policy, rule.call if rule else "", rule.why if rule else "", guest, status, told))
            found.append(of_this)
        host.channel.close()
        os.waitpid(host.zygote, 0)
        return found

    return [[Life(*life) for life in of_this] for of_this in returns(child)]


def test_the_life_with_every_rule(lives: list[list[Life]]) -> None:
    """Positive control: with both filters as they are each worker leads its life to the end and says what it should."""
    assert [True, True] == [life.whole() for life in lives[0]], lives[0]
    probe_said, wasi_said = ([word for word in life.told if word.endswith("bytes")] for life in lives[0])
    assert "300000 bytes" == probe_said[-1]
    assert int(probe_said[1].split()[0]) > 100_000, "a directory of 10,000 files"
    assert "128 bytes" == wasi_said[2], "64 random bytes in hex"


def _needed() -> list[Any]:
    return [
        pytest.param(number, id=f"{policy}-{rule.call}-{number}")
        for number, (policy, rule) in enumerate(odd_zygote.variants())
        if rule is not None and not rule.kept_for
    ]


@pytest.mark.parametrize("number", _needed())
def test_a_rule_that_is_needed(lives: list[list[Life]], number: int) -> None:
    """Without it a worker dies by SIGSYS before its life is over."""
    policy, call, why, *_ = lives[number][0]
    if call == "getrandom" and _c_library() >= (2, 41):
        pytest.skip("this C library reads random bytes without a system call")
    ends_ = {os.WTERMSIG(life.status) for life in lives[number] if os.WIFSIGNALED(life.status)}
    assert ends_, f"{policy}: nothing needs {call} ({why}); drop the rule or say whom it is kept for"
    assert {SIGSYS} == ends_, lives[number]


def _c_library() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.libc_ver()[1].split(".") if part.isdigit())


def _kept() -> list[Any]:
    return [
        pytest.param(number, id=f"{policy}-{rule.call}-{number}")
        for number, (policy, rule) in enumerate(odd_zygote.variants())
        if rule is not None and rule.kept_for
    ]


@pytest.mark.parametrize("number", _kept())
def test_a_rule_kept_for_other_machines(lives: list[list[Life]], number: int) -> None:
    """Without it the whole life goes well here: the mark in the policy is true."""
    if Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip() not in (
        "tsc",
        "kvm-clock",
        "hyperv_clocksource_tsc_page",
        "arch_sys_counter",
    ):
        pytest.skip("this machine's clock has no vDSO: the rules for such machines are needed here")
    assert [True, True] == [life.whole() for life in lives[number]], lives[number]


# -- the calls that rules are kept for, made as other machines make them ---------------------------------------------

_memory = ctypes.create_string_buffer(64)
FUTEX, CLOCK_GETTIME = {"x86_64": (202, 228), "aarch64": (98, 113)}[libc.MACHINE]


def _once() -> int:
    """The C library's own way to its futex: a function runs once, for the first time behind the filter."""
    library = ctypes.CDLL(None)
    return int(library.pthread_once(ctypes.byref(_memory, 32), library.rand))


NATIVE: dict[str, Callable[[], int]] = {
    "futex": _once,
    "clock_gettime 0": lambda: raw(CLOCK_GETTIME, 0, ctypes.addressof(_memory)),
    "clock_gettime 1": lambda: raw(CLOCK_GETTIME, 1, ctypes.addressof(_memory)),
}
"""By call and, where several rules are kept for it, the first argument."""


def _name(rule: Rule) -> str:
    return f"{rule.call} {rule.comparisons[0].value}" if rule.call == "clock_gettime" else rule.call


def test_every_kept_rule_has_its_call() -> None:
    """The calls below are those of the marked rules, and no others."""
    assert sorted(NATIVE) == sorted(_name(rule) for rule in rules("worker") if rule.kept_for)


@pytest.mark.parametrize("name", NATIVE)
def test_a_kept_rule_lets_its_call_through(name: str) -> None:
    """With the rule the call comes back with 0; without it the caller dies."""

    def behind(listed: list[Rule]) -> Any:
        bpf = seccomp.compile_rules(listed)
        action = NATIVE[name]

        def child() -> int:
            ctypes.CDLL(None).rand()  # the loader looks symbols up before the filter
            assert ctypes.CDLL(None).pthread_once
            process.no_new_privileges()
            seccomp.load(bpf)
            return action()

        return ends(child)

    all_rules = rules("worker")
    assert (0, 0) == (behind(all_rules).signal, behind(all_rules).value)
    assert SIGSYS == behind([rule for rule in all_rules if _name(rule) != name]).signal
