"""WASI as host functions: the table is WASI's own, and each function does what our WIT says, to hostile guests too.

Guests run in this process with the worker's engine, linker and host functions; what the cage makes of them is in
tests/e2e and tests/escape.
"""

from __future__ import annotations

import time

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from live_host import GUESTS
from wasi_guest import AskedBridge, Clock, Wasi
from wasmtime import component as wt
from wit_wat import importing_all

from sandbox import contract, host
from sandbox.contract import ContractError, check_component
from sandbox.guest import GuestFailed
from sandbox.host import wasi as wasi_module
from sandbox.host.links import links
from sandbox.host.wasi.handles import MAX_HANDLES, MAX_POLLABLES, Handles, Kind
from sandbox.host.wasi.io import CALL_BYTES, CALL_LINES, MAX_LINE, MAX_POLLED, MAX_WRITE, LogStream
from sandbox.host.wasi.random import MAX_BYTES
from sandbox.types import Limits, Outcome

pytestmark = pytest.mark.block1_runtime

PROBE = GUESTS / "wasi-probe/component.wasm"
LIBC = GUESTS / "wasi-libc/component.wasm"
ACCESS_DENIED = "1"
"""Index of `access-denied` in the error codes of wasi:sockets."""


@pytest.fixture(scope="module")
def wasi() -> Wasi:
    """One engine and linker."""
    return Wasi()


@pytest.fixture(scope="module")
def everything() -> str:
    """A component that imports all of WASI as our WIT has it."""
    return importing_all(each for each in contract.load().packages if each.name.startswith("wasi:"))


# -- the table ------------------------------------------------------------------------------------------------------


def instantiate_with_the_engines_wasi(text: str) -> None:
    """Hold the imports against wasmtime's own WASI, type by type. Raises WasmtimeError where they differ."""
    engine = wasmtime.Engine()
    linker = wt.Linker(engine)
    linker.add_wasip2()
    store = wasmtime.Store(engine)
    store.set_wasi(wasmtime.WasiConfig())
    linker.instantiate(store, wt.Component(engine, text))


def test_the_wit_is_wasi(everything: str) -> None:
    """Every function and type of our WIT is what the engine's own WASI has: it links a component that wants all."""
    assert 122 == everything.count("(func")
    instantiate_with_the_engines_wasi(everything)


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ('(param "len" u64) (result (list u8))', '(param "len" u32) (result (list u8))'),
        ('"would-block" "already"', '"already" "would-block"'),
        ('(field "flow-info" u32)', '(field "flow-info" u64)'),
        ('[method]output-stream.check-write"', '[method]output-stream.check-writes"'),
    ],
)
def test_another_type_is_not_wasi(everything: str, ours: str, other: str) -> None:
    """Positive control: one type, one order, one name changed, and the engine's WASI does not link."""
    assert ours in everything
    with pytest.raises(wasmtime.WasmtimeError):
        instantiate_with_the_engines_wasi(everything.replace(ours, other, 1))


def test_everything_is_served(wasi: Wasi, everything: str) -> None:
    """The check at install admits all of it, and the worker's linker has all of it."""
    component = wt.Component(wasi.engine, everything)
    with pytest.raises(ContractError) as caught:
        check_component(component.type, wasi.engine)
    assert "E_EXPORTS" == caught.value.code, "the imports are fine; it has no lifecycle"
    store = wasmtime.Store(wasi.engine)
    store.set_fuel(1000)
    wasi.linker.instantiate(store, component)


@pytest.mark.parametrize("version", ["0.2.0", "0.2.3", "0.2.9", "0.2.12", "0.2.99"])
def test_any_version_of_0_2(wasi: Wasi, everything: str, version: str) -> None:
    """Whichever 0.2 a guest names, it is checked against the one table and linked to it."""
    component = wt.Component(wasi.engine, everything.replace("@0.2.12", f"@{version}"))
    with pytest.raises(ContractError, match="does not export its lifecycle"):
        check_component(component.type, wasi.engine)
    store = wasmtime.Store(wasi.engine)
    store.set_fuel(1000)
    wasi.linker.instantiate(store, component)


