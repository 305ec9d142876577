"""`airssys selftest serve`: the self-test's machinery for another program, by JSON lines on standard input and output.

A throw-away host for whoever asks, attack programs in its sealed workers, and the same programs in controls. Who asks
does not have to import anything of the host: `airssys.pytest_plugin` is a client. The host lives as long as standard
input is open: when who asked is gone, whatever way, host and files are removed.

Controls are forked, and a fork is safe only where there are no threads. So a process serves either a host or controls;
a client that needs both starts two.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO

import msgspec

from sandbox.errors import AirssysError
from sandbox.kernel import libc, process
from sandbox.kernel.probe import probe
from sandbox.walls import MAY_BE_ACCEPTED
from supervisor.selftest import frames, native, protocol, scene
from supervisor.selftest.errors import SelftestError
from supervisor.selftest.host import HostileHost, HostileWorker, ThrowAwayHost
from supervisor.selftest.native import Result
from supervisor.selftest.walls import Prepared, together, walls

THREADS = 16
"""Requests that are worked on at once."""
_decoder = msgspec.json.Decoder(protocol.AnyRequest)
_encoder = msgspec.json.Encoder()


class _Stopped(BaseException):
    """A signal asks the server to end."""


def serve() -> int:
    """Serve until standard input ends, a `Down`, SIGTERM or SIGHUP. SIGINT is left to who asked."""
    requests, answers = _own_channels()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    server = Server(answers)
    try:
        server.say(hello())
        for line in requests:
            if not server.take(line):
                break
    except (_Stopped, BrokenPipeError):
        pass  # nobody asks any more
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        server.close()
    return 0


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def _own_channels() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, moved to where no child finds them."""
    requests, answers = os.dup(0), os.dup(1)  # close-on-exec
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    os.close(null)
    return open(requests, "rb"), open(answers, "wb", buffering=0)


def hello() -> protocol.Hello:
    """What a client has to know of this machine."""
    try:
        mine = version("airssys-wasm")
    except PackageNotFoundError:
        mine = ""
    x86 = libc.MACHINE == "x86_64"
    return protocol.Hello(
        protocol=protocol.PROTOCOL,
        version=mine,
        machine=libc.MACHINE,
        root=os.geteuid() == 0,
        kernel=[
            protocol.WallBody(wall.name, wall.state, wall.detail, wall.name in MAY_BE_ACCEPTED) for wall in probe()
        ],
        walls=[wall.name for wall in walls(Prepared())] if x86 else [],
        scenes=list(scene.SCENES),
        native="" if x86 else f"not covered on {libc.MACHINE}: the attacks are x86-64 machine code",
    )


