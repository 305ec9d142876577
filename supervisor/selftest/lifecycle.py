"""T58, T59, T61, T64: workers started again, loops, processes without end, code that is not what was compiled."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import resource
import struct
import tempfile
from collections.abc import Callable, Iterator

import msgspec
import wasmtime
import wasmtime.component

from sandbox.engine import make_engine
from sandbox.kernel import cgroups, process
from sandbox.types import Outcome
from sandbox.wire.compile_result import CompileResult
from supervisor.control.cache import Cache, entry_parts
from supervisor.control.errors import CacheError
from supervisor.selftest import native, patch, scene
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict, describe
from supervisor.selftest.host import HostileHost, HostileWorker
from supervisor.selftest.numbers import number
from supervisor.selftest.outside import status
from supervisor.selftest.program import Program, Until, failed

ROOT = os.geteuid() == 0
EXECUTED = "executed"
CONFIGURATION = f'\n[[workers.override]]\ncomponent = "selftest/{EXECUTED}"\nspawn = "exec"\n'
"""What T58 needs in the throw-away host's `airssys.toml`: one component whose workers are executed."""
RESTARTS = 6
"""How often a worker is ended and looked at again."""
_EXECUTED_RESTARTS = 2
_SAME = ("Seccomp", "Seccomp_filters", "NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Threads")
_FORKS = 64
_FOR_EVER = (1 << 32) - 1
_LOOP_SECONDS = 0.7
"""How long a loop runs without limits before it counts as endless; more than each limit of T59."""


def looping(routine: str = "spin") -> Program:
    """Native code that never returns."""
    program = Program()
    program.step(routine)
    return program


# -- T58 --------------------------------------------------------------------------------------------------------------


def restarts(host: HostileHost) -> tuple[CaseResult, ...]:
    """Ended by a forbidden call, again and again: whatever comes up has the same filters."""
    cases = []
    for name, times in (("again", RESTARTS), (EXECUTED, _EXECUTED_RESTARTS)):
        worker = host.worker(name)
        seen = [_looked_at(worker.living())]
        die = Program()
        die.syscall("getpid")
        for _ in range(times):
            pid = worker.pid
            worker.run(die)
            seen.append(_looked_at(worker.living(after=pid)))
        worker.close()
        own = _looked_at(os.getpid())
        what = f"{times} times, {'executed' if name == EXECUTED else 'cloned'}"
        different = [state for state in seen if state != seen[0]]
        weaker = seen[0]["Seccomp"] != "2" or seen[0]["NoNewPrivs"] != "1" or int(seen[0]["CapBnd"], 16) != 0
        verdict = Verdict.SUCCEEDED if different or weaker else Verdict.STOPPED
        how = str(different[:1] or seen[0]) if verdict is Verdict.SUCCEEDED else "the same filters, no rights"
        shown = Shown.WORKS if own != seen[0] else Shown.FAILED
        cases.append(CaseResult(what, verdict, how, shown, "an ordinary process has others"))
    return tuple(cases)


def _looked_at(pid: int) -> dict[str, str]:
    state = status(pid)
    return {name: state[name] for name in _SAME}


# -- T59 --------------------------------------------------------------------------------------------------------------


def loops(host: HostileHost) -> Iterator[CaseResult]:
    """Each limit stops a loop with the others wide open."""
    wasm = Program()
    wasm.syscall("munmap", 1, 4096, times=_FOR_EVER)
    waiting = Program()
    waiting.syscall("recvfrom", 4, waiting.room(64), 64, 0, 0, 0)
    wide = {"fuel": "1_000_000_000_000_000", "deadline": '"10m"', "cpu": '"10m"'}
    late = "not finished within 400 ms"
    tried = (
        ("a loop of the guest's, by fuel", {"fuel": "3_000_000"}, wasm, Outcome.FUEL, "all fuel"),
        ("a native loop, by the deadline", {"deadline": '"400ms"'}, looping(), Outcome.DEADLINE, late),
        ("native code that waits, by the deadline", {"deadline": '"400ms"'}, waiting, Outcome.DEADLINE, late),
        ("a native loop, by CPU time", {"cpu": '"300ms"'}, looping(), Outcome.DEADLINE, "CPU time: more than 300 ms"),
    )
    for place, (name, values, program, outcome, words) in enumerate(tried):
        worker = host.worker(f"loop{place}", values={**wide, **values})
        result = worker.run(program)
        worker.close()
        stopped = result.outcome == outcome and words in result.detail
        verdict = Verdict.STOPPED if stopped else Verdict.ODD
        how = result.outcome if stopped else f"{result.outcome}: {result.detail}"
        free = native.attempt(program, _with_silent_peers, seconds=_LOOP_SECONDS)
        yield CaseResult(name, verdict, how, *_endless(free))


def _with_silent_peers() -> None:
    scene.SCENES["ordinary"]()
    os.read(scene.CHANNELS[1], 64)  # the message that waits there


def _endless(result: native.Result) -> tuple[Shown, str]:
    if result.outcome == "deadline":
        return Shown.WORKS, "goes on without end"
    return Shown.FAILED, describe(result)