def refused(engine: wasmtime.Engine, text: str) -> ContractError:
    with pytest.raises(ContractError) as caught:
        check_component(wt.Component(engine, text).type, engine)
    assert "E_IMPORTS" == caught.value.code
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        "wasi:http/types@0.2.12",
        "wasi:io/poll@0.3.0",
        "wasi:io/poll@0.2.0-rc-2023-11-10",
        "wasi:io/poll",
        "wasi:io/x@0.2.1",
    ],
)
def test_what_is_not_served_is_named(wasi: Wasi, name: str) -> None:
    """Another package, another version, no version, an unknown interface: refused with the import's name."""
    error = refused(wasi.engine, f'(component (import "{name}" (instance)))')
    assert name == error.subject
    assert "of WASI it serves version 0.2 of io, clocks, random, cli, filesystem, sockets" in error.message


def test_a_missing_function_is_named(wasi: Wasi) -> None:
    """A function that WASI may have one day, or a type that differs, is refused by name at install."""
    now = (
        '(component (import "wasi:clocks/monotonic-clock@0.2.12" (instance (export "{name}" (func (result {type}))))))'
    )
    error = refused(wasi.engine, now.format(name="later", type="u64"))
    assert "wasi:clocks/monotonic-clock@0.2.12#later" == error.subject
    error = refused(wasi.engine, now.format(name="now", type="u32"))
    assert "the host has func() -> u64, the component wants func() -> u32" == error.message


def test_resources_are_told_apart(wasi: Wasi, everything: str) -> None:
    """A handle of one resource where another belongs, and a resource that a component makes up, are refused."""
    swapped = everything.replace('(param "src" (borrow $input-stream))', '(param "src" (borrow $output-stream))', 1)
    assert "src: borrow<wasi:io/streams.output-stream>" in refused(wasi.engine, swapped).message
    own = (
        '(component (import "wasi:clocks/monotonic-clock@0.2.12" (instance'
        ' (export "pollable" (type $p (sub resource))))))'
    )
    assert "own<wasi:io/poll.pollable>" in refused(wasi.engine, own).message


def test_the_engine_polls_two_only_without_concurrency_support(wasi: Wasi) -> None:
    """The engine's setting is what lets a guest poll two pollables; positive control: with it the same call traps."""
    with wasi.running(PROBE) as guest:
        assert "0,2" == guest.ask("poll 0,9999,0")
    engine = wasmtime.Engine(make_config(concurrency=True))
    linker = wt.Linker(engine)
    host.define(linker)
    other = Wasi()
    other.engine, other.linker = engine, linker
    with other.running(PROBE) as guest:
        assert "0" == guest.ask("poll 0"), "one works"
        assert Outcome.TRAP is guest.end("poll 0,0").outcome


def make_config(*, concurrency: bool) -> wasmtime.Config:
    from wasmtime import _ffi as ffi

    config = wasmtime.Config()
    config.consume_fuel = True
    ffi.wasmtime_config_concurrency_support_set(config.ptr(), concurrency)
    return config


