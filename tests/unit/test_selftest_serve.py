"""`airssys selftest serve`: programs and frames as JSON, requests and refusals, controls behind several walls."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
from typing import Any

import msgspec
import pytest
import wasmtime.component
from airssys.testing import CODE, MEMORY, OWN, HostError, Program
from airssys.testing.host import Host
from airssys.testing.hostile import HostileWorker
from airssys.testing.link import Link
from hypothesis import given
from hypothesis import strategies as st

from sandbox.engine import make_engine
from sandbox.kernel import libc
from sandbox.wire import packet, router_frames
from sandbox.wire.bridge_ops import ANSWER, Op
from supervisor.selftest import frames, protocol, serve
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import guest
from supervisor.selftest.machine import END, OFFSETS
from supervisor.selftest.numbers import number
from supervisor.selftest.program import Place, Until

pytestmark = pytest.mark.block4_security
COMMAND = [sys.executable, "-m", "supervisor.cli"]
x86_64 = pytest.mark.skipif(libc.MACHINE != "x86_64", reason="the attacks are x86-64 machine code")


def parsed(program: Program) -> Any:
    """The plugin's program as the server reads it."""
    return msgspec.json.decode(json.dumps(program.wire()), type=protocol.ProgramBody).program()


def test_a_program_arrives_as_it_was_written() -> None:
    """Every kind of step and word, written with the plugin's class, is what the interpreter's class would hold."""
    program = Program()
    path = program.data(b"/etc")
    buffer = program.room(8)
    program.answer(buffer + 2, 4)
    first = program.syscall("getpid", 1 << 63, -1)
    program.step("int80", 20, path + 1, MEMORY + 8, CODE + 16, OWN + 3, first + -2)
    program.own(1, at=8, times=5, until="or-give-up")
    found = parsed(program)
    assert ((18, 4), b"/etc" + bytes(12) + bytes(8)) == (found.wanted, bytes(found.bytes_))
    assert [OFFSETS["syscall"], OFFSETS["int80"], END + 8] == [step.routine for step in found.steps]
    assert (number("getpid"), 1 << 63, (1 << 64) - 1) == found.steps[0].words
    places = (Place(1, 0) + 1, Place(3, 0) + 8, Place(4, 0) + 16, Place(4, 0) + 3 + END, Place(2, 0, -2))
    assert [20, *((place.kind, place.encoded()) for place in places)] == [
        (word.kind, word.encoded()) if isinstance(word, Place) else word for word in found.steps[1].words
    ]
    assert (5, Until.OR_GIVE_UP) == (found.steps[2].times, found.steps[2].until)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"do": "jump"}, "no such routine"),
        ({"do": ""}, "no such routine"),
        ({"do": "peek", "words": ["getpid"]}, "a name stands only"),
        ({"do": "syscall", "words": ["no_such_call"]}, "no such system call"),
        ({"do": "syscall", "words": [1] * 9}, "at most eight"),
        ({"do": "syscall", "until": "never"}, "ends always"),
        ({"do": "syscall", "times": 1 << 32}, "32 bits"),
        ({"do": "peek", "words": [{"result": 0}]}, "not there yet"),
        ({"do": "peek", "words": [{}]}, "names no place"),
    ],
)
def test_programs_that_are_none(step: dict[str, Any], why: str) -> None:
    """What the interpreter could not run is refused with a reason."""
    body = msgspec.convert({"steps": [step]}, protocol.ProgramBody)
    with pytest.raises(SelftestError, match=why):
        body.program()


@given(at=st.integers(), length=st.integers(), size=st.integers(0, 64))
def test_no_answer_from_outside_of_the_data(at: int, length: int, size: int) -> None:
    """Whatever part is wanted, it lies within the data or is refused."""
    body = protocol.ProgramBody([], bytes(size), (at, length))
    try:
        assert body.program().wanted == (at, length)
        assert 0 <= at <= at + length <= size
    except SelftestError:
        assert at < 0 or length < 0 or at + length > size


