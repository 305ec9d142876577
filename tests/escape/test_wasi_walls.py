"""Guests of standard toolchains in the unchanged cage: WASI adds no descriptor, no thread and no system call.

The engine's own WASI is the positive control: what it does when a guest prints or waits meets the filter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import wasmtime
from live_host import GUESTS, Host
from wasi_guest import Wasi
from wasmtime import component as wt

from sandbox import marshal
from sandbox.bindings import FUNCTIONS
from sandbox.calls import LIFECYCLE
from sandbox.guest import component_message
from sandbox.kernel import process, seccomp
from sandbox.types import ComponentId
from sandbox.wire import router_frames as frames

pytestmark = pytest.mark.block4_security

PROBE = GUESTS / "wasi-probe/component.wasm"
EVERYTHING = (
    *("print text", "err text", "lines 20", "bytes 9000", "check", "flush", "input", "ready", "now", "wall", "numbers"),
    *("random 65536", "insecure 65536", "environ", "args", "cwd", "dirs", "terminals", "tcp", "udp", "lookup x"),
    *("poll 0,0", "poll-same 100", "hold 200", "drop", "churn 500"),
)
"""Every function a guest can reach but those that wait and the one that ends."""


@pytest.fixture(scope="module")
def asked(caged: Host) -> Host:
    """The live host with a guest that uses all of WASI."""
    caged.install(caged.package(GUESTS / "wasi-probe"))
    caged.install(caged.package(GUESTS / "wasi-libc"))
    return caged


@pytest.mark.parametrize(
    ("component", "commands"),
    [
        ("test/wasi-probe/0", (*EVERYTHING, "sleep 3000000", "poll 3,9000", "until 1000000")),
        ("test/wasi-libc/0", ("print a", "eprint b", "sleep 3", "poll 3", "random 64", "clock", "open /x", "stdin")),
    ],
)
def test_nothing_is_added(asked: Host, component: str, commands: tuple[str, ...]) -> None:
    """After all of it the same process lives, with two descriptors, one thread, its filters, and no page for code."""
    pid = asked.component(component)["pid"]
    for command in commands:
        asked.ask(component, command)
    assert pid == asked.component(component)["pid"], "a call beyond the filter would have ended it"
    assert {"3", "4"} == set(os.listdir(f"/proc/{pid}/fd"))
    assert [str(pid)] == os.listdir(f"/proc/{pid}/task")
    status = Path(f"/proc/{pid}/status").read_text()
    assert "\nThreads:\t1\n" in status
    assert "\nSeccomp:\t2\n" in status
    modes = [line.split()[1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    assert [] == [mode for mode in modes if "w" in mode and "x" in mode]


# -- the same functions under the filter alone ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Wasi:
    """The worker's linker, warm: a trap and a message have been through it, as in a zygote."""
    wasi = Wasi()
    with wasi.running(PROBE) as guest:
        guest.ask("print warm")
        guest.end("trap")
    return wasi


def behind_the_filter(action: Callable[[], object]) -> forked.Ended:
    """`action` in a child that has a worker's last filter."""
    bpf = seccomp.compile_policy("worker")

    def child() -> object:
        process.no_new_privileges()
        seccomp.load(bpf)
        return action()

    return forked.ends(child)


def test_our_wasi_behind_the_filter(own: Wasi) -> None:
    """Instantiated and used behind the last filter; even `exit` ends the guest, not the process."""

    def action() -> list[str]:
        with own.running(PROBE) as guest:
            replies = [guest.ask(command) for command in EVERYTHING]
            return [*replies, guest.end("exit 0").detail]

    ended = behind_the_filter(action)
    assert (0, "") == (ended.signal, ended.error)
    assert "exit status 0" == ended.value[-1]
    assert len(EVERYTHING) + 1 == len(ended.value)


@pytest.mark.parametrize(
    ("command", "signal"),
    [("random 16", 0), ("bytes 10", forked.SIGSYS), ("sleep 1000000", forked.SIGSYS)],
)
def test_the_engines_wasi_behind_the_filter(own: Wasi, command: str, signal: int) -> None:
    """Positive control: the same guest on the engine's own WASI gets random bytes; if it prints or waits it dies."""
    component = wt.Component(own.engine, PROBE.read_bytes())
    linker = wt.Linker(own.engine)
    linker.add_wasip2()
    with linker.root() as root:
        for name in ("airssys:core/types@1.0.0", "airssys:core/errors@1.0.0"):
            with root.add_instance(name):
                pass

    def action(text: str = command) -> str:
        store = wasmtime.Store(own.engine)
        store.set_fuel(100_000_000)
        store.set_wasi(wasmtime.WasiConfig())
        instance = linker.instantiate(store, component)
        frame = frames.Deliver(1, ComponentId("a", "b"), 1, 1)
        lifecycle = instance.get_export_index(store, LIFECYCLE)
        index = instance.get_export_index(store, "handle-message", lifecycle)
        assert index is not None
        function = instance.get_func(store, index)
        handle = marshal.Export(store, function, FUNCTIONS[LIFECYCLE]["handle-message"])
        reply = handle(component_message(frame, text.encode()))
        assert isinstance(reply, bytes)
        return reply.decode()

    action("random 16")  # warm here, as everything is before a worker is cloned; it starts no thread
    assert "" == forked.ends(action).error, "without the filter each works"
    assert signal == behind_the_filter(action).signal