# -- what the functions do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("check", str(MAX_WRITE)),
        ("flush", "ok"),
        ("input", "error closed"),
        ("ready", "3"),
        ("numbers", "ok"),
        ("cwd", "-"),
        ("dirs", "0"),
        ("terminals", "0"),
        ("tcp", ACCESS_DENIED),
        ("udp", ACCESS_DENIED),
        ("lookup example.org", ACCESS_DENIED),
        ("random 0", "0"),
        ("random 65536", "65536"),
        ("insecure 65536", "65536"),
        ("poll 0,0", "0,1"),
        ("poll-same 1024", "1024"),
        ("churn 5000", "ok"),
        (f"write {MAX_WRITE}", "ok"),
        (f"zeroes {MAX_WRITE}", "ok"),
        (f"zeroes-flush {MAX_WRITE}", "ok"),
    ],
)
def test_answers(wasi: Wasi, command: str, reply: str) -> None:
    """What each function answers a guest that keeps to the rules; none of it asks the bridge to sleep."""
    with wasi.running(PROBE) as guest:
        assert reply == guest.ask(command)
        assert [] == guest.bridge.sleeps
        assert reply == guest.ask(command), "and again"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (f"write {MAX_WRITE + 1}", "write of 4097 bytes"),
        ("write 1000000", "write of 1000000 bytes"),
        (f"zeroes {MAX_WRITE + 1}", "write of 4097 zeroes"),
        (f"zeroes-flush {2**64 - 1}", f"write of {2**64 - 1} zeroes"),
        (f"random {MAX_BYTES + 1}", "65537 random bytes at once"),
        (f"insecure {2**64 - 1}", "random bytes at once"),
        ("poll-none", "poll of an empty list"),
        (f"poll-same {MAX_POLLED + 1}", "poll of more than 1024 pollables"),
        (f"hold {MAX_POLLABLES + 1}", "more than 256 pollables"),
        (f"hold-streams {MAX_HANDLES}", "more than 1024 handles"),
    ],
)
def test_traps(wasi: Wasi, command: str, why: str) -> None:
    """What must not be asked ends the guest with outcome trap and says what it was."""
    with wasi.running(PROBE) as guest:
        failure = guest.end(command)
        assert Outcome.TRAP is failure.outcome
        assert why in failure.detail


def test_limits_of_handles_are_of_those_held(wasi: Wasi) -> None:
    """As many as allowed may be held, and again after they were dropped; the table does not grow."""
    with wasi.running(PROBE) as guest:
        for _ in range(3):
            assert str(MAX_POLLABLES - 1) == guest.ask(f"hold {MAX_POLLABLES - 1}")
            assert "0" == guest.ask("poll 0")
            guest.ask("hold-streams 700")
            assert "ok" == guest.ask("drop")
        assert 2 == len(wasi_module.handles), "the two streams that the probe keeps"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([Kind.POLLABLE, Kind.OUTPUT_STREAM]), st.booleans()), max_size=60))
def test_representations_are_never_shared(steps: list[tuple[Kind, bool]]) -> None:
    """Whatever is given and dropped in whatever order, no two live handles have one representation."""
    table, live = Handles(), {}
    for number, (kind, drop) in enumerate(steps):
        if drop and live:
            rep, old = live.popitem()
            table.destructor(old)(rep)
        else:
            rep = table.give(kind, number)
            assert rep not in live
            live[rep] = kind
        assert len(live) == len(table)


def test_environment_and_arguments(wasi: Wasi) -> None:
    """What the operator gave, the component's name first among the arguments."""
    with wasi.running(PROBE, env={"A": "1", "B": "=|x"}, arguments=("one", "")) as guest:
        assert ("A=1|B==|x", "test/guest|one|") == (guest.ask("environ"), guest.ask("args"))
    with wasi.running(PROBE) as guest:
        assert ("", "test/guest") == (guest.ask("environ"), guest.ask("args"))


def test_clocks(wasi: Wasi) -> None:
    """The monotonic clock begins with the component and goes on; the other tells the time."""
    with wasi.running(PROBE) as guest:
        first, second = int(guest.ask("now")), int(guest.ask("now"))
        assert 0 < first < second < 60_000_000_000
        seconds, nanoseconds = map(int, guest.ask("wall").split())
        assert abs(seconds - time.time()) < 5
        assert 0 <= nanoseconds < 1_000_000_000


@pytest.mark.parametrize(("status", "outcome"), [(0, Outcome.EXITED), (1, Outcome.TRAP)])
def test_exit(wasi: Wasi, status: int, outcome: Outcome) -> None:
    """Exit ends the guest by its own wish: no trap of the engine, no backtrace."""
    with wasi.running(PROBE) as guest:
        failure = guest.end(f"exit {status}")
        assert (outcome, f"exit status {status}") == (failure.outcome, failure.detail)