# -- T61 --------------------------------------------------------------------------------------------------------------


def fork_bombs() -> Iterator[CaseResult]:
    """What stops processes where no filter does; each wall alone."""
    program = Program()
    program.step("fork", number("clone"), 17, 0, 0, 0, 0, times=_FORKS, until=Until.ERROR)

    def bomb(wall: Callable[[], None]) -> native.Result:
        return native.attempt(program, wall)

    free = bomb(scene.SCENES["ordinary"])
    shown = (Shown.WORKS if free.answered and not failed(free.result()) else Shown.FAILED, f"{_FORKS} processes")

    def nproc() -> None:
        scene.SCENES["ordinary"]()
        process.set_limit(resource.RLIMIT_NPROC, 0)

    yield _refused("by RLIMIT_NPROC alone", bomb(nproc), shown)
    name = "by the control group alone"
    if not ROOT:
        yield CaseResult(name, Verdict.STOPPED, "not tried", Shown.CANNOT, "an ordinary user's host may have none")
        return
    tree = cgroups.create(f"airssys-st-{os.getpid()}", 0)
    if "pids" not in tree.controllers:
        tree.dissolve()
        yield CaseResult(name, Verdict.STOPPED, "not tried", Shown.CANNOT, tree.reason or "no pids controller")
        return
    try:
        groups = tree.prepare("bomb", 256 << 20)

        def grouped() -> None:
            cgroups.join(groups)
            scene.SCENES["ordinary"]()

        yield _refused(name, bomb(grouped), shown)
        for fd in groups:
            with contextlib.suppress(OSError):
                os.close(fd)
    finally:
        tree.dissolve()


def _refused(name: str, result: native.Result, shown: tuple[Shown, str]) -> CaseResult:
    how = describe(result)
    return CaseResult(name, Verdict.STOPPED if how == "EAGAIN" else Verdict.SUCCEEDED, how, *shown)


# -- T64 --------------------------------------------------------------------------------------------------------------

_ENTRY = struct.Struct("<8s32s32sIQ")
_MAC = 32


def cached_code(host: HostileHost) -> Iterator[CaseResult]:
    """Native code that is not what the host's compiler left, in the host's cache and in one of its kind."""
    worker = host.worker("cached", extra=_OWN)
    with open(host.cache_entry(_OWN), "rb") as file:
        *_, info, code = entry_parts(file.read())
    shown = _engine_takes(code)
    with tempfile.TemporaryDirectory(prefix="airssys-cache-") as directory:
        yield from _refusals(directory, info, code, shown)
        yield _swapped(directory, info, code)
    yield _recompiled(host, worker)
    worker.close()


def _engine_takes(code: bytes) -> tuple[Shown, str]:
    """Whether the engine itself asks where code comes from. The code is not run."""
    try:
        wasmtime.component.Component.deserialize(make_engine(), code)
    except wasmtime.WasmtimeError as error:
        return Shown.FAILED, str(error)
    return Shown.WORKS, "the engine takes changed code without a word"


_DIGEST, _OTHER_DIGEST = "ab" * 32, "cd" * 32


def _cache(directory: str, info: bytes, code: bytes, *, digest: str = _DIGEST, engine: str = "engine") -> Cache:
    cache = Cache(os.path.join(directory, "cache"), os.path.join(directory, "key"), engine)
    cache.put(digest, msgspec.msgpack.decode(info, type=CompileResult), memoryview(code))
    return cache


def _refusals(directory: str, info: bytes, code: bytes, shown: tuple[Shown, str]) -> Iterator[CaseResult]:
    cache = _cache(directory, info, code)
    path = cache.path(_DIGEST)
    with open(os.path.join(directory, "key"), "rb") as file:
        key = file.read()
    with open(path, "rb") as file:
        whole = file.read()

    def resealed(**header: object) -> bytes:
        """With another header, and the MAC that belongs to it."""
        magic, digest, engine, info_length, length = _ENTRY.unpack_from(whole)
        fields = {"magic": magic, "digest": digest, "engine": engine, "info": info_length, "length": length} | header
        signed = _ENTRY.pack(*fields.values()) + whole[_ENTRY.size : -_MAC]
        return signed + hmac.new(key, signed, hashlib.sha256).digest()

    middle = len(whole) // 2
    changes: dict[str, tuple[bytes, str]] = {
        "one bit of the code": (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "MAC"),
        "another's key": (whole[:-_MAC] + hmac.new(bytes(32), whole[:-_MAC], hashlib.sha256).digest(), "MAC"),
        "without a MAC": (whole[:-_MAC] + bytes(_MAC), "MAC"),
        "cut short": (whole[:-1], "MAC"),
        "with something behind it": (whole + b"\0", "MAC"),
        "an older version, with the right MAC": (resealed(magic=b"AIRSCW00"), "another version"),
        "another engine's, with the right MAC": (resealed(engine=bytes(32)), "another engine"),
        "another component's, with the right MAC": (resealed(digest=bytes(32)), "another component"),
        "lengths that do not add up, with the right MAC": (resealed(length=1), "add up"),
        "nothing": (b"", "impossible"),
    }
    for name, (content, why) in changes.items():
        yield _tried(cache, name, functools.partial(_write, path, content), why, shown)
    yield _tried(cache, "a link to a good one", functools.partial(_link, path, whole), "", shown)
    yield _tried(cache, "one that others may write", functools.partial(_write, path, whole, 0o666), "mode", shown)
    _write(path, whole)
    good = cache.get(_DIGEST)
    verdict = Verdict.ODD if good is None else Verdict.ANSWERED
    if good is not None:
        os.close(good.fd)
    yield CaseResult("the one that was left there", verdict, "taken", *shown)