def test_frames_are_the_production_codecs() -> None:
    """What is made for an attack is read by the other end's own codec as it was meant."""
    (data,) = frames.bridge_packets("storage-set", ["key", {"bytes": base64.b64encode(b"\0\xff").decode()}])
    message = packet.Assembler().feed(data)
    assert message is not None
    assert (Op.STORAGE_SET, ["key", b"\0\xff"]) == (message[0], msgspec.msgpack.decode(message[1]))
    answer = packet.split(Op.STORAGE_GET | ANSWER, msgspec.msgpack.encode([0, b"x"]))[0]
    assert (Op.STORAGE_GET | ANSWER, [0, b"x"]) == frames.bridge_answer(answer)
    stream = frames.router_message("Send", {"ask": 7, "target": "acme/reader/0"}, b"payload")
    assert (1, 0) == (stream[0], stream[2 + stream[1]])
    body = msgspec.msgpack.decode(stream[2 : 2 + stream[1]], type=router_frames.Send)
    assert (7, "acme/reader/0") == (body.ask, str(body.target))
    assert stream.endswith(b"\0\x07payload")
    assert b"X" in frames.router_message("Reply", {"id": "X", "some": 5}, b""), "wrong types are sent as they are"


@pytest.mark.parametrize(
    "make",
    [
        lambda: frames.bridge_packets("open-everything", []),
        lambda: frames.bridge_answer(b"\0"),
        lambda: frames.router_message("Nonsense", {}, b""),
        lambda: frames.router_message("Send", {"ask": 1}, b""),
        lambda: frames.router_message("Send", {"ask": 1, "target": "a/b/0", "more": 1}, b""),
    ],
)
def test_frames_that_there_are_not(make: Any) -> None:
    """An unknown name, a missing or unknown field is refused."""
    with pytest.raises(SelftestError):
        make()


@x86_64
def test_a_guest_for_each_code() -> None:
    """Machine code of one's own makes another component, which the engine takes as it takes the first."""
    first, second = guest(b"\xc3"), guest(b"\x90\xc3")
    assert 3 == len({guest(), first, second})
    assert first == guest(b"\xc3")
    wasmtime.component.Component(make_engine(), first)


def ask(server: serve.Server, out: io.BytesIO, line: bytes) -> Any:
    """One request's answer."""
    begin = len(out.getvalue())
    assert server.take(line)
    return json.loads(out.getvalue()[begin:])


def test_requests_that_are_none() -> None:
    """What is no request is refused with the id it had, and the server goes on."""
    out = io.BytesIO()
    server = serve.Server(out)
    for line, number_ in ((b"nonsense\n", 0), (b'{"op":"fly","id":3}\n', 3), (b'{"op":"up","id":4,"extra":1}\n', 4)):
        answer = ask(server, out, line)
        assert (number_, "E_SELFTEST") == (answer["id"], answer["error"]["code"])
    answer = ask(server, out, b'{"op":"control","id":5,"program":{"steps":[]},"walls":["Hadrian"]}\n')
    assert ("no such wall", "Hadrian") == (answer["error"]["message"], answer["error"]["subject"])
    answer = ask(server, out, b'{"op":"control","id":6,"program":{"steps":[]},"scene":"of crime"}\n')
    assert "no such scene" == answer["error"]["message"]
    server.close()


def test_every_request_is_handled() -> None:
    """There is a handler for each request of the protocol."""
    assert set(protocol.AnyRequest.__args__) == set(serve._HANDLERS)


@pytest.fixture(scope="module")
def controls() -> Any:
    """A server for controls, as the plugin has one."""
    link = Link(COMMAND)
    yield link
    link.close()


class Without(HostileWorker):
    """The controls of a hostile worker that has no host."""

    def __init__(self, link: Link) -> None:
        class NoHost:
            controls = link

        self.host = NoHost()  # type: ignore[assignment]
        self.code = b""