# -- sleeping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sleep 20000000", "until 20000000"])
def test_sleep_is_one_request(wasi: Wasi, command: str) -> None:
    """20 ms take 20 ms and one request; the pollable is ready afterwards."""
    with wasi.running(PROBE) as guest:
        assert 20_000 <= int(guest.ask(command)) < 21_000
        (asked,) = guest.bridge.sleeps
        assert 19_000_000 < asked <= 20_000_000


def test_poll_waits_for_the_nearest(wasi: Wasi) -> None:
    """Of several none of which is ready, one request for the first."""
    with wasi.running(PROBE) as guest:
        assert "1" == guest.ask("poll 9000,15,9000")
        (asked,) = guest.bridge.sleeps
        assert asked <= 15_000_000


def test_sleeping_past_the_deadline_is_told(wasi: Wasi) -> None:
    """A message that would sleep past its deadline ends there, with outcome deadline."""
    with wasi.running(PROBE, limits=Limits(memory=4 << 20, deadline_ms=50)) as guest:
        failure = guest.end(f"sleep {2**64 - 1}")
        assert (Outcome.DEADLINE, "asleep until its deadline") == (failure.outcome, failure.detail)
        assert 1 == len(guest.bridge.sleeps)


def test_an_early_answer_means_stop(wasi: Wasi) -> None:
    """Woken before its time a guest does not ask again, for ever, but ends."""
    with wasi.running(PROBE) as guest:
        guest.bridge.early = True
        assert Outcome.KILLED is guest.end("sleep 9000000000").outcome
        assert 1 == len(guest.bridge.sleeps)


# -- the log ---------------------------------------------------------------------------------------------------------


def test_lines_go_to_the_log_as_they_end(wasi: Wasi) -> None:
    """Stdout as info, stderr as warn; parts are joined; what has no end comes with the end of the message."""
    with wasi.running(PROBE) as guest:
        guest.ask("print two\nlines")
        assert [("info", "two"), ("info", "lines")] == guest.bridge.lines
        guest.ask("err a part")
        assert ("warn", "a part") == guest.bridge.lines[-1]
        guest.ask("write 3")
        guest.ask("write 2")
        assert ["xxx", "xx"] == guest.bridge.log()[3:], "two messages, two lines"


def test_bytes_that_are_no_text(wasi: Wasi) -> None:
    """Zeroes and broken UTF-8 become text; a return before the line's end vanishes."""
    with wasi.running(PROBE) as guest:
        guest.ask("zeroes 3")
        assert ["\0\0\0"] == guest.bridge.log()
        guest.ask("print a\r\nb")
        assert ["a", "b"] == guest.bridge.log()[1:]


def test_long_lines_are_broken_up(wasi: Wasi) -> None:
    """A line is at most MAX_LINE bytes."""
    with wasi.running(PROBE) as guest:
        guest.ask(f"bytes {2 * MAX_LINE + 10}")
        assert [MAX_LINE, MAX_LINE, 10] == [len(line) for line in guest.bridge.log()]


def test_a_flood_is_cut_and_marked(wasi: Wasi) -> None:
    """Bytes and lines of one message are bounded, the rest is counted, and the next message prints again."""
    with wasi.running(PROBE) as guest:
        assert "ok" == guest.ask(f"bytes {CALL_BYTES + 1000}"), "the guest is not told and does not wait"
        assert CALL_BYTES == sum(len(line) for line in guest.bridge.log()[:-1])
        assert "1000 bytes more were printed in this call, and dropped" == guest.bridge.log()[-1]
        guest.bridge.lines.clear()
        assert "ok" == guest.ask(f"lines {CALL_LINES + 10}")
        assert [CALL_LINES, "50 bytes more were printed in this call, and dropped"] == [
            guest.bridge.log().count("line"),
            guest.bridge.log()[-1],
        ]
        guest.bridge.lines.clear()
        guest.ask("print hello")
        assert ["hello"] == guest.bridge.log()