class Server:
    """Takes requests and answers them.

    Args:
        answers: where answers are written, unbuffered.
    """

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._writing = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._host: ThrowAwayHost | None = None
        self._keep = False
        self._workers: dict[str, tuple[HostileWorker, threading.Lock]] = {}
        self._ended: dict[str, int] = {}
        """Component to the pid of a worker that has ended."""
        self._prepared: Prepared | None = None

    def say(self, value: object) -> None:
        """Write one line. Raises BrokenPipeError."""
        line = memoryview(_encoder.encode(value) + b"\n")
        with self._writing:
            while line:
                line = line[self._answers.write(line) :]

    def take(self, line: bytes) -> bool:
        """Begin one request; whether more may come."""
        try:
            request = _decoder.decode(line)
        except msgspec.MsgspecError as error:
            self.say({"id": _id(line), "error": protocol.ErrorBody("E_SELFTEST", f"no request: {error}")})
            return True
        if request.in_order:
            self._answer(request)
        else:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS)
            self._threads.submit(self._answer, request)
        return not isinstance(request, protocol.Down)

    def _answer(self, request: protocol.AnyRequest) -> None:
        body: dict[str, object] = {"id": request.id}
        try:
            body["value"] = self._handle(request)
        except AirssysError as error:
            body["error"] = protocol.ErrorBody(error.code, error.message, error.subject, error.hint)
        except Exception as error:
            # Whatever it was, who asked waits for it and knows better than a server what to do.
            body["error"] = protocol.ErrorBody("E_INTERNAL", f"{type(error).__name__}: {error}")
        with contextlib.suppress(BrokenPipeError):
            self.say(body)  # who asked is gone; standard input tells the same

    def close(self) -> None:
        """Stop the host and remove it."""
        if self._host is not None:
            self._host.close(keep=self._keep)
            self._host = None
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None

    # -- requests -------------------------------------------------------------------------------------------------

    def _handle(self, request: protocol.AnyRequest) -> object:
        return _HANDLERS[type(request)](self, request)

    def _hostile_host(self) -> HostileHost:
        host = self._any_host()
        if not isinstance(host, HostileHost):
            raise SelftestError(f"not covered on {libc.MACHINE}", hint="the attacks are x86-64 machine code")
        return host

    def _any_host(self) -> ThrowAwayHost:
        if self._host is None:
            raise SelftestError("no host is up", hint="ask for `up` first")
        return self._host

    def up(self, request: protocol.Up) -> object:
        """Start the host."""
        if self._host is not None:
            raise SelftestError("a host is up already", subject=self._host.root)
        kind = HostileHost if libc.MACHINE == "x86_64" else ThrowAwayHost
        host = kind(configuration=request.configuration)
        self._host = host.__enter__()
        return {"base": host.base, "root": host.root, "socket": host.socket, "status": host.status()}

    def down(self, request: protocol.Down) -> object:
        """Stop it; the answer comes when nothing is left."""
        self._keep = request.keep
        self.close()
        return None

    def control(self, request: protocol.Control) -> object:
        """Run a program without the cage, or behind some of its walls."""
        if self._threads is not None or self._host is not None:
            raise SelftestError("a process that has a host runs no controls", hint="start another server for them")
        if self._prepared is None:
            self._prepared = Prepared()
        listed = {wall.name: wall for wall in walls(self._prepared)}
        if unknown := [name for name in request.walls if name not in listed]:
            raise SelftestError("no such wall", subject=", ".join(unknown), hint=f"there are {', '.join(listed)}")
        if request.scene not in scene.SCENES:
            raise SelftestError("no such scene", subject=request.scene, hint=f"there are {', '.join(scene.SCENES)}")
        put_up = together([wall for name, wall in listed.items() if name in request.walls])

        def prepare() -> None:
            process.close_range(3)  # our channels are not the program's
            scene.SCENES[request.scene]()
            put_up()

        result = native.attempt(
            request.program.program(), prepare, extra=request.code, seconds=min(request.seconds, 600.0)
        )
        return _result(result)

    def hostile(self, request: protocol.Hostile) -> object:
        """Start a hostile component."""
        worker = self._hostile_host().worker(
            request.name,
            instance=request.instance,
            values=request.values,
            binds=request.binds,
            extra=request.code,
        )
        self._workers[worker.component] = (worker, threading.Lock())
        return {"component": worker.component, "pid": worker.pid}

    def run(self, request: protocol.Run) -> object:
        """Run a program in its worker; one at a time in each component."""
        try:
            worker, lock = self._workers[request.component]
        except KeyError as error:
            raise SelftestError("no hostile component has this name", subject=request.component) from error
        program = request.program.program()
        with lock:
            pid = worker.living(after=self._ended.get(request.component, 0))
            after = self._newest_record()
            result = worker.run(program, seconds=request.seconds)
            if not result.answered:
                self._ended[request.component] = pid
        return _result(result, pid, after)

    def _newest_record(self) -> int:
        with self._any_host().client() as client, client.lines("/v1/audit", limit=1) as lines:
            return max((msgspec.json.decode(line)["seq"] for line in lines if line), default=-1)

    def message(self, request: protocol.Message) -> object:
        """Send a message."""
        with self._any_host().client() as client:
            reply = client.message(
                request.target, request.kind, request.payload, int(request.seconds * 1000), request.content_type
            )
        return {"reply": reply}

    def api(self, request: protocol.Api) -> object:
        """One call of the API."""
        with self._any_host().client() as client:
            match request.method:
                case "GET":
                    return client.get(request.path, **request.query)
                case "POST":
                    return client.post(request.path, request.body, timeout=request.seconds, **request.query)
                case "DELETE":
                    return client.delete(request.path, **request.query)
        raise SelftestError("the API knows GET, POST and DELETE", subject=request.method)

    def lines(self, request: protocol.Lines) -> object:
        """Lines of a log."""
        if request.query.get("follow"):
            raise SelftestError("lines are not followed here", subject=request.path)
        with self._any_host().client() as client, client.lines(request.path, **request.query) as lines:
            return [msgspec.Raw(line.encode()) for line in lines if line]

    def bridge_packets(self, request: protocol.BridgePackets) -> object:
        """Bytes for descriptor 3."""
        return frames.bridge_packets(request.name, request.arguments)

    def bridge_answer(self, request: protocol.BridgeAnswer) -> object:
        """Kind and value of an answer on descriptor 3."""
        kind, value = frames.bridge_answer(request.packet)
        return {"kind": kind, "value": value}

    def router_message(self, request: protocol.RouterMessage) -> object:
        """Bytes for descriptor 4."""
        return [frames.router_message(request.name, request.fields, request.payload)]


_HANDLERS: dict[type[Any], Callable[[Server, Any], object]] = {
    protocol.Up: Server.up,
    protocol.Down: Server.down,
    protocol.Control: Server.control,
    protocol.Hostile: Server.hostile,
    protocol.Run: Server.run,
    protocol.Message: Server.message,
    protocol.Api: Server.api,
    protocol.Lines: Server.lines,
    protocol.BridgePackets: Server.bridge_packets,
    protocol.BridgeAnswer: Server.bridge_answer,
    protocol.RouterMessage: Server.router_message,
}


def _result(result: Result, pid: int = 0, after: int = -1) -> protocol.ResultBody:
    answer = result.answer
    return protocol.ResultBody(
        outcome=result.outcome,
        detail=result.detail,
        results=list(answer.results) if answer else [],
        data=answer.data if answer else b"",
        pid=pid or result.pid,
        after=after,
    )


class _OnlyId(msgspec.Struct):
    id: int = 0


def _id(line: bytes) -> int:
    """The id of what is no request; 0 where it has none."""
    try:
        return msgspec.json.decode(line, type=_OnlyId).id
    except msgspec.MsgspecError:
        return 0
