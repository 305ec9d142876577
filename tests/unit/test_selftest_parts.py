"""The self-test's parts that need no host: machine code, programs, finding the place, authenticating the result."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import wasmtime.component
from hypothesis import given
from hypothesis import strategies as st

from sandbox.engine import make_engine
from sandbox.kernel import libc
from sandbox.wire.compile_result import CompileResult
from supervisor.control.cache import Cache
from supervisor.control.errors import CacheError
from supervisor.selftest import machine, patch, report, runner
from supervisor.selftest.attack import CaseResult, Row, Shown, Verdict, administrator, judge, judge_control, one
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import HostileHost, manifest
from supervisor.selftest.matrix import NO_WALL, PASSES, STOPS, Column
from supervisor.selftest.native import ANSWERED, Result
from supervisor.selftest.program import Answer, Program, failed, unpack
from supervisor.selftest.runner import Report
from supervisor.selftest.witness import Witness

pytestmark = [
    pytest.mark.block4_security,
    pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code"),
]
GUEST = Path(__file__).resolve().parents[2] / "supervisor" / "selftest" / "guest"


@pytest.fixture(scope="module")
def cwasm() -> bytes:
    """The guest, compiled by this process."""
    component = wasmtime.component.Component(make_engine(), (GUEST / "component.wasm").read_bytes())
    return bytes(component.serialize())


def test_places_the_guest_knows() -> None:
    """The two routines the guest calls by itself are where its source says."""
    source = (GUEST / "component.c").read_text()
    said = {name.lower(): int(place) for name, place in re.findall(r"ROUTINE_([A-Z]+) = (\d+)", source)}
    assert said == {name: machine.OFFSETS[name] for name in said}
    assert 2 == len(said)


def test_routines_do_not_overlap() -> None:
    """Each routine's bytes are at its place, whole."""
    code = machine.assemble(56)
    for name, body in machine.ROUTINES.items():
        assert body == code[machine.OFFSETS[name] :][: len(body)], name
    assert b"\xdd" * 4 not in code


def test_patched_guest(cwasm: bytes) -> None:
    """Exactly one function changes, by exactly the assembled code, and the engine still takes the file."""
    changed = patch.patched(cwasm, b"\x90\xc3")
    code = machine.assemble(patch.memory_pointer(cwasm), b"\x90\xc3")
    start = changed.index(code)
    assert cwasm[:start] == changed[:start]
    assert cwasm[start + len(code) :] == changed[start + len(code) :]
    assert len(cwasm) == len(changed)
    assert any(begin == start for begin, _ in patch.functions(cwasm))
    wasmtime.component.Component.deserialize(make_engine(), changed)


def test_refusals(cwasm: bytes) -> None:
    """What is not the guest, or has no room, is refused by name."""
    with pytest.raises(SelftestError, match="no ELF"):
        patch.patched(b"MZ" + cwasm)
    with pytest.raises(SelftestError, match="no symbol table"):
        patch.patched(cwasm[:64])
    with pytest.raises(SelftestError, match="not found"):
        patch.patched(cwasm.replace(patch.MARK, bytes(8)))
    with pytest.raises(SelftestError, match="linear memory"):
        patch.patched(cwasm.replace(patch.LANDMARK, bytes(4)))
    with pytest.raises(SelftestError, match="does not fit"):
        patch.patched(cwasm, bytes(8192))


def test_replaced_entry(tmp_path: Path) -> None:
    """An entry changed with the right key is taken, with another key refused."""
    cache = Cache(str(tmp_path / "cache"), str(tmp_path / "key"), "engine")
    digest = "ab" * 32
    info = CompileResult({}, [], None, 3)
    cache.put(digest, info, memoryview(b"one"))
    key = (tmp_path / "key").read_bytes()
    patch.replace(cache.path(digest), key, lambda old: old + b" and more")
    taken = cache.get(digest)
    assert taken is not None
    with open(taken.fd, "rb") as file:
        file.seek(0)
        assert b"one and more" == file.read()
    patch.replace(cache.path(digest), bytes(32), lambda old: old)
    with pytest.raises(CacheError, match="MAC"):
        cache.get(digest)


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=20), st.binary(max_size=100))
def test_reply(results: list[int], data: bytes) -> None:
    """A reply gives back what the guest put in."""
    body = len(results).to_bytes(8, "little") + b"".join(r.to_bytes(8, "little", signed=True) for r in results) + data
    answer = unpack(body)
    assert (tuple(results), data) == (answer.results, answer.data)


def test_program_bytes() -> None:
    """Header, steps of 88 bytes, data; a place in the data is where the data is put."""
    program = Program()
    first = program.data(b"x")
    second = program.data(b"yy")
    fd = program.syscall("openat", -100, first, 0, 0)
    program.syscall("read", fd + 1, second + 1, -1)
    program.answer(second, 2)
    packed = program.pack()
    assert 24 + 2 * 88 + 18 == len(packed)
    assert b"x" + bytes(15) + b"yy" == packed[-18:]
    assert (16, 2) == program.wanted
    assert [failed(value) for value in (-1, -4095, -4096, 0, 1)] == [True, True, False, False, False]


def test_manifest_values() -> None:
    """A key takes its new value; one that is not there becomes a capability."""
    text = manifest("[limits]\nfuel = 1\n\n[capabilities]\n", {"fuel": "2", "filesystem": "[]"})
    assert "[limits]\nfuel = 2\n\n[capabilities]\nfilesystem = []\n" == text