def test_the_text_of_an_error_comes_before_its_end(wasi: Wasi) -> None:
    """What a guest printed before it trapped is in the log when the trap is told, its last, incomplete line too."""
    for command, text in (("eprint-abort no end of line", "no end of line"), ("assert", "a reason to end")):
        with wasi.running(LIBC) as guest:
            failure = guest.end(command)
            assert Outcome.TRAP is failure.outcome
            level, line = guest.bridge.lines[-1]
            assert ("warn", True) == (level, text in line)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200) | st.just(b"\n") | st.binary(min_size=3000, max_size=4096), max_size=30))
def test_no_byte_is_lost_below_the_limits(parts: list[bytes]) -> None:
    """Whatever is written in whatever pieces: lines joined with their ends are what was written, up to the limit."""
    bridge, stream = AskedBridge(Clock()), LogStream("any", 2)
    before = links.__dict__.get("bridge")
    links.bridge = bridge  # type: ignore[assignment]
    try:
        for part in parts:
            stream.write(part)
        LogStream.end_of_call()
    finally:
        LogStream._all.remove(stream)
        links.bridge = before  # type: ignore[assignment]
    whole = b"".join(parts)
    told = [line for level, line in bridge.lines if level == "info"]
    assert all(len(line.encode()) <= 3 * MAX_LINE for line in told)
    if len(whole) <= CALL_BYTES and len(told) < CALL_LINES:
        text = whole.replace(b"\r\n", b"\n").decode(errors="replace")
        assert sum(map(len, told)) >= len(text.replace("\n", "").replace("\r", "")) - 2 * len(told)
    assert 0 == LogStream._bytes == LogStream._lines == LogStream._dropped


# -- a real C library ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def libc_answers(wasi: Wasi) -> dict[str, str]:
    """What the C library makes of it."""
    with wasi.running(LIBC, env={"HOME": "/nowhere"}, arguments=("-v",)) as guest:
        commands = (
            "open /etc/passwd",
            "stdin",
            "tty",
            "env HOME",
            "env NONE",
            "args",
            "cwd",
            "poll 500",
            "sleep 5",
            "sleep 0",
        )
        return {command: guest.ask(command) for command in commands}


def test_libc(libc_answers: dict[str, str]) -> None:
    """Files do not exist, input is at its end, nothing is a terminal, time passes."""
    assert int(libc_answers.pop("sleep 5")) >= 5
    assert {
        "open /etc/passwd": "No such file or directory",
        "stdin": "-1",
        "tty": "000",
        "env HOME": "/nowhere",
        "env NONE": "(none)",
        "args": "test/guest|-v",
        "cwd": "/",
        "poll 500": "1 0",
        "sleep 0": "0",
    } == libc_answers


def test_libc_exit_and_random(wasi: Wasi) -> None:
    """exit(3) is a trap that says so; random bytes differ."""
    with wasi.running(LIBC) as guest:
        assert guest.ask("random 32") != guest.ask("random 32")
        assert "exit status 1" == guest.end("exit 3").detail


def test_an_exception_while_instantiating_is_told(wasi: Wasi) -> None:
    """A host function that ends the guest in a start function ends it as it would in a call."""
    text = """(component
      (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
      (core func $lowered (canon lower (func $exit "exit")))
      (core module $m (import "e" "exit" (func $exit (param i32))) (func $go (call $exit (i32.const 0))) (start $go))
      (core instance (instantiate $m (with "e" (instance (export "exit" (func $lowered)))))))"""
    with pytest.raises(GuestFailed) as caught, wasi.running(wt.Component(wasi.engine, text)):
        pass
    assert (Outcome.EXITED, "exit status 0") == (caught.value.outcome, caught.value.detail)