def _write(path: str, content: bytes, mode: int = 0o600) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def _link(path: str, content: bytes) -> None:
    _write(f"{path}.elsewhere", content)
    os.symlink(f"{path}.elsewhere", path)


def _tried(cache: Cache, name: str, prepare: Callable[[], None], why: str, shown: tuple[Shown, str]) -> CaseResult:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(cache.path(_DIGEST))
    prepare()
    try:
        taken = cache.get(_DIGEST)
    except CacheError as error:
        gone = not os.path.lexists(cache.path(_DIGEST))
        right = why in error.message and gone
        return CaseResult(name, Verdict.STOPPED if right else Verdict.ODD, "refused and put aside", *shown)
    if taken is not None:
        os.close(taken.fd)
    return CaseResult(name, Verdict.SUCCEEDED, "taken", *shown)


def _swapped(directory: str, info: bytes, code: bytes) -> CaseResult:
    """Changed after the check: what was checked is a copy that nobody can change."""
    cache = _cache(directory, info, code, digest=_OTHER_DIGEST)
    taken = cache.get(_OTHER_DIGEST)
    assert taken is not None
    try:
        _write(cache.path(_OTHER_DIGEST), b"other code" * 100)
        same = os.pread(taken.fd, len(code), 0) == code
        try:
            os.pwrite(taken.fd, b"\xcc", 0)
            same = False
        except PermissionError:
            pass
    finally:
        os.close(taken.fd)
    with open(cache.path(_OTHER_DIGEST), "rb") as file:
        shown = Shown.WORKS if file.read(5) == b"other" else Shown.FAILED
    verdict = Verdict.STOPPED if same else Verdict.SUCCEEDED
    return CaseResult("exchanged after the check", verdict, "a sealed copy", shown, "the file has changed")


_OWN = bytes.fromhex("b8 2a000000 c3")
"""mov eax, 42; ret"""


def _recompiled(host: HostileHost, worker: HostileWorker) -> CaseResult:
    """In the host itself: an entry under a wrong MAC is not loaded; the component is compiled again and answers."""
    program = Program()
    value = program.data(struct.pack("<Q", 42))
    program.step("peek", value)

    def result() -> int | None:
        answer = worker.run(program)
        return answer.result() if answer.answered else None

    ours = result()
    path = host.cache_entry(_OWN)
    patch.replace(path, bytes(32), lambda cwasm: cwasm)
    _restart(host, worker)
    theirs = result()
    directory, name = os.path.split(path)
    aside = [file for _, _, files in os.walk(directory) for file in files if file != name and file.startswith(name)]
    recompiled = bool(aside) and os.path.exists(path)
    shown = (Shown.WORKS, "with the right MAC it runs") if ours == 42 else (Shown.FAILED, f"it answered {ours}")
    if theirs == 42:
        return CaseResult("in a running host", Verdict.SUCCEEDED, "it runs", *shown)
    verdict = Verdict.STOPPED if recompiled and theirs is not None else Verdict.ODD
    return CaseResult("in a running host", verdict, "put aside, and compiled again", *shown)


def _restart(host: HostileHost, worker: HostileWorker) -> None:
    with host.client() as client:
        client.post(f"/v1/components/{worker.component}/restart", timeout=60.0)
    worker.living()


# -- rows -------------------------------------------------------------------------------------------------------------

TITLES = {
    "T58": ("workers that are started again, and again", ("every start is the same start",)),
    "T59": ("loops without end", ("fuel", "deadline", "CPU time")),
    "T61": ("processes without end, without the filter", ("RLIMIT_NPROC", "pids.max")),
    "T64": ("native code that is not what was compiled", ("MAC over all of it", "sealed memfd")),
}


def run(
    host: HostileHost, wanted: Callable[[str], bool], progress: Callable[[str, int, int], None] = lambda *_: None
) -> Iterator[Row]:
    """The rows that are wanted; see `deputies.run`."""
    chosen = [id_ for id_ in TITLES if wanted(id_)]
    for done, id_ in enumerate(chosen):
        title, walls = TITLES[id_]
        progress(title, done, len(chosen))
        yield Row(id_, title, walls, cases(host, id_))


def cases(host: HostileHost, id_: str) -> tuple[CaseResult, ...]:
    """All cases of one id."""
    checks: dict[str, Callable[[], Iterator[CaseResult] | tuple[CaseResult, ...]]] = {
        "T58": lambda: restarts(host),
        "T59": lambda: loops(host),
        "T61": fork_bombs,
        "T64": lambda: cached_code(host),
    }
    return tuple(checks[id_]())