def opening() -> Program:
    """Open /etc/passwd."""
    program = Program()
    program.syscall("openat", -100, program.data(b"/etc/passwd\0"), 0, 0)
    return program


@x86_64
def test_all_walls_stand_together(controls: Link) -> None:
    """All walls of the matrix go up in one control, in each scene, and stop what works behind none."""
    worker = Without(controls)
    for scene in controls.hello["scenes"]:
        worker.control(opening(), without=[], scene=scene).assert_stopped_by("SIGSYS")
        assert worker.control(opening(), scene=scene).gained


@x86_64
def test_one_wall_less(controls: Link) -> None:
    """Reading needs four walls to be gone: with one of them back it is stopped, by that one's own answer."""
    worker = Without(controls)
    answers = {"seccomp": "SIGSYS", "Landlock": "EACCES", "empty root": "ENOENT", "NOFILE": "EMFILE"}
    worker.assert_works_without(opening(), *answers)
    for wall, answer in answers.items():
        worker.control(opening(), without=[name for name in answers if name != wall]).assert_stopped_by(answer)


@x86_64
def test_a_control_does_not_reach_the_server(controls: Link) -> None:
    """A program finds the channels of a worker, and neither the server's own nor its standard input and output."""
    program = Program()
    where = program.room(16)
    for descriptor in range(300):
        program.syscall("fcntl", descriptor, 1, where)  # F_GETFD
    result = Without(controls).control(program).assert_answered()
    found = {fd for fd, value in enumerate(result.results) if value >= 0}
    assert {0, 1, 2, 3, 4} == {fd for fd in found if fd < 100}, "from 100 on, the other ends of the channels"
    noise = Program()
    for descriptor in range(300):
        noise.syscall("write", descriptor, noise.data(b"noise\n"), 6)
    Without(controls).control(noise).assert_answered()
    assert Without(controls).control(opening()).gained, "the server still understands"


def test_controls_and_a_host_are_not_mixed(controls: Link) -> None:
    """A server without a host says so, and refuses what needs one."""
    for op, fields in (("lines", {"path": "/v1/audit"}), ("message", {"target": "a/b/0"})):
        link = Link(COMMAND)
        try:
            with pytest.raises(HostError, match="no host is up"):
                link.ask(op, **fields)
            with pytest.raises(HostError, match="runs no controls"):
                link.ask("control", program=Program().wire())
        finally:
            link.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, None], ids=["SIGTERM", "SIGHUP", "end of input"])
def test_the_server_ends(how: signal.Signals | None) -> None:
    """By SIGTERM, by SIGHUP, when its input ends; SIGINT is left to who asks."""
    with subprocess.Popen(
        [*COMMAND, "selftest", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        assert protocol.PROTOCOL == json.loads(process.stdout.readline())["protocol"]
        process.send_signal(signal.SIGINT)
        process.stdin.write(b'{"op":"control","id":1,"program":{"steps":[]}}\n')
        process.stdin.flush()
        assert 1 == json.loads(process.stdout.readline())["id"]
        if how is None:
            process.stdin.close()
        else:
            process.send_signal(how)
        assert 0 == process.wait(20)


def test_what_does_not_serve() -> None:
    """A command that is none, or no airssys, is told as what it is."""
    with pytest.raises(HostError, match="cannot be run: No such file"):
        Link(["/nonexistent"])
    with pytest.raises(HostError, match="does not serve: it ended"):
        Link(["true"])
    with pytest.raises(HostError, match="speaks protocol 99"):
        Link([sys.executable, "-c", "print('{\"protocol\": 99}')"])


def test_a_host_that_does_not_start() -> None:
    """A configuration that is none is refused with the host's own words, and nothing is left."""
    with pytest.raises(HostError, match=r"E_SELFTEST: the throw-away host does not start.*E_CONFIG"):
        Host("[nonsense]\n", command=COMMAND)