# -- judging ----------------------------------------------------------------------------------------------------------


def answer(value: int) -> Result:
    """A program that came to its end."""
    return Result(ANSWERED, answer=Answer((value,), b""))


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (answer(0), Verdict.SUCCEEDED),
        (answer(7), Verdict.SUCCEEDED),
        (answer(-errno.EACCES), Verdict.ODD),
        (Result("policy", "a forbidden system call"), Verdict.STOPPED),
        (Result("internal-error", "SIGSEGV"), Verdict.ODD),
        (Result("deadline"), Verdict.ODD),
    ],
)
def test_judge(result: Result, verdict: Verdict) -> None:
    """Only the expected stop is one: success is told, and an end for another reason is odd."""
    assert verdict is judge(one("x", "getpid"), result)[0]


def test_judge_expected_errors() -> None:
    """A refusal that is expected by its errno is a stop."""
    case = one("x", "getpid", stopped_by=frozenset({"EACCES"}))
    assert [Verdict.STOPPED, Verdict.ODD] == [judge(case, answer(-e))[0] for e in (errno.EACCES, errno.EPERM)]


def test_judge_control() -> None:
    """A control that does not work fails, unless the machine is known not to have the thing."""
    case = one("x", "getpid", excuse=administrator(errno.EPERM))
    shown = [judge_control(case, answer(value))[0] for value in (1, -errno.EPERM, -errno.ENOSYS, -errno.EACCES)]
    assert [Shown.WORKS, Shown.CANNOT, Shown.CANNOT, Shown.FAILED] == shown


@pytest.mark.parametrize(
    ("verdict", "shown", "good"),
    [
        (Verdict.STOPPED, Shown.WORKS, True),
        (Verdict.STOPPED, Shown.CANNOT, True),
        (Verdict.ANSWERED, Shown.WORKS, True),
        (Verdict.STOPPED, Shown.FAILED, False),
        (Verdict.SUCCEEDED, Shown.WORKS, False),
        (Verdict.ODD, Shown.WORKS, False),
    ],
)
def test_report(verdict: Verdict, shown: Shown, good: bool) -> None:
    """One case that is not as it must be makes the whole report bad, and is named."""
    fine = CaseResult("fine", Verdict.STOPPED, "policy", Shown.WORKS, "0")
    rows = [
        Row("T98", "first", ("seccomp",), (fine,)),
        Row("T99", "second", ("x",), (fine, CaseResult("case", verdict, "how", shown, "why"))),
    ]
    result = Report(rows, [], [], {"own uids": "needs root"}, 1.0)
    assert good is result.good
    assert good is (not report.complaints(result))
    assert good is report.as_json(result)["good"]
    assert 3 == sum(report.as_json(result)["summary"][key] for key in ("attacks", "answered"))
    assert ["T98", "first", "seccomp", "killed (SIGSYS)", "works"] == report.table(result)[0]
    assert "wall lost: own uids: needs root" in report.sentence(result)


def test_matrix_text() -> None:
    """A line per attack, a letter per wall, and why where nothing can be shown."""
    columns = [
        Column("read", "6", True, {"a": STOPS, "b": PASSES, "c": NO_WALL}, {}, ()),
        Column("write", "EACCES", False, {}, {}, ()),
    ]
    lines = report.matrix(Report([], ["a", "b", "c"], columns, {}, 1.0))
    assert "read             # ." == lines[1]
    assert "write            cannot show here: EACCES" == lines[2]
    assert "a a, b b, c c" == lines[-1]


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """On aarch64 the self-test says that it does not cover it."""
    monkeypatch.setattr(libc, "MACHINE", "aarch64")
    with pytest.raises(SelftestError, match="not covered on aarch64"):
        runner.run()
    with pytest.raises(SelftestError, match="not covered on aarch64"):
        HostileHost()


def test_ids() -> None:
    """T01 to T40 but for those of the bridge, the router and the limits; each has a row."""
    wanted = {f"T{number:02}" for number in range(1, 41)} - {"T29", "T30"}
    assert wanted <= set(runner.ids())


# -- the kernel log ---------------------------------------------------------------------------------------------------

RECORD = (
    "4,361,14717000297,-;audit: type=1326 audit(1795365539.720:10505): auid=4294967295 uid={uid} gid=1 ses=4294967295 "
    'pid=19075 comm="airssys-zygote" exe="/usr/bin/python3.11" sig=31 arch=c000003e syscall=49 compat=0 ip={ip:#x} '
    "code=0x80000000"
)


def test_witness() -> None:
    """A death at the attack's own call, one elsewhere, and one of another host's worker."""
    witness = Witness(0x70000005, 0x240)
    witness.close()
    at = 0x7F0000000240 + machine.OFFSETS["syscall"] + machine.ROUTINES["syscall"].index(b"\x0f\x05") + 2
    for uid, ip in ((0x70000001, at), (0x70000002, at + 1), (0x70010001, at), (0x70000003, 0xFFFFFFFFFF600009)):
        witness.take(RECORD.format(uid=uid, ip=ip).encode())
    witness.take(b"6,1,1,-;something else")
    assert ([49, 49], 1) == (witness.own, witness.elsewhere)
