"""T60: components that take all there is, and native code that does.

The components are the least one there can be (`guest/lifecycle.wat`) with something added: what they take, they take
while they are instantiated, behind every wall. They are signed, installed and compiled as all are. The control of each
is the engine itself, which gives what is asked for in a process that sets it no limit.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

import wasmtime
import wasmtime.component

from sandbox.engine import make_engine
from sandbox.kernel import process as kernel_process
from sandbox.types import Outcome
from supervisor.cli.errors import RefusedError
from supervisor.cli.packages import parts_of
from supervisor.packages.package import read_package
from supervisor.selftest import native, scene
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict, describe, gained
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.lifecycle import looping
from supervisor.selftest.neighbour import GROWTH, memory
from supervisor.selftest.program import Program, Until, failed

INSTANCES, IMPORTS = 100_000, 5_000
_MEBIBYTE = 1 << 20
_ROOM = 2 << 30
"""Address space of a control."""
_VALUES = {"restart": '"temporary"', "memory": '"16MiB"'}


@dataclass(frozen=True)
class Bomb:
    """A component.

    Attributes:
        core: added to the core module.
        more: added to the component.
        outcomes: how its worker may end, or codes of the host's refusal when it is installed.
        words: one of them is in the reason.
        control: core module that asks the engine for the same; "" where the engine's own limit is the wall.
    """

    name: str
    outcomes: frozenset[str]
    words: tuple[str, ...]
    core: str = ""
    more: str = ""
    control: str = ""


_GROW = (
    "(func $eat (loop $more (br_if $more (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) unreachable)"
    " (start $eat)"
)
_GROW_TABLE = (
    "(table $t 0 funcref) (func $eat (loop $more (br_if $more"
    " (i32.ge_s (table.grow $t (ref.null func) (i32.const 1000)) (i32.const 0)))) unreachable) (start $eat)"
)
_FAR = '(data (i32.const 0x7ffffff0) "far away")'
_MEMORY, _TRAP = frozenset({Outcome.MEMORY.value}), frozenset({Outcome.TRAP.value})
_REFUSED = frozenset({"E_IMPORTS", "E_COMPILE", "E_COMPILE_LIMIT", "E_INVALID_COMPONENT"})


def _taken(what: str) -> str:
    """Starts by doing this once; traps if it is refused."""
    return f"(func $once (if (i32.lt_s {what} (i32.const 0)) (then unreachable))) (start $once)"


def bombs() -> Iterator[Bomb]:
    """All of them."""

    def memory_bomb(name: str, words: str, core: str) -> Bomb:
        return Bomb(name, _MEMORY, (words,), core, control=core)

    grown = "(memory 1)" + _taken("(memory.grow (i32.const 4000))")
    yield Bomb("memory.grow without end", _TRAP, ("memory.grow was refused",), _GROW, control=grown)
    grown = "(table $t 0 funcref)" + _taken("(table.grow $t (ref.null func) (i32.const 4000000))")
    yield Bomb("table.grow without end", _TRAP, ("unreachable",), _GROW_TABLE, control=grown)
    yield memory_bomb("125 MiB to begin with", "linear memory limit", "(memory $big 2000)")
    yield memory_bomb("a table of 10 million to begin with", "table minimum size", "(table 10000000 funcref)")
    yield memory_bomb("80 tables", "table count too high", "(table 1 funcref)" * 80)
    yield memory_bomb("20 memories", "memory count too high", "(memory 1)" * 20)
    far = f"(memory 32768) {_FAR}"
    yield Bomb("data far behind the memory's end", _TRAP, ("out of bounds",), _FAR, control=far)
    yield Bomb("recursion without end", _TRAP, ("call stack exhausted",), "(func $down (call $down)) (start $down)")
    instances = "(core module $m)" + "(core instance (instantiate $m))" * INSTANCES
    yield Bomb(f"{INSTANCES:,} instances", _MEMORY | _REFUSED, ("",), more=instances)
    imports = "".join(f'(import "i{index}" (func))' for index in range(IMPORTS))
    yield Bomb(f"{IMPORTS:,} imports", _REFUSED, ("",), more=imports)


def component(bomb: Bomb, name: str) -> bytes:
    """The component's bytes. `name`: of the component, as the guest tells it."""
    text = (resources.files("supervisor.selftest") / "guest" / "lifecycle.wat").read_text(encoding="utf-8")
    text = text.replace("@NAME@", name).replace("@SIZE@", f"{len(name):02x}")
    text = re.sub(r"(?m)^ *;; @core@$", lambda _: bomb.core, text)
    text = re.sub(r"(?m)^ *;; @exports@$", lambda _: bomb.more, text)
    return bytes(wasmtime.wat2wasm(text))


def tried(host: HostileHost, bomb: Bomb, number: int) -> CaseResult:
    """Install it and look how it ended, and that nothing of it is left in the host's processes."""
    name = f"bomb{number}"
    pids = host.pids()
    before = {process: memory(pids[process]) for process in ("bridge", "router", "zygote")}
    outcome, detail = _installed(host, name, component(bomb, f"selftest/{name}"))
    now = host.pids()
    damaged = [process for process in pids if now.get(process) != pids[process]]
    for process, size in before.items():
        if process not in damaged and memory(now[process]) - size > GROWTH:
            damaged.append(process)
    stopped = outcome in bomb.outcomes and any(words in detail for words in bomb.words)
    if damaged:
        return CaseResult(bomb.name, Verdict.SUCCEEDED, f"{', '.join(damaged)} ended, or grew", Shown.CANNOT, "")
    how = outcome if stopped else f"{outcome}: {detail}"
    verdict = Verdict.STOPPED if stopped else Verdict.SUCCEEDED if outcome == "running" else Verdict.ODD
    return CaseResult(bomb.name, verdict, how, *_without_limits(bomb))


def _installed(host: HostileHost, name: str, wasm: bytes) -> tuple[str, str]:
    """How it ended and why; "running" if it did not. A component that is left is removed."""
    with host.client() as client:
        try:
            plan = client.upload(parts_of(read_package(host.package(name, _VALUES, wasm))))
            body = {"plan": plan["plan"], "bindings": {}, "instance": "0", "consent": True, "start": True}
            client.post("/v1/install", body, timeout=60.0)
        except RefusedError as error:
            code, message = error.code, f"{error.message} {error.subject}"
        else:
            code, message = "", ""
        try:
            status = client.get(f"/v1/components/selftest/{name}/0")["status"]
        except RefusedError:
            return code, message
        client.delete(f"/v1/components/selftest/{name}/0", purge=True)
        if status["state"] == "running":
            return "running", "it is up"
        return str(status["outcome"]), str(status["detail"])


def _without_limits(bomb: Bomb) -> tuple[Shown, str]:
    if not bomb.control:
        return Shown.CANNOT, "the engine's own limit, or the compiler's, is the wall"
    program = Program()
    program.syscall("getpid")
    result = native.attempt(program, instantiating(bomb.control))
    return (Shown.WORKS, "the engine gives it") if gained(result) else (Shown.FAILED, describe(result))


def instantiating(core: str) -> Callable[[], None]:
    """Instantiate the module in a control's process; what goes wrong is the control's end."""

    def act() -> None:
        room = kernel_process.address_space() + _ROOM * 8  # on top of what this process is already
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        engine = make_engine()
        store = wasmtime.Store(engine)
        store.set_fuel(1 << 40)
        module = wasmtime.Module(engine, bytes(wasmtime.wat2wasm(f"(module {core})")))
        wasmtime.Instance(store, module, [])

    return act


# -- native code ------------------------------------------------------------------------------------------------------


def native_bombs(worker: HostileWorker) -> Iterator[CaseResult]:
    """The same, by an attacker's machine code."""
    gigabyte, bit_by_bit, stack = Program(), Program(), looping("recurse")
    gigabyte.syscall("mmap", 0, 1 << 30, 3, 0x22, -1, 0)
    bit_by_bit.syscall("mmap", 0, _MEBIBYTE, 3, 0x22, -1, 0, times=1024, until=Until.ERROR)
    for name, program in (("native code: a GiB of memory", gigabyte), ("native code: MiB after MiB", bit_by_bit)):
        result = worker.run(program)
        verdict = Verdict.STOPPED if describe(result) == "ENOMEM" else Verdict.SUCCEEDED
        control = native.attempt(program, scene.SCENES["ordinary"])
        works = control.answered and not failed(control.result())
        shown = (Shown.WORKS, "the kernel gives it") if works else (Shown.FAILED, describe(control))
        yield CaseResult(name, verdict, describe(result), *shown)
    result = worker.run(stack)
    control = native.attempt(stack, scene.SCENES["ordinary"])
    died = control.outcome == "SIGSEGV"
    ended = result.outcome in (Outcome.POLICY, Outcome.INTERNAL_ERROR)
    yield CaseResult(
        "native code: recursion without end",
        Verdict.STOPPED if ended else Verdict.ODD,
        f"{describe(result)}, and another worker is up" if worker.living(after=worker.pid) else describe(result),
        *((Shown.WORKS, "SIGSEGV") if died else (Shown.FAILED, describe(control))),
    )


TITLES = {
    "T60": ("components and native code that take all there is", ("engine limits", "RLIMIT_DATA", "compiler's cage"))
}


def cases(host: HostileHost) -> tuple[CaseResult, ...]:
    """All of T60."""
    harmless = Bomb("the same component without a bomb", frozenset({"running"}), ("",))
    outcome, detail = _installed(host, "harmless", component(harmless, "selftest/harmless"))
    verdict = Verdict.ANSWERED if outcome == "running" else Verdict.ODD
    found = [CaseResult(harmless.name, verdict, detail, Shown.WORKS, "it starts")]
    found += [tried(host, bomb, number) for number, bomb in enumerate(bombs())]
    worker = host.worker("eater")
    try:
        found += native_bombs(worker)
    finally:
        worker.close()
    return tuple(found)


def run(
    host: HostileHost, wanted: Callable[[str], bool], progress: Callable[[str, int, int], None] = lambda *_: None
) -> Iterator[Row]:
    """The row, if it is wanted; see `deputies.run`."""
    for id_, (title, walls) in TITLES.items():
        if wanted(id_):
            progress(title, 0, 1)
            yield Row(id_, title, walls, cases(host))
